import JSON

extension Schedules {
    public static let migrations = [
        Migration(area: "schedules", version: 1, sql: """
            CREATE TABLE schedules (
                name TEXT PRIMARY KEY,
                kind TEXT NOT NULL,
                -- JSON, as the API shows it.
                definition BLOB NOT NULL,
                title TEXT NOT NULL,
                owner_kind TEXT NOT NULL,
                owner TEXT NOT NULL,
                owner_credential TEXT,
                created_ms INTEGER NOT NULL,
                created_by TEXT NOT NULL,
                changed_ms INTEGER NOT NULL,
                revision INTEGER NOT NULL,
                next_ms INTEGER,
                -- The next time with its jitter.
                due_ms INTEGER,
                -- A JSON array of times whose runs wait for the one before.
                backlog BLOB,
                runs INTEGER NOT NULL,
                skips INTEGER NOT NULL,
                last_run_ms INTEGER,
                last_skip TEXT,
                last_skip_first_ms INTEGER,
                last_skip_last_ms INTEGER
            ) STRICT;
            CREATE INDEX schedules_due ON schedules (due_ms) WHERE due_ms IS NOT NULL;
            CREATE INDEX schedules_backlog ON schedules (name) WHERE backlog IS NOT NULL;
            """)
    ]
}

/// Schedules as rows.
enum ScheduleRows {
    /// To be gone on with `and` and `append`.
    static func select() -> StoreQuery {
        StoreQuery(
            """
            SELECT name, definition, title, owner_kind, owner, owner_credential, created_ms, created_by, changed_ms, revision, \
            next_ms, due_ms, backlog, runs, skips, last_run_ms, last_skip, last_skip_first_ms, last_skip_last_ms FROM schedules
            """)
    }

    static func load(_ name: String, _ store: borrowing some StoreReading & ~Copyable) throws(StoreError) -> Schedule? {
        var query = select()
        query.and("name = ?", .text(name))
        return try all(query, store).first
    }

    static func all(_ query: StoreQuery, _ store: borrowing some StoreReading & ~Copyable) throws(StoreError) -> [Schedule] {
        try store.all(query) { (row) throws(StoreError) in
            do throws(Problem) {
                return try schedule(row)
            } catch {
                throw .refused(Problem(500, "store-refused", "the schedule \(row.text(0)) cannot be read: \(error.detail)"))
            }
        }
    }

    private static func schedule(_ row: borrowing Row) throws(Problem) -> Schedule {
        var schedule = Schedule(
            name: row.text(0), definition: try ScheduleDefinition(json: (try? JSONValue(parsing: row.bytes(1))) ?? .null),
            title: row.text(2),
            owner: JobOwner(
                kind: Principal.Kind(rawValue: row.text(3)) ?? .system, id: row.text(4), credential: row.optionalText(5)),
            createdAt: row.unsigned(6), createdBy: row.text(7), changedAt: row.unsigned(8), revision: row.unsigned(9),
            machine: ScheduleStateMachine(
                next: row.optionalUnsigned(10), due: row.optionalUnsigned(11), backlog: times(row.optionalBytes(12))))
        schedule.runs = row.unsigned(13)
        schedule.skips = row.unsigned(14)
        schedule.lastRunAt = row.optionalUnsigned(15)
        schedule.lastSkip = row.optionalText(16).flatMap { ScheduleStateMachine.Skip.Reason(rawValue: $0) }.map {
            ScheduleStateMachine.Skip(reason: $0, first: row.unsigned(17), last: row.unsigned(18))
        }
        return schedule
    }

    private static func times(_ bytes: [UInt8]?) -> [UInt64] {
        let values = bytes.flatMap { try? JSONValue(parsing: $0) }?.array ?? []
        return values.compactMap { $0.integer.map { UInt64(clamping: $0) } }
    }

    private static func bytes(_ times: [UInt64]) -> [UInt8]? {
        times.isEmpty ? nil : JSONValue.array(times.map { .integer(Int64(clamping: $0)) }).serialized()
    }

    static func write(_ schedule: Schedule, _ transaction: borrowing Transaction) throws(StoreError) {
        try transaction.run(
            """
            INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            schedule.name, schedule.definition.kind, schedule.definition.json.serialized(), schedule.title,
            schedule.owner.kind.rawValue, schedule.owner.id, schedule.owner.credential, schedule.createdAt,
            schedule.createdBy, schedule.changedAt, schedule.revision, schedule.machine.next, schedule.machine.due,
            bytes(schedule.machine.backlog), schedule.runs, schedule.skips, schedule.lastRunAt,
            schedule.lastSkip?.reason.rawValue, schedule.lastSkip?.first, schedule.lastSkip?.last)
    }

    /// Writes what a run or a skip changes.
    static func advance(_ schedule: Schedule, _ transaction: borrowing Transaction) throws(StoreError) {
        try transaction.run(
            """
            UPDATE schedules SET next_ms = ?, due_ms = ?, backlog = ?, runs = ?, skips = ?, last_run_ms = ?, last_skip = ?,
                last_skip_first_ms = ?, last_skip_last_ms = ?
            WHERE name = ?
            """,
            schedule.machine.next, schedule.machine.due, bytes(schedule.machine.backlog), schedule.runs, schedule.skips,
            schedule.lastRunAt, schedule.lastSkip?.reason.rawValue, schedule.lastSkip?.first, schedule.lastSkip?.last,
            schedule.name)
    }
}
