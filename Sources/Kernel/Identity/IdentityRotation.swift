import JSON
import Transport

extension Security {
    /// Rotates the core's identity, audited: the wish before the key files change, a failure after it.
    /// - Parameter validDays: how long agents may take to learn the new key.
    public func rotate(
        _ identity: IdentityService, validDays: Int, by principal: Principal
    ) async throws(Problem) -> String {
        guard (1...3_650).contains(validDays) else { throw .invalid("\"valid_days\" is from 1 to 3,650", pointer: "/valid_days") }
        let old = identity.fingerprint
        var record = AuditRecord(
            principal: principal, action: "identity.rotate", target: old, detail: ["valid_days": .integer(Int64(validDays))])
        try await audit(record)
        let now = clock()
        do throws(Problem) {
            _ = try await onPool { () throws(Problem) in
                try identity.rotate(now: now, validMilliseconds: UInt64(validDays) * 86_400_000)
            }
        } catch {
            record.outcome = .failed
            record.reason = error.detail
            try await audit(record)
            throw error
        }
        return identity.fingerprint
    }

    /// The keys of TLS session tickets, renewed when they are due; on the pool, because that writes a file.
    public func ticketKeys(_ identity: IdentityService) async throws(Problem) -> [TLSTicketKey] {
        let now = clock()
        return try await onPool { () throws(Problem) in try identity.freshTicketKeys(now: now) }
    }

    /// Whether this master key is in use already; `nil` asks whether there is none.
    public func isSealed(under key: MasterKey?) -> Bool { safe.isCurrent(key) }

    /// Changes the master key of a running core: keys and second factors are sealed again under it, then the old key is
    /// needed no more. Safe to repeat after a failure.
    public func changeMasterKey(to key: MasterKey?, _ identity: IdentityService, by principal: Principal) async throws(Problem) {
        try await audit(AuditRecord(principal: principal, action: "identity.master-key", detail: ["sealing": .bool(key != nil)]))
        safe.replace(current: key)
        try await onPool { () throws(Problem) in try identity.seal() }
        for user in users() {
            guard let sealed = user.secondFactor else { continue }
            let name = "second-factor:" + user.name
            let again = try safe.seal(try safe.open(sealed, name: name).secret, name: name)
            let isDone = try await store.write { (transaction) throws(StoreError) in
                try transaction.run(
                    "UPDATE security_users SET second_factor = ? WHERE name = ? AND second_factor = ?", again, user.name, sealed) == 1
            }
            state.withLock { if isDone, $0.users[user.name]?.secondFactor == sealed { $0.users[user.name]?.secondFactor = again } }
        }
    }

    private func audit(_ record: AuditRecord) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(record) }
    }
}
