import Transport

/// Collects the body of one request up to its route's limit, then hands it to the service once.
final class BodyCollector: HTTPExchangeDelegate {
    private let matched: Pipeline.Matched
    private let address: String
    private let limit: Int
    // Not checked for exclusivity: confined to the loop, and no access lasts over a call.
    @exclusivity(unchecked) private var bytes: [UInt8] = []
    private var hasWaited = false
    /// Whom the body goes to; nobody, once it was handed on, given up, or its sender left.
    @exclusivity(unchecked) private var service: WebService?

    init(_ service: WebService, _ matched: Pipeline.Matched, _ address: String) {
        self.service = service
        self.matched = matched
        self.address = address
        limit = matched.route.body.limit
    }

    /// The body is not there with its head: the service looks once who sends it.
    func exchangeBodyWaits(_ exchange: HTTPExchange) {
        guard !hasWaited, let service else { return }
        hasWaited = true
        service.checkWhoSends(matched, exchange, self, address)
    }

    /// The body is not wanted any more. False if it was handed on, or its sender left, before.
    func giveUp() -> Bool {
        defer { service = nil }
        return service != nil
    }

    func exchange(_ exchange: HTTPExchange, body: RawSpan) {
        guard service != nil else { return }
        guard bytes.count + body.byteCount <= limit else { return complete(exchange, nil) }
        if bytes.isEmpty { bytes.reserveCapacity(body.byteCount) }
        body.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }

    func exchangeBodyEnded(_ exchange: HTTPExchange) { complete(exchange, bytes) }
    func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?) { service = nil }

    private func complete(_ exchange: HTTPExchange, _ body: [UInt8]?) {
        let taker = service
        service = nil
        taker?.collected(matched, exchange, body, address)
    }
}
