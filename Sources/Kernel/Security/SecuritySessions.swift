import Crypto
import JSON

/// What a log-in or a refresh gives: both tokens are in here and nowhere else.
public struct SessionGrant: Sendable {
    public var session: Session
    public var accessToken: String
    public var accessExpires: UInt64
    public var refreshToken: String
}

extension Security {
    /// Name and password, and the one-time code where the account asks for one. Whoever serves the request has taken it
    /// out of the address's bucket (`admitStranger`).
    /// - Throws: 401 `log-in-failed` (never saying what was wrong), 401 `second-factor-required` (only after the right
    ///   password), 429 `locked-out` or `rate-limited`, 503 `busy`.
    public func logIn(
        name: String, password: String, code: String?, address: String, correlation: String
    ) async throws(Problem) -> SessionGrant {
        let group = StrangerKey.group(address)
        let account = String(name.prefix(64))
        let stored = try beginLogIn(account, group)
        let hash = stored?.password
        let isRight: Bool
        do throws(Problem) {
            isRight = try await onPool { () throws(Problem) in PasswordHash.isRight(password, for: hash) }
        } catch {
            endLogIn(group)
            throw error
        }
        endLogIn(group)
        // Read again: the account may have changed while the password was hashed.
        let user = state.withLock { $0.users[account] }
        guard isRight, let user, user.password == hash, !user.isDisabled else {
            throw try await logInFailed(account, address, group, correlation)
        }
        var step: UInt64?
        if let sealed = user.secondFactor {
            guard let code else {
                throw Problem(401, "second-factor-required", "this account needs a one-time code: send \"code\" as well")
            }
            let secret = try safe.open(sealed, name: "second-factor:" + user.name).secret
            let found = OneTimePassword.matchingStep(code, secret: secret, unixSeconds: clock() / 1_000)
            guard let found, found > user.secondFactorStep else {
                throw try await logInFailed(account, address, group, correlation)
            }
            step = found
        }
        state.withLock { $0.lockOut.succeeded(account: account, address: group) }
        return try await openSession(user, usedStep: step, address: address, correlation: correlation)
    }

    /// - Returns: the account, if there is one.
    private func beginLogIn(_ account: String, _ group: String) throws(Problem) -> User? {
        let now = clock()
        let (locked, running, user) = state.withLock { state in
            let locked = state.lockOut.lockedFor(account: account, address: group, now: now)
            let running = state.loggingIn[group] ?? 0
            // Hashing is dear: one address gets two at a time, so that it cannot keep the others waiting.
            if locked == nil, running < 2 { state.loggingIn[group] = running + 1 }
            return (locked, running, state.users[account])
        }
        if let locked {
            let seconds = Int((locked + 999) / 1_000)
            throw Problem(429, "locked-out", "too many failed log-ins from here; wait \(seconds) s", retryAfter: seconds)
        }
        guard running < 2 else {
            throw Problem(429, "rate-limited", "two log-ins from this address are being checked already", retryAfter: 1)
        }
        return user
    }

    private func endLogIn(_ group: String) {
        state.withLock { state in
            let running = (state.loggingIn[group] ?? 1) - 1
            state.loggingIn[group] = running > 0 ? running : nil
        }
    }

