import AgentProtocol
import JSON

/// Jobs as rows.
enum JobRows {
    private static let columns = """
        id, kind, title, arguments, priority, timeout_ms, owner_kind, owner, owner_credential, correlation, parent, depth, \
        schedule, occurrence_ms, created_ms, guarantee, maximum_attempts, first_retry_ms, longest_retry_ms, state, due_ms, \
        deadline_ms, attempt, fence, failures, interruptions, cancel_requested, waits_for_children, code, reason, \
        started_ms, finished_ms, progress, checkpoint, result
        """

    /// To be gone on with `and` and `append`.
    static func select() -> StoreQuery { StoreQuery("SELECT \(columns) FROM jobs") }

    static func load(_ id: JobID, _ store: borrowing some StoreReading & ~Copyable, _ limits: JobLimits) throws(StoreError) -> Job? {
        var query = select()
        query.and("id = ?", .bytes(id.bytes))
        return try all(query, store, limits).first
    }

    static func all(
        _ query: StoreQuery, _ store: borrowing some StoreReading & ~Copyable, _ limits: JobLimits
    ) throws(StoreError) -> [Job] {
        try store.all(query) { (row) throws(StoreError) in job(row, limits) }
    }

    private static func job(_ row: borrowing Row, _ limits: JobLimits) -> Job {
        var machine = JobStateMachine(
            JobGuarantee(rawValue: row.text(15)) ?? .atMostOnce,
            JobRetry(
                maximumAttempts: row.int(16), firstMilliseconds: row.unsigned(17), longestMilliseconds: row.unsigned(18)),
            dueAt: row.unsigned(20), deadline: row.optionalUnsigned(21), maximumInterruptions: limits.interruptions)
        machine.restore(
            JobStateMachine.Stored(
                state: JobState(rawValue: row.text(19)) ?? .dead, attempt: row.int(22), fence: row.unsigned(23),
                failures: row.int(24), interruptions: row.int(25), isCancelRequested: row.bool(26),
                waitsForChildren: row.bool(27), code: row.text(28), reason: row.text(29),
                startedAt: row.optionalUnsigned(30), finishedAt: row.optionalUnsigned(31)))
        return Job(
            id: row.identifier(0) ?? JobID(high: 0, low: 0), kind: row.text(1), title: row.text(2), arguments: row.bytes(3),
            priority: row.int(4), timeoutMilliseconds: row.unsigned(5),
            owner: JobOwner(
                kind: Principal.Kind(rawValue: row.text(6)) ?? .system, id: row.text(7), credential: row.optionalText(8)),
            correlation: row.text(9), parent: row.identifier(10), depth: row.int(11), schedule: row.optionalText(12),
            occurrence: row.optionalUnsigned(13), createdAt: row.unsigned(14), machine: machine,
            progress: row.optionalBytes(32).flatMap(progress), checkpoint: row.optionalBytes(33),
            result: row.optionalBytes(34))
    }

    private static func progress(_ bytes: [UInt8]) -> JobProgress? {
        guard let value = try? JSONValue(parsing: bytes), let done = value["done"]?.integer else { return nil }
        return JobProgress(
            done: UInt64(clamping: done), total: value["total"]?.integer.map { UInt64(clamping: $0) },
            text: value["text"]?.string ?? "")
    }

    static func text(_ progress: JobProgress) -> JSONValue {
        var object: JSONObject = ["done": .integer(Int64(clamping: progress.done))]
        if let total = progress.total { object["total"] = .integer(Int64(clamping: total)) }
        if !progress.text.isEmpty { object["text"] = .string(progress.text) }
        return .object(object)
    }

    static func insert(_ job: Job, _ key: IdempotencyKey?, _ transaction: borrowing Transaction) throws(StoreError) {
        try transaction.run(
            """
            INSERT INTO jobs (id, kind, title, arguments, priority, timeout_ms, owner_kind, owner, owner_credential,
                correlation, parent, depth, schedule, occurrence_ms, created_ms, guarantee, maximum_attempts, first_retry_ms,
                longest_retry_ms, state, ready, due_ms, deadline_ms, attempt, fence, failures, interruptions,
                cancel_requested, waits_for_children, code, reason, idempotency_key, request_digest)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?, 0, 0, 0, 0, 0, 0, '', '',
                ?, ?)
            """,
            job.id, job.kind, job.title, job.arguments, job.priority, job.timeoutMilliseconds, job.owner.kind.rawValue,
            job.owner.id, job.owner.credential, job.correlation, job.parent, job.depth, job.schedule, job.occurrence,
            job.createdAt, job.machine.guarantee.rawValue, job.machine.retry.maximumAttempts,
            job.machine.retry.firstMilliseconds, job.machine.retry.longestMilliseconds,
            job.machine.dueAt <= job.createdAt, job.machine.dueAt, job.machine.deadline, key?.key, key?.requestDigest)
    }

    /// Writes what can change.
    static func save(_ job: Job, now: UInt64, _ transaction: borrowing Transaction) throws(StoreError) {
        let machine = job.machine
        let isReady = machine.state == .waiting && !machine.waitsForChildren && machine.dueAt <= now
        try transaction.run(
            """
            UPDATE jobs SET state = ?, ready = ?, due_ms = ?, deadline_ms = ?, attempt = ?, fence = ?, failures = ?,
                interruptions = ?, cancel_requested = ?, waits_for_children = ?, code = ?, reason = ?, started_ms = ?,
                finished_ms = ?, progress = ?, checkpoint = ?, result = ?
            WHERE id = ?
            """,
            machine.state.rawValue, isReady, machine.dueAt, machine.deadline, machine.attempt, machine.fence,
            machine.failures, machine.interruptions, machine.isCancelRequested, machine.waitsForChildren, machine.code,
            machine.reason, machine.startedAt, machine.finishedAt, job.progress.map { text($0).serialized() },
            job.checkpoint, job.result, job.id)
    }

    /// The next number that no attempt had before.
    static func nextFence(_ transaction: borrowing Transaction) throws(StoreError) -> UInt64 {
        try transaction.run("UPDATE job_numbers SET value = value + 1 WHERE name = 'fence'")
        return UInt64(clamping: try transaction.count("SELECT value FROM job_numbers WHERE name = 'fence'"))
    }
}
