import Kernel
import Reactor
import Transport

/// The loop's side of a `ResponseHandle`: body to the handler within its credit, answer to the connection, time.
final class ExchangeBridge: HTTPExchangeDelegate {
    /// Without a write, a piece of body or a request for more, a begun answer is broken off.
    private static let idleMilliseconds: UInt64 = 300_000

    private let exchange: HTTPExchange
    private let loop: EventLoop
    private let admission: Pipeline.Admission
    private let service: WebService
    private let timeoutMilliseconds: UInt64
    /// Nil after the end, which breaks the cycle of bridge and core.
    private var core: ResponseCore?
    private var receiver: (any ExchangeReceiver)?
    private var timer: Timer?
    private var lastActivity: UInt64
    /// Of the credential, while an answer is on its way.
    private var watch: AnyObject?

    private var credit: UInt64 = 0
    private var total: UInt64 = 0
    /// Arrived beyond the credit; at most one read of the connection.
    private var leftover: [UInt8] = []
    private var bodyStarted = false
    private var bodyEnded = false
    private var bodyDelivered = false

    /// Starts the handler on its request.
    /// - Parameter body: of a streamed body what is there already: all of it, or nil for nothing yet.
    static func run(
        _ exchange: HTTPExchange, _ admission: Pipeline.Admission, _ service: WebService, timeoutMilliseconds: UInt64,
        body: [UInt8]?, _ handler: ExchangeHandler
    ) {
        let bridge = ExchangeBridge(exchange, admission, service, timeoutMilliseconds)
        if let body {
            bridge.leftover = body
            bridge.bodyEnded = true
        }
        bridge.bodyDelivered = !admission.matched.route.body.isStreamed
        let isWebSocket = if case .webSocket = admission.matched.route.action { true } else { false }
        let core = ResponseCore(
            Confined(bridge, on: service.loop), correlation: admission.matched.correlation, isWebSocket: isWebSocket)
        bridge.core = core
        exchange.observe(by: bridge)
        bridge.watchTime(timeoutMilliseconds)
        let receiver = handler(admission.request, ResponseHandle(core))
        if bridge.core != nil { bridge.receiver = receiver }
    }

    private init(_ exchange: HTTPExchange, _ admission: Pipeline.Admission, _ service: WebService, _ timeoutMilliseconds: UInt64) {
        self.exchange = exchange
        self.admission = admission
        self.service = service
        self.timeoutMilliseconds = timeoutMilliseconds
        loop = service.loop
        lastActivity = service.loop.now
    }

    // MARK: Answer

    func flush() {
        guard let core, !exchange.isOver else { return }
        lastActivity = loop.now
        let work = core.taken()
        if let head = work.head {
            let response = service.pipeline.complete(
                Response(status: head.status, headers: ExchangeBridge.allowed(head.headers), body: .bytes([])), admission,
                exchange.head)
            if work.ending == .finish, head.length == UInt64(work.bytes.count) {
                return exchange.respond(response.status, response.headers, body: work.bytes)
            }
            exchange.begin(response.status, response.headers, length: head.length)
            guard watchCredential() else { return exchange.abort() }
        }
        var isFull = false
        if !work.bytes.isEmpty { isFull = !exchange.write(work.bytes.span.bytes) } else { isFull = exchange.isOverHighMark }
        switch work.ending {
        case .finish: return exchange.finish()
        case .abort:
            // An answer that was never begun is broken off by ending the connection.
            return exchange.abort()
        case nil: break
        }
        if core.flushed(socketIsFull: isFull && !exchange.isOver) { receiver?.drained() }
    }

    /// A long answer ends with the credential that opened it, as the streams of the core's own routes do. False: it has
    /// ended already.
    private func watchCredential() -> Bool {
        let me = Confined(self, on: loop)
        watch = service.pipeline.watch(admission.request.principal) {
            me.post { if !$0.exchange.isOver { $0.exchange.abort() } }
        }
        return watch != nil
    }

