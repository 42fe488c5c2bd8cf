import AgentProtocol
import JSON
import Reactor
import Synchronization
import System

/// Durable jobs: what was accepted runs to a final state, whatever happens to this process meanwhile. Any loop.
///
/// The store holds the truth. Memory knows only which kinds there are and which attempts run in this process; an attempt
/// is written down before its kind is told of it, and its end before anybody else is.
public final class Jobs: Sendable {
    /// An attempt that runs in this process.
    struct Running: Sendable {
        var lease: JobLease
        var kind: JobKind
        var deadline: UInt64?
        /// It was asked to end, why, and when it is fenced if it does not.
        var endAsked: (code: String, fencedAt: UInt64)?
        var progress: JobProgress?
        var progressToldAt: UInt64 = 0
    }
    struct State {
        var kinds: [String: JobKind] = [:]
        var running: [JobID: Running] = [:]
        /// Unfinished ones in the store: counted at the start, and with each commit since.
        var open = 0
        /// Cancelled after the commit that began an attempt and before its kind was told; those of one turn.
        var earlyCancels: Set<JobID> = []
        /// Something may be ready to run.
        var hasNews = true
        /// Until then nothing becomes ready by itself.
        var nextDue: UInt64 = 0
        var loop: EventLoop?
        var isStopped = false
        /// Told when a run of a schedule has ended, and when a kind has come.
        var scheduleNews: (@Sendable () -> Void)?
    }

    public let limits: JobLimits
    let owners: JobOwners
    let store: Store
    let events: Events
    let now: @Sendable () -> UInt64
    let random: @Sendable () -> UInt64
    let report: @Sendable (Problem) -> Void
    let state = Mutex(State())
    let wakeup = Wakeup()

    public static func open(
        store: Store, events: Events, owners: JobOwners, limits: JobLimits = JobLimits(),
        now: @escaping @Sendable () -> UInt64 = { unixMilliseconds() },
        random: @escaping @Sendable () -> UInt64 = { .random(in: .min ... .max) },
        report: @escaping @Sendable (Problem) -> Void = { _ in }
    ) async throws(Problem) -> Jobs {
        let jobs = Jobs(store, events, owners, limits, now, random, report)
        try await jobs.countOpen()
        return jobs
    }

    private init(
        _ store: Store, _ events: Events, _ owners: JobOwners, _ limits: JobLimits,
        _ now: @escaping @Sendable () -> UInt64, _ random: @escaping @Sendable () -> UInt64,
        _ report: @escaping @Sendable (Problem) -> Void
    ) {
        self.owners = owners
        self.store = store
        self.events = events
        self.limits = limits
        self.now = now
        self.random = random
        self.report = report
    }

    /// From 0 up to but not including 1.
    func chance() -> Double { Double(random() >> 11) / Double(1 << 53) }

    func countOpen() async throws(Problem) {
        let open = try await store.read { (reader) throws(StoreError) in
            // Both are counted in an index; the rows themselves are long.
            try reader.count("SELECT count(*) FROM jobs")
                - reader.count("SELECT count(*) FROM jobs WHERE finished_ms IS NOT NULL")
        }
        state.withLock { $0.open = open }
    }

    // MARK: Create

    /// When it returns, job and audit record are on the disk.
    /// - Throws: 400, 403, 404 `job-unknown` for the parent, 409 `idempotency-key-reused`, `job-finished` (the parent),
    ///   413 `job-too-large`, 422 `job-kind-unknown`, 503 `too-many-jobs` and what the kind throws.
    public func create(_ request: JobRequest, by principal: Principal) async throws(Problem) -> Job {
        try await create(request, under: nil, by: principal)
    }

    /// A child of the job whose attempt holds the lease.
    public func createChild(
        _ request: JobRequest, of lease: JobLease, by principal: Principal
    ) async throws(Problem) -> Job {
        var request = request
        request.parent = lease.job
        return try await create(request, under: lease, by: principal)
    }