    /// Counts the failure and audits it: once per address and minute, and each time that a lock begins.
    private func logInFailed(
        _ account: String, _ address: String, _ group: String, _ correlation: String
    ) async throws(Problem) -> Problem {
        let now = clock()
        let (began, leftOut) = state.withLock { state in
            let began = state.lockOut.failed(account: account, address: group, now: now)
            return (began, state.refusals.note(group, "log-in-failed", now: now))
        }
        if began || leftOut != nil {
            let record = AuditRecord(
                principal: Principal(kind: .user, id: account, address: address, correlation: correlation),
                action: "session.create", target: account, outcome: .refused, reason: began ? "locked-out" : "log-in-failed",
                detail: ["left_out": .integer(Int64(leftOut ?? 0))])
            try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(record) }
        }
        return Problem(401, "log-in-failed", "the name, the password or the one-time code is wrong, or the account is disabled")
    }

    private func openSession(
        _ user: User, usedStep: UInt64?, address: String, correlation: String
    ) async throws(Problem) -> SessionGrant {
        let now = clock()
        let (access, refresh) = (SecretText.make(SecretText.access), SecretText.make(SecretText.refresh))
        let session = Session(
            id: SecretText.publicID("ses-"), user: user.name, created: now, expires: now + options.sessionMilliseconds,
            ends: now + options.longestSessionMilliseconds, address: address, accessHash: SecretText.hash(access),
            accessExpires: now + options.accessMilliseconds, refreshHash: SecretText.hash(refresh), usedRefreshHash: nil)
        let principal = Principal(
            kind: .user, id: user.name, roles: user.roles, address: address, correlation: correlation, credential: session.id)
        // Too many log-ins push out the oldest of the same user.
        let surplus = state.withLock { state in
            state.sessions.values.filter { $0.user == user.name }.sorted { $0.created < $1.created }
                .dropLast(options.maximumSessionsPerUser - 1).map(\.id)
        }
        let password = user.password
        let sequence = try await store.write { (transaction) throws(StoreError) in
            guard let present = try Self.read(user.name, transaction), present.password == password, !present.isDisabled else {
                throw .refused(Problem(401, "log-in-failed", "the account was changed during the log-in"))
            }
            if let usedStep {
                // Committed with the session: one code opens one session, even of two racing log-ins.
                guard
                    try transaction.run(
                        "UPDATE security_users SET second_factor_step = ? WHERE name = ? AND second_factor_step < ?", usedStep,
                        user.name, usedStep) == 1
                else { throw .refused(Problem(401, "log-in-failed", "the one-time code was used already")) }
            }
            for id in surplus { try transaction.run("DELETE FROM security_sessions WHERE id = ?", id) }
            try transaction.run(
                "INSERT INTO security_sessions VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)", session.id, session.user, session.accessHash,
                session.accessExpires, session.refreshHash, session.expires, session.ends, session.created, session.address)
            return try transaction.audit(AuditRecord(principal: principal, action: "session.create", target: session.id))
        }
        state.withLock { state in
            if let usedStep, state.users[user.name]?.secondFactorStep ?? 0 < usedStep {
                state.users[user.name]?.secondFactorStep = usedStep
            }
            for id in surplus { state.remove(session: id) }
            if state.accept("session:" + session.id, sequence, now: now) { state.put(session, rate: options.userRate) }
        }
        revocations.tell(surplus)
        return SessionGrant(
            session: session, accessToken: access, accessExpires: session.accessExpires, refreshToken: refresh)
    }

    /// A new pair of tokens for a refresh token, which is dead from then on. If it shows up again, somebody has a copy:
    /// the whole session ends.
    public func refresh(_ text: String, address: String, correlation: String) async throws(Problem) -> SessionGrant {
        let hash = SecretText.hash(text)
        let now = clock()
        let found = state.withLock { state in state.byRefresh[hash].flatMap { state.sessions[$0] } }
        guard var session = found, text.hasPrefix(SecretText.refresh), session.expires > now else {
            throw Problem(401, "token-invalid", "the refresh token is not known or has lapsed: log in again")
        }
        let principal = Principal(kind: .user, id: session.user, address: address, correlation: correlation, credential: session.id)
        if session.usedRefreshHash == hash {
            try await end(session.id, by: principal, reason: "the refresh token was used twice")
            throw Problem(401, "token-reused", "the refresh token was used before: the session was ended, log in again")
        }
        let (access, refresh) = (SecretText.make(SecretText.access), SecretText.make(SecretText.refresh))
        session.usedRefreshHash = hash
        session.refreshHash = SecretText.hash(refresh)
        session.accessHash = SecretText.hash(access)
        session.accessExpires = now + options.accessMilliseconds
        session.expires = min(now + options.sessionMilliseconds, session.ends)
        let new = session
        let sequence = try await store.write { (transaction) throws(StoreError) in
            // Of two racing refreshes with one token, one wins.
            guard
                try transaction.run(
                    """
                    UPDATE security_sessions SET access_hash = ?, access_expires_ms = ?, refresh_hash = ?, used_refresh_hash = ?,
                    expires_ms = ? WHERE id = ? AND refresh_hash = ?
                    """, new.accessHash, new.accessExpires, new.refreshHash, hash, new.expires, new.id, hash) == 1
            else { throw .refused(Problem(401, "token-invalid", "the refresh token was used at the same moment elsewhere")) }
            return try transaction.audit(AuditRecord(principal: principal, action: "session.refresh", target: new.id))
        }
        state.withLock { if $0.accept("session:" + new.id, sequence, now: now) { $0.put(new, rate: options.userRate) } }
        return SessionGrant(session: new, accessToken: access, accessExpires: new.accessExpires, refreshToken: refresh)
    }

    /// A user's own new password; the other sessions of the account end, and this one too.
    /// - Throws: 401 `log-in-failed` for a wrong old password, which counts as guessing.
    public func changeOwnPassword(old: String, new: String, by principal: Principal) async throws(Problem) {
        guard principal.kind == .user else { throw .forbidden("only a logged-in user has a password") }
        let (address, account) = (principal.address ?? "", principal.id)
        let group = StrangerKey.group(address)
        let hash = try beginLogIn(account, group)?.password
        let isRight: Bool
        do throws(Problem) {
            isRight = try await onPool { () throws(Problem) in PasswordHash.isRight(old, for: hash) }
        } catch {
            endLogIn(group)
            throw error
        }
        endLogIn(group)
        guard isRight else { throw try await logInFailed(account, address, group, principal.correlation) }
        _ = try await changeUser(account, UserChange(password: new), by: principal)
    }

    /// - Parameter user: `nil` for all users.
    public func sessions(of user: String?) -> [Session] {
        let now = clock()
        return state.withLock { state in
            state.sessions.values.filter { (user == nil || $0.user == user) && $0.expires > now }
        }.sorted { ($0.created, $0.id) < ($1.created, $1.id) }
    }

    /// Ends a session: one's own, or anybody's with the right `session.write`.
    public func revokeSession(_ id: String, by principal: Principal) async throws(Problem) {
        let owner = state.withLock { $0.sessions[id]?.user }
        let isOwn = principal.kind == .user && owner == principal.id
        guard let owner, isOwn || grants(principal, "session.write") else {
            throw .notFound("there is no session \"\(id.prefix(64))\" that you may end")
        }
        try await end(id, by: principal, reason: isOwn ? "" : "session of \(owner)")
    }

    private func end(_ id: String, by principal: Principal, reason: String) async throws(Problem) {
        let sequence = try await store.write { (transaction) throws(StoreError) in
            try transaction.run("DELETE FROM security_sessions WHERE id = ?", id)
            return try transaction.audit(
                AuditRecord(principal: principal, action: "session.revoke", target: id, reason: reason))
        }
        state.withLock { if $0.accept("session:" + id, sequence, now: clock()) { $0.remove(session: id) } }
        revocations.tell([id])
    }
}
