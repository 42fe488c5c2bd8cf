import JSON
import Kernel
import Reactor
import Transport

/// A request after authentication, limits and the right were checked. The handler runs on the connection's loop.
public struct Request: Sendable {
    let head: HTTPRequestHead
    let matched: Pipeline.Matched
    public let query: Query
    /// The whole body; at most the route's limit.
    public let body: [UInt8]
    /// For a route whose body is a stream, instead of `body`.
    public internal(set) var stream: RequestBody?
    public let principal: Principal
    /// Peer address without port, after trusted proxies were taken off.
    public let address: String
    public let loop: EventLoop
    let parsedBody: JSONValue?

    public var method: HTTPMethod { head.method }
    public var headers: HTTPHeaders { head.headers }
    public var correlation: String { matched.correlation }

    /// As sent, without the query.
    public var path: String { String(head.path) }

    /// A parameter of the pattern, by its name without braces; empty for a name that the pattern does not have.
    public subscript(name: String) -> String {
        matched.route.parameterNames.firstIndex(of: name).map { matched.parameters[$0] } ?? ""
    }

    /// The JSON body, checked against the route's schema. `null` for routes without one.
    public var json: JSONValue { parsedBody ?? .null }

    /// Suspends the handler; the loop goes on with other work.
    public func sleep(milliseconds: UInt64) async { await loop.sleep(milliseconds: milliseconds) }
}