    private func create(
        _ request: JobRequest, under lease: JobLease?, by principal: Principal
    ) async throws(Problem) -> Job {
        let kind = try kind(request.kind)
        let now = now()
        try check(request, now)
        let title = try await kind.accept(request.arguments, principal, owners)
        try requireRoom()
        let id = newID(now)
        let limits = limits
        killPoint("job.create.before")
        let (job, isNew) = try await store.write(bytes: 1_024 + limits.argumentBytes / 8) {
            (transaction) throws(StoreError) -> (Job, Bool) in
            if let key = request.idempotencyKey,
                let known = try Self.known(key, JobOwner(principal), transaction, limits) { return (known, false) }
            if let lease { try Self.requireCurrent(lease, transaction) }
            let depth = try request.parent.map { (parent) throws(StoreError) in
                try Self.depth(under: parent, transaction, limits)
            } ?? 0
            let job = Self.make(
                id, kind, request, title, JobOwner(principal), principal.correlation, depth: depth, now: now, limits)
            try JobRows.insert(job, request.idempotencyKey, transaction)
            var detail: JSONObject = ["kind": .string(job.kind), "title": .string(job.title)]
            if let parent = job.parent { detail["parent"] = .string(parent.description) }
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "job.create", target: id.description, detail: .object(detail)))
            return (job, true)
        }
        killPoint("job.create.after")
        if isNew { created(job) }
        return job
    }

    func created(_ job: Job) {
        state.withLock { state in
            state.open += 1
            state.hasNews = state.hasNews || job.machine.dueAt <= job.createdAt
            state.nextDue = min(state.nextDue, job.machine.dueAt, job.machine.deadline ?? .max)
        }
        tell("job.created", job)
        wakeup.signal()
    }

    /// - Throws: 503 `too-many-jobs`.
    func requireRoom() throws(Problem) {
        guard state.withLock({ $0.open }) < limits.openJobs else {
            throw Problem(
                503, "too-many-jobs", "\(limits.openJobs) jobs are unfinished: wait until some have ended", retryAfter: 10)
        }
    }

    func newID(_ now: UInt64) -> JobID { JobID(milliseconds: now, random: (random(), random())) }

    static func make(
        _ id: JobID, _ kind: JobKind, _ request: JobRequest, _ title: String, _ owner: JobOwner, _ correlation: String,
        depth: Int = 0, schedule: String? = nil, occurrence: UInt64? = nil, now: UInt64, _ limits: JobLimits
    ) -> Job {
        Job(
            id: id, kind: kind.name, title: AuditLimits.cut(title), arguments: request.arguments.serialized(),
            priority: request.priority, timeoutMilliseconds: request.timeoutMilliseconds ?? kind.timeoutMilliseconds,
            owner: owner, correlation: correlation, parent: request.parent, depth: depth, schedule: schedule,
            occurrence: occurrence, createdAt: now,
            machine: JobStateMachine(
                kind.guarantee, request.retry ?? kind.retry, dueAt: max(request.dueAt ?? now, now),
                deadline: request.deadline, maximumInterruptions: limits.interruptions))
    }

    static func known(
        _ key: IdempotencyKey, _ owner: JobOwner, _ transaction: borrowing Transaction, _ limits: JobLimits
    ) throws(StoreError) -> Job? {
        let found = try transaction.first(
            "SELECT id, request_digest FROM jobs WHERE owner_kind = ? AND owner = ? AND idempotency_key = ?",
            owner.kind.rawValue, owner.id, key.key
        ) { (row) throws(StoreError) in (row.identifier(0, JobItself.self), row.bytes(1)) }
        guard let found, let id = found.0 else { return nil }
        guard found.1 == key.requestDigest else {
            throw .refused(
                .conflict("idempotency-key-reused", "the idempotency key was used for another request: take a new one"))
        }
        return try JobRows.load(id, transaction, limits)
    }

    private static func depth(
        under parent: JobID, _ transaction: borrowing Transaction, _ limits: JobLimits
    ) throws(StoreError) -> Int {
        guard let job = try JobRows.load(parent, transaction, limits) else { throw .refused(unknown(parent)) }
        guard !job.machine.state.isFinal else {
            throw .refused(.conflict("job-finished", "job \(parent) has ended: it takes no more children"))
        }
        guard job.depth < limits.depth else {
            throw .refused(.invalid("jobs nest at most \(limits.depth) deep", pointer: "/parent"))
        }
        let children = try transaction.count("SELECT count(*) FROM jobs WHERE parent = ?", parent)
        guard children < limits.children else {
            throw .refused(.invalid("job \(parent) has \(children) children, the most there may be", pointer: "/parent"))
        }
        return job.depth + 1
    }

    func check(_ request: JobRequest, _ now: UInt64) throws(Problem) {
        guard request.arguments.object != nil else {
            throw .invalid("the arguments of a job are an object", pointer: "/arguments")
        }
        let bytes = request.arguments.serialized().count
        guard bytes <= limits.argumentBytes else {
            throw Problem(
                413, "job-too-large", "the arguments have \(bytes) bytes, at most \(limits.argumentBytes) are allowed",
                pointer: "/arguments")
        }
        try CommandRequest.range(request.priority, -100...100, "the priority", "", "/priority")
        try request.checkTimes()
        if let deadline = request.deadline, deadline <= max(now, request.dueAt ?? 0) {
            throw .invalid("the deadline is not after the time at which the job may run", pointer: "/deadline_ms")
        }
        if let due = request.dueAt, due > now + 10 * 366 * 86_400_000 {
            throw .invalid("the job would run in more than ten years", pointer: "/run_at_ms")
        }
        try request.idempotencyKey?.validate()
    }

    static func unknown(_ id: JobID) -> Problem {
        Problem(404, "job-unknown", "there is no job \(id); finished jobs are kept for a limited time")
    }

    static let fenced = Problem(
        409, "job-fenced", "this attempt is over: it was cancelled, timed out, or the job has gone on without it")

    /// The lease is that of the attempt that runs.
    static func requireCurrent(
        _ lease: JobLease, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) {
        guard
            try store.exists(
                "SELECT 1 FROM jobs WHERE id = ? AND fence = ? AND state = 'running'", lease.job, lease.fence)
        else { throw .refused(fenced) }
    }

    // MARK: Tell

    func tell(_ kind: String, _ job: Job) {
        var data: JSONObject = [
            "job_kind": .string(job.kind), "title": .string(job.title), "attempt": .integer(Int64(job.machine.attempt)),
        ]
        if let schedule = job.schedule { data["schedule"] = .string(schedule) }
        if !job.machine.code.isEmpty { data["code"] = .string(job.machine.code) }
        if !job.machine.reason.isEmpty { data["reason"] = .string(String(job.machine.reason.prefix(500))) }
        events.publish(Event(kind: kind, subject: job.id.description, data: .object(data)))
    }

    /// Tells what became of it.
    func tellState(_ job: Job) {
        switch job.machine.state {
        case .waiting: if !job.machine.waitsForChildren { tell("job.retrying", job) }
        case .running: tell("job.started", job)
        case .succeeded: tell("job.succeeded", job)
        case .cancelled: tell("job.cancelled", job)
        case .dead: tell("job.dead", job)
        }
    }
}
