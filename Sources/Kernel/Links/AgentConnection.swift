import AgentProtocol
import Crypto
import JSON
import Reactor
import Transport

/// One agent's connection, confined to its loop: what it holds, its frames in and out, and its end. What the frames are
/// about is in the extensions beside this file.
///
/// An idle accepted link costs this object, a timer, its handle and the peer's key: about 1 KiB.
final class AgentConnection: WebSocketDelegate {
    static let subprotocol = "client-manager.v1"
    /// What may wait for an agent that does not read: a few of the largest orders. More ends the link.
    static let outputBound = 4 << 20

    enum Phase {
        case handshake, deciding, pending, active, closed
    }

    final class Seal {
        var channel: SealedChannel
        init(_ channel: SealedChannel) { self.channel = channel }
    }

    let socket: WebSocketConnection
    let home: LinkHome
    let address: String
    /// In the home's list.
    var place = 0

    // What each message touches is not checked for exclusivity: it is confined to the loop, and no access lasts over a call.
    @exclusivity(unchecked) var phase = Phase.handshake
    var opening: Opening?
    @exclusivity(unchecked) var seal: Seal?
    @exclusivity(unchecked) var link: AgentLink?
    @exclusivity(unchecked) var channels = CoreChannelsStateMachine()
    var terminals: LinkTerminals?
    var transfers: LinkTransfers?
    var hasReported = false
    var privateFiles: LinkPrivateFiles?
    var releaseRequests = ReleaseRequests()
    /// SubjectPublicKeyInfo that the agent proved.
    var agentKey: [UInt8] = []
    var liveness: Liveness?
    var timer: Timer?
    /// Commands whose ends are durable and whose agent does not know it yet: the word rides with the next message, or
    /// goes alone when the home says so.
    @exclusivity(unchecked) var settled: [CommandID] = []
    /// Counts the times that there was something in it anew.
    @exclusivity(unchecked) var debt: UInt32 = 0

    var heartbeatSeconds: UInt64 = 15
    var jitterPercent: UInt8 = 10
    /// Loop time in nanoseconds.
    @exclusivity(unchecked) var heardAt: UInt64 = 0
    var beatSentAt: UInt64 = 0
    var ticketAt: UInt64 = 0

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

    // MARK: Frames

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

    private func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard let link else { return }
        switch header.kind {
        case .beatAnswer: try beatAnswered(link, header, payload)
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
        default: try receiveCommand(link, header, payload)
        }
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

    func move(_ statement: MoveStatement) {
        guard phase == .active else { return }
        write { $0.frame(.move, payload: statement.payload) }
    }

    func webSocketDrained(_ socket: WebSocketConnection) { pumpTransfers() }

    /// What waits for an agent that does not read, or not so fast: bulk is no longer added.
    var isOverHighMark: Bool { socket.isOverHighMark }

    // MARK: The end

    func fail(_ error: WireError) {
        if let link {
            endpoint.authority.violated(link, code: error.code.rawValue, message: error.detail)
            end(LinkEnd(code: error.code.rawValue, detail: error.detail), tellAgent: true)
        } else {
            refuse(error.code.rawValue, error.detail)
        }
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

    func over(_ end: LinkEnd) {
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
