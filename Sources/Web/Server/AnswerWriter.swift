import Reactor
import Transport

/// Writes one answer to one exchange, on its loop.
final class AnswerWriter: HTTPExchangeDelegate, ResponseSink {
    private let exchange: HTTPExchange
    private let loop: EventLoop
    private var stream: ResponseWriter?
    private var isFull = false
    /// A body that the handler reads piece by piece.
    private var body: RequestBody?
    private var bodyStarted = false
    /// The handler; cancelled when the peer goes away, so that nothing waits for a reader that is gone.
    var task: Task<Void, Never>?

    init(_ exchange: HTTPExchange, _ loop: EventLoop) {
        self.exchange = exchange
        self.loop = loop
    }

    /// The connection no longer counts against the strangers of its address.
    func markAuthenticated() { exchange.markAuthenticated() }

    func answer(_ response: Response) {
        switch response.body {
        case .bytes(let bytes): exchange.respond(response.status, response.headers, body: bytes)
        case .stream: exchange.respond(500)
        }
    }

    func begin(_ response: Response) -> ResponseWriter? {
        guard case .stream(let length, _) = response.body, !exchange.isOver else { return nil }
        exchange.begin(response.status, response.headers, length: length)
        let stream = ResponseWriter(sink: Confined(self, on: loop))
        self.stream = stream
        return stream
    }

    func writeBody(_ bytes: [UInt8]) -> Bool {
        guard !exchange.isOver else { return false }
        isFull = !exchange.write(bytes.span.bytes)
        return true
    }

    var isOverHighMark: Bool { isFull && !exchange.isOver }

    func finish() { exchange.finish() }
    func abort() { exchange.abort() }

    /// Somebody else answers this exchange from here on.
    func handOver(_ taker: (HTTPExchange) -> Void) {
        guard !exchange.isOver else { return }
        taker(exchange)
    }

    func attach(_ body: RequestBody) {
        if exchange.isOver { body.broken() } else { self.body = body }
    }

    /// The handler asks for the body: only now it is read, and `100 Continue` sent.
    func wantBody() {
        guard !bodyStarted else { return }
        bodyStarted = true
        exchange.readBody(to: self)
    }

    func resumeBody() { exchange.resumeBody() }

    func exchange(_ exchange: HTTPExchange, body piece: RawSpan) {
        if let body, body.arrived(piece) { exchange.pauseBody() }
    }

    func exchangeBodyEnded(_ exchange: HTTPExchange) { body?.completed() }

    func exchangeDrained(_ exchange: HTTPExchange) {
        isFull = false
        stream?.drained()
    }

    func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?) {
        stream?.close()
        body?.broken()
        body = nil
        if error != nil { task?.cancel() }
        task = nil
    }
}
