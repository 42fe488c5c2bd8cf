import Kernel
import Reactor
import Transport

/// Serves the route table on one loop: collects a request's body within its route's limit, runs the pipeline as one task
/// on the loop, writes the answer.
public final class WebService: HTTPService {
    /// Takes an exchange over instead of the pipeline (agents connect so). Called on the loop.
    public typealias Takeover = (HTTPExchange) -> Void

    let pipeline: Pipeline
    let loop: EventLoop
    let sockets: SocketClock
    private let takeovers: [(path: String, takeover: Takeover)]
    private var routes: RouteTable.Reader

    public init(
        pipeline: Pipeline, loop: EventLoop, takeovers: [String: Takeover] = [:], times: WebSocketTimes = WebSocketTimes()
    ) {
        self.pipeline = pipeline
        self.loop = loop
        self.takeovers = takeovers.map { ($0.key, $0.value) }
        sockets = SocketClock(loop, times)
        routes = RouteTable.Reader(pipeline.table)
    }

    public func exchangeBegan(_ exchange: HTTPExchange) {
        for (path, takeover) in takeovers where exchange.head.isPath(path) { return takeover(exchange) }
        let address = exchange.addressText
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
            if matched.route.body.isStreamed {
                run(matched, exchange, body: nil, address: address)
            } else if exchange.head.expectsContinue, !matched.isOpen {
                checkWhoAsks(matched, exchange, address)
            } else {
                collect(matched, exchange, address)
            }
        }
    }

    private func collect(_ matched: Pipeline.Matched, _ exchange: HTTPExchange, _ address: String) {
        exchange.readBody(to: BodyCollector(self, matched, address))
    }

    /// The body is there; `nil` when it was longer than its route takes.
    func collected(_ matched: Pipeline.Matched, _ exchange: HTTPExchange, _ body: [UInt8]?, _ address: String) {
        guard let body else {
            let problem = WebService.tooLarge(matched.route.body.limit)
            return AnswerWriter(exchange, loop).answer(problem.response(correlation: matched.correlation))
        }
        run(matched, exchange, body: body, address: address)
    }

    /// One that asks before it sends a body is told to go on (RFC 9110 §10.1.1) only if it may.
    private func checkWhoAsks(_ matched: Pipeline.Matched, _ exchange: HTTPExchange, _ address: String) {
        let service = Confined(self, on: loop)
        let confined = Confined(exchange, on: loop)
        let head = exchange.head
        loop.spawn { [pipeline, loop] in
            let refusal = await pipeline.refusal(of: matched, head, address: address)
            confined.assumeOnLoop { exchange in
                guard !exchange.isOver else { return }
                if let refusal { return AnswerWriter(exchange, loop).answer(refusal) }
                exchange.markAuthenticated()
                service.assumeOnLoop { $0.collect(matched, exchange, address) }
            }
        }
    }

    /// A body that did not come with its head is waited for only if its sender may send it: nobody makes the core keep
    /// bytes, or a place among its connections, without the right to what they ask for.
    func checkWhoSends(
        _ matched: Pipeline.Matched, _ exchange: HTTPExchange, _ collector: BodyCollector, _ address: String
    ) {
        // One that asked first was checked then.
        guard !matched.isOpen, !exchange.head.expectsContinue else { return }
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

    /// - Parameter body: nil while it is still with its sender.
    private func run(_ matched: Pipeline.Matched, _ exchange: HTTPExchange, body: [UInt8]?, address: String) {
        let writer = AnswerWriter(exchange, loop)
        exchange.observe(by: writer)
        let confined = Confined(writer, on: loop)
        let service = Confined(self, on: loop)
        let head = exchange.head
        let task = loop.spawn { [pipeline, loop] in
            let admittance = await pipeline.admit(matched, head, body: body ?? [], address: address, loop: loop) {
                confined.assumeOnLoop { $0.markAuthenticated() }
            }
            switch admittance {
            case .refused(let response): confined.assumeOnLoop { $0.answer(response) }
            case .admitted(let admission):
                // What nearly all requests are, apart from the rest: a task keeps the frame of the largest way through.
                if body != nil, case .answer(let handler) = admission.matched.route.action, !admission.matched.route.body.isStreamed {
                    await WebService.answer(await pipeline.answer(admission, head, handler), confined)
                } else {
                    await WebService.serve(admission, head, body: body, service, confined)
                }
            }
        }
        writer.task = task
    }

    private static func serve(
        _ admission: Pipeline.Admission, _ head: HTTPRequestHead, body: [UInt8]?, _ service: Confined<WebService>,
        _ writer: Confined<AnswerWriter>
    ) async {
        let route = admission.matched.route
        let pipeline = service.assumeOnLoop { $0.pipeline }
        guard body != nil || route.body.isStreamed else {
            // Its owner was replaced while the request waited, and the new route would have it whole.
            let problem = Problem(503, "plugin-suspended", "this operation has changed meanwhile; send the request again", retryAfter: 1)
            let response = problem.response(correlation: admission.matched.correlation)
            return writer.assumeOnLoop { $0.answer(pipeline.complete(response, admission, head)) }
        }
        switch route.action {
        case .answer(let handler):
            let stream = body.map { RequestBody($0) } ?? RequestBody(writer, limit: route.body.limit)
            writer.assumeOnLoop { $0.attach(stream) }
            // A long body ends with the credential that began it, as long answers do.
            let revoked = Problem(401, "token-revoked", "the token or its subject was revoked while the body came")
            let watch = pipeline.watch(admission.request.principal) { stream.cut(revoked) }
            if watch == nil { stream.cut(revoked) }
            await answer(await pipeline.answer(admission.reading(stream), head, handler), writer)
            withExtendedLifetime(watch) {}
        case .exchange(let timeout, let handler), .webSocket(_, let timeout, let handler):
            service.assumeOnLoop { service in
                writer.assumeOnLoop { writer in
                    writer.handOver { exchange in
                        ExchangeBridge.run(
                            exchange, admission, service, timeoutMilliseconds: timeout, body: route.body.isStreamed ? body : [],
                            handler)
                    }
                }
            }
        }
    }

    private static func answer(_ response: Response, _ writer: Confined<AnswerWriter>) async {
        guard case .stream(_, let produce) = response.body else {
            return writer.assumeOnLoop { $0.answer(response) }
        }
        guard let stream = writer.assumeOnLoop({ $0.begin(response) }) else { return }
        do throws(StreamClosed) {
            try await produce(stream)
            writer.assumeOnLoop { $0.finish() }
        } catch {
            writer.assumeOnLoop { $0.abort() }
        }
    }
}
