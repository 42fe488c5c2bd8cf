import AgentProtocol
import Crypto
import JSON
import Program
import Reactor
import Synchronization
import Transport

/// What a swarm is to do.
public struct SwarmOptions: Sendable {
    public var servers: ServerList
    public var token: EnrollmentToken?
    public var pins: [String] = []
    public var agents: Int
    public var loops = 2
    /// All at one moment, in place of two thousand per second.
    public var storm = false
    /// Share of the agents that lose their connection each second.
    public var dropRate: Double = 0
    /// Each order takes up to two seconds.
    public var slow = false
    public var viaProxy = false
    /// Whose releases the agents take; `nil`: none.
    public var releaseKey: P256.PublicKey?

    /// - Parameter servers: `URL[*WEIGHT][,…]`.
    public init(servers: String, agents: Int) throws(TransportError) {
        self.servers = try ServerList(servers)
        self.agents = agents
    }
}

/// Many agents in one process: the agent's own session code over a simulated executor. One descriptor per agent.
///
/// Sendable: what belongs to a loop is confined to it; the figures are behind a mutex that is held for additions only.
public final class Swarm: Sendable {
    /// More agents than this on one source address would run out of ports.
    private static let agentsPerAddress = 20_000

    private struct Figures {
        var online = 0
        var connects = 0
        var losses = 0
        var pending = 0
        var firstOnline: [UInt32] = []
        var backOnline: [UInt32] = []
        var codes: [String: Int] = [:]
        var allOnlineAt: UInt64?
    }

    public let options: SwarmOptions
    let bootID = Hex.encode(Random.bytes(8))
    /// One for all: a context per agent would be most of the process.
    let tls: TLSContext?
    private let loops: [EventLoop]
    private let groups = Mutex<[Confined<SwarmGroup>]>([])
    private let figures = Mutex(Figures())
    private let startedAt = monotonicNanoseconds()
    private let print: @Sendable ([UInt8]) -> Void

    /// - Parameter print: takes one line of JSON, without its end; called on any loop.
    public init(
        options: SwarmOptions, print: @escaping @Sendable ([UInt8]) -> Void
    ) throws(ReactorError) {
        self.options = options
        self.print = print
        var loops: [EventLoop] = []
        for number in 0..<max(1, options.loops) { loops.append(try EventLoop.start(name: "swarm-\(number)")) }
        self.loops = loops
        tls = options.servers.servers.contains { $0.url.isSecure } ? try? TLSContext.client(.handshakeInside) : nil
    }

    /// Makes all agents and lets them connect. Keys are made on the loops; returns at once.
    public func start() {
        for (number, loop) in loops.enumerated() {
            loop.post { [self] in make(number, on: loop) }
        }
    }

    private func make(_ number: Int, on loop: EventLoop) {
        let group = SwarmGroup(loop: loop)
        groups.withLock { $0.append(Confined(group, on: loop)) }
        for index in stride(from: number, to: options.agents, by: loops.count) {
            guard let key = try? P256.PrivateKey.generate() else { continue }
            let octet = options.agents > Self.agentsPerAddress ? 1 + index / Self.agentsPerAddress : nil
            let member = SwarmMember(swarm: self, loop: loop, index: index, key: key, sourceOctet: octet)
            group.members.append(member)
            member.session.start(afterMilliseconds: options.storm ? 0 : UInt64(index / 2))
        }
        if options.dropRate > 0 { group.dropEachSecond(options.dropRate) }
    }

    /// Orders that have been started so far.
    public func executions() async -> Int {
        var count = 0
        for group in groups.withLock({ $0 }) {
            count += await withCheckedContinuation { continuation in
                group.post { group in
                    continuation.resume(returning: group.members.reduce(0) { $0 + $1.executor.started })
                }
            }
        }
        return count
    }

    /// Ends all sessions and loops.
    public func stop() {
        for group in groups.withLock({ $0 }) {
            group.post { group in
                for member in group.members { member.session.stop() }
            }
        }
    }

    // MARK: Figures

    func online(after milliseconds: UInt64, isFirst: Bool) {
        let line: [UInt8]? = figures.withLock { figures in
            figures.online += 1
            figures.connects += 1
            if isFirst {
                figures.firstOnline.append(UInt32(clamping: milliseconds))
            } else {
                figures.backOnline.append(UInt32(clamping: milliseconds))
                if figures.backOnline.count > 1_000_000 { figures.backOnline.removeFirst(500_000) }
            }
            guard figures.online == options.agents else { return nil }
            figures.allOnlineAt = figures.allOnlineAt ?? monotonicNanoseconds()
            return event("all-online", online: figures.online)
        }
        if let line { print(line) }
    }

    func offline(code: String, wasOnline: Bool) {
        let line: [UInt8]? = figures.withLock { figures in
            if figures.codes.count < 64 || figures.codes[code] != nil { figures.codes[code, default: 0] += 1 }
            guard wasOnline else { return nil }
            figures.losses += 1
            figures.online -= 1
            return figures.online == 0 ? event("all-offline", online: 0) : nil
        }
        if let line { print(line) }
    }

    func pending() { figures.withLock { $0.pending += 1 } }

