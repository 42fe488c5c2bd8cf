import Crypto
import System

extension Security {
    /// Fills memory from the store, at start.
    func readAll() async throws(Problem) {
        let now = clock()
        let (users, sessions, tokens, roles, policies, revoked) = try await store.read { (reader) throws(StoreError) in
            (
                try reader.all(
                    "SELECT name, password, roles, disabled, second_factor, second_factor_step, created_ms FROM security_users"
                ) { (row) throws(StoreError) in
                    User(
                        name: row.text(0), password: row.text(1), roles: SecuritySchema.names(row.text(2)),
                        isDisabled: row.bool(3), secondFactor: row.isNull(4) ? nil : row.bytes(4),
                        secondFactorStep: row.unsigned(5), createdMilliseconds: row.unsigned(6))
                },
                try reader.all(
                    """
                    SELECT id, user, access_hash, access_expires_ms, refresh_hash, used_refresh_hash, expires_ms, ends_ms,
                    created_ms, address FROM security_sessions WHERE expires_ms > ?
                    """, now
                ) { (row) throws(StoreError) -> Session? in
                    guard let access = SHA256.Digest(bytes: row.bytes(2)), let refresh = SHA256.Digest(bytes: row.bytes(4))
                    else { return nil }
                    return Session(
                        id: row.text(0), user: row.text(1), created: row.unsigned(8), expires: row.unsigned(6),
                        ends: row.unsigned(7), address: row.text(9), accessHash: access, accessExpires: row.unsigned(3),
                        refreshHash: refresh, usedRefreshHash: SHA256.Digest(bytes: row.bytes(5)))
                },
                try reader.all(
                    """
                    SELECT id, hash, name, owner, roles, scopes, networks, rate, created_ms, expires_ms, used_ms
                    FROM security_tokens WHERE revoked_ms IS NULL
                    """
                ) { (row) throws(StoreError) -> APIToken? in
                    guard let hash = SHA256.Digest(bytes: row.bytes(1)) else { return nil }
                    return APIToken(
                        id: row.text(0), hash: hash, name: row.text(2), owner: row.text(3),
                        roles: SecuritySchema.names(row.text(4)),
                        scopes: row.isNull(5) ? nil : SecuritySchema.names(row.text(5)).map { Right(rawValue: $0) },
                        networks: SecuritySchema.names(row.text(6)).compactMap { Network($0) }, rate: row.int(7),
                        created: row.unsigned(8), expires: row.isNull(9) ? nil : row.unsigned(9), lastUsed: row.unsigned(10))
                },
                try reader.all("SELECT name, summary, rules FROM security_roles") { (row) throws(StoreError) in
                    (row.text(0), row.text(1), row.text(2))
                },
                try reader.all("SELECT id, rule FROM security_policies ORDER BY position, id") { (row) throws(StoreError) in
                    (row.text(0), row.text(1))
                },
                try reader.all("SELECT subject, until_ms FROM security_revocations") { (row) throws(StoreError) in
                    (row.text(0), row.unsigned(1))
                }
            )
        }
        var ownRoles: [String: Role] = [:]
        for (name, summary, rules) in roles {
            ownRoles[name] = Role(name: name, summary: summary, rules: try Role.rules(from: JSONText.value(rules)))
        }
        var rules: [PolicyRule] = []
        for (id, rule) in policies { rules.append(try PolicyRule(id: id, json: JSONText.value(rule))) }
        // Before the first token there was nobody who could have deleted them.
        if rules.isEmpty, try await isFirstStart() {
            rules = CommandPolicy.initial
            try await storeInitialPolicy(rules)
        }
        let policy = CommandPolicy(rules)
        state.withLock { state in
            for user in users { state.users[user.name] = user }
            state.setRoles(ownRoles)
            state.policy = policy
            state.revoked = Dictionary(revoked, uniquingKeysWith: max)
            for session in sessions { if let session { state.put(session, rate: options.userRate) } }
            for token in tokens { if let token { state.put(token) } }
        }
    }

    private func storeInitialPolicy(_ rules: [PolicyRule]) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            for (position, rule) in rules.enumerated() {
                try transaction.run(
                    "INSERT INTO security_policies VALUES (?, ?, ?)", rule.id, position,
                    String(decoding: rule.json.serialized(), as: UTF8.self))
            }
        }
    }

    private func isFirstStart() async throws(Problem) -> Bool {
        try await store.read { (reader) throws(StoreError) in
            !(try reader.exists("SELECT 1 FROM security_tokens WHERE id = ?", Self.firstTokenID))
        }
    }

    /// The token that the first start leaves in `D/admin-token` (0600): made when there never was one, never again. The
    /// file may be deleted; the token goes on until it is revoked.
    func makeFirstToken(directory: String) async throws(Problem) {
        guard try await isFirstStart() else { return }
        let text = SecretText.make(SecretText.token)
        let token = APIToken(
            id: Self.firstTokenID, hash: SecretText.hash(text), name: "made at the first start", owner: "core",
            roles: ["administrator"], scopes: nil, networks: [], rate: options.firstTokenRate, created: clock(), expires: nil,
            lastUsed: 0)
        // The file first: a token that nobody can read must not exist.
        do { try AtomicFile.write(Array((text + "\n").utf8), to: directory + "/admin-token", mode: 0o600) } catch {
            throw Problem(500, "admin-token-unwritable", "the first administrator's token cannot be written: \(error)")
        }
        let record = AuditRecord(
            principal: Principal(kind: .system, id: "core"), action: "token.create", target: token.id,
            detail: ["roles": ["administrator"]])
        try await insert(token, record)
    }

    public static let firstTokenID = "first-administrator"

    /// A new administrator's token in `D/admin-token` for whoever has the data directory and lost every other way in. The
    /// tokens that were written there before end with it: a lost file may have been found by somebody.
    ///
    /// Only while no core runs on the directory, which the store's lock sees to.
    /// - Returns: the public id of the new token.
    public func recoverAdministrator(directory: String, user: String) async throws(Problem) -> String {
        let now = clock()
        let text = SecretText.make(SecretText.token)
        let token = APIToken(
            id: SecretText.publicID(Self.recoveryTokenPrefix), hash: SecretText.hash(text), name: "made by token recover",
            owner: "core", roles: ["administrator"], scopes: nil, networks: [], rate: options.firstTokenRate, created: now,
            expires: nil, lastUsed: 0)
        let old = state.withLock { state in
            state.tokens.keys.filter { $0 == Self.firstTokenID || $0.hasPrefix(Self.recoveryTokenPrefix) }.sorted()
        }
        do { try AtomicFile.write(Array((text + "\n").utf8), to: directory + "/admin-token", mode: 0o600) } catch {
            throw Problem(500, "admin-token-unwritable", "the administrator's token cannot be written: \(error)")
        }
        let record = AuditRecord(
            principal: Principal(kind: .system, id: "console"), action: "token.recover", target: token.id,
            detail: [
                "user": .string(user), "roles": ["administrator"], "revoked": .array(old.map { .string($0) }),
            ])
        try await insert(token, record, inPlaceOf: old)
        return token.id
    }

    private static let recoveryTokenPrefix = "recovery-"
}
