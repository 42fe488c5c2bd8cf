import AgentProtocol
import Crypto

/// The rows of the managed store.
///
/// A row is the truth, the file beside it only its bytes: a file without a row is removed when the core starts, and a row
/// becomes whole only when all bytes are synced.
enum FileRows {
    static let migrations = [
        Migration(
            area: "files", version: 1,
            sql: """
                CREATE TABLE files (
                    id BLOB PRIMARY KEY,
                    name TEXT NOT NULL,
                    form TEXT NOT NULL,
                    -- Announced, then true; NULL: not announced.
                    size INTEGER,
                    -- Synced bytes, and the state of the hash after them.
                    durable INTEGER NOT NULL,
                    hash_state BLOB NOT NULL,
                    -- NULL while the file is unfinished.
                    sha256 BLOB,
                    owner_kind TEXT NOT NULL,
                    owner TEXT NOT NULL,
                    source TEXT NOT NULL,
                    created_ms INTEGER NOT NULL,
                    finished_ms INTEGER,
                    -- How long it is kept once it is whole; NULL: for ever.
                    keep_ms INTEGER,
                    expires_ms INTEGER
                ) STRICT;
                CREATE INDEX files_expiry ON files (expires_ms) WHERE expires_ms IS NOT NULL;
                CREATE INDEX files_owner ON files (owner_kind, owner, id);
                CREATE TABLE file_holds (
                    file BLOB NOT NULL REFERENCES files (id), holder TEXT NOT NULL, PRIMARY KEY (file, holder)
                ) STRICT, WITHOUT ROWID;
                CREATE INDEX file_holds_holder ON file_holds (holder);
                """)
    ]

    private static let columns =
        "id, name, form, size, durable, sha256, owner_kind, owner, source, created_ms, finished_ms, expires_ms"

    static func select() -> StoreQuery { StoreQuery("SELECT \(columns) FROM files") }

    static func file(_ row: borrowing Row) throws(StoreError) -> StoredFile {
        guard let id = row.identifier(0, StoredFileTag.self), let form = StoredFileForm(rawValue: row.text(2)),
            let kind = Principal.Kind(rawValue: row.text(6))
        else { throw .failed(code: 0, message: "a row of the table files is damaged") }
        return StoredFile(
            id: id, name: row.text(1), form: form, size: row.optionalUnsigned(3), durable: row.unsigned(4),
            digest: row.optionalBytes(5).flatMap { SHA256.Digest(bytes: $0) }, ownerKind: kind, owner: row.text(7),
            source: row.text(8), createdAt: row.unsigned(9), finishedAt: row.optionalUnsigned(10),
            expiresAt: row.optionalUnsigned(11))
    }

    static func load(
        _ id: FileID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> StoredFile? {
        var query = select()
        query.and("id = ?", .bytes(id.bytes))
        return try store.all(query) { (row) throws(StoreError) in try file(row) }.first
    }

    static func hashState(
        _ id: FileID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> [UInt8] {
        try store.first("SELECT hash_state FROM files WHERE id = ?", id) { (row) throws(StoreError) in row.bytes(0) } ?? []
    }

    static func insert(
        _ file: StoredFile, keep: UInt64?, _ transaction: borrowing Transaction
    ) throws(StoreError) {
        try transaction.run(
            """
            INSERT INTO files (id, name, form, size, durable, hash_state, owner_kind, owner, source, created_ms, keep_ms,
                expires_ms) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)
            """,
            file.id, file.name, file.form.rawValue, file.size, SHA256().exported, file.ownerKind.rawValue, file.owner,
            file.source, file.createdAt, keep, file.expiresAt)
    }

    /// False: there is no such unfinished file any more.
    static func checkpoint(
        _ id: FileID, at offset: UInt64, _ hash: [UInt8], expires: UInt64, _ transaction: borrowing Transaction
    ) throws(StoreError) -> Bool {
        try transaction.run(
            """
            UPDATE files SET durable = ?, hash_state = ?, expires_ms = ?
            WHERE id = ? AND finished_ms IS NULL AND durable <= ?
            """, offset, hash, expires, id, offset) == 1
    }

    static func finish(
        _ id: FileID, size: UInt64, _ digest: SHA256.Digest, at now: UInt64, _ transaction: borrowing Transaction
    ) throws(StoreError) -> Bool {
        try transaction.run(
            """
            UPDATE files SET size = ?, durable = ?, hash_state = x'', sha256 = ?, finished_ms = ?,
                expires_ms = ? + keep_ms WHERE id = ? AND finished_ms IS NULL
            """, size, size, digest.bytes, now, now, id) == 1
    }

    static func delete(_ id: FileID, _ transaction: borrowing Transaction) throws(StoreError) {
        try transaction.run("DELETE FROM file_holds WHERE file = ?", id)
        try transaction.run("DELETE FROM files WHERE id = ?", id)
    }

    static func isHeld(
        _ id: FileID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> Bool {
        try store.exists("SELECT 1 FROM file_holds WHERE file = ?", id)
    }
}
