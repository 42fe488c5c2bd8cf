import AgentProtocol
import Crypto

/// Transfers as rows.
enum TransferRows {
    static let migrations = [
        Migration(
            area: "transfers", version: 1,
            sql: """
                CREATE TABLE transfers (
                    id BLOB PRIMARY KEY,
                    group_id BLOB NOT NULL,
                    client BLOB NOT NULL,
                    direction TEXT NOT NULL,
                    form TEXT NOT NULL,
                    path TEXT NOT NULL,
                    file BLOB,
                    name TEXT NOT NULL,
                    size INTEGER,
                    sha256 BLOB,
                    mode INTEGER,
                    modified_ns INTEGER,
                    replaces INTEGER NOT NULL,
                    makes_parents INTEGER NOT NULL,
                    links TEXT NOT NULL,
                    rate INTEGER NOT NULL,
                    owner_kind TEXT NOT NULL,
                    owner TEXT NOT NULL,
                    created_ms INTEGER NOT NULL,
                    deadline_ms INTEGER NOT NULL,
                    state TEXT NOT NULL,
                    code TEXT NOT NULL,
                    reason TEXT NOT NULL,
                    started_ms INTEGER,
                    finished_ms INTEGER,
                    bytes INTEGER NOT NULL,
                    durable INTEGER NOT NULL,
                    entries INTEGER NOT NULL,
                    skipped INTEGER NOT NULL
                ) STRICT;
                CREATE INDEX transfers_unfinished ON transfers (id) WHERE finished_ms IS NULL;
                CREATE INDEX transfers_finished ON transfers (finished_ms) WHERE finished_ms IS NOT NULL;
                CREATE INDEX transfers_client ON transfers (client, id);
                CREATE INDEX transfers_group ON transfers (group_id, id);
                """),
        Migration(area: "transfers", version: 2, sql: "ALTER TABLE transfers ADD COLUMN far TEXT"),
        // Of a request, in the row of its first transfer.
        Migration(
            area: "transfers", version: 3,
            sql: """
                ALTER TABLE transfers ADD COLUMN idempotency_key TEXT;
                ALTER TABLE transfers ADD COLUMN request_digest BLOB;
                CREATE UNIQUE INDEX transfers_key ON transfers (owner_kind, owner, idempotency_key)
                    WHERE idempotency_key IS NOT NULL;
                """),
    ]

    private static let columns = """
        id, group_id, client, direction, form, path, file, name, size, sha256, mode, modified_ns, replaces, makes_parents, \
        links, rate, owner_kind, owner, created_ms, deadline_ms, state, code, reason, started_ms, finished_ms, bytes, \
        durable, entries, skipped, far
        """

    static func select() -> StoreQuery { StoreQuery("SELECT \(columns) FROM transfers") }

    static func transfer(_ row: borrowing Row) throws(StoreError) -> Transfer {
        guard let id = row.identifier(0, TransferTag.self), let group = row.identifier(1, TransferTag.self),
            let client = row.identifier(2, ClientKind.self), let direction = TransferDirection(rawValue: row.text(3)),
            let form = TransferForm(rawValue: row.text(4)), let links = LinkPolicy(rawValue: row.text(14)),
            let kind = Principal.Kind(rawValue: row.text(16)), let state = TransferState(rawValue: row.text(20))
        else { throw .failed(code: 0, message: "a row of the table transfers is damaged") }
        return Transfer(
            id: id, group: group, client: client, direction: direction, form: form, path: row.text(5),
            file: row.identifier(6, StoredFileTag.self), name: row.text(7), size: row.optionalUnsigned(8),
            digest: row.optionalBytes(9).flatMap { SHA256.Digest(bytes: $0) },
            mode: row.optionalInteger(10).map { UInt16(clamping: $0) }, modified: row.optionalInteger(11),
            replaces: row.bool(12), makesParents: row.bool(13), links: links, rate: row.unsigned(15), ownerKind: kind,
            owner: row.text(17), createdAt: row.unsigned(18), deadline: row.unsigned(19),
            machine: TransferStateMachine(
                state: state, code: row.text(21), reason: row.text(22), startedAt: row.optionalUnsigned(23),
                finishedAt: row.optionalUnsigned(24)),
            bytes: row.unsigned(25), durable: row.unsigned(26), entries: row.unsigned(27), skipped: row.unsigned(28),
            far: row.optionalText(29))
    }

