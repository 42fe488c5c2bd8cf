/// What a request may be allowed to do, `area.verb` (`command.run`, `client.read`, `audit.read`, …). Each route declares
/// one; each area lists its own as static members in an extension.
public struct Right: RawRepresentable, Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }
    public init(stringLiteral value: String) { rawValue = value }
    public var description: String { rawValue }
}

/// Who acts, as proved by `Security.authenticate`; also what the audit trail names.
public struct Principal: Sendable, Hashable {
    public enum Kind: String, Sendable {
        case user, token, issuer, agent, system
    }
    public var kind: Kind
    /// Stable: a user name, a token's public id, `issuer#subject`, a client id, or the part of the core that acts.
    public var id: String
    public var roles: [String]
    /// Rights that a token is narrowed to; `nil` means all rights of its roles.
    public var scopes: [Right]?
    /// Peer address without port, after trusted proxies were taken off; `nil` for the core itself.
    public var address: String?
    public var correlation: String
    /// Public id of the session or token that proved it: what a revocation names, and what open streams watch.
    public var credential: String?

    public init(
        kind: Kind, id: String, roles: [String] = [], scopes: [Right]? = nil, address: String? = nil,
        correlation: String = "", credential: String? = nil
    ) {
        self.kind = kind
        self.id = id
        self.roles = roles
        self.scopes = scopes
        self.address = address
        self.correlation = correlation
        self.credential = credential
    }
}

/// A refusal or failure with a stable code, as every layer above shows it (RFC 9457 problem documents in the API).
/// The code is listed in Docs/errors.md. The detail says what was wrong, which value, and what would be right.
public struct Problem: Error, Sendable, Equatable {
    public var status: Int
    public var code: String
    public var detail: String
    /// For 429 and 503.
    public var retryAfterSeconds: Int?
    /// The field of the request that was wrong, as a JSON pointer.
    public var pointer: String?
    /// Where what is gone here can be had.
    public var archived: ArchivedObject?

    public init(_ status: Int, _ code: String, _ detail: String, retryAfter: Int? = nil, pointer: String? = nil) {
        self.status = status
        self.code = code
        self.detail = detail
        retryAfterSeconds = retryAfter
        self.pointer = pointer
    }

    public static func invalid(_ detail: String, pointer: String? = nil) -> Problem {
        Problem(400, "invalid", detail, pointer: pointer)
    }
    public static func notFound(_ detail: String) -> Problem { Problem(404, "not-found", detail) }
    public static func conflict(_ code: String, _ detail: String) -> Problem { Problem(409, code, detail) }
    public static func forbidden(_ detail: String) -> Problem { Problem(403, "forbidden", detail) }
}
