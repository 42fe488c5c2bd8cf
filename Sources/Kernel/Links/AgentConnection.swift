import AgentProtocol
import Crypto
import JSON
import Reactor
import Transport

/// One agent's connection, confined to its loop: drives the handshake, then the channels, the heartbeat and the end.
///
/// An idle accepted link costs this object, a timer, its handle and the peer's key: about 1 KiB.
final class AgentConnection: WebSocketDelegate {
    static let subprotocol = "client-manager.v1"
    /// A link is half-open when this many heartbeats in a row went unanswered.
    private static let missedBeats: UInt64 = 2
    private static let ticketNanoseconds: UInt64 = 86_400 * 1_000_000_000
    /// What may wait for an agent that does not read: a few of the largest orders. More ends the link.
    private static let outputBound = 4 << 20

    private enum Phase {
        case handshake, deciding, pending, active, closed
    }

    /// Needed only until the link is accepted.
    private final class Opening {
        var machine: CoreHandshakeStateMachine
        var claimed: ClientID?
        var proved: ProvedAgent?

        init(_ machine: CoreHandshakeStateMachine) { self.machine = machine }
    }

    private final class Seal {
        var channel: SealedChannel
        init(_ channel: SealedChannel) { self.channel = channel }
    }

    private struct Liveness {
        let nonce: [UInt8]
        let answer: CheckedContinuation<Bool, Never>
        let timer: Timer
    }

    private let socket: WebSocketConnection
    let home: LinkHome
    private let address: String
    /// In the home's list.
    var place = 0

    private var phase = Phase.handshake
    private var opening: Opening?
    private var seal: Seal?
    private(set) var link: AgentLink?
    private var channels = CoreChannelsStateMachine()
    var terminals: LinkTerminals?
    var transfers: LinkTransfers?
    var hasReported = false
    var privateFiles: LinkPrivateFiles?
    var releaseRequests = ReleaseRequests()
    /// SubjectPublicKeyInfo that the agent proved.
    private var agentKey: [UInt8] = []
    private var liveness: Liveness?
    private var timer: Timer?
    /// Commands whose ends are durable and whose agent does not know it yet: the word rides with the next message, or
    /// goes alone when the home says so.
    private var settled: [CommandID] = []
    /// The home has been asked to.
    private var isOwing = false
    private static let mostSettled = 32

    private var heartbeatSeconds: UInt64 = 15
    private var jitterPercent: UInt8 = 10
    /// Loop time in nanoseconds.
    private var heardAt: UInt64 = 0
    private var beatSentAt: UInt64 = 0
    private var ticketAt: UInt64 = 0

    init(
        socket: WebSocketConnection, home: LinkHome, address: String, identity: CoreIdentity, binding: LinkBinding
    ) {
        self.socket = socket
        self.home = home
        self.address = address
        home.writer.reset()
        opening = Opening(
            CoreHandshakeStateMachine(
                identity: identity,
                features: home.endpoint.features,
                nonce: Random.bytes(32), binding: binding, now: home.loop.now / 1_000_000,
                to: &home.writer))
    }

    var endpoint: AgentEndpoint { home.endpoint }
    var isActive: Bool { phase == .active }

    // MARK: Handshake

    /// Sends the challenge. Right after `init`, before anything else uses the home's writer.
    func begin() {
        home.add(self)
        home.handshakes += 1
        heardAt = home.loop.now
        socket.setOutputBound(Self.outputBound)
        socket.send(home.writer.bytes)
        let timer = Timer { [unowned self] in timerFired() }
        self.timer = timer
        home.loop.schedule(timer, afterMilliseconds: CoreHandshakeStateMachine.timeLimitMilliseconds)
    }

