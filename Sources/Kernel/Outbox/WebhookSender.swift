/// Carries one message out. The transport's HTTP client in the core, a recorder in tests.
public protocol WebhookSender: Sendable {
    /// POSTs the body, follows no redirect, and waits at most ten seconds in all.
    /// - Returns: the status of the answer.
    /// - Throws: why there was none.
    func post(url: String, headers: [(name: String, value: String)], body: [UInt8]) async throws(DeliveryFailure) -> Int
}

public struct DeliveryFailure: Error, Sendable, Equatable {
    public var reason: String
    public init(_ reason: String) { self.reason = reason }
}
