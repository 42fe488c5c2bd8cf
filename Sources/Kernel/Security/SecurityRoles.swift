import JSON

extension Security {
    public func roles() -> [Role] { state.withLock { $0.roles }.roles.values.sorted { $0.name < $1.name } }

    public func role(_ name: String) throws(Problem) -> Role {
        guard let role = state.withLock({ $0.roles }).roles[name] else {
            throw .notFound("there is no role \"\(name.prefix(64))\"")
        }
        return role
    }

    /// Makes a role or replaces its rules. It holds from the next request on; streams of principals that have the role
    /// are closed. Whoever may do this can give out any right.
    public func putRole(name: String, summary: String, rules json: JSONValue, by principal: Principal) async throws(Problem) -> Role {
        guard (1...64).contains(name.utf8.count), name.utf8.allSatisfy({ (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D })
        else { throw .invalid("a role's name has 1 to 64 of the characters a-z 0-9 -", pointer: "/name") }
        guard !Role.builtIn.contains(where: { $0.name == name }) else {
            throw .conflict("role-built-in", "\"\(name)\" comes with the program and cannot be changed; make a role of another name")
        }
        let role = Role(name: name, summary: summary, rules: try Role.rules(from: json))
        let text = String(decoding: role.rulesJSON.serialized(), as: UTF8.self)
        let sequence = try await store.write(bytes: 512 + text.utf8.count) { (transaction) throws(StoreError) in
            guard try transaction.count("SELECT count(*) FROM security_roles") < 1_000 else {
                throw .refused(.conflict("too-many-roles", "there are 1,000 roles"))
            }
            try transaction.run(
                "INSERT INTO security_roles VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET summary = excluded.summary, rules = excluded.rules",
                name, summary, text)
            return try transaction.audit(
                AuditRecord(principal: principal, action: "role.write", target: name, detail: role.rulesJSON))
        }
        applyRole(name, role, sequence)
        return role
    }

    /// - Throws: 409 `role-in-use` while users or tokens have it.
    public func deleteRole(_ name: String, by principal: Principal) async throws(Problem) {
        let role = try role(name)
        guard !role.isBuiltIn else { throw .conflict("role-built-in", "\"\(name)\" comes with the program and cannot be deleted") }
        let users = state.withLock { state in
            state.users.values.filter { $0.roles.contains(name) }.map(\.name)
                + state.tokens.values.filter { $0.roles.contains(name) }.map(\.id)
        }
        guard users.isEmpty else {
            throw .conflict("role-in-use", "the role is held by \(users.sorted().prefix(10).joined(separator: ", ")); take it from them first")
        }
        let sequence = try await store.write { (transaction) throws(StoreError) in
            try transaction.run("DELETE FROM security_roles WHERE name = ?", name)
            return try transaction.audit(AuditRecord(principal: principal, action: "role.delete", target: name))
        }
        applyRole(name, nil, sequence)
    }

    private func applyRole(_ name: String, _ role: Role?, _ sequence: UInt64) {
        let closed: [String] = state.withLock { state in
            guard state.accept("role:" + name, sequence, now: clock()) else { return [] }
            let isNew = state.ownRoles[name] == nil
            var own = state.ownRoles
            own[name] = role
            state.setRoles(own)
            return isNew ? [] : state.byID.values.filter { $0.roles.contains(name) }.map(\.id)
        }
        revocations.tell(closed)
    }

    // MARK: Command policy

    /// In the order in which they were made; the order decides nothing.
    public func policyRules() -> [PolicyRule] { state.withLock { $0.policy }.rules }

    /// Adds a rule.
    public func addPolicyRule(_ json: JSONValue, by principal: Principal) async throws(Problem) -> PolicyRule {
        let rule = try PolicyRule(id: SecretText.publicID("pol-"), json: json)
        for role in rule.roles { _ = try self.role(role) }
        let text = String(decoding: rule.json.serialized(), as: UTF8.self)
        let sequence = try await store.write(bytes: 512 + text.utf8.count) { (transaction) throws(StoreError) in
            let count = try transaction.count("SELECT count(*) FROM security_policies")
            guard count < CommandPolicy.maximumRules else {
                throw .refused(.conflict("too-many-rules", "the policy has \(CommandPolicy.maximumRules) rules"))
            }
            let position = try transaction.count("SELECT coalesce(max(position), 0) + 1 FROM security_policies")
            try transaction.run("INSERT INTO security_policies VALUES (?, ?, ?)", rule.id, position, text)
            return try transaction.audit(AuditRecord(principal: principal, action: "policy.write", target: rule.id, detail: rule.json))
        }
        state.withLock { state in
            if state.accept("policy:" + rule.id, sequence, now: clock()) { state.policy = CommandPolicy(state.policy.rules + [rule]) }
        }
        return rule
    }

    public func deletePolicyRule(_ id: String, by principal: Principal) async throws(Problem) {
        guard let rule = policyRules().first(where: { $0.id == id }) else {
            throw .notFound("the policy has no rule \"\(id.prefix(64))\"")
        }
        let sequence = try await store.write { (transaction) throws(StoreError) in
            try transaction.run("DELETE FROM security_policies WHERE id = ?", id)
            return try transaction.audit(AuditRecord(principal: principal, action: "policy.delete", target: id, detail: rule.json))
        }
        state.withLock { state in
            if state.accept("policy:" + id, sequence, now: clock()) {
                state.policy = CommandPolicy(state.policy.rules.filter { $0.id != id })
            }
        }
    }
}
