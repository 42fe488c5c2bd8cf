import AgentProtocol

/// What the retention of output leaves for the archive.
struct OutputHold: Sendable, Equatable {
    /// Files that were written to at this time or later hold, or may hold, output that is not archived.
    var since: UInt64 = .max
    /// And so do these, and later ones.
    var segment: UInt64 = .max

    /// Clocks are put back, and a file's time is that of another clock than a command's.
    static let marginMilliseconds: UInt64 = 3_600_000

    func holds(_ segment: UInt64, written: UInt64) -> Bool {
        segment >= self.segment || written + Self.marginMilliseconds >= since
    }
}

/// What a look at the segment files did.
struct OutputPruned: Sendable, Equatable {
    var removed = 0
    /// Removed for the disk's sake although the archive may not have them.
    var dropped = 0
    var droppedBytes: UInt64 = 0
    /// Old, and kept for the archive.
    var waiting = 0
}

extension OutputArchiveRow {
    /// The time from which on there is output of ended targets that is not archived; `nil`: there is none, or the archive is off.
    ///
    /// A target's output is not older than its command, and targets are numbered as commands are accepted.
    static func heldSince(_ reader: borrowing some StoreReading & ~Copyable) throws(StoreError) -> UInt64? {
        guard let destination = try destination(reader) else { return nil }
        let row = try read(reader, destination)
        let next = try reader.first(
            "SELECT command FROM command_targets WHERE id > ? ORDER BY id LIMIT 1", row?.position ?? -1
        ) { (row) throws(StoreError) in row.unsigned(0) >> 16 }
        guard let row else { return next }
        let passed = try reader.first(
            """
            SELECT t.command FROM output_archive_open o JOIN command_exits e ON e.target = o.target
            JOIN command_targets t ON t.id = o.target WHERE o.archive = ? ORDER BY o.target LIMIT 1
            """, row.id
        ) { (row) throws(StoreError) in row.unsigned(0) >> 16 }
        switch (next, passed) {
        case (let next?, let passed?): return min(next, passed)
        default: return next ?? passed
        }
    }

    /// Whether the archive is on and does not have all of these ended targets.
    static func needs(
        _ reader: borrowing some StoreReading & ~Copyable, first: Int64, count: Int64
    ) throws(StoreError) -> Bool {
        guard let destination = try destination(reader) else { return false }
        guard let row = try read(reader, destination), first + count - 1 <= row.position else { return true }
        return try reader.exists(
            "SELECT 1 FROM output_archive_open WHERE archive = ? AND target >= ? AND target < ?", row.id, first, first + count)
    }

    /// The targets are about to be removed.
    static func forget(_ transaction: borrowing Transaction, first: Int64, count: Int64) throws(StoreError) {
        try transaction.run("DELETE FROM output_archived WHERE target >= ? AND target < ?", first, first + count)
        let archives = try transaction.all("SELECT id FROM output_archives") { (row) throws(StoreError) in row.integer(0) }
        for archive in archives {
            try transaction.run(
                "DELETE FROM output_archive_open WHERE archive = ? AND target >= ? AND target < ?", archive, first, first + count)
        }
    }

    /// The disk's limit was stronger.
    static func dropped(_ transaction: borrowing Transaction, _ bytes: UInt64) throws(StoreError) {
        guard let destination = try destination(transaction) else { return }
        let row = try begin(transaction, destination)
        try transaction.run("UPDATE output_archives SET dropped = dropped + ? WHERE id = ?", bytes, row.id)
    }

    /// Where the output of a target is, as far as an archive has it: the one that got it last.
    static func place(
        _ reader: borrowing some StoreReading & ~Copyable, target: Int64, _ command: CommandID, _ client: ClientID
    ) throws(StoreError) -> ArchivedOutput? {
        try reader.first(
            """
            SELECT d.remote, d.prefix, a.archived_ms, a.output, a.errors FROM output_archived a JOIN output_archives d ON d.id = a.archive
            WHERE a.target = ? AND (a.output IS NOT NULL OR a.errors IS NOT NULL) ORDER BY a.archived_ms DESC LIMIT 1
            """, target
        ) { (row) throws(StoreError) in
            let (remote, prefix) = (row.text(0), row.text(1))
            func object(_ stream: OutputStream, _ bytes: UInt64?) -> ArchivedObject? {
                bytes.map { ArchivedObject(remote: remote, key: ArchiveNames.output(prefix, command, client, stream), bytes: $0) }
            }
            return ArchivedOutput(
                milliseconds: row.unsigned(2), output: object(.standardOutput, row.optionalUnsigned(3)),
                errors: object(.standardError, row.optionalUnsigned(4)))
        }
    }
}
