import Agent
import AgentProtocol
import Crypto
import JSON
import Reactor
import Synchronization
import Testing
import Transport

@testable import Kernel

/// State that tests change from one side and wait for on the other.
final class Watched<State: Sendable>: Sendable {
    private struct Waiter {
        let number: UInt64
        let condition: @Sendable (State) -> Bool
        /// `nil`: the time was up first.
        let continuation: CheckedContinuation<State?, Never>
    }
    private struct Inside {
        var state: State
        var waiters: [Waiter] = []
        var lastNumber: UInt64 = 0
    }
    private let inside: Mutex<Inside>

    init(_ state: State) { inside = Mutex(Inside(state: state)) }

    var value: State { inside.withLock { $0.state } }

    func update<Result: Sendable>(_ change: (inout State) -> Result) -> Result {
        let (result, state, ready) = inside.withLock { inside in
            let result = change(&inside.state)
            let state = inside.state
            let ready = inside.waiters.filter { $0.condition(state) }
            inside.waiters.removeAll { $0.condition(state) }
            return (result, state, ready)
        }
        for waiter in ready { waiter.continuation.resume(returning: state) }
        return result
    }

    /// Waits for the condition. A wait that is longer than its bound fails the test where it stands, with the state that was
    /// found instead, and the test goes on with that.
    @discardableResult
    func wait(
        within bound: Duration = .seconds(45), at location: SourceLocation = #_sourceLocation,
        until condition: @escaping @Sendable (State) -> Bool
    ) async -> State {
        let number = inside.withLock { inside in
            inside.lastNumber += 1
            return inside.lastNumber
        }
        let alarm = Task {
            do { try await Task.sleep(for: bound) } catch { return }
            self.giveUp(number)
        }
        defer { alarm.cancel() }
        if let state = await wait(number, until: condition) { return state }
        let state = value
        Issue.record("what is waited for did not come within \(bound); it is \("\(state)".prefix(2_000))", sourceLocation: location)
        return state
    }

    /// Waits as long as it takes: for what the core asks, not the test.
    func waitForever(until condition: @escaping @Sendable (State) -> Bool) async -> State {
        await wait(0, until: condition) ?? value
    }

    private func wait(_ number: UInt64, until condition: @escaping @Sendable (State) -> Bool) async -> State? {
        await withCheckedContinuation { continuation in
            let state: State? = inside.withLock { inside in
                if condition(inside.state) { return inside.state }
                inside.waiters.append(Waiter(number: number, condition: condition, continuation: continuation))
                return nil
            }
            if let state { continuation.resume(returning: state) }
        }
    }

    private func giveUp(_ number: UInt64) {
        let late = inside.withLock { inside in
            let late = inside.waiters.filter { $0.number == number }
            inside.waiters.removeAll { $0.number == number }
            return late
        }
        for waiter in late { waiter.continuation.resume(returning: nil) }
    }
}

/// What the core's services saw.
struct CoreLog: Sendable {
    var hellos: [AgentHello] = []
    var failures: [String] = []
    var violations: [String] = []
    var moveFailures: [MoveFailure] = []
    var links: [AgentLink] = []
    var ends: [String] = []
    var beats = 0
    var facts: [JSONValue] = []
    var output: [CommandID: [UInt8]] = [:]
    var records: [ExitRecord] = []
    /// How many ends came in one piece.
    var pieces: [Int] = []
    var lost = 0
    var reportsPerLink: [Int] = []
}

/// A registry and a command service that only write down what they hear; the test says how they answer.
final class TestServices: AgentAuthority, ExecutionSink {
    let log = Watched(CoreLog())
    let admission: @Sendable (AgentHello) -> Admission
    let verdicts = Watched<Admission?>(nil)
    /// No credit beyond this: output is not over before the test has done what it does to it.
    let mayReach = Mutex<UInt64>(.max)
    /// Orders for the next link that reconciles.
    let waiting = Mutex<[Order]>([])

    init(_ admission: @escaping @Sendable (AgentHello) -> Admission) { self.admission = admission }

    func admit(_ hello: AgentHello) async -> Admission {
        log.update { $0.hellos.append(hello) }
        return admission(hello)
    }
    func linkUp(_ link: AgentLink) { log.update { $0.links.append(link) } }
    func linkDown(_ link: AgentLink, _ end: LinkEnd) { log.update { $0.ends.append(end.code) } }
    func heartbeat(_ client: ClientID, _ beat: Beat) { log.update { $0.beats += 1 } }
    func facts(_ client: ClientID, _ facts: JSONValue) { log.update { $0.facts.append(facts) } }
    func verdict(enrollment: String) async -> Admission? { await verdicts.waitForever { $0 != nil } }
    func handshakeFailed(_ failure: HandshakeFailure) {
        log.update { $0.failures.append(failure.code) }
    }
    func violated(_ link: AgentLink, code: String, message: String) {
        log.update { $0.violations.append(code) }
    }
    func moveFailed(_ link: AgentLink, _ failure: MoveFailure) { log.update { $0.moveFailures.append(failure) } }

