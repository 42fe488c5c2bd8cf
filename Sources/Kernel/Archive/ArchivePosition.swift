import Crypto

/// Where the archive goes. Each destination has a position of its own, as each sink has: a new one begins with the oldest record that
/// is kept, and one that was used before goes on where it was.
struct ArchiveDestination: Hashable, Sendable {
    let remote: String
    let prefix: String

    /// `nil`: the archive is off.
    init?(remote: String, prefix: String) {
        guard !remote.isEmpty else { return nil }
        self.remote = remote
        self.prefix = prefix
    }

    /// The key of its row. A remote's name has no slash.
    var name: String { remote + "/" + prefix }

    /// The trail's, as the database has it: the same for a transaction, whatever other threads change meanwhile.
    static func current(_ reader: borrowing some StoreReading & ~Copyable) throws(StoreError) -> ArchiveDestination? {
        try current(reader, .auditArchiveRemote, .auditArchivePrefix)
    }

    /// As two settings in the database say.
    static func current(
        _ reader: borrowing some StoreReading & ~Copyable, _ remote: Setting, _ prefix: Setting
    ) throws(StoreError) -> ArchiveDestination? {
        func text(_ setting: Setting) throws(StoreError) -> String {
            let stored = try reader.first("SELECT value FROM settings WHERE name = ?", setting.name) { (row) throws(StoreError) in
                row.text(0)
            }
            return setting.valid(stored)?.string ?? setting.initial.string ?? ""
        }
        return ArchiveDestination(remote: try text(remote), prefix: try text(prefix))
    }
}

/// Records that are one object: from right after a signed checkpoint through another one, hence the same bytes each time they are read.
struct ArchiveSegment: Equatable, Sendable {
    let destination: ArchiveDestination
    /// The last record of the segment before.
    let after: UInt64
    let last: UInt64

    var key: String { ArchiveNames.segment(destination.prefix, after + 1, last) }
}

/// How far a destination has come: a row of `audit_archive`.
struct ArchivePosition: Equatable, Sendable {
    /// The last record that the store has.
    var position: UInt64
    /// The last record of the segment that is to be written next. Durable before a byte of it goes: after a crash the same segment goes
    /// under the same name.
    var planned: UInt64?
    var segments: UInt64 = 0
    /// Records that retention removed while this destination was not in use.
    var missing: UInt64 = 0
    var lastKey = ""
    var archivedMilliseconds: UInt64 = 0
}

extension ArchivePosition {
    /// More destinations than anybody needs; each is a row for good, because its position must not be forgotten.
    static let maximumDestinations = 256

    static func read(
        _ reader: borrowing some StoreReading & ~Copyable, _ destination: ArchiveDestination
    ) throws(StoreError) -> ArchivePosition? {
        try reader.first(
            "SELECT position, planned, segments, missing, last_key, archived_ms FROM audit_archive WHERE destination = ?",
            destination.name
        ) { (row) throws(StoreError) in
            ArchivePosition(
                position: row.unsigned(0), planned: row.optionalUnsigned(1), segments: row.unsigned(2), missing: row.unsigned(3),
                lastKey: row.text(4), archivedMilliseconds: row.unsigned(5))
        }
    }

    /// What may be removed with the archive on: nothing beyond this record. `nil`: the archive is off.
    static func archived(_ reader: borrowing some StoreReading & ~Copyable) throws(StoreError) -> UInt64? {
        guard let destination = try ArchiveDestination.current(reader) else { return nil }
        return try read(reader, destination)?.position ?? 0
    }

    /// Makes the next segment durable, or finds the one that is.
    /// - Parameters:
    ///   - records: that a segment should not have more of.
    ///   - ownTarget: what records about the last segment are about; a segment of nothing else would bring forth the next one, for ever.
    /// - Returns: `nil` when there is nothing for one: no signed checkpoint beyond the position, or own records only.
    static func plan(
        _ transaction: borrowing Transaction, _ destination: ArchiveDestination, records: UInt64, ownTarget: String?
    ) throws(StoreError) -> (ArchivePosition, ArchiveSegment?) {
        let oldest = try Audit.bounds(transaction).oldest
        var row: ArchivePosition
        if let known = try read(transaction, destination) {
            row = known
        } else {
            guard try transaction.count("SELECT count(*) FROM audit_archive") < maximumDestinations else {
                throw .refused(.conflict(
                    "audit-archive-destinations", "the archive has had \(maximumDestinations) destinations already: use one of them again"))
            }
            row = ArchivePosition(position: oldest - 1)
            try transaction.run(
                "INSERT INTO audit_archive VALUES (?, ?, NULL, 0, 0, '', 0)", destination.name, row.position)
        }
        if row.position < oldest - 1 {
            // It was off while retention cut: that cannot be mended, only told, in the trail itself.
            let lost = oldest - 1 - row.position
            try transaction.audit(AuditRecord(
                principal: .archive, action: "audit.archive-gap", target: destination.name, outcome: .failed,
                reason: "retention removed records while the archive was off",
                detail: ["from": .integer(Int64(clamping: row.position + 1)), "through": .integer(Int64(clamping: oldest - 1))]))
            row.position = oldest - 1
            row.planned = nil
            row.missing += lost
            try transaction.run(
                "UPDATE audit_archive SET position = ?, planned = NULL, missing = ? WHERE destination = ?", row.position,
                row.missing, destination.name)
        }
        if row.planned == nil, let last = try end(transaction, after: row.position, records: records) {
            if let ownTarget, try !transaction.exists(
                "SELECT 1 FROM audit_records WHERE sequence > ? AND sequence <= ? AND target IS NOT ? LIMIT 1", row.position, last, ownTarget)
            { return (row, nil) }
            row.planned = last
            try transaction.run("UPDATE audit_archive SET planned = ? WHERE destination = ?", last, destination.name)
        }
        return (row, row.planned.map { ArchiveSegment(destination: destination, after: row.position, last: $0) })
    }

    /// The farthest signed checkpoint within so many records, or the next one if that is farther: they are at most
    /// `AuditChain.checkpointInterval` apart.
    private static func end(
        _ transaction: borrowing Transaction, after position: UInt64, records: UInt64
    ) throws(StoreError) -> UInt64? {
        let within = try transaction.first(
            "SELECT max(sequence) FROM audit_checkpoints WHERE sequence > ? AND sequence <= ?", position, position + records
        ) { (row) throws(StoreError) in row.optionalUnsigned(0) } ?? nil
        if let within { return within }
        return try transaction.first("SELECT min(sequence) FROM audit_checkpoints WHERE sequence > ?", position) {
            (row) throws(StoreError) in row.optionalUnsigned(0)
        } ?? nil
    }

    /// The store has the segment.
    static func advance(_ transaction: borrowing Transaction, _ segment: ArchiveSegment, now: UInt64) throws(StoreError) {
        try transaction.run(
            """
            UPDATE audit_archive SET position = ?, planned = NULL, segments = segments + 1, last_key = ?, archived_ms = ?
            WHERE destination = ? AND position = ? AND planned = ?
            """, segment.last, segment.key, now, segment.destination.name, segment.after, segment.last)
    }
}

extension Principal {
    static let archive = Principal(kind: .system, id: "audit", correlation: "archive")
}
