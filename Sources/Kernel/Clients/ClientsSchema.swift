import AgentProtocol
import Crypto
import JSON

/// Tables of the registry. What changes with each connect stands apart from what operators change and from the facts,
/// so that a storm of connects rewrites small rows only.
enum ClientsSchema {
    static let migrations = [
        Migration(
            area: "clients", version: 1,
            sql: """
                CREATE TABLE clients (
                    id BLOB PRIMARY KEY NOT NULL, public_key BLOB NOT NULL, fingerprint BLOB NOT NULL UNIQUE,
                    name TEXT NOT NULL, notes TEXT NOT NULL, metadata TEXT NOT NULL, enrolled_ms INTEGER NOT NULL,
                    enrolled_by TEXT NOT NULL, revoked_ms INTEGER, revoked_reason TEXT, contenders TEXT,
                    excluded_boots TEXT NOT NULL, revision INTEGER NOT NULL
                ) STRICT;
                CREATE TABLE client_labels (
                    client BLOB NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (client, key)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE client_facts (
                    client BLOB PRIMARY KEY NOT NULL, report BLOB NOT NULL, packed BLOB NOT NULL,
                    hash INTEGER NOT NULL, reported_ms INTEGER NOT NULL
                ) STRICT;
                CREATE TABLE client_links (
                    client BLOB PRIMARY KEY NOT NULL, epoch INTEGER NOT NULL, address TEXT NOT NULL,
                    boot_id TEXT NOT NULL, agent_version TEXT NOT NULL, connected_ms INTEGER NOT NULL,
                    disconnected_ms INTEGER
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE client_sessions (
                    id INTEGER PRIMARY KEY, client BLOB NOT NULL, epoch INTEGER NOT NULL, address TEXT NOT NULL,
                    boot_id TEXT NOT NULL, agent_version TEXT NOT NULL, connected_ms INTEGER NOT NULL,
                    disconnected_ms INTEGER NOT NULL, end_code TEXT NOT NULL, end_detail TEXT NOT NULL
                ) STRICT;
                CREATE INDEX client_sessions_by_client ON client_sessions (client, id);
                CREATE INDEX client_sessions_by_end ON client_sessions (disconnected_ms);
                """)
    ]

    /// Ends the sessions that a core left open when it died or stopped.
    static func endOpenSessions(_ transaction: borrowing Transaction, now: UInt64) throws(StoreError) {
        try transaction.run(
            """
            INSERT INTO client_sessions
                (client, epoch, address, boot_id, agent_version, connected_ms, disconnected_ms, end_code, end_detail)
            SELECT client, epoch, address, boot_id, agent_version, connected_ms, ?, 'core-stopped', ''
            FROM client_links WHERE disconnected_ms IS NULL
            """, now)
        try transaction.run("UPDATE client_links SET disconnected_ms = ? WHERE disconnected_ms IS NULL", now)
    }

    /// The whole registry as it stands in the database.
    static func load(_ reader: borrowing Reader) throws(StoreError) -> FleetTable {
        var table = FleetTable()
        table.reserve(try reader.count("SELECT count(*) FROM clients"))
        try reader.each(
            """
            SELECT c.id, c.fingerprint, c.name, c.enrolled_ms, c.revoked_ms, c.contenders IS NOT NULL, c.revision,
                l.epoch, l.address, l.agent_version, l.disconnected_ms, f.hash, f.packed,
                c.excluded_boots
            FROM clients c LEFT JOIN client_links l ON l.client = c.id LEFT JOIN client_facts f ON f.client = c.id
            ORDER BY c.id
            """
        ) { (row) throws(StoreError) in
            guard let id = row.identifier(0, ClientKind.self), let key = SHA256.Digest(bytes: row.bytes(1)) else {
                throw .refused(Problem(500, "store-refused", "a row of the table clients is damaged"))
            }
            let enrolled = row.unsigned(3)
            let revoked = row.optionalUnsigned(4)
            let seen = row.optionalUnsigned(10) ?? enrolled
            let slot = table.insert(
                FleetTable.Row(
                    id: id, key: key, state: revoked == nil ? .offline : .revoked, isHeldBack: row.bool(5),
                    stateSince: revoked ?? seen, enrolledAt: enrolled, lastSeen: seen, revision: row.unsigned(6),
                    epoch: row.unsigned(7), excludedBoots: boots(row.text(13)), factsHash: UInt64(bitPattern: row.integer(11)), address: row.text(8),
                    agentVersion: row.text(9)))
            table.setName(row.text(2), of: slot)
            if !row.isNull(12) { table.setFacts(Facts(packed: row.bytes(12)).values, of: slot) }
        }
        try loadLabels(reader, into: &table)
        return table
    }

    /// Machines as they stand in `excluded_boots`: a JSON list, since what agents report may hold any character.
    static func boots(_ text: String) -> [String] {
        guard !text.isEmpty, let list = (try? JSONValue(parsing: text))?.array else { return [] }
        return list.compactMap(\.string)
    }

    static func text(ofBoots boots: [String]) -> String {
        boots.isEmpty ? "" : String(decoding: JSONValue.array(boots.map { .string($0) }).serialized(), as: UTF8.self)
    }

    private static func loadLabels(
        _ reader: borrowing Reader, into table: inout FleetTable
    ) throws(StoreError) {
        var slot: UInt32?
        var client: ClientID?
        var labels: [String: String] = [:]
        try reader.each("SELECT client, key, value FROM client_labels ORDER BY client") { (row) throws(StoreError) in
            let id = row.identifier(0, ClientKind.self)
            if id != client {
                if let slot { table.setLabels(labels, of: slot) }
                client = id
                slot = id.flatMap { table.slot(of: $0) }
                labels.removeAll(keepingCapacity: true)
            }
            labels[row.text(1)] = row.text(2)
        }
        if let slot { table.setLabels(labels, of: slot) }
    }
}
