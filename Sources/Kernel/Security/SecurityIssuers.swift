import Crypto
import JSON
import System

extension Security {
    /// Reads the key files of all issuers again: at start and on SIGHUP. Keys of a file that cannot be read stay as they
    /// were; the first failure is thrown after the others were taken over.
    public func reloadIssuers() async throws(Problem) {
        var loaded: [LoadedIssuer] = []
        var failure: Problem?
        for definition in options.issuers {
            do {
                loaded.append(try await onPool { () throws(Problem) in try LoadedIssuer(definition) })
            } catch {
                failure = failure ?? error
                if let old = state.withLock({ $0.issuers.first { $0.definition.name == definition.name } }) { loaded.append(old) }
            }
        }
        use(loaded)
        if let failure { throw failure }
    }

    /// Tokens that old keys had vouched for must prove themselves again.
    func use(_ issuers: [LoadedIssuer]) {
        state.withLock { state in
            state.issuers = issuers
            Self.forgetVerified(&state)
        }
    }

    static func forgetVerified(_ state: inout SecurityState, where isGone: (Credential) -> Bool = { _ in true }) {
        for (digest, credential) in state.verified where isGone(credential) {
            state.verified[digest] = nil
            state.byID[credential.id] = nil
        }
    }

    /// A token that is not in memory: a JWT of an outside issuer, or nothing. Signature checks take 30 to 150 µs, so a
    /// stranger pays for each out of the address's bucket.
    func verify(
        _ authorization: String, _ digest: SHA256.Digest, _ address: String, _ now: UInt64
    ) throws(Problem) -> Credential {
        let issuers = state.withLock { $0.issuers }
        let text = String(authorization.dropFirst(7))
        let refusal = try refuse(.unknown, address)
        guard !issuers.isEmpty, text.utf8.contains(0x2E) else { throw refusal }
        let token = try JSONWebToken(text)
        guard let issuer = issuers.first(where: { $0.definition.issuer == token.claims["iss"]?.string }) else {
            throw JSONWebToken.invalid("its issuer is not known here")
        }
        let proved = try issuer.verify(token, now: Int64(now / 1_000))
        let name = issuer.definition.name
        let principal = "\(name)#\(proved.subject)"
        let tokenName = proved.id.map { "\(name)#jti:\($0)" }
        let credential = Credential(
            id: "jwt-" + digest.hex.prefix(24), kind: .issuer, principal: principal, roles: proved.roles,
            expires: UInt64(max(0, proved.expires)) * 1_000, rate: options.userRate,
            bucket: state.withLock { $0.bucket("issuer:" + principal) }, lastUsed: now)
        let isRevoked = state.withLock { state in
            if state.revoked[principal] ?? 0 > now || tokenName.flatMap({ state.revoked[$0] }) ?? 0 > now { return true }
            if state.verified.count >= SecurityState.maximumVerified { Self.forgetVerified(&state) }
            state.verified[digest] = credential
            state.byID[credential.id] = credential
            return false
        }
        guard !isRevoked else { throw Problem(401, "token-revoked", "the token or its subject was revoked here") }
        return credential
    }

    /// The same for a number of seconds from now.
    public func revokeOutsider(_ subject: String, seconds: UInt64, by principal: Principal) async throws(Problem) {
        try await revokeOutsider(subject, until: clock() + seconds * 1_000, by: principal)
    }

    /// Refuses an outside issuer's subject (`ISSUER#SUBJECT`) or one token (`ISSUER#jti:ID`) until a time, durably, and
    /// closes what it has open.
    public func revokeOutsider(_ subject: String, until: UInt64, by principal: Principal) async throws(Problem) {
        guard (3...600).contains(subject.utf8.count), subject.contains("#") else {
            throw .invalid("name the subject as ISSUER#SUBJECT, or one token as ISSUER#jti:ID")
        }
        guard state.withLock({ $0.revoked.count }) < 100_000 else {
            throw .conflict("too-many-revocations", "100,000 revocations are in force; revoke the issuer's key instead")
        }
        try await store.write { (transaction) throws(StoreError) in
            try transaction.run(
                "INSERT INTO security_revocations VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET until_ms = max(until_ms, excluded.until_ms)",
                subject, until)
            try transaction.audit(AuditRecord(principal: principal, action: "session.revoke", target: subject))
        }
        let closed = state.withLock { state in
            state.revoked[subject] = max(state.revoked[subject] ?? 0, until)
            // Which credential came from which token id is not kept: all of the issuer's prove themselves again.
            let issuer = subject.prefix { $0 != "#" } + "#"
            let gone = state.verified.values.filter { $0.principal.hasPrefix(issuer) }.map(\.id)
            Self.forgetVerified(&state) { $0.principal.hasPrefix(issuer) }
            return gone
        }
        revocations.tell(closed)
    }

    /// Runs blocking work on the security thread.
    func onPool<Value: Sendable>(
        _ body: @escaping @Sendable () throws(Problem) -> Value
    ) async throws(Problem) -> Value {
        do throws(BlockingPool.Failure<Problem>) {
            return try await pool.run(body)
        } catch {
            switch error {
            case .full: throw Problem(503, "busy", "too many log-ins wait for their turn: try again", retryAfter: 2)
            case .failed(let problem): throw problem
            }
        }
    }
}
