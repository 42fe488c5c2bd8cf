import Crypto

/// A person who logs in.
public struct User: Sendable {
    public var name: String
    var password: String
    public var roles: [String]
    public var isDisabled: Bool
    /// Sealed by `KeySafe`; `nil` for none.
    var secondFactor: [UInt8]?
    /// The newest one-time code that was used; it and all older ones are dead.
    var secondFactorStep: UInt64
    public var createdMilliseconds: UInt64
    public var hasSecondFactor: Bool { secondFactor != nil }
}

/// One log-in. Times in Unix milliseconds.
public struct Session: Sendable {
    public var id: String
    public var user: String
    public var created: UInt64
    /// When it lapses unless it is refreshed.
    public var expires: UInt64
    /// When it ends however often it is refreshed.
    public var ends: UInt64
    public var address: String
    var accessHash: SHA256.Digest
    var accessExpires: UInt64
    var refreshHash: SHA256.Digest
    /// The refresh token before; whoever shows it again has stolen it, or was stolen from.
    var usedRefreshHash: SHA256.Digest?
}

/// An API token; its text is known only to whoever made it.
public struct APIToken: Sendable {
    public var id: String
    var hash: SHA256.Digest
    public var name: String
    /// Principal id of the maker; a token dies with its owner's account.
    public var owner: String
    public var roles: [String]
    public var scopes: [Right]?
    public var networks: [Network]
    /// Requests per second.
    public var rate: Int
    public var created: UInt64
    public var expires: UInt64?
    public var lastUsed: UInt64
}

/// Everything that decides about a request, in memory. A value under the lock of `Security`.
struct SecurityState: ~Copyable {
    var users: [String: User] = [:]
    var sessions: [String: Session] = [:]
    var tokens: [String: APIToken] = [:]
    var ownRoles: [String: Role] = [:]
    var roles = RoleTable([])
    var policy = CommandPolicy([])
    var issuers: [LoadedIssuer] = []
    /// `issuer#subject`, or `issuer#jti:ID`, and until when it is refused (Unix milliseconds).
    var revoked: [String: UInt64] = [:]

    /// By the hash of the secret: the one look-up of a request.
    var credentials: [SHA256.Digest: Credential] = [:]
    var byID: [String: Credential] = [:]
    /// Session ids by the hashes of their present and their used refresh token.
    private(set) var byRefresh: [SHA256.Digest: String] = [:]
    /// Tokens of outside issuers that were verified; dropped as a whole when there are too many.
    var verified: [SHA256.Digest: Credential] = [:]
    static let maximumVerified = 8_192
    private var buckets: [String: RateBucket] = [:]

    var lockOut = LockOutStateMachine()
    var refusals = RefusalLimiter()
    /// Log-ins that are being hashed, by address.
    var loggingIn: [String: Int] = [:]

    /// `nil` while commands run; else the roles that may go on.
    var commandsStoppedExcept: [String]?

    /// Audit sequence of the newest change that memory has, by thing: of two racing changes the later one stays.
    private var revisions: [String: (sequence: UInt64, at: UInt64)] = [:]

    /// - Returns: false when a newer change of the same thing is already here.
    mutating func accept(_ thing: String, _ sequence: UInt64, now: UInt64) -> Bool {
        if let known = revisions[thing], known.sequence > sequence { return false }
        revisions[thing] = (sequence, now)
        if revisions.count > 4_096 { revisions = revisions.filter { $0.value.at + 60_000 > now } }
        return true
    }

    mutating func setRoles(_ own: [String: Role]) {
        ownRoles = own
        roles = RoleTable(own.values)
    }

    /// One bucket for all sessions of a user, or all tokens of an outsider.
    mutating func bucket(_ key: String) -> RateBucket {
        if let known = buckets[key] { return known }
        if buckets.count > 2 * byID.count + 1_024 {
            let used = Set(byID.values.map(\.bucket.key))
            buckets = buckets.filter { used.contains($0.key) }
        }
        let made = RateBucket(key: key)
        buckets[key] = made
        return made
    }

    mutating func put(_ session: Session, rate: Int) {
        remove(session: session.id)
        guard let user = users[session.user], !user.isDisabled else { return }
        sessions[session.id] = session
        let credential = Credential(
            id: session.id, kind: .user, principal: user.name, roles: user.roles,
            expires: min(session.accessExpires, session.expires), rate: rate,
            bucket: bucket("user:" + user.name))
        credentials[session.accessHash] = credential
        byID[session.id] = credential
        byRefresh[session.refreshHash] = session.id
        if let used = session.usedRefreshHash { byRefresh[used] = session.id }
    }

    mutating func remove(session id: String) {
        guard let session = sessions.removeValue(forKey: id) else { return }
        credentials[session.accessHash] = nil
        byID[id] = nil
        byRefresh[session.refreshHash] = nil
        if let used = session.usedRefreshHash { byRefresh[used] = nil }
    }

    mutating func put(_ token: APIToken) {
        remove(token: token.id)
        tokens[token.id] = token
        let credential = Credential(
            id: token.id, kind: .token, principal: token.id, roles: token.roles, scopes: token.scopes,
            expires: token.expires ?? .max, networks: token.networks, rate: token.rate, lastUsed: token.lastUsed)
        credentials[token.hash] = credential
        byID[token.id] = credential
    }

    mutating func remove(token id: String) {
        guard let token = tokens.removeValue(forKey: id) else { return }
        credentials[token.hash] = nil
        byID[id] = nil
    }

    /// Users and tokens that can do everything, apart from `except`.
    func hasAdministrator(except: String, now: UInt64) -> Bool {
        users.values.contains { $0.name != except && !$0.isDisabled && $0.roles.contains("administrator") }
            || tokens.values.contains {
                $0.id != except && $0.owner != except && $0.scopes == nil && $0.roles.contains("administrator")
                    && ($0.expires ?? .max) > now
            }
    }
}
