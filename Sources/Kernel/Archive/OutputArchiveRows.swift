import AgentProtocol

/// An object that holds what is, or was, kept here as well.
public struct ArchivedObject: Sendable, Equatable {
    public let remote: String
    public let key: String
    public let bytes: UInt64
}

/// What the archive has of one target: the streams that were not empty.
public struct ArchivedOutput: Sendable, Equatable {
    public let milliseconds: UInt64
    public let output: ArchivedObject?
    public let errors: ArchivedObject?

    func object(_ stream: OutputStream) -> ArchivedObject? { stream == .standardOutput ? output : errors }
}

/// How far a destination of output has come: a row of `output_archives`.
///
/// Targets are numbered in the order of acceptance and end in any other one. So the position passes those that have not ended, and
/// each of them gets a row in `output_archive_open` in the same transaction: nothing up to the position is forgotten, and beyond it
/// everything is looked at. No statement of the command path writes here.
struct OutputArchiveRow: Equatable, Sendable {
    let id: Int64
    /// All targets up to this one are archived, without output, missing, or have a row in `output_archive_open`.
    var position: Int64
    var objects: UInt64
    var bytes: UInt64
    /// Targets whose output was gone, in part or whole, when its turn came.
    var missing: UInt64
    /// Bytes that the disk limit removed before the archive had everything that was in the same files.
    var droppedBytes: UInt64
    var lastKey: String
    var archivedMilliseconds: UInt64
}

/// An ended target with output whose turn has come.
struct OutputArchiveItem: Equatable, Sendable {
    let target: Int64
    let command: CommandID
    let client: ClientID
}

/// Everything that the next round does.
struct OutputArchiveBatch: Sendable {
    var items: [OutputArchiveItem] = []
    /// Not ended yet: they are looked at again.
    var open: [Int64] = []
    /// Where the position is when the items are done.
    var position: Int64
    /// There may be more at once.
    var isFull = false
}

/// What came of an item.
struct OutputArchived: Sendable {
    let item: OutputArchiveItem
    /// Bytes of each stream that the store has; `nil`: an empty one, or one that is gone.
    var output: UInt64?
    var errors: UInt64?
    var isMissing = false
}

extension OutputArchiveRow {
    static let migrations = [
        Migration(
            area: "output-archive", version: 1,
            sql: """
                CREATE TABLE output_archives (
                    id INTEGER PRIMARY KEY, remote TEXT NOT NULL, prefix TEXT NOT NULL, position INTEGER NOT NULL,
                    objects INTEGER NOT NULL, bytes INTEGER NOT NULL, missing INTEGER NOT NULL, dropped INTEGER NOT NULL,
                    last_key TEXT NOT NULL, archived_ms INTEGER NOT NULL, UNIQUE (remote, prefix)
                ) STRICT;
                CREATE TABLE output_archived (
                    target INTEGER NOT NULL, archive INTEGER NOT NULL, archived_ms INTEGER NOT NULL, output INTEGER, errors INTEGER,
                    PRIMARY KEY (target, archive)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE output_archive_open (
                    archive INTEGER NOT NULL, target INTEGER NOT NULL, PRIMARY KEY (archive, target)
                ) STRICT, WITHOUT ROWID;
                """)
    ]
    /// Objects of one round, and targets that it looks at.
    static let itemsPerRound = 64
    static let scannedTargets = 2_048
    /// Of output, beyond which a round has no other target: what it has done is durable only at its end.
    static let bytesPerRound: UInt64 = 256 << 20

    /// As the settings say in this transaction; `nil`: off.
    static func destination(_ reader: borrowing some StoreReading & ~Copyable) throws(StoreError) -> ArchiveDestination? {
        try ArchiveDestination.current(reader, .outputArchiveRemote, .outputArchivePrefix)
    }

    static func read(
        _ reader: borrowing some StoreReading & ~Copyable, _ destination: ArchiveDestination
    ) throws(StoreError) -> OutputArchiveRow? {
        try reader.first(
            """
            SELECT id, position, objects, bytes, missing, dropped, last_key, archived_ms FROM output_archives
            WHERE remote = ? AND prefix = ?
            """, destination.remote, destination.prefix
        ) { (row) throws(StoreError) in
            OutputArchiveRow(
                id: row.integer(0), position: row.integer(1), objects: row.unsigned(2), bytes: row.unsigned(3),
                missing: row.unsigned(4), droppedBytes: row.unsigned(5), lastKey: row.text(6), archivedMilliseconds: row.unsigned(7))
        }
    }

    /// The row of a destination; a new one begins before the oldest target that is kept.
    static func begin(_ transaction: borrowing Transaction, _ destination: ArchiveDestination) throws(StoreError) -> OutputArchiveRow {
        if let known = try read(transaction, destination) { return known }
        guard try transaction.count("SELECT count(*) FROM output_archives") < ArchivePosition.maximumDestinations else {
            throw .refused(.conflict(
                "output-archive-destinations",
                "the archive has had \(ArchivePosition.maximumDestinations) destinations already: use one of them again"))
        }
        try transaction.run(
            """
            INSERT INTO output_archives (remote, prefix, position, objects, bytes, missing, dropped, last_key, archived_ms)
            VALUES (?, ?, -1, 0, 0, 0, 0, '', 0)
            """, destination.remote, destination.prefix)
        guard let made = try read(transaction, destination) else {
            throw .failed(code: 0, message: "a row of the table output_archives is not there")
        }
        return made
    }