    func reconcile(_ link: AgentLink, _ reports: [ExecutionReport]) async -> [ResumeDecision] {
        let (output, records) = log.update { log in
            log.reportsPerLink.append(reports.count)
            return (log.output, log.records)
        }
        let known = Set(reports.map(\.command))
        for order in waiting.withLock({ $0 }) where !known.contains(order.command) {
            if !records.contains(where: { $0.command == order.command }) { link.send(order) }
        }
        return reports.map { report in
            records.contains { $0.command == report.command }
                ? .forget(command: report.command)
                : .resume(
                    command: report.command, standardOutputFrom: UInt64(output[report.command]?.count ?? 0),
                    standardErrorFrom: 0)
        }
    }
    func started(_ link: AgentLink, _ command: CommandID, at unixMilliseconds: UInt64) {}
    func output(
        _ link: AgentLink, _ command: CommandID, _ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan
    ) -> Bool {
        let copy = bytes.withUnsafeBytes { [UInt8]($0) }
        let end: UInt64? = log.update { log in
            guard UInt64(log.output[command]?.count ?? 0) == offset else { return nil }
            log.output[command, default: []] += copy
            return offset + UInt64(copy.count)
        }
        guard let end else { return false }
        link.grant(command, stream, upTo: min(end + 256 * 1_024, mayReach.withLock { $0 }))
        return true
    }
    func finished(_ ends: [ReportedEnd]) async -> [Bool] {
        log.update { log in
            log.records += ends.map(\.record)
            log.pieces.append(ends.count)
        }
        return ends.map { _ in true }
    }
    func linkAccepted(_ link: AgentLink) {}
    func linkLost(_ link: AgentLink) { log.update { $0.lost += 1 } }
}

/// What a session told its program.
struct AgentLog: Sendable {
    var online = 0
    var ends: [String] = []
    var delays: [UInt64] = []
    var pending: [String] = []
}

/// An endpoint behind a real server on a free loopback port, and agents on the same loop.
final class LinkFixture: Sendable {
    let loop: EventLoop
    let coreKey: P256.PrivateKey
    let services: TestServices
    let endpoint: AgentEndpoint
    let server: HTTPServer
    let agentLog = Watched(AgentLog())
    private let agents = Mutex<[Confined<TestAgent>]>([])

    private final class Service: HTTPService {
        let endpoint: AgentEndpoint
        init(_ endpoint: AgentEndpoint) { self.endpoint = endpoint }
        func exchangeBegan(_ exchange: HTTPExchange) { endpoint.accept(exchange) }
    }

    static let client = ClientID(high: 7, low: 7)

    init(
        options: AgentEndpointOptions = .init(), heartbeatSeconds: Int = 1,
        admission: (@Sendable (AgentHello) -> Admission)? = nil
    ) async throws {
        let loop = try EventLoop.start(name: "link-test")
        let key = try P256.PrivateKey.generate()
        let services = TestServices(
            admission ?? { hello in
                .accepted(
                    AdmittedClient(
                        client: Self.client, epoch: hello.epoch, heartbeatSeconds: heartbeatSeconds))
            })
        let endpoint = AgentEndpoint(
            options: options, identity: { CoreIdentity(key: key) }, authority: services, sink: services)
        server = try await HTTPServer.start(
            at: SocketAddress(ip: .loopback, port: 0), on: [loop]
        ) { _ in Service(endpoint) }
        self.loop = loop
        coreKey = key
        self.services = services
        self.endpoint = endpoint
    }

    var url: String { "http://127.0.0.1:\(server.address.port)" }

    var token: EnrollmentToken? { .generate(fingerprint: coreKey.publicKey.fingerprint) }

    /// Starts a session on the loop. The agent keeps its identity and executions in memory.
    @discardableResult
    func agent(
        token: EnrollmentToken? = nil, pins: [String] = [], viaProxy: Bool = false
    ) async throws -> Confined<TestAgent> {
        let servers = try ServerList(url)
        let key = try P256.PrivateKey.generate()
        let log = agentLog
        let loop = loop
        let agent = await withCheckedContinuation { continuation in
            loop.post {
                var options = AgentSessionOptions(
                    servers: servers, bootID: "boot", agentVersion: "1", hostname: "host")
                options.token = token
                options.pins = pins
                options.viaProxy = viaProxy
                options.reconnect.base = 1
                options.reconnect.nearCap = 20
                let agent = TestAgent(loop: loop, options: options, key: key, log: log)
                agent.session.start()
                continuation.resume(returning: Confined(agent, on: loop))
            }
        }
        agents.withLock { $0.append(agent) }
        return agent
    }

    func stop() {
        server.stop()
        loop.stop()
    }
}

final class TestAgent: AgentSessionObserver {
    let session: AgentSession
    let executor: SimulatedExecutor
    private let log: Watched<AgentLog>

    init(loop: EventLoop, options: AgentSessionOptions, key: P256.PrivateKey, log: Watched<AgentLog>) {
        self.log = log
        executor = SimulatedExecutor(loop: loop)
        session = AgentSession(
            loop: loop, options: options, identity: MemoryIdentity(key: key), executor: executor,
            facts: { Array(#"{"os":"test"}"#.utf8) }, measure: { BeatAnswer(loadHundredths: 5) })
        session.observer = self
    }

    func sessionOnline(_ client: ClientID) { log.update { $0.online += 1 } }
    func sessionOffline(code: String, message: String, retryMilliseconds: UInt64) {
        log.update {
            $0.ends.append(code)
            $0.delays.append(retryMilliseconds)
        }
    }
    func sessionPending(enrollment: String, agentFingerprint: String, coreFingerprint: String) {
        log.update { $0.pending.append(enrollment) }
    }
}
