import JSON
import System

/// What a kind calls while it works on an attempt. Any loop. Each call is refused with 409 `job-fenced` once the
/// attempt is over.
extension Jobs {
    /// Shown to watchers at once and kept with the next checkpoint or the end; costs no disk.
    public func progress(_ lease: JobLease, _ progress: JobProgress) throws(Problem) {
        let now = now()
        var short = progress
        short.text = String(short.text.prefix(200))
        let shown = short
        let (isCurrent, isToTell) = state.withLock { state -> (Bool, Bool) in
            guard state.running[lease.job]?.lease.fence == lease.fence else { return (false, false) }
            let isToTell = now >= (state.running[lease.job]?.progressToldAt ?? 0) + 500
            state.running[lease.job]?.progress = shown
            if isToTell { state.running[lease.job]?.progressToldAt = now }
            return (true, isToTell)
        }
        guard isCurrent else { throw Self.fenced }
        guard isToTell else { return }
        events.publish(
            Event(kind: "job.progress", subject: lease.job.description, data: JobRows.text(shown)))
    }

    /// Adds a line to the job's log; the oldest make room. Longer lines are cut.
    public func log(_ lease: JobLease, _ level: JobLogLine.Level, _ text: String) async throws(Problem) {
        let now = now()
        let limits = limits
        let line = text.utf8.count <= limits.logLineBytes
            ? text : String(decoding: text.utf8.prefix(limits.logLineBytes), as: UTF8.self) + "…"
        killPoint("job.log.before")
        try await store.write(bytes: line.utf8.count + 128) { (transaction) throws(StoreError) in
            try Self.requireCurrent(lease, transaction)
            let last = try transaction.count("SELECT max(sequence) FROM job_logs WHERE job = ?", lease.job)
            try transaction.run(
                "INSERT INTO job_logs VALUES (?, ?, ?, ?, ?, ?)", lease.job, last + 1, now, lease.attempt,
                level.rawValue, line)
            try transaction.run(
                "DELETE FROM job_logs WHERE job = ? AND sequence <= ?", lease.job, last + 1 - limits.logLines)
        }
        killPoint("job.log.after")
    }

    /// Keeps where the next attempt goes on from, in one commit with the kind's own `side` record.
    /// - Parameter side: runs on the writer thread, perhaps more than once; if it throws, nothing is kept.
    /// - Throws: 413 `job-too-large`.
    public func checkpoint(
        _ lease: JobLease, _ bytes: [UInt8],
        side: @escaping @Sendable (borrowing Transaction) throws(StoreError) -> Void = { (_) throws(StoreError) in }
    ) async throws(Problem) {
        guard bytes.count <= limits.checkpointBytes else {
            throw Problem(
                413, "job-too-large", "the checkpoint has \(bytes.count) bytes, at most \(limits.checkpointBytes) are allowed")
        }
        let progress = state.withLock { $0.running[lease.job]?.progress }.map { JobRows.text($0).serialized() }
        killPoint("job.checkpoint.before")
        try await store.write(bytes: bytes.count + 256) { (transaction) throws(StoreError) in
            let changed = try transaction.run(
                """
                UPDATE jobs SET checkpoint = ?, progress = coalesce(?, progress)
                WHERE id = ? AND fence = ? AND state = 'running'
                """, bytes, progress, lease.job, lease.fence)
            guard changed == 1 else { throw .refused(Self.fenced) }
            try side(transaction)
        }
        killPoint("job.checkpoint.after")
    }

    /// Ends the attempt, in one commit with the kind's own `side` record.
    /// - Returns: what became of the job.
    /// - Throws: 413 `job-too-large` for the result.
    @discardableResult
    public func finish(
        _ lease: JobLease, _ outcome: JobOutcome,
        side: @escaping @Sendable (borrowing Transaction) throws(StoreError) -> Void = { (_) throws(StoreError) in }
    ) async throws(Problem) -> JobState {
        var result: [UInt8]?
        if case .succeeded(let bytes) = outcome { result = bytes }
        if let result, result.count > limits.resultBytes {
            throw Problem(
                413, "job-too-large", "the result has \(result.count) bytes, at most \(limits.resultBytes) are allowed")
        }
        let asked = state.withLock { $0.running[lease.job]?.endAsked?.code ?? "" }
        return try await end(lease, Self.event(asked, outcome, answered: true), result: result, side: side)
    }