    /// What is to be done next.
    /// - Parameters:
    ///   - end: every target below it is in the database, or never will be.
    ///   - carry: commands accepted before these Unix milliseconds are passed although they have targets that have not ended.
    ///   - looksAtOpen: also at those that were passed.
    func batch(
        _ reader: borrowing Reader, below end: Int64, carry: UInt64, looksAtOpen: Bool
    ) throws(StoreError) -> OutputArchiveBatch {
        var batch = OutputArchiveBatch(position: position)
        if looksAtOpen {
            batch.items = try reader.all(
                """
                SELECT t.id, c.seq, c.low, t.client FROM output_archive_open o JOIN command_exits e ON e.target = o.target
                JOIN command_targets t ON t.id = o.target JOIN commands c ON c.seq = t.command
                WHERE o.archive = ? ORDER BY o.target LIMIT ?
                """, id, Self.itemsPerRound
            ) { (row) throws(StoreError) in
                OutputArchiveItem(
                    target: row.integer(0), command: CommandID(high: row.unsigned(1), low: UInt64(bitPattern: row.integer(2))),
                    client: row.identifier(3, ClientKind.self) ?? ClientID(high: 0, low: 0))
            }
        }
        batch.isFull = batch.items.count == Self.itemsPerRound
        var (scanned, bytes): (Int, UInt64) = (0, 0)
        var isOver = false
        let carry = Int64(clamping: carry) << 16
        try reader.each(
            """
            SELECT t.id, c.seq, c.low, t.client, e.target IS NOT NULL, e.output_bytes + e.error_bytes,
                EXISTS (SELECT 1 FROM output_archived a WHERE a.target = t.id AND a.archive = ?)
            FROM command_targets t JOIN commands c ON c.seq = t.command LEFT JOIN command_exits e ON e.target = t.id
            WHERE t.id > ? AND t.id < ? ORDER BY t.id LIMIT ?
            """, id, position, end, Self.scannedTargets
        ) { (row) throws(StoreError) in
            guard !isOver else { return }
            if !row.bool(4) {
                // So young that it is likely to end while one waits: then it needs no row.
                guard row.integer(1) < carry else { return isOver = true }
                batch.open.append(row.integer(0))
            } else if row.unsigned(5) > 0, !row.bool(6) {
                guard batch.items.count < Self.itemsPerRound, bytes < Self.bytesPerRound else {
                    batch.isFull = true
                    return isOver = true
                }
                bytes += row.unsigned(5)
                batch.items.append(
                    OutputArchiveItem(
                        target: row.integer(0), command: CommandID(high: row.unsigned(1), low: UInt64(bitPattern: row.integer(2))),
                        client: row.identifier(3, ClientKind.self) ?? ClientID(high: 0, low: 0)))
            }
            batch.position = row.integer(0)
            scanned += 1
        }
        if scanned == Self.scannedTargets { batch.isFull = true }
        return batch
    }

    /// Notes what the store has, and moves on when all of the batch is done.
    func record(
        _ transaction: borrowing Transaction, _ done: [OutputArchived], _ batch: OutputArchiveBatch, isWhole: Bool, lastKey: String?,
        now: UInt64
    ) throws(StoreError) {
        var (objects, bytes, missing): (UInt64, UInt64, UInt64) = (0, 0, 0)
        for one in done {
            try transaction.run(
                "INSERT OR REPLACE INTO output_archived VALUES (?, ?, ?, ?, ?)", one.item.target, id, now, one.output, one.errors)
            try transaction.run("DELETE FROM output_archive_open WHERE archive = ? AND target = ?", id, one.item.target)
            objects += (one.output == nil ? 0 : 1) + (one.errors == nil ? 0 : 1)
            bytes += (one.output ?? 0) + (one.errors ?? 0)
            missing += one.isMissing ? 1 : 0
        }
        if missing > 0 {
            try transaction.audit(AuditRecord(
                principal: .outputArchive, action: "output.archive-gap", outcome: .failed,
                reason: "output was removed before the archive had it", detail: ["targets": .integer(Int64(clamping: missing))]))
        }
        if isWhole {
            for target in batch.open {
                try transaction.run("INSERT OR IGNORE INTO output_archive_open VALUES (?, ?)", id, target)
            }
            try transaction.run(
                "UPDATE output_archives SET position = ? WHERE id = ? AND position = ?", batch.position, id, position)
        }
        try transaction.run(
            """
            UPDATE output_archives SET objects = objects + ?, bytes = bytes + ?, missing = missing + ?,
                last_key = coalesce(?, last_key), archived_ms = CASE WHEN ? > 0 THEN ? ELSE archived_ms END WHERE id = ?
            """, objects, bytes, missing, lastKey, objects, now, id)
    }
}

extension Principal {
    static let outputArchive = Principal(kind: .system, id: "commands", correlation: "output-archive")
}
