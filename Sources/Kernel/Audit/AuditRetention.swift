import JSON

/// Cuts the head of the trail at a signed checkpoint, so that the rest still verifies.
struct AuditRetention: Sendable {
    /// The record that says so. It stands in the rest, hence cannot be forged without breaking the chain.
    static let action = "audit.cut"
    let store: Store
    /// With the archive on, what it does not have yet stays.
    let mindsArchive: Bool

    /// Removes records up to the newest checkpoint that is older than `limit` (Unix milliseconds), a few thousand per
    /// transaction; after each of them the trail verifies.
    /// - Returns: the last record that was removed; `nil` when there was nothing to cut.
    func cut(olderThan limit: UInt64, by principal: Principal) async throws(Problem) -> UInt64? {
        let target = try await store.read { (reader) throws(StoreError) in
            try reader.first(
                """
                SELECT max(sequence) FROM audit_checkpoints
                WHERE time_ms < ? AND sequence >= (SELECT min(sequence) FROM audit_records)
                """, limit
            ) { (row) throws(StoreError) in row.optionalUnsigned(0) } ?? nil
        }
        guard let target = try await withinArchive(target) else { return nil }
        let record = AuditRecord(
            principal: principal, action: Self.action, detail: ["through": .integer(Int64(clamping: target))])
        try await store.write { (transaction) throws(StoreError) in
            try transaction.audit(record)
            _ = try removeInterval(transaction, target)
        }
        while try await store.write({ (transaction) throws(StoreError) in
            try removeInterval(transaction, target)
        }) {}
        return target
    }

    /// The newest checkpoint up to `target` that the archive has; `nil`: none that would remove anything.
    private func withinArchive(_ target: UInt64?) async throws(Problem) -> UInt64? {
        guard mindsArchive, let target else { return target }
        return try await store.read { (reader) throws(StoreError) in
            guard let archived = try ArchivePosition.archived(reader), archived < target else { return target }
            return try reader.first(
                """
                SELECT max(sequence) FROM audit_checkpoints
                WHERE sequence <= ? AND sequence >= (SELECT min(sequence) FROM audit_records)
                """, archived
            ) { (row) throws(StoreError) in row.optionalUnsigned(0) } ?? nil
        }
    }

    /// Removes the records up to the first checkpoint that has records before it.
    /// - Returns: false when nothing up to `target` is left.
    private func removeInterval(
        _ transaction: borrowing Transaction, _ target: UInt64
    ) throws(StoreError) -> Bool {
        // Asked anew each time: the archive may have been turned on since, and begins with what it finds.
        let archived = mindsArchive ? try ArchivePosition.archived(transaction) : nil
        let boundary = try transaction.first(
            """
            SELECT min(sequence) FROM audit_checkpoints
            WHERE sequence <= ? AND sequence >= (SELECT min(sequence) FROM audit_records)
            """, target
        ) { (row) throws(StoreError) in row.optionalUnsigned(0) } ?? nil
        guard let boundary, boundary <= archived ?? .max else { return false }
        try transaction.run("DELETE FROM audit_records WHERE sequence <= ?", boundary)
        try transaction.run("DELETE FROM audit_checkpoints WHERE sequence < ?", boundary)
        return boundary < target
    }
}
