import Crypto
import JSON

extension Security {
    /// What is to become of an account; `nil` leaves a thing as it is.
    public struct UserChange: Sendable {
        public var password: String?
        public var roles: [String]?
        public var isDisabled: Bool?
        public init(password: String? = nil, roles: [String]? = nil, isDisabled: Bool? = nil) {
            self.password = password
            self.roles = roles
            self.isDisabled = isDisabled
        }
    }

    public func users() -> [User] { state.withLock { Array($0.users.values) }.sorted { $0.name < $1.name } }

    public func user(_ name: String) throws(Problem) -> User {
        guard let user = state.withLock({ $0.users[name] }) else {
            throw .notFound("there is no user \"\(name.prefix(64))\"")
        }
        return user
    }

    /// - Throws: 409 `user-exists`; 403 for roles that the maker does not have.
    public func createUser(
        name: String, password: String, roles: [String], by principal: Principal
    ) async throws(Problem) -> User {
        try Self.checkName(name)
        try Self.checkPassword(password)
        try mayGive(roles, principal)
        guard state.withLock({ $0.users.count }) < options.maximumUsers else {
            throw .conflict("too-many-users", "there are \(options.maximumUsers) users")
        }
        let hash = try await onPool { () throws(Problem) in try PasswordHash.make(password) }
        let user = User(
            name: name, password: hash, roles: roles, isDisabled: false, secondFactor: nil, secondFactorStep: 0,
            createdMilliseconds: clock())
        let record = AuditRecord(
            principal: principal, action: "user.create", target: name, detail: ["roles": .array(roles.map { .string($0) })])
        let sequence = try await store.write { (transaction) throws(StoreError) in
            guard try !transaction.exists("SELECT 1 FROM security_users WHERE name = ?", name) else {
                throw .refused(.conflict("user-exists", "there is a user \"\(name)\" already"))
            }
            try transaction.run(
                "INSERT INTO security_users VALUES (?, ?, ?, 0, NULL, 0, ?)", user.name, user.password,
                SecuritySchema.column(user.roles), user.createdMilliseconds)
            return try transaction.audit(record)
        }
        state.withLock { if $0.accept("user:" + name, sequence, now: clock()) { $0.users[name] = user } }
        return user
    }

    /// Changes an account. Its sessions end with a new password and when it is disabled; new roles hold at once, and
    /// streams that the old ones opened are closed.
    public func changeUser(
        _ name: String, _ change: UserChange, by principal: Principal
    ) async throws(Problem) -> User {
        let before = try user(name)
        // Whoever may not give these roles may not take the account over either, by its password or otherwise.
        if principal.kind != .user || principal.id != name { try mayGive(before.roles, principal) }
        if let roles = change.roles { try mayGive(roles, principal) }
        let losesPower = change.isDisabled == true || change.roles.map { !$0.contains("administrator") } ?? false
        if losesPower, before.roles.contains("administrator") {
            guard state.withLock({ $0.hasAdministrator(except: name, now: clock()) }) else { throw Self.lastAdministrator }
        }
        var hash: String?
        if let password = change.password {
            try Self.checkPassword(password)
            hash = try await onPool { () throws(Problem) in try PasswordHash.make(password) }
        }
        let endsSessions = hash != nil || change.isDisabled == true
        let newHash = hash
        let now = clock()
        let detail: JSONValue = [
            "password": .bool(newHash != nil), "disabled": change.isDisabled.map { .bool($0) } ?? .null,
            "roles": change.roles.map { .array($0.map { .string($0) }) } ?? .null,
        ]
        let (sequence, user) = try await store.write { (transaction) throws(StoreError) in
            guard var user = try Self.read(name, transaction) else {
                throw .refused(.notFound("there is no user \"\(name)\""))
            }
            if let newHash { user.password = newHash }
            if let roles = change.roles { user.roles = roles }
            if let isDisabled = change.isDisabled { user.isDisabled = isDisabled }
            try transaction.run(
                "UPDATE security_users SET password = ?, roles = ?, disabled = ? WHERE name = ?", user.password,
                SecuritySchema.column(user.roles), user.isDisabled, name)
            if endsSessions { try transaction.run("DELETE FROM security_sessions WHERE user = ?", name) }
            if change.isDisabled == true {
                try transaction.run(
                    "UPDATE security_tokens SET revoked_ms = ? WHERE owner = ? AND revoked_ms IS NULL", now, name)
            }
            return (
                try transaction.audit(AuditRecord(principal: principal, action: "user.change", target: name, detail: detail)), user
            )
        }
        apply(user, name, sequence, endsSessions: endsSessions, endsTokens: change.isDisabled == true)
        return user
    }

