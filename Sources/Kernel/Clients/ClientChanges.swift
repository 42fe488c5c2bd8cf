import AgentProtocol
import Crypto
import JSON

/// What operators do to clients. Each act and its audit record are one transaction; memory follows after the commit.
extension Clients {
    /// - Parameter revision: the revision that the caller saw; `nil` changes whatever is there.
    /// - Throws: 404; 412 `changed-meanwhile`; `invalid` that names the field.
    @discardableResult
    public func edit(
        _ id: ClientID, _ edit: ClientEdit, by principal: Principal, ifRevision revision: UInt64? = nil
    ) async throws(Problem) -> Client {
        try edit.check()
        let after = try await store.write(bytes: 4_096) { (transaction) throws(StoreError) in
            guard let current = try Self.stored(transaction, id) else { throw .refused(Self.unknown(id)) }
            if let revision, revision != current.revision {
                throw .refused(
                    Problem(
                        412, "changed-meanwhile",
                        "client \(id) is at revision \(current.revision), the request was made for \(revision)"))
            }
            var after = current
            after.revision += 1
            after.name = edit.name ?? current.name
            try transaction.run(
                """
                UPDATE clients SET revision = ?, name = ?, notes = coalesce(?, notes), metadata = coalesce(?, metadata)
                WHERE id = ?
                """, after.revision, after.name, edit.notes,
                edit.metadata.map { String(decoding: JSONValue.object($0).serialized(), as: UTF8.self) }, id)
            after.labels = try Self.change(transaction, id, current.labels, edit.labels)
            try transaction.audit(
                AuditRecord(principal: principal, action: "client.update", clients: [id], detail: Self.summary(edit)))
            return after
        }
        takeOver(after, of: id)
        publish(RegistryEvent("client.changed", id))
        guard let client = get(id) else { throw Self.unknown(id) }
        return client
    }

    /// Sets and removes labels on many clients, in commits of 500 clients each.
    /// - Returns: the number of clients changed, after all of them.
    /// - Throws: after a failed commit the commits before it stand; doing it again is safe.
    public func label(
        _ ids: [ClientID], _ labels: [String: String?], by principal: Principal, selector: String
    ) async throws(Problem) -> Int {
        guard !labels.isEmpty else { throw .invalid("no label to set or remove was given", pointer: "/labels") }
        try ClientEdit.check(labels: labels)
        var changed = 0
        var rest = ids[...]
        while !rest.isEmpty {
            let part = Array(rest.prefix(500))
            rest = rest.dropFirst(500)
            let after = try await store.write(bytes: part.count * 256) { (transaction) throws(StoreError) in
                var after: [(ClientID, Stored)] = []
                for id in part {
                    guard var stored = try Self.stored(transaction, id) else { continue }
                    let new = try Self.change(transaction, id, stored.labels, labels)
                    guard new != stored.labels else { continue }
                    stored.labels = new
                    stored.revision += 1
                    try transaction.run("UPDATE clients SET revision = ? WHERE id = ?", stored.revision, id)
                    after.append((id, stored))
                }
                try transaction.audit(
                    AuditRecord(
                        principal: principal, action: "client.label", clients: after.map(\.0), target: selector,
                        detail: Self.summary(ClientEdit(labels: labels))))
                return after
            }
            for (id, stored) in after {
                takeOver(stored, of: id)
                publish(RegistryEvent("client.changed", id))
            }
            changed += after.count
        }
        return changed
    }

    /// Drops the link; the agent comes back by itself.
    /// - Throws: 404; 409 `not-connected`.
    public func disconnect(_ id: ClientID, reason: String, by principal: Principal) async throws(Problem) {
        guard get(id) != nil else { throw Self.unknown(id) }
        guard let link = anyLink(of: id) else {
            throw .conflict("not-connected", "client \(id) has no link to close")
        }
        try await store.write { (transaction) throws(StoreError) in
            try transaction.audit(
                AuditRecord(principal: principal, action: "client.disconnect", clients: [id], reason: reason))
        }
        link.close(LinkEnd(code: "disconnected", detail: reason))
    }