    /// How the message is framed and named is the connection's business.
    private static func allowed(_ headers: HTTPHeaders) -> HTTPHeaders {
        var headers = headers
        for name in [
            "connection", "content-length", "transfer-encoding", "upgrade", "keep-alive", "trailer", "te", "date",
            "x-correlation-id",
        ] where headers.contains(name) { headers.remove(name) }
        return headers
    }

    func exchangeDrained(_ exchange: HTTPExchange) {
        if let core, core.flushed(socketIsFull: false) { receiver?.drained() }
    }

    func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?) {
        let mustTell = core?.end() ?? false
        let receiver = stop()
        if error != nil, mustTell { receiver?.gone() }
    }

    @discardableResult
    private func stop() -> (any ExchangeReceiver)? {
        defer { receiver = nil }
        core = nil
        watch = nil
        leftover = []
        if let timer { loop.cancel(timer) }
        timer = nil
        return receiver
    }

    /// The core answers in the place of the handler, which hears that it came too late.
    private func answer(_ problem: Problem) {
        guard let core else { return }
        let wasWaiting = core.isWaiting
        _ = core.end()
        let receiver = stop()
        if wasWaiting {
            let response = service.pipeline.complete(
                problem.response(correlation: admission.matched.correlation), admission, exchange.head)
            if case .bytes(let bytes) = response.body { exchange.respond(response.status, response.headers, body: bytes) }
        } else {
            exchange.abort()
        }
        receiver?.gone()
    }

    // MARK: Time

    private func watchTime(_ milliseconds: UInt64) {
        let timer = self.timer ?? Timer { [weak self] in self?.checkTime() }
        self.timer = timer
        loop.schedule(timer, afterMilliseconds: milliseconds)
    }

    private func checkTime() {
        guard let core else { return }
        let limit = core.isWaiting ? timeoutMilliseconds : ExchangeBridge.idleMilliseconds
        let idle = (loop.now &- lastActivity) / 1_000_000
        guard idle >= limit else { return watchTime(limit - idle) }
        answer(Problem(504, "handler-timeout", "what serves this operation gave no answer within \(limit) ms"))
    }

    // MARK: Body

    func take(_ bytes: UInt64) {
        guard core != nil, !bodyDelivered, !exchange.isOver else { return }
        lastActivity = loop.now
        credit = credit.addingReportingOverflow(bytes).overflow ? .max : credit + bytes
        if !leftover.isEmpty {
            let kept = leftover
            leftover = []
            deliver(kept.span.bytes)
        }
        guard leftover.isEmpty else { return }
        if bodyEnded { return deliverEnd() }
        guard credit > 0 else { return }
        if bodyStarted {
            exchange.resumeBody()
        } else {
            bodyStarted = true
            exchange.readBody(to: self)
        }
    }

    func exchange(_ exchange: HTTPExchange, body: RawSpan) {
        guard core != nil else { return }
        lastActivity = loop.now
        total += UInt64(body.byteCount)
        let limit = admission.matched.route.body.limit
        guard total <= UInt64(limit) else { return answer(WebService.tooLarge(limit)) }
        deliver(body)
    }

    private func deliver(_ piece: RawSpan) {
        let count = Int(min(credit, UInt64(piece.byteCount)))
        credit -= UInt64(count)
        if count < piece.byteCount {
            piece.extracting(count..<piece.byteCount).withUnsafeBytes { leftover.append(contentsOf: $0) }
        }
        if credit == 0 { exchange.pauseBody() }
        if count > 0 { receiver?.body(piece.extracting(0..<count), isLast: false) }
    }

    func exchangeBodyEnded(_ exchange: HTTPExchange) {
        bodyEnded = true
        if leftover.isEmpty { deliverEnd() }
    }

    private func deliverEnd() {
        guard core != nil, !bodyDelivered else { return }
        bodyDelivered = true
        let nothing: [UInt8] = []
        receiver?.body(nothing.span.bytes, isLast: true)
    }

    // MARK: WebSocket

    func upgrade(_ socket: OperatorSocket) {
        guard core != nil, case .webSocket(let limits, _, _) = admission.matched.route.action else {
            return socket.ended(1006, "the request is over")
        }
        stop()
        SocketBridge.open(socket, exchange, admission, limits, service)
    }
}
