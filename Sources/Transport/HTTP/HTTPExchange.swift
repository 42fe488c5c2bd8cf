import Reactor

/// Hears of one exchange. Called on the connection's loop.
public protocol HTTPExchangeDelegate: AnyObject {
    /// A piece of the request's body; valid only during the call.
    func exchange(_ exchange: HTTPExchange, body: RawSpan)
    /// All of the body that has arrived was delivered, and it is not the end: the peer takes its time, or sends much.
    func exchangeBodyWaits(_ exchange: HTTPExchange)
    /// The request's body is complete.
    func exchangeBodyEnded(_ exchange: HTTPExchange)
    /// What waited to be sent has gone down: write on.
    func exchangeDrained(_ exchange: HTTPExchange)
    /// The exchange is over: nil after a complete answer, else why it cannot be answered any more.
    func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?)
}

extension HTTPExchangeDelegate {
    public func exchangeBodyWaits(_ exchange: HTTPExchange) {}
    public func exchangeDrained(_ exchange: HTTPExchange) {}
}

/// Answers requests. One instance per loop; called on that loop.
public protocol HTTPService: AnyObject {
    /// A request's head has arrived. Answer at once, or keep the exchange and answer later; read the body with
    /// `readBody(to:)` or the async calls. Each exchange must be answered or aborted in the end.
    func exchangeBegan(_ exchange: HTTPExchange)
}

/// One request and its answer, confined to the connection's loop. Calls after the end do nothing.
public final class HTTPExchange {
    public let head: HTTPRequestHead
    /// The client's address, after trusted proxies were taken off.
    public let address: IPAddress
    /// Whether the request came over TLS to us (not to a proxy).
    public let isSecure: Bool
    weak var connection: HTTPServerConnection?

    enum AnswerState: Equatable {
        case none
        /// Head sent; a body of known length, of which this much is missing.
        case length(UInt64)
        case chunked
        case untilClose
        /// The answer has no body whatever is written (HEAD).
        case ignored
        case done
        /// Over without a complete answer.
        case failed
    }
    var answer = AnswerState.none
    var delegate: (any HTTPExchangeDelegate)?
    var bodyEnded: Bool
    /// Set once somebody wants the body; until then it is not read.
    var bodyWanted = false
    lazy var inbox = HTTPExchangeInbox()

    init(head: HTTPRequestHead, address: IPAddress, isSecure: Bool, connection: HTTPServerConnection) {
        self.head = head
        self.address = address
        self.isSecure = isSecure
        self.connection = connection
        bodyEnded = head.framing == .none || head.framing == .length(0)
    }

    /// `address` as text, made once for all requests of a connection.
    public var addressText: String { connection?.text(of: address) ?? address.description }

    public var loop: EventLoop? { connection?.stream.loop }
    public var isOver: Bool { answer == .done || answer == .failed }
    /// Whether an answer's head has gone out.
    public var isAnswered: Bool { answer != .none }

    /// The connection's peer has shown who it is: it no longer counts against the limits of unauthenticated
    /// connections of its address.
    public func markAuthenticated() { connection?.markAuthenticated() }

    /// The certificate (DER) that the client showed and that one of the server's client authorities signed.
    public var clientCertificate: [UInt8]? { connection?.stream.tlsSession?.peerCertificate() }

    // MARK: Body

    /// Has the body delivered to `delegate` from now on; it also hears of the exchange's end. Sends `100 Continue` if
    /// the client waits for that.
    public func readBody(to delegate: any HTTPExchangeDelegate) {
        self.delegate = delegate
        startBody()
    }

    /// Hears of drain and end, without reading the body.
    public func observe(by delegate: any HTTPExchangeDelegate) { self.delegate = delegate }

    func startBody() {
        guard !bodyWanted else { return }
        bodyWanted = true
        connection?.bodyIsWanted(self)
    }

    /// Stops the delivery of body bytes after the present piece: back-pressure reaches the client.
    public func pauseBody() { connection?.pauseBody(self) }
    public func resumeBody() { connection?.resumeBody(self) }

    // MARK: Answer

    /// The whole answer at once.
    public func respond(_ status: Int, _ headers: HTTPHeaders = [:], body: RawSpan) {
        guard answer == .none else { return }
        connection?.respond(self, status, headers, body)
    }

    public func respond(_ status: Int, _ headers: HTTPHeaders = [:], body: [UInt8] = []) {
        respond(status, headers, body: body.span.bytes)
    }

    /// Begins a streamed answer: `length` bytes if known, else chunked (or until the end of the connection for an
    /// HTTP/1.0 client).
    public func begin(_ status: Int, _ headers: HTTPHeaders = [:], length: UInt64? = nil) {
        guard answer == .none else { return }
        connection?.begin(self, status, headers, length: length)
    }

    /// Sends a piece of the body. False when too much waits already: stop until `exchangeDrained`.
    @discardableResult
    public func write(_ bytes: RawSpan) -> Bool { connection?.write(self, bytes) ?? false }

    /// The answer is complete.
    public func finish() { connection?.finish(self) }

    /// Ends the connection without completing the answer, so that the client cannot take it for complete.
    public func abort() { connection?.abort(self) }

    /// Bytes that wait for the client to read.
    public var bufferedBytes: Int { connection?.stream.bufferedBytes ?? 0 }

    /// Too much waits already: stop writing until `exchangeDrained`.
    public var isOverHighMark: Bool { connection?.stream.isOverHighMark ?? false }

    /// Takes the connection over to WebSocket. Throws what the client should be answered with instead: `refuse` sends it.
    /// `subprotocol` must be one that the client offered (`WebSocketHandshake.offered`).
    public func upgrade(
        subprotocol: String? = nil, maximumMessage: Int? = nil, headers: HTTPHeaders = [:]
    ) throws(HTTPRefusal) -> WebSocketConnection {
        let key = try WebSocketHandshake.checkRequest(head)
        guard let connection, answer == .none else { throw HTTPRefusal(500, "the exchange is already answered") }
        return connection.upgrade(
            self, key: key, subprotocol: subprotocol, maximumMessage: maximumMessage, headers: headers)
    }

    /// Answers with a refusal's status and message as plain text.
    public func refuse(_ refusal: HTTPRefusal) {
        var headers: HTTPHeaders = ["content-type": "text/plain; charset=utf-8"]
        if refusal.status == 426 { headers.add("sec-websocket-version", "13") }
        respond(refusal.status, headers, body: Array("\(refusal.message)\n".utf8))
    }
}
