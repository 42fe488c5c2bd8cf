import Glibc
import JSON
import Kernel
import Program
import Reactor
import Synchronization
import System
import Transport

/// `serve --respawn`: a small parent that holds the listening sockets and starts the core again when a fault ended it.
/// Connections queue in the kernel meanwhile, so none is refused. It forwards signals and ends with the core's status.
final class Respawn: Sendable {
    /// In the core's environment: the parent's pid and how many listening sockets stand from descriptor 3 on.
    static let variable = "CM_LISTENERS"

    private struct State: ~Copyable {
        var machine = RespawnStateMachine()
        var child: Confined<ProcessWatch>?
        var startedAt: UInt64 = 0
        var status: Int32 = 0
    }
    private let state = Mutex(State())
    private let arguments: [String]
    private let directory: String
    private let descriptors: [Int32]
    private let loop: EventLoop

    /// Returns when the core has stopped for good, with its status.
    static func run(arguments: [String], directory: String, configuration: Configuration) -> Int32 {
        Signals.block([SIGTERM, SIGINT, SIGHUP])
        signal(SIGPIPE, SIG_IGN)
        do {
            let address = try CoreProcess.listenAddress(configuration)
            let sockets = try ListeningSocket.openAll(at: address, count: CoreProcess.loopCount(configuration))
            let parent = try Respawn(arguments: arguments, directory: directory, descriptors: sockets.descriptors)
            parent.loop.post { parent.begin() }
            parent.loop.join()
            return parent.state.withLock { $0.status }
        } catch {
            return CoreCommandLine.fail((error as? Problem)?.detail ?? "\(error)", status: 1)
        }
    }

    private init(arguments: [String], directory: String, descriptors: [Int32]) throws {
        self.arguments = arguments
        self.directory = directory
        self.descriptors = descriptors
        loop = try EventLoop.start(name: "respawn")
    }

    /// Listening sockets from a parent of this kind, if this process has one; then they are ours and nobody else's.
    static func inherited() throws(TransportError) -> (descriptors: [Int32], address: SocketAddress)? {
        guard let text = getenv(variable).map({ String(cString: $0) }) else { return nil }
        unsetenv(variable)
        let parts = text.split(separator: ":")
        guard parts.count == 2, Int32(parts[0]) == getppid(), let count = Int32(parts[1]), (1...64).contains(count) else {
            throw TransportError(.invalid, "\(variable)=\(text) is for serve --respawn alone; unset it")
        }
        let descriptors = Array(3..<(3 + count))
        return (descriptors, try ListeningSocket.adopt(descriptors))
    }

    // MARK: On the loop

    private func begin() {
        do {
            let signals = try Signals([SIGTERM, SIGINT, SIGHUP]) { [self] in forward($0) }
            try loop.add(signals)
        } catch {
            return end(CoreCommandLine.fail("\(error)", status: 1))
        }
        start()
    }

    private func start() {
        var order = Spawn(program: Respawn.ownFile(), arguments: [CommandLine.arguments[0]] + arguments)
        order.environment = Environment.current()
        order.environment[Respawn.variable] = "\(getpid()):\(descriptors.count)"
        order.descriptors = [0, 1, 2] + descriptors
        order.group = .none
        order.fileModeMask = umask(0o077)
        umask(order.fileModeMask)
        // A core without its parent would hold the data directory against the next one.
        order.diesWithStarter = true
        do throws(SpawnError) {
            let child = try order.start()
            let watch = ProcessWatch(child, on: loop) { [self] end in ended(end?.how ?? .exited(1)) }
            try add(watch)
            state.withLock { state in
                state.child = Confined(watch, on: loop)
                state.startedAt = loop.now
            }
        } catch {
            CoreCommandLine.say("the core cannot be started: \(error)")
            ended(.signaled(0))
        }
    }

    private func add(_ watch: ProcessWatch) throws(SpawnError) {
        do { try loop.add(watch) } catch { throw SpawnError(step: .fork, code: ENOMEM) }
    }

    private func forward(_ number: Int32) {
        let child = state.withLock { state in
            if number != SIGHUP { state.machine.stopRequested() }
            return state.child
        }
        if let child { return child.assumeOnLoop { $0.signal(number) } }
        // Between two cores: nothing is left to be ended.
        if number != SIGHUP { end(0) }
    }

    private func ended(_ how: ProcessEnd.How) {
        let pid = state.withLock { $0.child.take() }?.assumeOnLoop { $0.pid }
        let served = pid != nil && readyPID() == pid
        let action = state.withLock { state in
            return state.machine.ended(
                how, afterMilliseconds: (loop.now &- state.startedAt) / 1_000_000, served: served,
                jitter: Double.random(in: 0...1))
        }
        switch action {
        case .exit(let status): end(status)
        case .start(let milliseconds):
            CoreCommandLine.say("the core ended (\(how)); it starts again in \(milliseconds) ms")
            loop.schedule(Timer { [self] in if !state.withLock({ $0.machine.stopIsWanted }) { start() } }, afterMilliseconds: milliseconds)
        }
    }

    /// The file of this program; where it was replaced meanwhile, the parent's own image.
    private static func ownFile() -> String {
        let link = "/proc/self/exe"
        var buffer = [CChar](repeating: 0, count: 4_096)
        let count = readlink(link, &buffer, buffer.count - 1)
        guard count > 0 else { return link }
        let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return access(path, X_OK) == 0 ? path : link
    }

    /// Who announced last that it serves. A core that stops in order takes the file away, one that faults does not.
    private func readyPID() -> pid_t? {
        guard let text = try? Files.read(directory + "/run/ready.json", limit: 4_096),
            let pid = (try? JSONValue(parsing: text))?["pid"]?.integer
        else { return nil }
        return pid_t(truncatingIfNeeded: pid)
    }

    private func end(_ status: Int32) {
        state.withLock { $0.status = status }
        for descriptor in descriptors { close(descriptor) }
        loop.stop()
    }
}