    /// Shuts the client out: its link drops at once and no other is accepted until `reinstate`.
    public func revoke(_ id: ClientID, reason: String, by principal: Principal) async throws(Problem) {
        let now = clock()
        let after = try await store.write { (transaction) throws(StoreError) in
            guard var stored = try Self.stored(transaction, id) else { throw .refused(Self.unknown(id)) }
            stored.revision += 1
            stored.revokedAt = stored.revokedAt ?? now
            try transaction.run(
                "UPDATE clients SET revoked_ms = ?, revoked_reason = ?, revision = ? WHERE id = ?",
                stored.revokedAt, reason, stored.revision, id)
            try transaction.audit(
                AuditRecord(principal: principal, action: "client.revoke", clients: [id], reason: reason))
            return stored
        }
        let link = takeOver(after, of: id)
        link?.close(LinkEnd(code: "revoked", detail: reason))
        publish(RegistryEvent("client.revoked", id, ["reason": .string(reason)]))
    }

    /// Lets a revoked client in again.
    public func reinstate(_ id: ClientID, reason: String, by principal: Principal) async throws(Problem) {
        let after = try await store.write { (transaction) throws(StoreError) in
            guard var stored = try Self.stored(transaction, id) else { throw .refused(Self.unknown(id)) }
            guard stored.revokedAt != nil else {
                throw .refused(.conflict("not-revoked", "client \(id) is not revoked"))
            }
            stored.revision += 1
            stored.revokedAt = nil
            try transaction.run(
                "UPDATE clients SET revoked_ms = NULL, revoked_reason = NULL, revision = ? WHERE id = ?",
                stored.revision, id)
            try transaction.audit(
                AuditRecord(principal: principal, action: "client.reinstate", clients: [id], reason: reason))
            return stored
        }
        takeOver(after, of: id)
        publish(RegistryEvent("client.reinstated", id))
    }

