import Reactor

/// Hears of one WebSocket. Called on its loop; the connection holds it until `webSocketClosed`, the last call.
public protocol WebSocketDelegate: AnyObject {
    /// A whole message; the bytes are valid only during the call. Text has been checked to be UTF-8.
    func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool)
    func webSocket(_ socket: WebSocketConnection, pong payload: RawSpan)
    /// `bufferedBytes` has gone down from over 256 KiB to 64 KiB or less.
    func webSocketDrained(_ socket: WebSocketConnection)
    /// The end: the code of the peer's close frame, or of ours if the peer broke the rules, or `abnormal` (1006).
    func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String)
}

extension WebSocketDelegate {
    public func webSocket(_ socket: WebSocketConnection, pong payload: RawSpan) {}
    public func webSocketDrained(_ socket: WebSocketConnection) {}
}

/// One side of a WebSocket (RFC 6455), confined to its loop. Set `delegate` before the present call returns.
public final class WebSocketConnection: StreamHandler {
    /// How long a peer may take to answer our close frame.
    private static let closeMilliseconds: UInt64 = 5_000

    @exclusivity(unchecked) public var delegate: (any WebSocketDelegate)?
    /// What both sides agreed to; nil without one.
    public let subprotocol: String?
    public let role: WebSocketRole

    /// Closing sets `handler` of the stream to nil, which ends this cycle.
    private let stream: ByteStream
    @exclusivity(unchecked) private var input: WebSocketInputStateMachine
    private var state = State.open
    private var end: (WebSocketCloseCode, String)?
    private var closeTimer: Timer?
    /// Where it came in; nil on the client's side.
    private let listener: Listener?

    private enum State {
        case open
        /// Our close frame is out; the peer's is due.
        case closing
        case closed
    }

    init(
        stream: ByteStream, role: WebSocketRole, maximumMessage: Int, subprotocol: String?, listener: Listener?
    ) {
        self.stream = stream
        self.role = role
        self.subprotocol = subprotocol
        self.listener = listener
        input = WebSocketInputStateMachine(role: role, maximumMessage: maximumMessage)
    }

    public var loop: EventLoop { stream.loop }
    public var peer: SocketAddress { stream.peer }
    public var isOpen: Bool { state == .open }
    /// Bytes that wait for the peer to read. Stop sending bulk data above `highMark`; above the bound (16 MiB unless
    /// `setOutputBound` says otherwise) the connection ends.
    public var bufferedBytes: Int { stream.bufferedBytes }
    public static var highMark: Int { ByteStream.highMark }
    public var isOverHighMark: Bool { stream.isOverHighMark }

    public func setOutputBound(_ bytes: Int) { stream.outputBound = UInt32(clamping: bytes) }

    /// Back-pressure on the peer: after `pauseReading` at most what has been read already is still delivered.
    public func pauseReading() { stream.pause() }
    public func resumeReading() { stream.resume() }

    public var isSecure: Bool { stream.isSecure }

    /// The peer has shown who it is: it no longer counts against its address's limit of unauthenticated connections.
    public func markAuthenticated() { listener?.authenticated(stream) }

    /// RFC 5705 keying material of the TLS connection below, the same on both sides and on no other connection. nil
    /// without TLS, or where TLS 1.2 lacks the extended master secret.
    public func exportKeyingMaterial(label: String, context: [UInt8]? = nil, count: Int) -> [UInt8]? {
        stream.tlsSession?.exportKeyingMaterial(label: label, context: context, count: count)
    }

    /// Sends the peer a TLS session ticket with the next message: it comes back without certificates and signatures. For
    /// peers that have shown who they are.
    public func issueTicket() { stream.tlsSession?.issueTicket() }

    /// TLS was resumed with such a ticket.
    public var isResumed: Bool { stream.tlsSession?.isResumed ?? false }

    // MARK: Sending

    /// Sends one message. False when the socket is not open (the message is dropped). Text must be UTF-8.
    @discardableResult
    public func send(_ message: RawSpan, isText: Bool = false) -> Bool {
        guard state == .open else { return false }
        frame(isText ? .text : .binary, message, final: true)
        return !stream.isClosed
    }

    @discardableResult
    public func send(_ message: [UInt8], isText: Bool = false) -> Bool { send(message.span.bytes, isText: isText) }

    @discardableResult
    public func send(text: String) -> Bool { send(text.utf8Span.span.bytes, isText: true) }

    /// Sends one binary message, `head` and then `body`, without joining them first: for a large `body`.
    @discardableResult
    public func send(_ head: RawSpan, _ body: RawSpan) -> Bool {
        guard state == .open else { return false }
        let key = role == .server ? nil : stream.shared.nextMask()
        stream.send(
            header: WebSocketFrameHeader(opcode: .binary, final: true, payload: head.byteCount + body.byteCount, mask: key),
            head: head, body: body, maskedWith: key)
        return !stream.isClosed
    }