    /// Deletes an account, its sessions and its API tokens.
    public func deleteUser(_ name: String, by principal: Principal) async throws(Problem) {
        let before = try user(name)
        try mayGive(before.roles, principal)
        if before.roles.contains("administrator") {
            guard state.withLock({ $0.hasAdministrator(except: name, now: clock()) }) else { throw Self.lastAdministrator }
        }
        let now = clock()
        let sequence = try await store.write { (transaction) throws(StoreError) in
            try transaction.run("DELETE FROM security_users WHERE name = ?", name)
            try transaction.run("DELETE FROM security_sessions WHERE user = ?", name)
            try transaction.run(
                "UPDATE security_tokens SET revoked_ms = ? WHERE owner = ? AND revoked_ms IS NULL", now, name)
            return try transaction.audit(AuditRecord(principal: principal, action: "user.delete", target: name))
        }
        apply(nil, name, sequence, endsSessions: true, endsTokens: true)
    }

    private func apply(_ user: User?, _ name: String, _ sequence: UInt64, endsSessions: Bool, endsTokens: Bool) {
        let closed: [String] = state.withLock { state in
            guard state.accept("user:" + name, sequence, now: clock()) else { return [] }
            let rolesChanged = state.users[name]?.roles != user?.roles
            state.users[name] = user
            let sessions = state.sessions.values.filter { $0.user == name }
            let tokens = endsTokens ? state.tokens.values.filter { $0.owner == name }.map(\.id) : []
            for session in sessions {
                if endsSessions { state.remove(session: session.id) } else { state.put(session, rate: options.userRate) }
            }
            for token in tokens { state.remove(token: token) }
            return (endsSessions || rolesChanged ? sessions.map(\.id) : []) + tokens
        }
        revocations.tell(closed)
    }

    // MARK: Second factor

    /// Starts a second factor (RFC 6238): the secret for the authenticator app. It counts from `confirmSecondFactor` on.
    public func newSecondFactor() -> (secret: String, bytes: [UInt8]) {
        let bytes = Random.bytes(20)
        return (Base32.encode(bytes), bytes)
    }

    /// Turns the second factor on, with a first code as proof that the app has the secret.
    public func confirmSecondFactor(secret: String, code: String, by principal: Principal) async throws(Problem) {
        guard principal.kind == .user else { throw .forbidden("only a logged-in user has a second factor") }
        guard let bytes = Base32.decode(secret), bytes.count == 20,
            let step = OneTimePassword.matchingStep(code, secret: bytes, unixSeconds: clock() / 1_000)
        else { throw .invalid("the code does not belong to the secret, or the clocks differ by more than 30 s", pointer: "/code") }
        try await setSecondFactor(principal.id, try safe.seal(bytes, name: "second-factor:" + principal.id), step, by: principal)
    }

    /// Turns it off: for an administrator, when a device is lost, or for oneself.
    public func removeSecondFactor(_ name: String, by principal: Principal) async throws(Problem) {
        let before = try user(name)
        if principal.kind != .user || principal.id != name { try mayGive(before.roles, principal) }
        try await setSecondFactor(name, nil, 0, by: principal)
    }

    private func setSecondFactor(
        _ name: String, _ sealed: [UInt8]?, _ step: UInt64, by principal: Principal
    ) async throws(Problem) {
        let action = sealed == nil ? "user.second-factor.off" : "user.second-factor.on"
        let sequence = try await store.write { (transaction) throws(StoreError) in
            guard
                try transaction.run(
                    "UPDATE security_users SET second_factor = ?, second_factor_step = ? WHERE name = ?", sealed, step, name) == 1
            else { throw .refused(.notFound("there is no user \"\(name)\"")) }
            return try transaction.audit(AuditRecord(principal: principal, action: action, target: name))
        }
        state.withLock { state in
            guard state.accept("factor:" + name, sequence, now: clock()) else { return }
            state.users[name]?.secondFactor = sealed
            state.users[name]?.secondFactorStep = step
        }
    }

    static func read(_ name: String, _ store: borrowing some StoreReading & ~Copyable) throws(StoreError) -> User? {
        try store.first(
            "SELECT name, password, roles, disabled, second_factor, second_factor_step, created_ms FROM security_users WHERE name = ?",
            name
        ) { (row) throws(StoreError) in
            User(
                name: row.text(0), password: row.text(1), roles: SecuritySchema.names(row.text(2)), isDisabled: row.bool(3),
                secondFactor: row.isNull(4) ? nil : row.bytes(4), secondFactorStep: row.unsigned(5),
                createdMilliseconds: row.unsigned(6))
        }
    }

    /// Names go into audit records, logs and tables: no blanks, no tricks with look-alikes.
    private static func checkName(_ name: String) throws(Problem) {
        guard (1...64).contains(name.utf8.count),
            name.utf8.allSatisfy({
                (0x61...0x7A).contains($0) || (0x41...0x5A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2E || $0 == 0x2D
                    || $0 == 0x5F || $0 == 0x40
            })
        else { throw .invalid("a user name has 1 to 64 of the characters A-Z a-z 0-9 . - _ @", pointer: "/name") }
    }

    private static func checkPassword(_ password: String) throws(Problem) {
        guard PasswordHash.lengths.contains(password.utf8.count) else {
            throw .invalid("a password has \(PasswordHash.lengths.lowerBound) to \(PasswordHash.lengths.upperBound) bytes", pointer: "/password")
        }
    }
}
