import AgentProtocol
import JSON

/// The durable side of commands: every statement that writes them.
///
/// The hot path (one client) is three inserts at the submit and one at the end, each at the right edge of its table and
/// without a secondary index: rows are numbered in the order of acceptance (see `CommandNumbers`). A target without a
/// row in `command_exits` is unfinished. After a restart these are found by looking only at targets from the low-water
/// number on, and at `command_marks`, into which older unfinished targets are carried.
struct CommandJournal: Sendable {
    let store: Store

    static let migrations = [
        Migration(
            area: "commands", version: 1,
            sql: """
                CREATE TABLE commands (
                    seq INTEGER PRIMARY KEY, low INTEGER NOT NULL, first_target INTEGER NOT NULL,
                    target_count INTEGER NOT NULL, principal_kind TEXT NOT NULL, principal TEXT NOT NULL,
                    correlation TEXT NOT NULL, title TEXT NOT NULL, selector TEXT, spec BLOB NOT NULL, input BLOB
                ) STRICT;
                CREATE TABLE command_targets (
                    id INTEGER PRIMARY KEY, command INTEGER NOT NULL, client BLOB NOT NULL, deferred INTEGER NOT NULL
                ) STRICT;
                CREATE TABLE command_exits (
                    target INTEGER PRIMARY KEY, state INTEGER NOT NULL, started INTEGER NOT NULL, exit_code INTEGER,
                    signal INTEGER, code TEXT, message TEXT, recorded_ms INTEGER NOT NULL, started_ms INTEGER,
                    finished_ms INTEGER, duration_us INTEGER, user_us INTEGER, system_us INTEGER, resident INTEGER,
                    truncated INTEGER NOT NULL, output_bytes INTEGER NOT NULL, error_bytes INTEGER NOT NULL,
                    output BLOB, errors BLOB, extents BLOB
                ) STRICT;
                CREATE TABLE command_marks (
                    target INTEGER PRIMARY KEY, sent INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0
                ) STRICT;
                CREATE TABLE command_summaries (
                    seq INTEGER PRIMARY KEY, finished_ms INTEGER NOT NULL, counts BLOB NOT NULL
                ) STRICT;
                CREATE TABLE command_keys (
                    principal TEXT NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, low INTEGER NOT NULL,
                    digest BLOB NOT NULL, made_ms INTEGER NOT NULL, PRIMARY KEY (principal, key)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE command_progress (id INTEGER PRIMARY KEY CHECK (id = 1), low_water INTEGER NOT NULL) STRICT;
                INSERT INTO command_progress VALUES (1, 0);
                """),
        Migration(
            area: "commands", version: 2, sql: "ALTER TABLE command_exits ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0"),
    ]

    /// A new command with its targets.
    final class Entry: Sendable {
        let specification: CommandSpecification
        let firstTarget: Int64
        let clients: [ClientID]
        /// For each client; empty for none.
        private let deferred: [Bool]
        let key: Key?
        let audit: AuditRecord

        init(
            specification: CommandSpecification, firstTarget: Int64, clients: [ClientID], deferred: [Bool], key: Key?,
            audit: AuditRecord
        ) {
            self.specification = specification
            self.firstTarget = firstTarget
            self.clients = clients
            self.deferred = deferred
            self.key = key
            self.audit = audit
        }

        func isDeferred(_ index: Int) -> Bool { !deferred.isEmpty && deferred[index] }
    }

    /// An idempotency key with a digest of what was asked for.
    struct Key: Sendable {
        let principal: String
        let key: String
        let digest: [UInt8]
    }

    enum Accepted: Sendable {
        case new
        /// The same request was accepted before.
        case known(CommandID)
    }

