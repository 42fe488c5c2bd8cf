import JSON
import System

/// What operators do with jobs, and what time removes.
extension Jobs {
    /// Ends a job and all its children: waiting ones at once, running ones are asked to end and fenced if they do not
    /// within their kind's grace. May be repeated; on a finished job it changes nothing.
    /// - Returns: how many jobs were asked.
    /// - Throws: 404 `job-unknown`.
    @discardableResult
    public func cancel(_ id: JobID, by principal: Principal) async throws(Problem) -> Int {
        let now = now()
        let limits = limits
        killPoint("job.cancel.before")
        let changed = try await store.write { (transaction) throws(StoreError) -> [Job] in
            guard let job = try JobRows.load(id, transaction, limits) else { throw .refused(Self.unknown(id)) }
            var query = JobRows.select()
            query.and(
                """
                finished_ms IS NULL AND id IN (
                    WITH RECURSIVE family (id) AS (
                        SELECT ? UNION SELECT jobs.id FROM jobs JOIN family ON jobs.parent = family.id)
                    SELECT id FROM family)
                """, .bytes(id.bytes))
            query.append(" ORDER BY depth, id")
            var changed: [Job] = []
            for var member in try JobRows.all(query, transaction, limits)
            where member.machine.apply(.cancel, now: now, random: 0) {
                try JobRows.save(member, now: now, transaction)
                changed.append(member)
            }
            guard !changed.isEmpty else { return [] }
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "job.cancel", target: id.description,
                    detail: ["kind": .string(job.kind), "jobs": .integer(Int64(changed.count))]))
            // The parent above all of these is not cancelled: its wait is over if this was its last child.
            if let parent = job.parent, try !Self.hasOpenChildren(parent, transaction),
                var waiting = try JobRows.load(parent, transaction, limits),
                waiting.machine.apply(.childrenEnded, now: now, random: 0) {
                try JobRows.save(waiting, now: now, transaction)
            }
            return changed
        }
        killPoint("job.cancel.after")
        for job in changed {
            if job.machine.state.isFinal {
                ended(job)
            } else if let running = askToEnd(job.id, now) {
                running.kind.cancel(running.lease)
            }
        }
        wakeup.signal()
        return changed.count
    }

    func askToEnd(_ id: JobID, _ now: UInt64) -> Running? {
        state.withLock { state in
            guard let running = state.running[id] else {
                state.earlyCancels.insert(id)
                return nil
            }
            state.running[id]?.endAsked = ("cancelled", now + running.kind.cancelGraceMilliseconds)
            return running
        }
    }

    /// Puts a dead or cancelled job in again, with all its attempts before it and without its deadline.
    /// - Throws: 404; 409 `job-not-dead`; 503 `too-many-jobs`.
    public func retry(_ id: JobID, by principal: Principal) async throws(Problem) -> Job {
        let now = now()
        let limits = limits
        try requireRoom()
        killPoint("job.retry.before")
        let job = try await store.write { (transaction) throws(StoreError) -> Job in
            guard var job = try JobRows.load(id, transaction, limits) else { throw .refused(Self.unknown(id)) }
            guard job.machine.apply(.retried, now: now, random: 0) else {
                throw .refused(
                    .conflict(
                        "job-not-dead", "job \(id) is \(job.machine.state.rawValue); only dead and cancelled jobs run again"))
            }
            try JobRows.save(job, now: now, transaction)
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "job.retry", target: id.description,
                    detail: ["kind": .string(job.kind), "attempts": .integer(Int64(job.machine.attempt))]))
            return job
        }
        killPoint("job.retry.after")
        state.withLock { state in
            state.open += 1
            state.hasNews = true
        }
        tell("job.retrying", job)
        wakeup.signal()
        return job
    }

    /// Removes finished jobs that are too old or too many, a bounded number at a time.
    func sweep() async throws(Problem) {
        let now = now()
        let limits = limits
        let before = now > limits.historyMilliseconds ? now - limits.historyMilliseconds : 0
        let isAny = try await store.read { (reader) throws(StoreError) in
            if try reader.exists("SELECT 1 FROM jobs WHERE finished_ms IS NOT NULL AND finished_ms < ?", before) { return true }
            return try reader.count("SELECT count(*) FROM jobs WHERE finished_ms IS NOT NULL") > limits.historyJobs
        }
        guard isAny else { return }
        for _ in 0..<20 {
            let removed = try await store.write(bytes: 16_384) { (transaction) throws(StoreError) -> Int in
                let finished = try transaction.count("SELECT count(*) FROM jobs WHERE finished_ms IS NOT NULL")
                let surplus = min(500, max(0, finished - limits.historyJobs))
                let old = try transaction.all(
                    """
                    SELECT id FROM (SELECT id, finished_ms, row_number() OVER (ORDER BY finished_ms, id) AS place FROM
                        (SELECT id, finished_ms FROM jobs WHERE finished_ms IS NOT NULL ORDER BY finished_ms, id LIMIT 500))
                    WHERE finished_ms < ? OR place <= ?
                    """, before, surplus
                ) { (row) throws(StoreError) in row.identifier(0, JobItself.self) }
                for id in old {
                    try transaction.run("DELETE FROM job_logs WHERE job = ?", id)
                    try transaction.run("DELETE FROM jobs WHERE id = ?", id)
                }
                return old.count
            }
            if removed < 500 { break }
        }
    }
}