    func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool) {
        guard phase != .closed else { return }
        heardAt = home.loop.now
        guard !isText else {
            return fail(WireError(.malformed, "a text message; the protocol is binary"))
        }
        do throws(WireError) {
            if let seal {
                let plain = try open(message, seal)
                try frames(plain.span.bytes)
            } else {
                try frames(message)
            }
        } catch { fail(error) }
    }

    private func open(_ message: borrowing RawSpan, _ seal: Seal) throws(WireError) -> [UInt8] {
        var position = 0
        let header = try FrameHeader.next(in: message, at: &position)
        guard position + Int(header.length) == message.byteCount else {
            throw WireError(.malformed, "a sealed message holds exactly one frame")
        }
        return try seal.channel.open(header, message.extracting(position..<position + Int(header.length)))
    }

    private func frames(_ message: borrowing RawSpan) throws(WireError) {
        var position = 0
        repeat {
            let header = try FrameHeader.next(in: message, at: &position)
            let end = position + Int(header.length)
            let payload = message.extracting(position..<end)
            position = end
            switch phase {
            case .active: try receive(header, payload)
            case .handshake: handshake(header, payload)
            case .deciding, .pending:
                throw WireError(.unexpected, "a \(header.kind) frame from an agent that is not accepted")
            case .closed: return
            }
        } while position < message.byteCount
    }

    private func handshake(_ header: FrameHeader, _ payload: borrowing RawSpan) {
        guard let opening else { return }
        home.writer.reset()
        do throws(HandshakeRefusal) {
            if header.kind == .sealed {
                let plain = try opening.machine.open(header, payload)
                do throws(WireError) {
                    var position = 0
                    let inner = try FrameHeader.next(in: plain.span.bytes, at: &position)
                    try advance(opening, inner, plain.span.bytes.extracting(position..<plain.count))
                } catch {
                    fail(error)
                }
            } else {
                try advanceOrRefuse(opening, header, payload)
            }
        } catch {
            refuse(error.code, error.message)
        }
    }

    private func advance(
        _ opening: Opening, _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(WireError) {
        do throws(HandshakeRefusal) {
            try advanceOrRefuse(opening, header, payload)
        } catch {
            refuse(error.code, error.message)
        }
    }

    private func advanceOrRefuse(
        _ opening: Opening, _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(HandshakeRefusal) {
        let now = home.loop.now / 1_000_000
        switch try opening.machine.receive(header, payload, now: now, to: &home.writer) {
        case .replied:
            socket.send(home.writer.bytes)
        case .proved(let agent, let sealed):
            seal = sealed.map(Seal.init)
            opening.proved = agent
            opening.claimed = agent.hello.client
            decide(agent)
        }
    }

    private func decide(_ agent: ProvedAgent) {
        leaveHandshake()
        phase = .deciding
        agentKey = agent.hello.agentKey
        // The registry answers from its store; if it cannot, the agent is turned away rather than kept for ever.
        if let timer { home.loop.schedule(timer, afterMilliseconds: 30_000) }
        let hello = AgentHello(
            publicKey: agent.hello.agentKey, client: agent.hello.client, enrollmentToken: agent.token?.text,
            bootID: agent.hello.bootID, epoch: agent.hello.epoch, agentVersion: agent.hello.agentVersion,
            hostname: agent.hello.hostname, succession: agent.hello.succession, address: address,
            correlation: Hex.encode(Random.bytes(8)))
        let me = Confined(self, on: home.loop)
        let authority = endpoint.authority
        home.loop.spawn {
            let admission = await authority.admit(hello)
            me.assumeOnLoop { $0.admitted(admission) }
        }
    }

    private func leaveHandshake() {
        if phase == .handshake { home.handshakes -= 1 }
    }

    private func admitted(_ admission: Admission) {
        guard phase == .deciding || phase == .pending else { return }
        switch admission {
        case .accepted(let client): accept(client)
        case .refused(let code, let message): refuse(code, message)
        case .pending(let enrollment, let fingerprint):
            if phase != .pending {
                phase = .pending
                // The registry bounds these by itself, per address too.
                socket.markAuthenticated()
                write { writer in
                    writer.frame(
                        .pending,
                        payload: PendingNotice(enrollment: enrollment, fingerprint: fingerprint).payload)
                }
                beatLater(first: true)
            }
            let me = Confined(self, on: home.loop)
            let authority = endpoint.authority
            home.loop.spawn {
                let verdict = await authority.verdict(enrollment: enrollment)
                me.assumeOnLoop {
                    $0.admitted(
                        verdict ?? .refused(code: "enrollment-lapsed", message: "no operator has decided in time"))
                }
            }
        }
    }

    private func accept(_ client: AdmittedClient) {
        guard let opening, let proved = opening.proved else { return }
        phase = .active
        channels = CoreChannelsStateMachine(limit: endpoint.options.channels)
        heartbeatSeconds = UInt64(clamping: max(1, client.heartbeatSeconds))
        jitterPercent = UInt8(clamping: client.jitterPercent)
        socket.markAuthenticated()
        self.opening = nil
        let link = AgentLink(
            client: client.client, epoch: client.epoch, address: address,
            hasTerminals: proved.features.contains(Feature.terminal), hasFiles: proved.features.contains(Feature.file),
            hasURLTransfers: proved.features.contains(Feature.fileURL),
            hasPrivateFiles: proved.features.contains(Feature.privateFile),
            hasSecretEnvironment: proved.features.contains(Feature.secretEnvironment),
            hasUpgrades: proved.features.contains(Feature.upgrade), connection: Confined(self, on: home.loop))
        self.link = link
        let accepted = Accepted(
            client: client.client, epoch: client.epoch, features: proved.features,
            heartbeatSeconds: client.heartbeatSeconds, channels: endpoint.options.channels,
            coreVersion: endpoint.options.coreVersion, time: unixMilliseconds(), backupPins: opening.machine.backupPins)
        issueTicket()
        write { $0.frame(.accepted, payload: accepted.payload) }
        beatLater(first: true)
        endpoint.sink.linkAccepted(link)  // Before the registry shows the client as online.
        endpoint.authority.linkUp(link)
    }

    // MARK: Accepted link

    private func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard let link else { return }
        switch header.kind {
        case .beatAnswer:
            let answer = try BeatAnswer(reading: payload)
            guard beatSentAt != 0, header.offset == beatSentAt else { return }
            let roundTrip = (home.loop.now &- beatSentAt) / 1_000
            beatSentAt = 0
            endpoint.authority.heartbeat(
                link.client,
                Beat(
                    roundTripMicroseconds: UInt32(clamping: roundTrip), loadHundredths: answer.loadHundredths,
                    memoryAvailableKiB: answer.memoryAvailableKiB, memoryTotalKiB: answer.memoryTotalKiB))
        case .facts:
            let facts: JSONValue
            do throws(JSONError) {
                facts = try JSONReader.read(payload, limits: JSONLimits(depth: 8, bytes: WireLimits.factsBytes)) {
                    (reader) throws(JSONError) in try reader.value()
                }
            } catch { throw WireError(.malformed, "facts: \(error)") }
            guard case .object = facts else { throw WireError(.malformed, "facts are a JSON object") }
            endpoint.authority.facts(link.client, facts)
        case .livenessProof: livenessAnswered(payload)
        case .move: endpoint.authority.moveFailed(link, try MoveFailure(reading: payload))
        case .close:
            let farewell = try Farewell(reading: payload)
            end(LinkEnd(code: "closed", detail: "\(farewell.code): \(farewell.message)"), tellAgent: false)
        case .upgrade, .releaseRequest: try receiveUpgrade(link, header, payload)
        case .terminalReport: try receiveTerminalReport(payload)
        case .transferReport: try receiveTransferReport(payload)
        case _ where Self.isAboutFiles(header.kind): try receiveTransfer(header, payload)
        case .privateFileAnswer: try receivePrivateFileAnswer(header, payload)
        case _ where header.channel & WireLimits.terminalChannel != 0: try receiveTerminal(header, payload)
        default:
            switch try channels.receive(header, payload) {
            case .none: break
            case .output(let command, let stream, let offset):
                guard endpoint.sink.output(link, command, stream, at: offset, payload) else {
                    throw WireError(.wrongOffset, "output of \(command) at \(offset) does not continue what is kept")
                }
            case .started(let command, let time): endpoint.sink.started(link, command, at: time)
            case .finished(let record): finish(link, record)
            case .reportsComplete(let reports):
                reconcile(link, reports)
                try reconcileTerminals(link)
                reconcileTransfers(link)
                if link.hasUpgrades { endpoint.upgrades?.ready(link) }
            }
        }
    }

    private func reconcile(_ link: AgentLink, _ reports: [ExecutionReport]) {
        let me = Confined(self, on: home.loop)
        let sink = endpoint.sink
        home.loop.spawn {
            let decisions = await sink.reconcile(link, reports)
            me.assumeOnLoop { $0.decide(decisions) }
        }
    }

    private func decide(_ decisions: [ResumeDecision]) {
        guard phase == .active, !decisions.isEmpty else { return }
        var refusal: CoreChannelsStateMachine.Refusal?
        // In pieces, because a sealed message and its reader are bounded.
        var next = decisions.startIndex
        while next < decisions.endIndex, refusal == nil {
            let piece = decisions[next..<min(next + 256, decisions.endIndex)]
            next = piece.endIndex
            write { writer in
                for decision in piece {
                    do throws(CoreChannelsStateMachine.Refusal) {
                        try channels.decide(decision, to: &writer)
                    } catch { refusal = error }
                }
            }
        }
        if let refusal { fail(WireError(.tooManyChannels, "the executions cannot be resumed: \(refusal)")) }
    }

    private func finish(_ link: AgentLink, _ record: ExitRecord) {
        let me = Confined(self, on: home.loop)
        let sink = endpoint.sink
        home.loop.spawn {
            guard await sink.finished(link, record) else { return }
            me.assumeOnLoop { $0.acknowledge(record.command) }
        }
    }

    private func acknowledge(_ command: CommandID) {
        guard phase == .active else { return }
        settled.append(command)
        if settled.count >= Self.mostSettled { return write { _ in } }
        guard !isOwing else { return }
        isOwing = true
        home.owe(self)
    }

    /// The home's time is up.
    func tellSettled() {
        isOwing = false
        if phase == .active { write { _ in } }
    }

    // MARK: Wishes of the kernel, through the link

    func send(_ order: Order) {
        guard phase == .active, let link else { return }
        guard order.secretEnvironment.isEmpty || link.hasSecretEnvironment else {
            return refuse(order, over: link, "secrets-unsupported", "the agent of this client takes no secret variables; install a newer one")
        }
        var refusal: CoreChannelsStateMachine.Refusal?
        write { writer in
            do throws(CoreChannelsStateMachine.Refusal) {
                try channels.open(order, to: &writer)
            } catch { refusal = error }
        }
        guard let refusal else { return }
        let (code, message) =
            switch refusal {
            case .tooManyChannels(let limit):
                ("client-busy", "\(limit) executions are open on this client's connection")
            case .tooLarge(let bytes):
                ("order-too-large", "the order takes \(bytes) bytes; at most \(WireLimits.openBytes) are allowed")
            case .alreadyOpen: ("", "")
            }
        guard !code.isEmpty else { return }
        refuse(order, over: link, code, message)
    }

    private func refuse(_ order: Order, over link: AgentLink, _ code: String, _ message: String) {
        let record = ExitRecord(
            command: order.command, outcome: .refused(code: code, message: message), started: .no,
            finishedAt: unixMilliseconds())
        let sink = endpoint.sink
        home.loop.spawn { _ = await sink.finished(link, record) }
    }

    func cancel(_ command: CommandID) {
        guard phase == .active else { return }
        write { channels.cancel(command, to: &$0) }
    }

    func grant(_ command: CommandID, _ stream: OutputStream, upTo offset: UInt64) {
        guard phase == .active else { return }
        write { channels.grant(command, stream, upTo: offset, to: &$0) }
    }

    func move(_ statement: MoveStatement) {
        guard phase == .active else { return }
        write { $0.frame(.move, payload: statement.payload) }
    }

    func checkLiveness(milliseconds: UInt64, _ answer: CheckedContinuation<Bool, Never>) {
        guard phase == .active, liveness == nil else { return answer.resume(returning: false) }
        let nonce = Random.bytes(LivenessCheck.nonceBytes)
        let timer = Timer { [unowned self] in livenessEnded(false) }
        liveness = Liveness(nonce: nonce, answer: answer, timer: timer)
        home.loop.schedule(timer, afterMilliseconds: milliseconds)
        write { $0.frame(.liveness, payload: nonce) }
    }

    private func livenessAnswered(_ payload: borrowing RawSpan) {
        guard let liveness, let link else { return }
        // Invariant: the array copies before the closure ends.
        let signature = unsafe payload.withUnsafeBytes { unsafe [UInt8]($0) }
        livenessEnded(
            LivenessCheck.isValid(
                signature: signature, nonce: liveness.nonce, client: link.client, epoch: link.epoch, key: agentKey))
    }

    private func livenessEnded(_ isAlive: Bool) {
        guard let liveness else { return }
        self.liveness = nil
        home.loop.cancel(liveness.timer)
        liveness.answer.resume(returning: isAlive)
    }

    // MARK: Sending

    /// One message of what `body` writes, after what is settled; nothing if there is nothing.
    @inline(__always)
    func write(_ body: (inout FrameWriter) -> Void) {
        home.writer.reset()
        if !settled.isEmpty {
            for command in settled { channels.acknowledge(command, to: &home.writer) }
            settled.removeAll(keepingCapacity: true)
        }
        body(&home.writer)
        guard !home.writer.bytes.isEmpty else { return }
        if let seal {
            do throws(WireError) {
                try seal.channel.seal(&home.writer)
            } catch {
                // Nothing can be said any more; `webSocketClosed` follows.
                return socket.abort()
            }
        }
        socket.send(home.writer.bytes)
    }

    /// An agent that comes back with a ticket costs both sides no certificate and one signature less. It gets a fresh one
    /// each day, so that a link of months has one that is good.
    private func issueTicket() {
        ticketAt = home.loop.now
        socket.issueTicket()
    }

    // MARK: Heartbeat

    /// Spread over the interval the first time, then within the jitter of it, so that beats of many links never align.
    private func beatLater(first: Bool) {
        guard let timer else { return }
        let interval = heartbeatSeconds * 1_000
        let random = Random.uint64()
        home.loop.schedule(
            timer,
            afterMilliseconds: first
                ? random % interval + 1 : Self.beatDelay(interval, jitterPercent: UInt64(jitterPercent), random: random))
    }

    static func beatDelay(_ interval: UInt64, jitterPercent: UInt64, random: UInt64) -> UInt64 {
        let reach = interval * min(jitterPercent, 50) / 100
        return interval - reach + random % (2 * reach + 1)
    }

    private func timerFired() {
        switch phase {
        case .handshake: refuse("handshake-timeout", "the handshake took more than 10 seconds")
        case .deciding: refuse("unavailable", "the core cannot decide now; try again")
        case .pending, .active:
            let now = home.loop.now
            guard now &- heardAt <= (Self.missedBeats * heartbeatSeconds + heartbeatSeconds / 2) * 1_000_000_000 else {
                return end(LinkEnd(code: "timeout", detail: "no answer to \(Self.missedBeats) heartbeats"), tellAgent: true)
            }
            if phase == .active {
                if now &- ticketAt > Self.ticketNanoseconds { issueTicket() }
                beatSentAt = now
                write { $0.frame(.beat, offset: now) }
            } else {
                // A pending agent has no rights; a WebSocket ping keeps the path open and shows that it is there.
                socket.ping([UInt8]().span.bytes)
            }
            beatLater(first: false)
        case .closed: break
        }
    }

    func webSocket(_ socket: WebSocketConnection, pong payload: RawSpan) { heardAt = home.loop.now }

    func webSocketDrained(_ socket: WebSocketConnection) { pumpTransfers() }

    /// What waits for an agent that does not read, or not so fast: bulk is no longer added.
    var isOverHighMark: Bool { socket.isOverHighMark }

    // MARK: The end

    private func fail(_ error: WireError) {
        if let link {
            endpoint.authority.violated(link, code: error.code.rawValue, message: error.detail)
            end(LinkEnd(code: error.code.rawValue, detail: error.detail), tellAgent: true)
        } else {
            refuse(error.code.rawValue, error.detail)
        }
    }

    /// Turns an agent away that is not accepted.
    private func refuse(_ code: String, _ message: String) {
        guard phase != .closed else { return }
        noteFailure(code, message)
        let farewell = Farewell(code: code, message: message)
        write { $0.frame(.refused, payload: farewell.payload) }
        socket.close(.policyViolation, code)
        over(LinkEnd(code: code, detail: message))
    }

    /// Ends an accepted link (or one that waits), with a farewell if the agent is to hear one.
    func end(_ end: LinkEnd, tellAgent: Bool, reconnectAfter: UInt64? = nil) {
        guard phase != .closed else { return }
        if tellAgent {
            let farewell = Farewell(
                code: end.code, message: end.detail, reconnectAfterMilliseconds: reconnectAfter)
            write { $0.frame(.close, payload: farewell.payload) }
        }
        socket.close(end.code == "core-stopping" ? .goingAway : .normal, end.code)
        over(end)
    }

    func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String) {
        guard phase != .closed else { return }
        let end = LinkEnd(code: code == .abnormal ? "lost" : "closed", detail: "\(code.rawValue) \(reason)")
        if link == nil {
            noteFailure(end.code, end.detail)
        }
        over(end)
    }

    private func noteFailure(_ code: String, _ message: String) {
        endpoint.authority.handshakeFailed(
            HandshakeFailure(
                address: address, client: opening?.claimed, provedKey: opening?.proved?.fingerprint, code: code,
                message: message))
    }

    private func over(_ end: LinkEnd) {
        leaveHandshake()
        phase = .closed
        if let timer { home.loop.cancel(timer) }
        timer = nil
        livenessEnded(false)
        opening = nil
        seal = nil
        channels = CoreChannelsStateMachine()
        settled = []
        home.remove(self)
        guard let link else { return }
        self.link = nil
        leaveTerminals(link)
        leavePrivateFiles(link)
        endpoint.sink.linkLost(link)
        endpoint.authority.linkDown(link, end)
        // Last: what it gives back is begun anew at once, over whatever link there is then.
        leaveTransfers()
    }
}
