import Kernel
import Reactor
import Transport

/// Serves the route table on one loop: collects a request's body within its route's limit, runs the pipeline as one task
/// on the loop, writes the answer.
public final class WebService: HTTPService {
    /// Takes an exchange over instead of the pipeline (agents connect so). Called on the loop.
    public typealias Takeover = (HTTPExchange) -> Void

    private let pipeline: Pipeline
    private let loop: EventLoop
    private let takeovers: [String: Takeover]
    private var routes: RouteTable.Reader

    public init(pipeline: Pipeline, loop: EventLoop, takeovers: [String: Takeover] = [:]) {
        self.pipeline = pipeline
        self.loop = loop
        self.takeovers = takeovers
        routes = RouteTable.Reader(pipeline.table)
    }

    public func exchangeBegan(_ exchange: HTTPExchange) {
        if !takeovers.isEmpty, let takeover = takeovers[String(exchange.head.path)] {
            takeover(exchange)
            return
        }
        let address = exchange.address.description
        switch pipeline.plan(exchange.head, address: address, in: routes.current()) {
        case .refuse(let response):
            AnswerWriter(exchange, loop).answer(response)
        case .accept(let matched, let bodyLimit):
            if exchange.head.framing == .none || exchange.head.framing == .length(0) {
                run(matched, exchange, body: [], address: address)
                return
            }
            if case .length(let length) = exchange.head.framing, length > UInt64(bodyLimit) {
                AnswerWriter(exchange, loop).answer(WebService.tooLarge(bodyLimit).response(correlation: matched.correlation))
                return
            }
            let collector = BodyCollector(
                limit: bodyLimit, waits: { [self] exchange, collector in
                    checkWhoSends(matched, exchange, collector, address)
                },
                done: { [self] exchange, body in
                    guard let body else {
                        AnswerWriter(exchange, loop)
                            .answer(WebService.tooLarge(bodyLimit).response(correlation: matched.correlation))
                        return
                    }
                    run(matched, exchange, body: body, address: address)
                })
            exchange.readBody(to: collector)
        }
    }

    /// A body that did not come with its head is waited for only if its sender may send it: nobody makes the core keep
    /// bytes, or a place among its connections, without the right to what they ask for.
    private func checkWhoSends(
        _ matched: Pipeline.Matched, _ exchange: HTTPExchange, _ collector: BodyCollector, _ address: String
    ) {
        guard !matched.isOpen else { return }
        let confined = Confined(exchange, on: loop)
        let waiting = Confined(collector, on: loop)
        let head = exchange.head
        loop.spawn { [pipeline, loop] in
            guard let refusal = await pipeline.refusal(of: matched, head, address: address) else {
                return confined.assumeOnLoop { $0.markAuthenticated() }
            }
            confined.assumeOnLoop { exchange in
                guard waiting.assumeOnLoop({ $0.giveUp() }), !exchange.isOver else { return }
                AnswerWriter(exchange, loop).answer(refusal)
            }
        }
    }

    static func tooLarge(_ limit: Int) -> Problem {
        limit == 0
            ? Problem(400, "invalid", "this operation takes no body")
            : Problem(413, "too-large", "the body is longer than \(limit) bytes, the limit of this operation")
    }

    private func run(_ matched: Pipeline.Matched, _ exchange: HTTPExchange, body: [UInt8], address: String) {
        let writer = AnswerWriter(exchange, loop)
        exchange.observe(by: writer)
        let confined = Confined(writer, on: loop)
        let head = exchange.head
        let task = loop.spawn { [pipeline, loop] in
            let response = await pipeline.answer(matched, head, body: body, address: address, loop: loop) {
                confined.assumeOnLoop { $0.markAuthenticated() }
            }
            guard case .stream(_, let produce) = response.body else {
                confined.assumeOnLoop { $0.answer(response) }
                return
            }
            guard let stream = confined.assumeOnLoop({ $0.begin(response) }) else { return }
            do throws(StreamClosed) {
                try await produce(stream)
                confined.assumeOnLoop { $0.finish() }
            } catch {
                confined.assumeOnLoop { $0.abort() }
            }
        }
        writer.task = task
    }
}

/// Collects a body up to a limit, then hands it on once: `nil` when it was longer.
private final class BodyCollector: HTTPExchangeDelegate {
    private let limit: Int
    private var bytes: [UInt8] = []
    private var waits: ((HTTPExchange, BodyCollector) -> Void)?
    private var done: ((HTTPExchange, [UInt8]?) -> Void)?

    /// - Parameter waits: called once, if the body is not there with its head.
    init(
        limit: Int, waits: @escaping (HTTPExchange, BodyCollector) -> Void,
        done: @escaping (HTTPExchange, [UInt8]?) -> Void
    ) {
        self.limit = limit
        self.waits = waits
        self.done = done
    }

    func exchangeBodyWaits(_ exchange: HTTPExchange) {
        let waits = self.waits
        self.waits = nil
        waits?(exchange, self)
    }

    /// The body is not wanted any more. False if it was handed on, or its sender left, before.
    func giveUp() -> Bool {
        defer { done = nil }
        return done != nil
    }

    func exchange(_ exchange: HTTPExchange, body: RawSpan) {
        guard done != nil else { return }
        guard bytes.count + body.byteCount <= limit else { return complete(exchange, nil) }
        body.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }

    func exchangeBodyEnded(_ exchange: HTTPExchange) { complete(exchange, bytes) }
    func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?) {
        waits = nil
        done = nil
    }

    private func complete(_ exchange: HTTPExchange, _ body: [UInt8]?) {
        let done = self.done
        waits = nil
        self.done = nil
        done?(exchange, body)
    }
}

/// Writes one answer to one exchange, on its loop.
private final class AnswerWriter: HTTPExchangeDelegate, ResponseSink {
    private let exchange: HTTPExchange
    private let loop: EventLoop
    private var stream: ResponseWriter?
    private var isFull = false
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

    func exchange(_ exchange: HTTPExchange, body: RawSpan) {}
    func exchangeBodyEnded(_ exchange: HTTPExchange) {}

    func exchangeDrained(_ exchange: HTTPExchange) {
        isFull = false
        stream?.drained()
    }

    func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?) {
        stream?.close()
        if error != nil { task?.cancel() }
        task = nil
    }
}
