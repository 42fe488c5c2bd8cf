import Crypto
import JSON

extension Security {
    public struct TokenRequest: Sendable {
        public var name: String
        public var roles: [String]
        /// Actions that the token is narrowed to, written as in roles; `nil` for all of its roles.
        public var scopes: [String]?
        /// Address ranges from which it may be used; empty for all.
        public var networks: [String]
        /// Requests per second; `nil` for the default of issued tokens.
        public var rate: Int?
        public var lifetimeMilliseconds: UInt64?

        public init(
            name: String, roles: [String], scopes: [String]? = nil, networks: [String] = [], rate: Int? = nil,
            lifetimeMilliseconds: UInt64? = nil
        ) {
            self.name = name
            self.roles = roles
            self.scopes = scopes
            self.networks = networks
            self.rate = rate
            self.lifetimeMilliseconds = lifetimeMilliseconds
        }
    }

    public func tokens() -> [APIToken] {
        state.withLock { state in
            state.tokens.values.map { token in
                var token = token
                token.lastUsed = max(token.lastUsed, state.byID[token.id]?.lastUsed.load(ordering: .relaxed) ?? 0)
                return token
            }
        }.sorted { ($0.created, $0.id) < ($1.created, $1.id) }
    }

    /// Makes an API token; its text is in the answer and nowhere else, ever.
    /// - Throws: 403 for roles or scopes that the maker does not have; 409 when there are too many tokens.
    public func createToken(
        _ request: TokenRequest, by principal: Principal
    ) async throws(Problem) -> (token: APIToken, text: String) {
        guard (1...128).contains(request.name.utf8.count) else { throw .invalid("\"name\" has 1 to 128 bytes", pointer: "/name") }
        try mayGive(request.roles, principal)
        var networks: [Network] = []
        for text in request.networks {
            guard let network = Network(text) else {
                throw .invalid("\"\(text.prefix(64))\" is not an address range; write 10.0.0.0/8 or 2001:db8::/32", pointer: "/networks")
            }
            networks.append(network)
        }
        let rate = request.rate ?? options.tokenRate
        guard (1...1_000_000).contains(rate) else { throw .invalid("\"rate\" is from 1 to 1,000,000", pointer: "/rate") }
        let now = clock()
        let text = SecretText.make(SecretText.token)
        let token = APIToken(
            id: SecretText.publicID("tok-"), hash: SecretText.hash(text), name: request.name, owner: principal.id,
            roles: request.roles, scopes: try narrowed(request.scopes, principal), networks: networks, rate: rate, created: now,
            expires: request.lifetimeMilliseconds.map { now + $0 }, lastUsed: 0)
        guard state.withLock({ $0.tokens.count }) < options.maximumTokens else {
            throw .conflict("too-many-tokens", "there are \(options.maximumTokens) tokens; revoke some first")
        }
        try await insert(
            token,
            AuditRecord(
                principal: principal, action: "token.create", target: token.id,
                detail: ["name": .string(token.name), "roles": .array(token.roles.map { .string($0) })]))
        return (token, text)
    }

    /// - Parameter old: tokens that end in the same transaction.
    func insert(_ token: APIToken, _ record: AuditRecord, inPlaceOf old: [String] = []) async throws(Problem) {
        let sequence = try await store.write { (transaction) throws(StoreError) in
            for id in old { try transaction.run("UPDATE security_tokens SET revoked_ms = ? WHERE id = ?", token.created, id) }
            try transaction.run(
                "INSERT INTO security_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)", token.id, token.hash, token.name,
                token.owner, SecuritySchema.column(token.roles),
                token.scopes.map { SecuritySchema.column($0.map(\.rawValue)) },
                SecuritySchema.column(token.networks.map(\.description)), token.rate, token.created, token.expires)
            return try transaction.audit(record)
        }
        let now = clock()
        state.withLock { state in
            for id in old where state.accept("token:" + id, sequence, now: now) { state.remove(token: id) }
            if state.accept("token:" + token.id, sequence, now: now) { state.put(token) }
        }
        revocations.tell(old)
    }

    /// Ends a token for good, and the streams that it has open.
    public func revokeToken(_ id: String, by principal: Principal) async throws(Problem) {
        let now = clock()
        guard state.withLock({ $0.tokens[id] != nil }) else { throw .notFound("there is no token \"\(id.prefix(64))\"") }
        guard state.withLock({ $0.hasAdministrator(except: id, now: now) }) else { throw Self.lastAdministrator }
        let sequence = try await store.write { (transaction) throws(StoreError) in
            try transaction.run("UPDATE security_tokens SET revoked_ms = ? WHERE id = ?", now, id)
            return try transaction.audit(AuditRecord(principal: principal, action: "token.revoke", target: id))
        }
        state.withLock { if $0.accept("token:" + id, sequence, now: now) { $0.remove(token: id) } }
        revocations.tell([id])
    }

    static let lastAdministrator = Problem.conflict(
        "last-administrator", "afterwards nobody could administer this core: make another administrator first")

    /// Nobody hands out more than they have, unless they may hand out everything.
    func mayGive(_ roles: [String], _ principal: Principal) throws(Problem) {
        guard roles.count <= 32 else { throw .invalid("at most 32 roles", pointer: "/roles") }
        let table = state.withLock { $0.roles }
        for role in roles where table.roles[role] == nil {
            throw .invalid(
                "there is no role \"\(role.prefix(64))\"; there are \(table.roles.keys.sorted().prefix(20).joined(separator: ", "))",
                pointer: "/roles")
        }
        guard !table.grants(principal, "role.assign") else { return }
        for role in roles where !principal.roles.contains(role) {
            throw .forbidden("giving the role \"\(role)\" to others needs that role, or the right \"role.assign\"")
        }
    }

    private func narrowed(_ scopes: [String]?, _ principal: Principal) throws(Problem) -> [Right]? {
        guard let scopes else {
            guard principal.scopes == nil else {
                throw .forbidden("your own token is narrowed to scopes; name \"scopes\" within them")
            }
            return nil
        }
        guard (1...64).contains(scopes.count) else { throw .invalid("\"scopes\" has 1 to 64 actions", pointer: "/scopes") }
        for scope in scopes {
            _ = try RightPattern(scope)
            guard let own = principal.scopes else { continue }
            guard own.contains(where: { Self.covers($0.rawValue, scope) }) else {
                throw .forbidden("your own token is narrowed to scopes that do not hold \"\(scope)\"")
            }
        }
        return scopes.map { Right(rawValue: $0) }
    }

    private static func covers(_ wide: String, _ narrow: String) -> Bool {
        wide == "*" || wide == narrow || wide.hasSuffix(".*") && narrow.hasPrefix(wide.dropLast())
    }
}