    /// Command, targets and audit record in one transaction.
    func accept(_ entry: Entry, now: UInt64) async throws(Problem) -> Accepted {
        let specification = entry.specification
        let shown = CommandText.shown(specification)
        let input = CommandText.input(specification)
        let title = specification.title
        let bytes = 256 + shown.count + (input?.count ?? 0) + 48 * entry.clients.count
        return try await store.write(bytes: bytes) { (transaction) throws(StoreError) -> Accepted in
            if let key = entry.key, let known = try Self.claim(key, specification.id, now, transaction) {
                return .known(known)
            }
            try transaction.run("INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") { values in
                values.add(specification.id.row)
                values.add(Int64(bitPattern: specification.id.low))
                values.add(entry.firstTarget)
                values.add(entry.clients.count)
                values.add(specification.principalKind)
                values.add(specification.principal)
                values.add(specification.correlation)
                values.add(title)
                values.add(specification.selector)
                values.add(shown)
                values.add(input)
            }
            for index in entry.clients.indices {
                try transaction.run("INSERT INTO command_targets VALUES (?, ?, ?, ?)") { values in
                    values.add(entry.firstTarget + Int64(index))
                    values.add(specification.id.row)
                    values.add(entry.clients[index])
                    values.add(entry.isDeferred(index))
                }
            }
            try transaction.audit(entry.audit)
            return .new
        }
    }

    private static func claim(
        _ key: Key, _ command: CommandID, _ now: UInt64, _ transaction: borrowing Transaction
    ) throws(StoreError) -> CommandID? {
        let found = try transaction.first(
            "SELECT seq, low, digest FROM command_keys WHERE principal = ? AND key = ?", key.principal, key.key
        ) { (row) throws(StoreError) in
            (CommandID(high: row.unsigned(0), low: UInt64(bitPattern: row.integer(1))), row.bytes(2))
        }
        if let (known, digest) = found {
            guard digest == key.digest else {
                throw .refused(
                    .conflict("idempotency-key-reused", "this idempotency key belongs to another request (command \(known))"))
            }
            return known
        }
        try transaction.run(
            "INSERT INTO command_keys VALUES (?, ?, ?, ?, ?, ?)", key.principal, key.key, command.row,
            Int64(bitPattern: command.low), key.digest, now)
        return nil
    }

    /// Makes ends durable, all of them in one transaction.
    func record(_ ends: [DecidedEnd], now: UInt64) async throws(Problem) {
        let rows = ends.map { ExitRow($0) }
        let bytes = rows.reduce(0) { $0 + 160 + $1.inlineBytes }
        try await store.write(bytes: bytes) { (transaction) throws(StoreError) in
            for row in rows { try row.insert(transaction, now) }
        }
    }

    /// An audit record alone: a refused submit.
    func audit(_ record: AuditRecord) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in try transaction.audit(record) }
    }

    /// These targets are about to be sent for the first time.
    func markSent(_ targets: [Int64]) async throws(Problem) {
        try await store.write(bytes: 32 * targets.count) { (transaction) throws(StoreError) in
            for target in targets {
                try transaction.run(
                    "INSERT INTO command_marks (target, sent) VALUES (?, 1) ON CONFLICT (target) DO UPDATE SET sent = 1",
                    target)
            }
        }
    }

    /// A cancel of targets that may be with their agents, with its audit record.
    func markCancelled(_ targets: [Int64], _ record: AuditRecord) async throws(Problem) {
        try await store.write(bytes: 512 + 32 * targets.count) { (transaction) throws(StoreError) in
            for target in targets {
                try transaction.run(
                    "INSERT INTO command_marks (target, cancelled) VALUES (?, 1) ON CONFLICT (target) DO UPDATE SET cancelled = 1",
                    target)
            }
            try transaction.audit(record)
        }
    }

    /// Carries unfinished targets below `lowWater` into the marks, so that the next start need not look below it.
    func carry(_ targets: [Int64], lowWater: Int64) async throws(Problem) {
        try await store.write(bytes: 64 + 32 * targets.count) { (transaction) throws(StoreError) in
            for target in targets {
                try transaction.run("INSERT OR IGNORE INTO command_marks (target) VALUES (?)", target)
            }
            // A mark can be left behind when its target's end overtook it.
            try transaction.run(
                "DELETE FROM command_marks WHERE EXISTS (SELECT 1 FROM command_exits e WHERE e.target = command_marks.target)")
            try transaction.run("UPDATE command_progress SET low_water = max(low_water, ?)", lowWater)
        }
    }

    /// Removes up to `count` finished commands that were accepted before `milliseconds`, and old idempotency keys.
    /// - Returns: how many commands were removed, and how many of the others wait for the archive of their output.
    func prune(before milliseconds: UInt64, keysBefore: UInt64, count: Int) async throws(Problem) -> (removed: Int, waiting: Int) {
        let limit = Int64(clamping: milliseconds) << 16
        return try await store.write(bytes: 1 << 16) { (transaction) throws(StoreError) in
            let old = try transaction.all(
                "SELECT seq, first_target, target_count FROM commands WHERE seq < ? ORDER BY seq LIMIT ?", limit, count
            ) { (row) throws(StoreError) in (row.integer(0), row.integer(1), row.integer(2)) }
            var (removed, waiting) = (0, 0)
            for (seq, first, targets) in old {
                let ended = try transaction.count(
                    "SELECT count(*) FROM command_exits WHERE target >= ? AND target < ?", first, first + targets)
                guard ended == Int(targets) else { continue }
                guard try !OutputArchiveRow.needs(transaction, first: first, count: targets) else {
                    waiting += 1
                    continue
                }
                try OutputArchiveRow.forget(transaction, first: first, count: targets)
                try transaction.run("DELETE FROM command_exits WHERE target >= ? AND target < ?", first, first + targets)
                try transaction.run("DELETE FROM command_targets WHERE id >= ? AND id < ?", first, first + targets)
                try transaction.run("DELETE FROM command_marks WHERE target >= ? AND target < ?", first, first + targets)
                try transaction.run("DELETE FROM command_summaries WHERE seq = ?", seq)
                try transaction.run("DELETE FROM commands WHERE seq = ?", seq)
                removed += 1
            }
            try transaction.run("DELETE FROM command_keys WHERE made_ms < ?", keysBefore)
            return (removed, waiting)
        }
    }
}

