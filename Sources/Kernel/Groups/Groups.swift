import AgentProtocol
import JSON

/// A selector under a name, usable as `group=NAME`.
public struct Group: Sendable {
    public var name: String
    public var selector: String
    public var description: String
    public var createdAt: UInt64
    public var createdBy: String
    public var changedAt: UInt64
    public var revision: UInt64
    public var entityTag: String { "\(revision)" }
}

enum GroupsSchema {
    static let migrations = [
        Migration(
            area: "groups", version: 1,
            sql: """
                CREATE TABLE client_groups (
                    name TEXT PRIMARY KEY NOT NULL, selector TEXT NOT NULL, description TEXT NOT NULL,
                    created_ms INTEGER NOT NULL, created_by TEXT NOT NULL, changed_ms INTEGER NOT NULL,
                    revision INTEGER NOT NULL
                ) STRICT, WITHOUT ROWID;
                """)
    ]

    static func load(_ reader: borrowing Reader) throws(StoreError) -> [String: Selector] {
        var groups: [String: Selector] = [:]
        try reader.each("SELECT name, selector FROM client_groups") { (row) throws(StoreError) in
            do throws(Problem) {
                groups[row.text(0)] = try Selector(parsing: row.text(1))
            } catch {
                throw .refused(error)
            }
        }
        return groups
    }
}

/// Saved groups. They live in the registry's memory beside the clients, so that `group=…` is answered under one lock.
extension Clients {
    static let maximumGroups = 1_000
    static let maximumGroupDescriptionBytes = 1_024

    /// By name.
    public func groups() async throws(Problem) -> [Group] {
        try await store.read { (reader) throws(StoreError) in
            try reader.all(
                """
                SELECT name, selector, description, created_ms, created_by, changed_ms, revision
                FROM client_groups ORDER BY name
                """, row: Self.group)
        }
    }

    public func group(_ name: String) async throws(Problem) -> Group? {
        try await store.read { (reader) throws(StoreError) in try Self.group(reader, name) }
    }

    /// Makes or changes a group.
    /// - Parameter revision: what the caller saw; 0 means that it must not exist yet; `nil` takes what is there.
    /// - Throws: `selector-invalid`, `group-unknown`, `group-cycle`, `invalid`, 412 `changed-meanwhile`,
    ///   409 `group-exists`, `groups-full`.
    public func setGroup(
        _ name: String, selector text: String, description: String, by principal: Principal, ifRevision revision: UInt64? = nil
    ) async throws(Problem) -> Group {
        if let fault = SelectorSyntax.fault(ofLabelKey: name) {
            throw .invalid("a group's name has the form of a label key: \(fault)", pointer: "/name")
        }
        guard description.utf8.count <= Self.maximumGroupDescriptionBytes else {
            throw .invalid(
                "a description has at most \(Self.maximumGroupDescriptionBytes) bytes", pointer: "/description")
        }
        let selector = try Selector(parsing: text)
        let now = clock()
        let group = try await store.write { (transaction) throws(StoreError) in
            try Self.checkGroups(transaction, adding: name, selector)
            let old = try Self.group(transaction, name)
            if revision == 0, old != nil {
                throw .refused(.conflict("group-exists", "there is a group '\(name)' already: change it with PUT"))
            }
            if let revision, revision != old?.revision ?? 0 {
                throw .refused(
                    Problem(
                        412, "changed-meanwhile",
                        old.map { "the group '\(name)' is at revision \($0.revision), the request was made for \(revision)" }
                            ?? "the group '\(name)' does not exist"))
            }
            let group = Group(
                name: name, selector: text, description: description, createdAt: old?.createdAt ?? now,
                createdBy: old?.createdBy ?? principal.id, changedAt: now, revision: (old?.revision ?? 0) + 1)
            try transaction.run(
                "INSERT OR REPLACE INTO client_groups VALUES (?, ?, ?, ?, ?, ?, ?)", name, text, description,
                group.createdAt, group.createdBy, now, group.revision)
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: old == nil ? "group.create" : "group.update", target: name,
                    detail: ["selector": .string(text)]))
            return group
        }
        try await reloadGroups()
        publish(RegistryEvent("group.changed", nil, ["group": .string(name)]))
        return group
    }

    /// - Throws: 404; 409 `group-in-use` while another group refers to it.
    public func removeGroup(_ name: String, by principal: Principal) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            let all = try Self.parsed(transaction)
            guard all[name] != nil else { throw .refused(.notFound("there is no group '\(name)'")) }
            if let user = all.first(where: { $0.key != name && $0.value.groups.contains(name) }) {
                throw .refused(.conflict("group-in-use", "the group '\(user.key)' refers to '\(name)'"))
            }
            try transaction.run("DELETE FROM client_groups WHERE name = ?", name)
            try transaction.audit(AuditRecord(principal: principal, action: "group.delete", target: name))
        }
        try await reloadGroups()
        publish(RegistryEvent("group.removed", nil, ["group": .string(name)]))
    }

    /// Takes all groups over as they stand now. Two changes at a time may each read both; the later read wins, and it
    /// saw at least what its own change committed.
    private func reloadGroups() async throws(Problem) {
        let number = unwritten.withLock { unwritten in
            unwritten.groupReads += 1
            return unwritten.groupReads
        }
        let groups = try await store.read { (reader) throws(StoreError) in try GroupsSchema.load(reader) }
        let isNewest = unwritten.withLock { unwritten in
            guard number > unwritten.groupsTaken else { return false }
            unwritten.groupsTaken = number
            return true
        }
        if isNewest { fleet.withLock { $0.groups = groups } }
    }

    /// On the writer, where all changes of groups pass one after another: no circle can come about.
    private static func checkGroups(
        _ transaction: borrowing Transaction, adding name: String, _ selector: Selector
    ) throws(StoreError) {
        var all = try parsed(transaction)
        guard all[name] != nil || all.count < maximumGroups else {
            throw .refused(.conflict("groups-full", "there are \(maximumGroups) groups already"))
        }
        all[name] = selector
        var table = FleetTable()
        table.groups = all
        // Every group is evaluated against an empty fleet: what refers to the changed one may have become a circle.
        for selector in all.values {
            do throws(Problem) { _ = try table.select(selector) } catch { throw .refused(error) }
        }
    }

    private static func parsed(_ transaction: borrowing Transaction) throws(StoreError) -> [String: Selector] {
        var all: [String: Selector] = [:]
        try transaction.each("SELECT name, selector FROM client_groups") { (row) throws(StoreError) in
            do throws(Problem) { all[row.text(0)] = try Selector(parsing: row.text(1)) } catch { throw .refused(error) }
        }
        return all
    }

    private static func group(
        _ store: borrowing some StoreReading & ~Copyable, _ name: String
    ) throws(StoreError) -> Group? {
        try store.first(
            """
            SELECT name, selector, description, created_ms, created_by, changed_ms, revision
            FROM client_groups WHERE name = ?
            """, name, row: Self.group)
    }

    private static func group(_ row: borrowing Row) -> Group {
        Group(
            name: row.text(0), selector: row.text(1), description: row.text(2), createdAt: row.unsigned(3),
            createdBy: row.text(4), changedAt: row.unsigned(5), revision: row.unsigned(6))
    }
}