    private func event(_ name: String, online: Int) -> [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("event", name)
            $0.field("agents", online)
            $0.field("seconds", Double((monotonicNanoseconds() - startedAt) / 1_000_000) / 1_000)
            $0.field("time_ms", unixMilliseconds())
        }
        return writer.finish()
    }

    /// The report: how many are online, how long it took them, what ended connections.
    public func report(executions: Int) -> [UInt8] {
        let figures = figures.withLock { $0 }
        func percentiles(_ values: [UInt32], _ writer: inout JSONWriter) {
            let sorted = values.sorted()
            writer.object { writer in
                for (name, share) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] where !sorted.isEmpty {
                    writer.member(name, sorted[min(sorted.count - 1, sorted.count * share / 100)])
                }
            }
        }
        var writer = JSONWriter()
        writer.object {
            $0.field("event", "report")
            $0.field("agents", options.agents)
            $0.field("online", figures.online)
            $0.field("connects", figures.connects)
            $0.field("losses", figures.losses)
            $0.field("pending", figures.pending)
            $0.field("executions", executions)
            $0.field("seconds", Double((monotonicNanoseconds() - startedAt) / 1_000_000) / 1_000)
            $0.field("all_online_s", ifPresent: figures.allOnlineAt.map { Double(($0 - startedAt) / 1_000_000) / 1_000 })
            $0.key("first_online_ms")
            percentiles(figures.firstOnline, &$0)
            $0.key("back_online_ms")
            percentiles(figures.backOnline, &$0)
            $0.key("ends")
            $0.object { writer in
                for (code, count) in figures.codes.sorted(by: { $0.key < $1.key }) { writer.member(code, count) }
            }
        }
        return writer.finish()
    }
}

/// The agents of one loop, confined to it.
final class SwarmGroup {
    private let loop: EventLoop
    var members: [SwarmMember] = []
    private var timer: Timer?

    init(loop: EventLoop) { self.loop = loop }

    func dropEachSecond(_ rate: Double) {
        let timer = Timer { [unowned self] in
            for member in members where Double.random(in: 0..<1) < rate { member.session.drop() }
            if let timer = self.timer { loop.schedule(timer, afterMilliseconds: 1_000) }
        }
        self.timer = timer
        loop.schedule(timer, afterMilliseconds: 1_000)
    }
}

/// One agent of the swarm, confined to its loop.
final class SwarmMember: AgentSessionObserver {
    let session: AgentSession
    let executor: SimulatedExecutor
    private let swarm: Swarm
    private var wasOnline = false
    private var hasBeenOnline = false
    /// Loop time of the start, then of the last loss.
    private var since: UInt64

    init(swarm: Swarm, loop: EventLoop, index: Int, key: P256.PrivateKey, sourceOctet: Int?) {
        self.swarm = swarm
        since = loop.now
        let swarmOptions = swarm.options
        executor = SimulatedExecutor(
            loop: loop, delayMilliseconds: swarmOptions.slow ? { UInt64.random(in: 0...2_000) } : { 0 })
        let hostname = "agent-\(index)"
        var options = AgentSessionOptions(
            servers: swarmOptions.servers, bootID: swarm.bootID, agentVersion: "0.1.0", hostname: hostname)
        options.connection.tls = swarm.tls
        options.connection.localAddress = sourceOctet.flatMap { IPAddress("127.0.0.\($0)") }
        options.token = swarmOptions.token
        options.pins = swarmOptions.pins
        options.viaProxy = swarmOptions.viaProxy
        let place = SessionPlace()
        let version = SimulatedVersion(options.agentVersion)
        let upgrades = SimulatedUpgrades(
            loop: loop, key: swarmOptions.releaseKey, version: { version.text },
            restart: { text in
                version.text = text
                place.session?.agentVersion = text
                place.session?.drop()
            })
        session = AgentSession(
            loop: loop, options: options, identity: MemoryIdentity(key: key), executor: executor,
            terminals: SimulatedTerminals(loop: loop), files: SimulatedFiles(loop: loop),
            privateFiles: SimulatedPrivateFiles(), upgrades: upgrades,
            facts: { Self.facts(index, hostname, version.text) },
            measure: { BeatAnswer(loadHundredths: 12, memoryAvailableKiB: 1 << 20, memoryTotalKiB: 4 << 20) })
        place.session = session
        session.observer = self
    }

    /// What an agent says of itself; its facts are made off its object.
    private final class SimulatedVersion: Sendable {
        private let value: Mutex<String>
        init(_ text: String) { value = Mutex(text) }
        var text: String {
            get { value.withLock { $0 } }
            set { value.withLock { $0 = newValue } }
        }
    }

    /// A session keeps its upgrades, so they must not keep it.
    private final class SessionPlace {
        weak var session: AgentSession?
    }

    private static func facts(_ index: Int, _ hostname: String, _ version: String) -> [UInt8] {
        var writer = JSONWriter(reserving: 512)
        writer.object {
            $0.field("hostname", hostname)
            $0.field("os", "debian")
            $0.field("os_version", "12")
            $0.field("os_name", "Debian GNU/Linux 12 (bookworm)")
            $0.field("kernel", "6.1.0")
            $0.field("arch", "x86_64")
            $0.field("cores", 2 << (index % 5))
            $0.field("memory_kib", (1 << 20) << (index % 6))
            $0.field("agent_version", version)
            $0.field("rack", "r\(index / 40)")
            $0.array("addresses") { $0.value("10.\(index >> 16 & 255).\(index >> 8 & 255).\(index & 255)") }
            $0.array("disks") {
                $0.object {
                    $0.field("mount", "/")
                    $0.field("type", "ext4")
                    $0.field("total_kib", 40 << 20)
                    $0.field("free_kib", 20 << 20)
                }
            }
        }
        return writer.finish()
    }

    func sessionOnline(_ client: ClientID) {
        let now = session.loop.now
        swarm.online(after: (now - since) / 1_000_000, isFirst: !hasBeenOnline)
        wasOnline = true
        hasBeenOnline = true
    }

    func sessionOffline(code: String, message: String, retryMilliseconds: UInt64) {
        swarm.offline(code: code, wasOnline: wasOnline)
        if wasOnline { since = session.loop.now }
        wasOnline = false
    }

    func sessionPending(enrollment: String, agentFingerprint: String, coreFingerprint: String) { swarm.pending() }
}