/// One row of `command_exits`; what a lock guards is read before the writer's thread sees it.
private struct ExitRow: Sendable {
    private let decided: DecidedEnd
    private let output: OutputSummary
    private let extents: [UInt8]?

    init(_ decided: DecidedEnd) {
        self.decided = decided
        output = decided.output?.summary ?? OutputSummary()
        extents = output.extents.map { OutputExtentCoding.encode($0.output, $0.errors) }
    }

    var inlineBytes: Int { (output.inline?.output.count ?? 0) + (output.inline?.errors.count ?? 0) + (extents?.count ?? 0) }

    func insert(_ transaction: borrowing Transaction, _ now: UInt64) throws(StoreError) {
        let target = decided.target.row
        let end = decided.end
        let record = end.record
        // An end that is recorded twice keeps its first form.
        try transaction.run(
            "INSERT OR IGNORE INTO command_exits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ) { values in
            values.add(target)
            values.add(Int(end.state.rawValue))
            values.add(end.started.number)
            values.add(end.exitCode)
            values.add(end.signal)
            values.add(end.code)
            values.add(end.message)
            values.add(now)
            values.add(record?.startedAt)
            values.add(record?.finishedAt)
            values.add(record?.durationMicroseconds)
            values.add(record?.userMicroseconds)
            values.add(record?.systemMicroseconds)
            values.add(record?.maximumResidentBytes)
            values.add(output.truncated || record?.truncated == true)
            values.add(output.output)
            values.add(output.errors)
            values.add(output.inline.flatMap { $0.output.isEmpty ? nil : $0.output })
            values.add(output.inline.flatMap { $0.errors.isEmpty ? nil : $0.errors })
            values.add(extents)
            values.add(output.withheld)
        }
        if decided.isMarked { try transaction.run("DELETE FROM command_marks WHERE target = ?", target) }
        if let summary = decided.summary {
            try transaction.run(
                "INSERT OR REPLACE INTO command_summaries VALUES (?, ?, ?)", decided.target.command.id.row, now, summary.coded)
        }
    }
}

extension Started {
    /// As in the database.
    var number: Int {
        switch self {
        case .no: 0
        case .yes: 1
        case .maybe: 2
        }
    }

    init(number: Int) {
        self = number == 0 ? .no : number == 1 ? .yes : .maybe
    }
}

extension OutcomeCounts {
    /// Four bytes, little-endian, for each final state from 1 on.
    var coded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(4 * FinalState.allCases.count)
        for state in FinalState.allCases {
            withUnsafeBytes(of: UInt32(clamping: self[state]).littleEndian) { bytes.append(contentsOf: $0) }
        }
        return bytes
    }

    init?(coded bytes: [UInt8]) {
        guard bytes.count == 4 * FinalState.allCases.count else { return nil }
        self.init()
        for (index, state) in FinalState.allCases.enumerated() {
            self[state] = (0..<4).reduce(0) { $0 | Int(bytes[4 * index + $1]) << (8 * $1) }
        }
    }
}