    /// - Throws: 409 `job-fenced` when the attempt is over already.
    func end(
        _ lease: JobLease, _ event: JobStateMachine.Event, result: [UInt8]?,
        side: @escaping @Sendable (borrowing Transaction) throws(StoreError) -> Void
    ) async throws(Problem) -> JobState {
        let now = now()
        let chance = chance()
        let limits = limits
        let progress = state.withLock { state in
            state.running[lease.job]?.lease.fence == lease.fence ? state.running[lease.job]?.progress : nil
        }
        killPoint("job.finish.before")
        let outcome: Result<Job, Problem>
        do throws(Problem) {
            outcome = .success(
                try await store.write(bytes: 1_024 + (result?.count ?? 0)) { (transaction) throws(StoreError) in
                    guard var job = try JobRows.load(lease.job, transaction, limits), job.machine.state == .running,
                        job.machine.fence == lease.fence
                    else { throw .refused(Self.fenced) }
                    try side(transaction)
                    guard job.machine.apply(event, now: now, random: chance) else { throw .refused(Self.fenced) }
                    if let progress { job.progress = progress }
                    if let result { job.result = result }
                    if job.machine.waitsForChildren, try !Self.hasOpenChildren(job.id, transaction) {
                        _ = job.machine.apply(.childrenEnded, now: now, random: chance)
                    }
                    try Self.save(job, now: now, transaction, limits)
                    return job
                })
        } catch {
            outcome = .failure(error)
        }
        killPoint("job.finish.after")
        switch outcome {
        case .failure(let problem):
            if problem.code == "job-fenced" { release(lease) }
            throw problem
        case .success(let job):
            release(lease)
            ended(job)
            return job.machine.state
        }
    }

    private func release(_ lease: JobLease) {
        state.withLock { state in
            if state.running[lease.job]?.lease.fence == lease.fence { state.running[lease.job] = nil }
        }
    }

    /// After the commit of a change: tells of it and lets others run.
    func ended(_ job: Job) {
        let news: (@Sendable () -> Void)? = state.withLock { state in
            if job.machine.state.isFinal { state.open = max(0, state.open - 1) }
            state.hasNews = true
            return job.machine.state.isFinal && job.schedule != nil ? state.scheduleNews : nil
        }
        tellState(job)
        wakeup.signal()
        news?()
    }

    static func hasOpenChildren(
        _ parent: JobID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> Bool {
        try store.exists("SELECT 1 FROM jobs WHERE parent = ? AND finished_ms IS NULL", parent)
    }

    /// Writes a changed job, and what follows from its end in the same commit: the parent goes on, a dead one is audited.
    static func save(
        _ job: Job, now: UInt64, _ transaction: borrowing Transaction, _ limits: JobLimits
    ) throws(StoreError) {
        try JobRows.save(job, now: now, transaction)
        guard job.machine.state.isFinal else { return }
        if job.machine.state == .dead {
            try transaction.audit(
                AuditRecord(
                    principal: Principal(kind: .system, id: "jobs", correlation: job.correlation), action: "job.dead",
                    target: job.id.description, outcome: .failed, reason: job.machine.reason,
                    detail: ["kind": .string(job.kind), "code": .string(job.machine.code)]))
        }
        guard let parent = job.parent, try !hasOpenChildren(parent, transaction),
            var waiting = try JobRows.load(parent, transaction, limits),
            waiting.machine.apply(.childrenEnded, now: now, random: 0)
        else { return }
        try JobRows.save(waiting, now: now, transaction)
    }
}

extension Jobs {
    /// In whose name the attempt acts, with the rights that he has now.
    /// - Throws: 403 `owner-gone`.
    public func principal(of lease: JobLease) throws(Problem) -> Principal {
        guard lease.owner.kind != .system else {
            return Principal(kind: .system, id: lease.owner.id, correlation: lease.job.description)
        }
        return try owners.present(lease.owner, lease.job.description)
    }

    /// Whether the attempt was asked to end, or is over: work that looks at this now and then needs no `cancel`.
    public func isAskedToEnd(_ lease: JobLease) -> Bool {
        state.withLock { state in
            guard let running = state.running[lease.job], running.lease.fence == lease.fence else { return true }
            return running.endAsked != nil
        }
    }
}
