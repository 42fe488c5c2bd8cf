/// What a request may be allowed to do, `area.verb` (`command.run`, `client.read`, `audit.read`, …). Each route declares
/// one; each area lists its own as static members in an extension.
public struct Right: RawRepresentable, Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }
    public init(stringLiteral value: String) { rawValue = value }
    public var description: String { rawValue }
}

/// Who acts, as proved by `Security.authenticate`; also what the audit trail names. An object, since it goes from hand to hand.
public final class Principal: Sendable, Hashable {
    public enum Kind: String, Sendable {
        case user, token, issuer, agent, system
    }
    public let kind: Kind
    /// Stable: a user name, a token's public id, `issuer#subject`, a client id, or the part of the core that acts.
    public let id: String
    public let roles: [String]
    /// Rights that a token is narrowed to; `nil` means all rights of its roles.
    public let scopes: [Right]?
    /// Peer address without port, after trusted proxies were taken off; `nil` for the core itself.
    public let address: String?
    public let correlation: String
    /// Public id of the session or token that proved it: what a revocation names, and what open streams watch.
    public let credential: String?

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

    /// The same one in another request.
    public func with(correlation: String) -> Principal {
        Principal(
            kind: kind, id: id, roles: roles, scopes: scopes, address: address, correlation: correlation, credential: credential)
    }

    public static func == (left: Principal, right: Principal) -> Bool {
        left === right
            || left.kind == right.kind && left.id == right.id && left.roles == right.roles && left.scopes == right.scopes
                && left.address == right.address && left.correlation == right.correlation && left.credential == right.credential
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(kind)
        hasher.combine(id)
        hasher.combine(correlation)
    }
}

/// A refusal or failure with a stable code, as every layer above shows it (RFC 9457 problem documents in the API).
/// The code is listed in Docs/errors.md. The detail says what was wrong, which value, and what would be right.
///
/// One word, because nearly every function can throw one: a thrown value that fits a register costs those that do not throw
/// nothing, and no room in the frames of tasks.
public struct Problem: Error, Sendable, Equatable {
    private struct Fields: Equatable {
        var status: Int
        var code: String
        var detail: String
        var retryAfterSeconds: Int?
        var pointer: String?
        var archived: ArchivedObject?
    }
    private final class Box: Sendable {
        let fields: Fields
        init(_ fields: Fields) { self.fields = fields }
    }
    private var box: Box

    public init(_ status: Int, _ code: String, _ detail: String, retryAfter: Int? = nil, pointer: String? = nil) {
        box = Box(Fields(status: status, code: code, detail: detail, retryAfterSeconds: retryAfter, pointer: pointer))
    }

    public var status: Int { box.fields.status }
    public var code: String { box.fields.code }
    public var detail: String {
        get { box.fields.detail }
        set { change { $0.detail = newValue } }
    }
    /// For 429 and 503.
    public var retryAfterSeconds: Int? {
        get { box.fields.retryAfterSeconds }
        set { change { $0.retryAfterSeconds = newValue } }
    }
    /// The field of the request that was wrong, as a JSON pointer.
    public var pointer: String? {
        get { box.fields.pointer }
        set { change { $0.pointer = newValue } }
    }
    /// Where what is gone here can be had.
    public var archived: ArchivedObject? {
        get { box.fields.archived }
        set { change { $0.archived = newValue } }
    }

    private mutating func change(_ body: (inout Fields) -> Void) {
        var fields = box.fields
        body(&fields)
        box = Box(fields)
    }

    public static func == (left: Problem, right: Problem) -> Bool { left.box.fields == right.box.fields }

    public static func invalid(_ detail: String, pointer: String? = nil) -> Problem {
        Problem(400, "invalid", detail, pointer: pointer)
    }
    public static func notFound(_ detail: String) -> Problem { Problem(404, "not-found", detail) }
    public static func conflict(_ code: String, _ detail: String) -> Problem { Problem(409, code, detail) }
    public static func forbidden(_ detail: String) -> Problem { Problem(403, "forbidden", detail) }
}
