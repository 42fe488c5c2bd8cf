extension Security {
    /// The owner of a job or schedule as he is now: his present roles, or a refusal if he is gone. Jobs run long after
    /// they were asked for; what counts is what he may do when they do.
    ///
    /// Principals of outside issuers are known only through the token that they showed: once it has lapsed, or the core
    /// was restarted, nothing vouches for them any more.
    /// - Throws: 403 `owner-gone`.
    public func present(_ owner: JobOwner, correlation: String) throws(Problem) -> Principal {
        let now = clock()
        let found: (roles: [String], scopes: [Right]?)? = state.withLock { state in
            switch owner.kind {
            case .user:
                guard let user = state.users[owner.id], !user.isDisabled else { return nil }
                return (user.roles, nil)
            case .token:
                guard let token = state.tokens[owner.id], (token.expires ?? .max) > now else { return nil }
                return (token.roles, token.scopes)
            case .issuer:
                guard let id = owner.credential, let credential = state.byID[id], credential.principal == owner.id,
                    credential.expires > now
                else { return nil }
                return (credential.roles, credential.scopes)
            case .agent, .system: return nil
            }
        }
        guard let found else {
            throw Problem(
                403, "owner-gone",
                "\(owner.kind.rawValue) \(owner.id), in whose name this was to run, is gone, disabled or expired")
        }
        return Principal(
            kind: owner.kind, id: owner.id, roles: found.roles, scopes: found.scopes, correlation: correlation,
            credential: owner.credential)
    }
}
