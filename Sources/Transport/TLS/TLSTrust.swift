/// Whom a client believes to be its server.
public enum TLSTrust: Sendable, Equatable {
    /// The machine's certificate authorities, and the server's name.
    case systemRoots
    /// These authorities (PEM) only, and the server's name.
    case authorities(pem: String)
    /// One of these fingerprints (lower-case hex SHA-256 of a SubjectPublicKeyInfo): the server's own key, or one in
    /// the chain that it presents and that really signed it. Its name does not matter then.
    case pins([String])
    /// Nobody is checked here: a handshake inside, bound to this connection by the exporter, proves the peer. Never
    /// send a secret before it has.
    case handshakeInside
}
