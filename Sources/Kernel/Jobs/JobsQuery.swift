import AgentProtocol

/// What a list of jobs is narrowed to.
public struct JobQuery: Sendable {
    public var limit = 100
    /// Only jobs before this one (the cursor).
    public var before: JobID?
    public var state: JobState?
    public var kind: String?
    public var schedule: String?
    public var parent: JobID?
    public init() {}
}

/// Looking at jobs.
extension Jobs {
    /// - Throws: 404 `job-unknown`.
    public func get(_ id: JobID) async throws(Problem) -> Job {
        let limits = limits
        let job = try await store.read { (reader) throws(StoreError) in try JobRows.load(id, reader, limits) }
        guard let job else { throw Self.unknown(id) }
        return withProgress(job)
    }

    /// Newest first.
    public func list(_ query: JobQuery) async throws(Problem) -> [Job] {
        let limits = limits
        let jobs = try await store.read { (reader) throws(StoreError) in
            var rows = JobRows.select()
            if let before = query.before { rows.and("id < ?", .bytes(before.bytes)) }
            if let state = query.state { rows.and("state = ?", .text(state.rawValue)) }
            if let kind = query.kind { rows.and("kind = ?", .text(kind)) }
            if let schedule = query.schedule { rows.and("schedule = ?", .text(schedule)) }
            if let parent = query.parent { rows.and("parent = ?", .bytes(parent.bytes)) }
            rows.append(" ORDER BY id DESC LIMIT ?", .integer(Int64(query.limit)))
            return try JobRows.all(rows, reader, limits)
        }
        return jobs.map(withProgress)
    }

    /// What an attempt has reported since it was last written down.
    private func withProgress(_ job: Job) -> Job {
        guard job.machine.state == .running, let progress = state.withLock({ $0.running[job.id]?.progress }) else {
            return job
        }
        var job = job
        job.progress = progress
        return job
    }

    /// What a waiting job waits for: `time`, `children`, `kind` (nobody runs it now) or `place`.
    public func waitsFor(_ job: Job) -> String? {
        guard job.machine.state == .waiting else { return nil }
        if job.machine.waitsForChildren { return "children" }
        if job.machine.dueAt > now() { return "time" }
        return state.withLock { $0.kinds[job.kind] } == nil ? "kind" : "place"
    }

    /// Lines after `sequence`, oldest first.
    /// - Throws: 404 `job-unknown`.
    public func logs(_ id: JobID, after sequence: UInt64, limit: Int) async throws(Problem) -> [JobLogLine] {
        let lines: [JobLogLine]? = try await store.read { (reader) throws(StoreError) in
            guard try reader.exists("SELECT 1 FROM jobs WHERE id = ?", id) else { return nil }
            return try reader.all(
                """
                SELECT sequence, time_ms, attempt, level, text FROM job_logs WHERE job = ? AND sequence > ?
                ORDER BY sequence LIMIT ?
                """, id, sequence, limit
            ) { (row) throws(StoreError) in
                JobLogLine(
                    sequence: row.unsigned(0), milliseconds: row.unsigned(1), attempt: row.int(2),
                    level: JobLogLine.Level(rawValue: row.text(3)) ?? .info, text: row.text(4))
            }
        }
        guard let lines else { throw Self.unknown(id) }
        return lines
    }
}