    /// Takes the client out of the registry. Its key is unknown from then on. What others keep about it (commands,
    /// audit) stays; `purge` also drops the history of its links, and the event tells others to drop theirs.
    /// - Parameter since: forget only if it is offline since before then; used by the clean-up, which looked earlier.
    public func forget(
        _ id: ClientID, purge: Bool, reason: String, by principal: Principal, ifOfflineSince since: UInt64? = nil
    ) async throws(Problem) {
        if let since, let client = get(id), client.state != .offline || client.lastSeen >= since { return }
        try await store.write { (transaction) throws(StoreError) in
            guard try transaction.run("DELETE FROM clients WHERE id = ?", id) > 0 else {
                throw .refused(Self.unknown(id))
            }
            try transaction.run("DELETE FROM client_labels WHERE client = ?", id)
            try transaction.run("DELETE FROM client_facts WHERE client = ?", id)
            try transaction.run("DELETE FROM client_links WHERE client = ?", id)
            if purge { try transaction.run("DELETE FROM client_sessions WHERE client = ?", id) }
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "client.forget", clients: [id], reason: reason,
                    detail: ["purge": .bool(purge)]))
        }
        let link = fleet.withLock { table -> AgentLink? in
            guard let slot = table.slot(of: id) else { return nil }
            let link = table.row(slot)?.link
            table.remove(slot)
            return link
        }
        unwritten.withLock { $0.forget(id) }
        link?.close(LinkEnd(code: "forgotten", detail: reason))
        publish(RegistryEvent("client.forgotten", id, ["purge": .bool(purge)]))
    }

    // MARK: Between store and memory

    /// What memory shows of a client's row, as of one commit.
    struct Stored: Sendable {
        var revision: UInt64
        var name: String
        var revokedAt: UInt64?
        var isHeldBack: Bool
        var excludedBoots: [String]
        var key: SHA256.Digest
        var labels: [String: String]
    }

    static func stored(_ transaction: borrowing Transaction, _ id: ClientID) throws(StoreError) -> Stored? {
        let found = try transaction.first(
            """
            SELECT revision, name, revoked_ms, contenders IS NOT NULL, fingerprint, excluded_boots
            FROM clients WHERE id = ?
            """, id
        ) { (row) throws(StoreError) -> Stored in
            guard let key = SHA256.Digest(bytes: row.bytes(4)) else {
                throw .refused(Problem(500, "store-refused", "the fingerprint of client \(id) is damaged"))
            }
            return Stored(
                revision: row.unsigned(0), name: row.text(1), revokedAt: row.optionalUnsigned(2),
                isHeldBack: row.bool(3), excludedBoots: ClientsSchema.boots(row.text(5)), key: key, labels: [:])
        }
        guard var stored = found else { return nil }
        var labels: [String: String] = [:]
        try transaction.each("SELECT key, value FROM client_labels WHERE client = ?", id) { (row) throws(StoreError) in
            labels[row.text(0)] = row.text(1)
        }
        stored.labels = labels
        return stored
    }

    /// Brings memory to a committed row, unless a later commit was there first.
    /// - Returns: the link that the client has now.
    @discardableResult
    func takeOver(_ stored: Stored, of id: ClientID) -> AgentLink? {
        let now = clock()
        return fleet.withLock { table in
            guard let slot = table.slot(of: id), let row = table.row(slot) else { return nil }
            guard stored.revision > row.revision else { return row.link }
            if table.name(of: row) != stored.name { table.setName(stored.name, of: slot) }
            if table.labels(of: row) != stored.labels { table.setLabels(stored.labels, of: slot) }
            if row.key != stored.key { table.setKey(stored.key, of: slot) }
            table.update(slot) { row in
                row.revision = stored.revision
                row.isHeldBack = stored.isHeldBack
                row.excludedBoots = stored.excludedBoots
            }
            if let at = stored.revokedAt {
                table.setState(.revoked, of: slot, at: at)
            } else if row.state == .revoked {
                table.setState(row.link == nil ? .offline : .online, of: slot, at: now)
            }
            return row.link
        }
    }

    /// The link even of a client that gets no work.
    func anyLink(of id: ClientID) -> AgentLink? { fleet.withLock { $0.row(of: id)?.link } }

    static func unknown(_ id: ClientID) -> Problem { .notFound("there is no client \(id)") }

    /// - Returns: the labels after the change.
    static func change(
        _ transaction: borrowing Transaction, _ id: ClientID, _ current: [String: String], _ change: [String: String?]
    ) throws(StoreError) -> [String: String] {
        var labels = current
        for (key, value) in change {
            if let value {
                guard labels.updateValue(value, forKey: key) != value else { continue }
                try transaction.run(
                    """
                    INSERT INTO client_labels (client, key, value) VALUES (?, ?, ?)
                    ON CONFLICT (client, key) DO UPDATE SET value = excluded.value
                    """, id, key, value)
            } else if labels.removeValue(forKey: key) != nil {
                try transaction.run("DELETE FROM client_labels WHERE client = ? AND key = ?", id, key)
            }
        }
        guard labels.count <= ClientEdit.maximumLabels else {
            throw .refused(
                .invalid(
                    "client \(id) would have \(labels.count) labels, at most \(ClientEdit.maximumLabels) are allowed",
                    pointer: "/labels"))
        }
        return labels
    }

    private static func summary(_ edit: ClientEdit) -> JSONValue {
        var summary = JSONObject()
        if let name = edit.name { summary["name"] = .string(name) }
        if edit.notes != nil { summary["notes"] = true }
        if edit.metadata != nil { summary["metadata"] = true }
        if !edit.labels.isEmpty {
            summary["labels"] = .object(
                JSONObject(edit.labels.sorted { $0.key < $1.key }.map { ($0.key, $0.value.map { .string($0) } ?? .null) }))
        }
        return .object(summary)
    }
}
