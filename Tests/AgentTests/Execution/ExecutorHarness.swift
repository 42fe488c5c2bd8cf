import Agent
import AgentProtocol
import Glibc
import Reactor
import System
import Testing

/// A directory that goes away with its owner.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        path = "/tmp/cm-agent-test-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try Files.makeDirectory(path)
    }

    deinit { try? Files.removeTree(path) }
}

/// The built cm-agent stands beside the tests' own program.
func agentProgram() throws -> String {
    var buffer = [CChar](repeating: 0, count: 4_096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
    let own = String(decoding: buffer[..<max(count, 0)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    var directory = try #require(Files.parent(of: own))
    while !Files.exists(directory + "/cm-agent") { directory = try #require(Files.parent(of: directory)) }
    return directory + "/cm-agent"
}

func newCommand() -> CommandID {
    CommandID(milliseconds: unixMilliseconds(), random: (.random(in: 0 ... .max), .random(in: 0 ... .max)))
}

/// A real executor on a loop of its own, with everything that it told.
final class ExecutorHarness: Sendable {
    let directory: TemporaryDirectory
    let loop: EventLoop
    private let box: Confined<Observer>

    /// Loop-confined.
    final class Observer: ExecutorObserver {
        let executor: HolderExecutor
        var started: [CommandID] = []
        var finished: [CommandID: ExitRecord] = [:]
        var finishCount: [CommandID: Int] = [:]
        private var waiters: [(isMet: (Observer) -> Bool, resume: () -> Void)] = []

        init(_ executor: HolderExecutor) {
            self.executor = executor
            executor.observer = self
        }

        func executionStarted(_ command: CommandID, at unixMilliseconds: UInt64) {
            started.append(command)
            check()
        }

        func executionHasOutput(_ command: CommandID, _ stream: OutputStream, length: UInt64) { check() }

        func executionFinished(_ record: ExitRecord) {
            finished[record.command] = record
            finishCount[record.command, default: 0] += 1
            check()
        }

        func when(_ isMet: @escaping (Observer) -> Bool, _ resume: @escaping () -> Void) {
            waiters.append((isMet, resume))
            check()
        }

        private func check() {
            let met = waiters.filter { $0.isMet(self) }
            waiters.removeAll { $0.isMet(self) }
            for waiter in met { waiter.resume() }
        }

        func bytes(_ command: CommandID, _ stream: OutputStream) -> [UInt8] {
            var all: [UInt8] = []
            while true {
                let offset = UInt64(all.count)
                let piece: [UInt8] = withUnsafeTemporaryAllocation(byteCount: 16_384, alignment: 16) { buffer in
                    var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                    _ = executor.read(command, stream, at: offset, into: &output)
                    return Array(buffer[..<output.finalize(for: buffer)])
                }
                if piece.isEmpty { return all }
                all += piece
            }
        }
    }

    init(
        _ directory: TemporaryDirectory? = nil, holderEnvironment: [String] = [],
        configure: (inout HolderExecutor.Options) -> Void = { _ in }
    ) async throws {
        self.directory = try directory ?? TemporaryDirectory()
        loop = try EventLoop.start(name: "executor-test")
        var options = HolderExecutor.Options()
        let program = try agentProgram()
        options.holderProgram = holderEnvironment.isEmpty ? program : "/usr/bin/env"
        options.holderArguments =
            holderEnvironment.isEmpty ? ["cm-agent", "hold"] : ["env"] + holderEnvironment + [program, "hold"]
        configure(&options)
        let path = self.directory.path
        let (loop, chosen) = (loop, options)
        let made: Result<Confined<Observer>, SystemError> = await withUnsafeContinuation { continuation in
            loop.post {
                do throws(SystemError) {
                    let executor = try HolderExecutor(directory: path, on: loop, options: chosen)
                    continuation.resume(returning: .success(Confined(Observer(executor), on: loop)))
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        box = try made.get()
    }

    deinit { loop.stop() }

    func on<Value: Sendable>(_ body: @escaping @Sendable (Observer) -> Value) async -> Value {
        await withUnsafeContinuation { continuation in
            box.post { continuation.resume(returning: body($0)) }
        }
    }

    func start(_ order: Order) async { await on { $0.executor.start(order) } }
    func cancel(_ command: CommandID) async { await on { $0.executor.cancel(command) } }

    func wait(_ isMet: @escaping @Sendable (Observer) -> Bool) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            box.post { $0.when(isMet) { continuation.resume() } }
        }
    }

    func end(of command: CommandID) async throws -> ExitRecord {
        await wait { $0.finished[command] != nil }
        return try #require(await on { $0.finished[command] })
    }

    func output(of command: CommandID, _ stream: OutputStream = .standardOutput) async -> String {
        String(decoding: await on { $0.bytes(command, stream) }, as: UTF8.self)
    }

    /// Starts, waits for the end, and reads both streams.
    func run(_ order: Order) async throws -> (record: ExitRecord, output: String, errors: String) {
        await start(order)
        let record = try await end(of: order.command)
        return (record, await output(of: order.command), await output(of: order.command, .standardError))
    }

    /// The holder's pid of a running command: the parent of the program that printed its own pid.
    static func parent(of pid: pid_t) throws -> pid_t {
        let text = String(decoding: try Files.read("/proc/\(pid)/status", limit: 8_192), as: UTF8.self)
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("PPid:") })
        return try #require(pid_t(line.dropFirst(5).filter(\.isNumber)))
    }
}

func order(_ arguments: [String], _ change: (inout Order) -> Void = { _ in }) -> Order {
    var order = Order(command: newCommand(), invocation: .argv(arguments))
    change(&order)
    return order
}

func shell(_ text: String, _ change: (inout Order) -> Void = { _ in }) -> Order {
    var order = Order(command: newCommand(), invocation: .shell(text))
    change(&order)
    return order
}

/// Gone, or a zombie that nobody has reaped yet.
func hasEnded(_ pid: pid_t) throws -> Bool {
    let status = try Files.readIfPresent("/proc/\(pid)/status", limit: 8_192)
    return status.map { String(decoding: $0, as: UTF8.self).contains("State:\tZ") } ?? true
}
