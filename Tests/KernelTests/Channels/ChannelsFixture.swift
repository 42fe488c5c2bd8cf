import AgentProtocol
import Crypto
import Glibc
import Reactor
import Synchronization
import System
import Testing
import Transport

@testable import Agent
@testable import Kernel

/// What a consumer was told.
struct ProbeState: Sendable {
    var attachment: ChannelAttachment?
    var output: [UInt8] = []
    /// Offset of `output`'s first byte.
    var start: UInt64 = 0
    /// Bytes that came with an offset that does not continue.
    var misplaced = 0
    var places: [ChannelPlace] = []
    var started = 0
    var writable = 0
    var lost: [String] = []
    var record: ExitRecord?

    var text: String { String(decoding: output, as: UTF8.self) }
    var end: UInt64 { start + UInt64(output.count) }
}

/// A consumer that keeps everything and grants everything, or only what the test says.
final class Probe: ChannelConsumer {
    let watched = Watched(ProbeState())
    private let grants: Bool

    init(grants: Bool = true) { self.grants = grants }

    func channelStarted(_ channel: ChannelAttachment, at unixMilliseconds: UInt64) { watched.update { $0.started += 1 } }

    func channelResumed(_ channel: ChannelAttachment, _ place: ChannelPlace) {
        watched.update { state in
            state.attachment = channel
            if state.output.isEmpty { state.start = place.output } else if place.output != state.end + place.gap {
                state.misplaced += 1
            }
            state.places.append(place)
        }
        if grants { channel.grant(upTo: .max) }
    }

    func channel(_ channel: ChannelAttachment, received bytes: RawSpan, at offset: UInt64) {
        let copy = bytes.withUnsafeBytes { [UInt8]($0) }
        watched.update { state in
            if offset != state.end { state.misplaced += 1 }
            state.output += copy
        }
    }

    func channelWritable(_ channel: ChannelAttachment) { watched.update { $0.writable += 1 } }
    func channelExited(_ channel: ChannelAttachment, _ record: ExitRecord) { watched.update { $0.record = record } }
    func channelLost(_ channel: ChannelAttachment, _ code: String) { watched.update { $0.lost.append(code) } }

    /// Waits until the output has it.
    @discardableResult
    func output(has text: String) async -> String {
        await watched.wait { $0.text.contains(text) }.text
    }

    func exit() async -> ExitRecord? { await watched.wait { $0.record != nil }.record }
}

/// A kernel behind a real server and a real `cm-agent` that connects to it, on a directory that outlives both.
final class ChannelsFixture: Sendable {
    static let administrator = Principal(kind: .user, id: "admin", roles: ["administrator"])

    let directory = CommandsDirectory()
    private let running: Mutex<RunningCore>
    private let agent = Mutex<pid_t>(0)
    private let token: String
    private let port: UInt16
    private let proxy: String?

    /// Between two looks at something that has no event of its own. On the core's loop, whose timers are the product's.
    func pause() async {
        let loop = running.withLock { $0.loop }
        await withCheckedContinuation { continuation in
            loop.post {
                loop.spawn {
                    await loop.sleep(milliseconds: 20)
                    continuation.resume()
                }
            }
        }
    }

    var kernel: Kernel { running.withLock { $0.kernel } }
    var channels: Channels { kernel.channels }
    var agentDirectory: String { directory.path + "/agent" }

    /// - Parameters:
    ///   - withheld: features that a simulated agent does not offer.
    ///   - proxy: that a real agent goes through.
    init(policy: String? = nil, isSimulated: Bool = false, withheld: Set<String> = [], proxy: String? = nil) async throws {
        self.proxy = proxy
        let first = try await RunningCore.start(directory.path)
        running = Mutex(first)
        port = first.server.address.port
        token = try await first.kernel.enrollment.tokens.create(lifetime: 600, uses: 10, by: Self.administrator).text
        try Files.makeDirectory(agentDirectory)
        if let policy {
            try Descriptor.open(agentDirectory + "/policy.json", O_WRONLY | O_CREAT).write(Array(policy.utf8).span.bytes)
        }
        if isSimulated { try startSimulatedAgent(withheld) } else { try startAgent() }
    }

