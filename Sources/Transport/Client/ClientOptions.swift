/// How a client reaches a server. Immutable once given.
public struct ClientOptions: Sendable {
    /// For the TCP connection, for each address of the server in turn.
    public var connectMilliseconds: UInt64 = 10_000
    /// For each handshake above it: the proxy's, TLS, HTTP upgrade.
    public var handshakeMilliseconds: UInt64 = 10_000
    /// Fields for every request (`authorization`, `user-agent`, …).
    public var headers: HTTPHeaders = [:]
    public var limits = HTTPLimits()
    /// Whom to believe; used for https and wss only. `TLSContext.client(.systemRoots)` and so on; make it once.
    public var tls: TLSContext?
    /// Where tickets are kept, to spare certificates and signatures the next time; with `TLSTrust.handshakeInside` only.
    public var resumption: TLSResumption?
    /// A proxy to go through; TLS is with the server behind it.
    public var proxy: ClientProxy?
    /// The local address to connect from; nil: the system's choice.
    public var localAddress: IPAddress?

    public init() {}
}
