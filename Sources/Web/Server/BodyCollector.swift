import Transport

/// Collects a body up to a limit, then hands it on once: `nil` when it was longer.
final class BodyCollector: HTTPExchangeDelegate {
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
        if bytes.isEmpty { bytes.reserveCapacity(body.byteCount) }
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