    /// A message in fragments: pings and pongs may go between them, other messages may not.
    @discardableResult
    public func sendFragment(_ part: RawSpan, isText: Bool, isFirst: Bool, isLast: Bool) -> Bool {
        guard state == .open else { return false }
        frame(isFirst ? (isText ? .text : .binary) : .continuation, part, final: isLast)
        return !stream.isClosed
    }

    /// At most 125 bytes; more is cut off.
    public func ping(_ payload: RawSpan) {
        guard state == .open else { return }
        frame(.ping, payload.extracting(0..<min(payload.byteCount, 125)), final: true)
    }

    @inline(__always)
    private func frame(_ opcode: WebSocketOpcode, _ payload: RawSpan, final: Bool) {
        if role == .server {
            stream.send(
                header: WebSocketFrameHeader(opcode: opcode, final: final, payload: payload.byteCount, mask: nil),
                payload: payload)
        } else {
            let key = stream.shared.nextMask()
            stream.send(
                header: WebSocketFrameHeader(opcode: opcode, final: final, payload: payload.byteCount, mask: key),
                payload: payload, maskedWith: key)
        }
    }

    // MARK: Closing

    /// Starts the close handshake; `webSocketClosed` follows when the peer answers, or after 5 s.
    public func close(_ code: WebSocketCloseCode = .normal, _ reason: String = "") {
        guard state == .open else { return }
        state = .closing
        sendClose(code, reason)
        guard !stream.isClosed else { return }
        let timer = Timer { [weak stream] in stream?.close(.timeout("the peer did not answer the close frame")) }
        closeTimer = timer
        stream.loop.schedule(timer, afterMilliseconds: Self.closeMilliseconds)
        // A paused reader would never see the answer.
        stream.resume()
    }

    /// Ends the connection at once, without a close frame.
    public func abort() {
        state = .closed
        stream.close(.closed)
    }

    private func sendClose(_ code: WebSocketCloseCode, _ reason: String) {
        var payload: [UInt8] = []
        if code.isAllowedOnTheWire {
            payload = [UInt8(code.rawValue >> 8), UInt8(code.rawValue & 0xFF)]
            // A control frame holds 125 bytes; a character must not be cut.
            for character in reason {
                let bytes = Array(String(character).utf8)
                guard payload.count + bytes.count <= 125 else { break }
                payload += bytes
            }
        }
        frame(.close, payload.span.bytes, final: true)
    }

    private func refuse(_ refusal: WebSocketRefusal) {
        end = end ?? (refusal.code, refusal.reason)
        if state == .open { sendClose(refusal.code, refusal.reason) }
        finish()
    }

    /// Both close frames are done with, or never will be: the connection ends when ours is out.
    private func finish() {
        state = .closed
        if closeTimer == nil, !stream.isClosed {
            let timer = Timer { [weak stream] in stream?.close(.closed) }
            closeTimer = timer
            stream.loop.schedule(timer, afterMilliseconds: Self.closeMilliseconds)
        }
        stream.closeAfterFlush(lingering: true)
    }

    // MARK: Stream

    override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
        var offset = 0
        do throws(WebSocketRefusal) {
            while state != .closed {
                switch try input.next(&bytes, from: offset) {
                case .message(let opcode, let range):
                    offset = range.upperBound
                    if state == .open {
                        delegate?.webSocket(self, received: bytes.bytes.extracting(range), isText: opcode == .text)
                    }
                case .assembled(let opcode):
                    offset = input.resume
                    let message = input.takeAssembled()
                    if state == .open {
                        delegate?.webSocket(self, received: message.span.bytes, isText: opcode == .text)
                    }
                case .control(let opcode, let range):
                    offset = range.upperBound
                    let payload = bytes.bytes.extracting(range)
                    if opcode == .pong {
                        delegate?.webSocket(self, pong: payload)
                    } else if state == .open, !stream.isOverHighMark {
                        // RFC 6455 §5.5.3 allows to answer the latest ping only; one that does not read gets none.
                        frame(.pong, payload, final: true)
                    }
                case .close(let code, let range):
                    end = end ?? (code, String(repairing: Span(_bytes: bytes.bytes.extracting(range))))
                    if state == .open { sendClose(code, "") }
                    finish()
                case .more(let consumed):
                    return consumed
                }
                if stream.isPaused { return offset }
            }
        } catch {
            refuse(error)
        }
        return bytes.byteCount
    }

    override func drained(_ stream: ByteStream) { delegate?.webSocketDrained(self) }

    override func closed(_ stream: ByteStream, _ reason: StreamEnd) {
        state = .closed
        if let closeTimer { stream.loop.cancel(closeTimer) }
        closeTimer = nil
        let (code, text) = end ?? (.abnormal, reason.error.message)
        let delegate = delegate
        self.delegate = nil
        listener?.ended(stream)
        delegate?.webSocketClosed(self, code, text)
    }
}
