/// Bounds and time limits of a server's connections.
public struct HTTPServerConfiguration: Sendable {
    public var limits = HTTPLimits()
    /// The TLS handshake, from the connection's acceptance.
    public var tlsMilliseconds: UInt64 = 10_000
    /// From the first byte of a head to its last, also on a new connection.
    public var headMilliseconds: UInt64 = 10_000
    /// A connection without a request in progress.
    public var idleMilliseconds: UInt64 = 75_000
    /// Without one more byte of a body that the handler is waiting for.
    public var bodyMilliseconds: UInt64 = 30_000
    /// Without the peer reading one byte of what waits for it.
    public var writeMilliseconds: UInt64 = 300_000
    /// After the last answer of a connection that this side ends, for the peer to end its own side.
    public var lingerMilliseconds: UInt64 = 2_000
    /// The longest message of a WebSocket that was upgraded here, fragments together; a service may ask for less.
    public var maximumWebSocketMessage = 1 << 20
    /// Connections of one address (an IPv6 /64 is one) and loop that have not shown who they are. `markAuthenticated`
    /// and closing make room. Trusted proxies are exempt.
    public var unauthenticatedPerAddress = 256
    /// More of them are accepted and left unread until it is their turn: this many per address and loop of those that have
    /// shown a TLS ticket, of the others that have spoken, and of those that are silent. Beyond that they are closed.
    public var parkedPerAddress = 4_096
    /// All connections of a loop; more are closed at once.
    public var connectionsPerLoop = 60_000
    /// Ranges of proxies whose `Forwarded`, `X-Forwarded-For` and PROXY v2 lines are believed; empty: nobody's.
    public var trustedProxies: [AddressRange] = []
    /// Content type and body of the answer to what was no request, before anybody routes it. Must not wait.
    public var refusalBody: @Sendable (HTTPRefusal) -> (contentType: String, bytes: [UInt8]) = {
        ("text/plain; charset=utf-8", Array("\($0.message)\n".utf8))
    }

    public init() {}
}