    static func all(_ query: StoreQuery, _ store: borrowing some StoreReading & ~Copyable) throws(StoreError) -> [Transfer] {
        try store.all(query) { (row) throws(StoreError) in try transfer(row) }
    }

    static func load(_ id: TransferID, _ store: borrowing some StoreReading & ~Copyable) throws(StoreError) -> Transfer? {
        var query = select()
        query.and("id = ?", .bytes(id.bytes))
        return try all(query, store).first
    }

    /// The transfers of the request that came with this key before.
    /// - Throws: 409 `idempotency-key-reused`: it was another request.
    static func known(
        _ key: IdempotencyKey, of principal: Principal, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> [Transfer] {
        let found = try store.first(
            "SELECT id, request_digest FROM transfers WHERE owner_kind = ? AND owner = ? AND idempotency_key = ?",
            principal.kind.rawValue, principal.id, key.key
        ) { (row) throws(StoreError) in (row.identifier(0, TransferTag.self), row.bytes(1)) }
        guard let found, let group = found.0 else { return [] }
        guard found.1 == key.requestDigest else {
            throw .refused(
                .conflict("idempotency-key-reused", "this idempotency key belongs to another request (transfer \(group))"))
        }
        var query = select()
        query.and("group_id = ?", .bytes(group.bytes))
        query.append(" ORDER BY id")
        return try all(query, store)
    }

    static func insert(
        _ transfer: Transfer, _ key: IdempotencyKey?, _ transaction: borrowing Transaction
    ) throws(StoreError) {
        try transaction.run(
            """
            INSERT INTO transfers (id, group_id, client, direction, form, path, file, name, size, mode, modified_ns, replaces,
                makes_parents, links, rate, owner_kind, owner, created_ms, deadline_ms, state, code, reason, bytes, durable,
                entries, skipped, far, idempotency_key, request_digest)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', 0, 0, 0, 0, ?, ?, ?)
            """,
            transfer.id, transfer.group, transfer.client, transfer.direction.rawValue, transfer.form.rawValue,
            transfer.path, transfer.file, transfer.name, transfer.size, transfer.mode.map { Int($0) }, transfer.modified,
            transfer.replaces, transfer.makesParents, transfer.links.rawValue, transfer.rate, transfer.ownerKind.rawValue,
            transfer.owner, transfer.createdAt, transfer.deadline, transfer.state.rawValue, transfer.far,
            key?.key, key?.requestDigest)
    }

    /// Writes what can change. False: it is over already, or gone.
    @discardableResult
    static func save(_ transfer: Transfer, _ transaction: borrowing Transaction) throws(StoreError) -> Bool {
        let machine = transfer.machine
        return try transaction.run(
            """
            UPDATE transfers SET file = ?, size = ?, sha256 = ?, mode = ?, modified_ns = ?, state = ?, code = ?, reason = ?,
                started_ms = ?, finished_ms = ?, bytes = ?, durable = ?, entries = ?, skipped = ?
            WHERE id = ? AND finished_ms IS NULL
            """,
            transfer.file, transfer.size, transfer.digest?.bytes, transfer.mode.map { Int($0) }, transfer.modified,
            machine.state.rawValue, machine.code, machine.reason, machine.startedAt, machine.finishedAt, transfer.bytes,
            transfer.durable, transfer.entries, transfer.skipped, transfer.id) == 1
    }
}