    /// An agent of the swarm in place of a real one.
    private func startSimulatedAgent(_ withheld: Set<String>) throws {
        let (servers, key) = (try ServerList("http://127.0.0.1:\(port)"), try P256.PrivateKey.generate())
        let (loop, token) = (running.withLock { $0.loop }, token)
        loop.post {
            var options = AgentSessionOptions(servers: servers, bootID: "boot", agentVersion: "1", hostname: "host")
            options.token = EnrollmentToken(token)
            options.withheldFeatures = withheld
            AgentSession(
                loop: loop, options: options, identity: MemoryIdentity(key: key),
                executor: SimulatedExecutor(loop: loop), terminals: SimulatedTerminals(loop: loop),
                files: SimulatedFiles(loop: loop), privateFiles: SimulatedPrivateFiles(),
                facts: { Array("{}".utf8) }, measure: { BeatAnswer() }
            ).start()
        }
    }

    /// Ends the core and starts it anew on the same directory and port.
    func restartCore() async throws {
        await running.withLock { $0 }.stop()
        let new = try await RunningCore.start(directory.path, port: port)
        running.withLock { $0 = new }
    }

    func startAgent() throws {
        var spawn = Spawn(
            program: try RunningCore.agentProgram(),
            arguments: [
                "cm-agent", "run", "--server", "http://127.0.0.1:\(port)", "--data-dir", agentDirectory,
                "--enroll-token", token, "--log-level", "error",
            ])
        spawn.environment = ["PATH": spawn.searchPath]
        // By the environment: it may hold a password.
        if let proxy { spawn.environment["CM_PROXY"] = proxy }
        let (pid, descriptor) = try spawn.start().release()
        close(descriptor)
        agent.withLock { $0 = pid }
    }

    /// They wait for their agent, which does not come back.
    private func endHolders() {
        for name in (try? Files.list("/proc")) ?? [] {
            guard let pid = pid_t(name), let line = try? Files.read("/proc/\(pid)/cmdline", limit: 64 << 10) else { continue }
            let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            if words.count > 2, words[1] == "hold", words[2].hasPrefix(agentDirectory + "/") { kill(pid, SIGKILL) }
        }
    }

    func killAgent() {
        let pid = agent.withLock { pid in
            defer { pid = 0 }
            return pid
        }
        guard pid > 0 else { return }
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
    }

    /// The one client, once it is connected.
    func client() async throws -> ClientID {
        let events = kernel.events
        let deadline = monotonicNanoseconds() + 30_000_000_000
        while monotonicNanoseconds() < deadline {
            let cursor = events.end
            let ids = try kernel.clients.select(.everything, allowed: [.everything], denied: [])
            if let id = ids.first, kernel.clients.link(of: id) != nil { return id }
            await events.wait(after: cursor, milliseconds: 1_000)
        }
        throw Problem(503, "no-agent", "the agent did not connect in 30 seconds")
    }

    /// Opens a channel and waits until it runs.
    func open(
        _ argv: [String], _ kind: ChannelSpecification.Kind = .terminal, probe: Probe = Probe(),
        _ change: (inout ChannelSpecification) -> Void = { _ in }
    ) async throws -> (ChannelAttachment, Probe) {
        var specification = ChannelSpecification(kind, on: try await client(), argv: argv)
        change(&specification)
        let attachment = try await channels.open(specification, Self.administrator, consumer: probe)
        return (attachment, probe)
    }

    func stop() async {
        for view in (try? channels.list(Self.administrator)) ?? [] {
            try? await channels.close(view.description.id, Self.administrator)
        }
        // Until the client has ended them all: a test leaves no shell behind.
        let deadline = monotonicNanoseconds() + 10_000_000_000
        while channels.count > 0, monotonicNanoseconds() < deadline { await Task.yield() }
        killAgent()
        endHolders()
        await running.withLock { $0 }.stop()
    }

    /// Opens the fixture, runs the test, and ends everything whatever happens.
    static func run(
        policy: String? = nil, isSimulated: Bool = false, withheld: Set<String> = [], proxy: String? = nil,
        _ body: (ChannelsFixture) async throws -> Void
    ) async throws {
        let fixture = try await ChannelsFixture(policy: policy, isSimulated: isSimulated, withheld: withheld, proxy: proxy)
        do {
            try await body(fixture)
            await fixture.stop()
        } catch {
            await fixture.stop()
            throw error
        }
    }
}

extension ChannelAttachment {
    @discardableResult
    func type(_ text: String) -> Int { write(Array(text.utf8)) }

    func write(_ bytes: [UInt8]) -> Int { write(bytes.span.bytes) }
}
