import Kernel

/// What the pipeline asks the kernel about each request. One implementation stands over the kernel's security and audit;
/// tests bring their own.
public protocol Gate: Sendable {
    /// The bucket of an address that has not proved anything yet. Throws 429.
    func admitStranger(_ address: String) throws(Problem)
    /// Who the bearer of these credentials is. Throws 401.
    func authenticate(
        authorization: String?, address: String, correlation: String
    ) async throws(Problem) -> Principal
    /// Takes one request out of the principal's bucket. Throws 429 when it is empty.
    func spend(_ principal: Principal) throws(Problem) -> RateLimitState?
    /// Whether any role of the principal grants the right at all; narrowing to clients is the handler's business.
    func grants(_ principal: Principal, _ right: Right) -> Bool
    /// Whether the credential behind the principal still holds.
    func isLive(_ principal: Principal) -> Bool
    /// Calls `ended` once when that credential ends, from any thread. Keep what it returns for as long as the stream is
    /// open; nil: it has ended already.
    func watch(_ principal: Principal, _ ended: @escaping @Sendable () -> Void) -> AnyObject?
    /// A refusal of somebody who has signed in is a record of its own.
    func recordRefusal(_ principal: Principal, _ right: Right, path: String, reason: String) async
    /// A read that must leave a trace, before it is answered. Throws when it cannot be recorded.
    func recordRead(_ principal: Principal, action: String, path: String) async throws(Problem)
}

extension Gate {
    /// A stream ends with the credential that opened it, however quiet it is.
    func watched(_ response: consuming Response, _ principal: Principal) -> Response {
        guard case .stream(let length, let produce) = response.body else { return response }
        response.body = .stream(length: length) { (writer) async throws(StreamClosed) in
            guard let watch = self.watch(principal, { writer.cut() }) else { throw StreamClosed() }
            defer { withExtendedLifetime(watch) {} }
            try await produce(writer)
        }
        return response
    }
}

/// For the `RateLimit-…` header fields.
public struct RateLimitState: Sendable, Equatable {
    /// Requests per second that the bucket refills by.
    public var limit: Int
    public var remaining: Int
    /// Until the bucket is full again.
    public var resetSeconds: Int
    public init(limit: Int, remaining: Int, resetSeconds: Int) {
        self.limit = limit
        self.remaining = remaining
        self.resetSeconds = resetSeconds
    }
}
