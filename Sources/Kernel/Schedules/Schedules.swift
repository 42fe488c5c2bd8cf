import AgentProtocol
import JSON
import Reactor
import Synchronization
import System

/// Schedules: jobs that are put in at their times. Any loop.
///
/// A time is decided once: the job that it gets, or that it gets none, and the schedule's advance past it are one commit.
/// A crash before that commit leaves the time to the next start, one after it leaves the job to the next start.
public final class Schedules: Sendable {
    struct State {
        /// Until then no schedule needs a look.
        var nextDue: UInt64 = 0
        /// A run has ended, or a kind has come.
        var hasNews = true
        var isStopped = false
    }

    public let jobs: Jobs
    public let limits: ScheduleLimits
    let store: Store
    let events: Events
    let zones: TimeZones
    let now: @Sendable () -> UInt64
    let report: @Sendable (Problem) -> Void
    let state = Mutex(State())
    let wakeup = Wakeup()
    /// In whose name the trail has the jobs that times make.
    static let principal = Principal(kind: .system, id: "schedules")

    /// Clock, chance and events are those of `jobs`.
    public init(
        jobs: Jobs, zones: TimeZones = TimeZones(), limits: ScheduleLimits = ScheduleLimits(),
        report: @escaping @Sendable (Problem) -> Void = { _ in }
    ) {
        self.jobs = jobs
        self.limits = limits
        store = jobs.store
        events = jobs.events
        self.zones = zones
        now = jobs.now
        self.report = report
        jobs.onScheduleNews { [weak self] in self?.news() }
    }

    private func news() {
        state.withLock { $0.hasNews = true }
        wakeup.signal()
    }

    // MARK: Change

    /// When it returns, schedule and audit record are on the disk.
    /// - Throws: 400 with the member that is wrong, 403, 409 `schedule-exists`, `schedules-full`, 413 `job-too-large`,
    ///   422 `job-kind-unknown` and what the kind throws.
    public func create(
        _ name: String, _ definition: ScheduleDefinition, by principal: Principal
    ) async throws(Problem) -> Schedule {
        guard JobKind.isName(name) else {
            throw .invalid("\"\(name.prefix(80))\" is no name of a schedule: 1 to 64 of a-z, 0-9, -, . and _", pointer: "/name")
        }
        let now = now()
        let times = try await times(definition)
        let title = try await check(definition, times, by: principal, now)
        var schedule = Schedule(
            name: name, definition: definition, title: AuditLimits.cut(title), owner: JobOwner(principal), createdAt: now,
            createdBy: principal.id, changedAt: now, revision: 1, machine: ScheduleStateMachine())
        restart(&schedule, times, now)
        let made = schedule
        let maximum = limits.schedules
        killPoint("schedule.create.before")
        try await store.write(bytes: 1_024) { (transaction) throws(StoreError) in
            if try transaction.exists("SELECT 1 FROM schedules WHERE name = ?", name) {
                throw .refused(.conflict("schedule-exists", "there is a schedule '\(name)' already: change it with PATCH"))
            }
            guard try transaction.count("SELECT count(*) FROM schedules") < maximum else {
                throw .refused(
                    .conflict("schedules-full", "there are \(maximum) schedules already: delete some that have ended"))
            }
            try ScheduleRows.write(made, transaction)
            try Self.audit("schedule.create", made, principal, transaction)
        }
        killPoint("schedule.create.after")
        changed(made)
        tell("schedule.created", made, ["by": .string(principal.id)])
        return made
    }

    /// Changes the given members. Whoever changes more than whether it is on, or its description, is its owner from then
    /// on: nobody lets something run with another's rights.
    /// - Parameter revision: what the caller saw; `nil` takes what is there.
    /// - Throws: as `create`; 404 `schedule-unknown`, 412 `changed-meanwhile`.
    public func change(
        _ name: String, _ change: JSONObject, by principal: Principal, ifRevision revision: UInt64? = nil
    ) async throws(Problem) -> Schedule {
        let now = now()
        let old = try await get(name)
        if let revision, revision != old.revision { throw Self.changedMeanwhile(old, revision) }
        let definition = try old.definition.changed(by: change)
        var alike = old.definition
        alike.isEnabled = definition.isEnabled
        alike.description = definition.description
        let isMore = alike != definition
        let times = try await times(definition)
        let title = isMore ? AuditLimits.cut(try await check(definition, times, by: principal, now)) : old.title
        try checkDescription(definition)
        let isRestart = definition.isEnabled != old.definition.isEnabled || !definition.hasTimes(of: old.definition)
        let first = restarted(definition, times, now)
        killPoint("schedule.change.before")
        let changed = try await store.write(bytes: 1_024) { (transaction) throws(StoreError) -> Schedule in
            guard var schedule = try ScheduleRows.load(name, transaction) else { throw .refused(Self.unknown(name)) }
            guard schedule.revision == old.revision else {
                throw .refused(Self.changedMeanwhile(schedule, revision ?? old.revision))
            }
            schedule.definition = definition
            if isMore {
                schedule.title = title
                schedule.owner = JobOwner(principal)
            }
            schedule.changedAt = now
            schedule.revision += 1
            if isRestart { schedule.machine.restart(next: first.next, due: first.due) }
            try ScheduleRows.write(schedule, transaction)
            try Self.audit("schedule.change", schedule, principal, transaction)
            return schedule
        }
        killPoint("schedule.change.after")
        self.changed(changed)
        tell("schedule.changed", changed, ["by": .string(principal.id)])
        return changed
    }

    /// Runs that are under way, or wait as jobs, go on.
    /// - Throws: 404 `schedule-unknown`.
    public func delete(_ name: String, by principal: Principal) async throws(Problem) {
        killPoint("schedule.delete.before")
        let schedule = try await store.write { (transaction) throws(StoreError) -> Schedule in
            guard let schedule = try ScheduleRows.load(name, transaction) else { throw .refused(Self.unknown(name)) }
            try transaction.run("DELETE FROM schedules WHERE name = ?", name)
            try Self.audit("schedule.delete", schedule, principal, transaction)
            return schedule
        }
        killPoint("schedule.delete.after")
        tell("schedule.deleted", schedule, ["by": .string(principal.id)])
    }

    /// Puts in a run now, in the name of the schedule's owner; its times stay as they are.
    /// - Parameter key: makes a repeated request safe.
    /// - Throws: 404 `schedule-unknown`, 409 `schedule-busy`, `idempotency-key-reused`, 422 `job-kind-unknown`,
    ///   503 `too-many-jobs`.
    public func runNow(_ name: String, key: IdempotencyKey? = nil, by principal: Principal) async throws(Problem) -> Job {
        let now = now()
        let known = try await get(name)
        let kind = try jobs.kind(known.definition.kind)
        var request = known.definition.request(now: now)
        request.idempotencyKey = key
        try jobs.check(request, now)
        try jobs.requireRoom()
        let id = jobs.newID(now)
        let limits = jobs.limits
        killPoint("schedule.run.before")
        let (job, isNew) = try await store.write(bytes: 2_048) { [request] (transaction) throws(StoreError) -> (Job, Bool) in
            guard var schedule = try ScheduleRows.load(name, transaction) else { throw .refused(Self.unknown(name)) }
            if let key, let job = try Jobs.known(key, schedule.owner, transaction, limits) { return (job, false) }
            guard schedule.revision == known.revision else { throw .refused(Self.changedMeanwhile(schedule, known.revision)) }
            if schedule.definition.overlap != .allow, try Self.isBusy(name, transaction) {
                throw .refused(
                    .conflict(
                        "schedule-busy",
                        "a run of '\(name)' has not ended, and its runs must not overlap: wait for it, or cancel its job"))
            }
            schedule.runs += 1
            schedule.lastRunAt = now
            let job = Jobs.make(
                id, kind, request, schedule.title, schedule.owner, Self.correlation(name), schedule: name, now: now, limits)
            try JobRows.insert(job, key, transaction)
            try ScheduleRows.advance(schedule, transaction)
            try Self.audit("schedule.run", schedule, principal, transaction, job: id)
            return (job, true)
        }
        killPoint("schedule.run.after")
        if isNew { jobs.created(job) }
        return job
    }

    // MARK: Look

    /// - Throws: 404 `schedule-unknown`.
    public func get(_ name: String) async throws(Problem) -> Schedule {
        let schedule = try await store.read { (reader) throws(StoreError) in try ScheduleRows.load(name, reader) }
        guard let schedule else { throw Self.unknown(name) }
        return schedule
    }

    /// By name.
    public func list(after name: String? = nil, kind: String? = nil, limit: Int) async throws(Problem) -> [Schedule] {
        try await store.read { (reader) throws(StoreError) in
            var query = ScheduleRows.select()
            if let name { query.and("name > ?", .text(name)) }
            if let kind { query.and("kind = ?", .text(kind)) }
            query.append(" ORDER BY name LIMIT ?", .integer(Int64(limit)))
            return try ScheduleRows.all(query, reader)
        }
    }

    /// The times to come, without their jitter; empty for a schedule that is off.
    /// - Returns: each with its distance from UTC in seconds.
    public func upcoming(_ name: String, count: Int) async throws(Problem) -> [(time: UInt64, offset: Int64)] {
        let schedule = try await get(name)
        guard var time = schedule.machine.next else { return [] }
        let zone = try await zones.rules(schedule.definition.zone)
        let times = try ScheduleTimes(schedule.definition, in: zone)
        var found: [(time: UInt64, offset: Int64)] = []
        while found.count < count {
            found.append((time, zone.period(at: Int64(clamping: time / 1_000)).offset))
            guard let next = times.next(after: time) else { break }
            time = next
        }
        return found
    }

    /// Why a schedule whose time has come does not run: `kind` (nobody runs it now).
    public func waitsFor(_ schedule: Schedule) -> String? {
        guard schedule.machine.next != nil || !schedule.machine.backlog.isEmpty else { return nil }
        return jobs.knows(schedule.definition.kind) ? nil : "kind"
    }

    // MARK: Check

    func times(_ definition: ScheduleDefinition) async throws(Problem) -> ScheduleTimes {
        try ScheduleTimes(definition, in: try await zones.rules(definition.zone))
    }

    /// - Returns: what a run does, from its kind.
    private func check(
        _ definition: ScheduleDefinition, _ times: ScheduleTimes, by principal: Principal, _ now: UInt64
    ) async throws(Problem) -> String {
        let kind = try jobs.kind(definition.kind)
        if let deadline = definition.deadlineMilliseconds {
            try CommandRequest.range(deadline, 1_000...30 * 86_400_000, "the deadline", "ms", "/deadline_s")
        }
        try jobs.check(definition.request(now: now), now)
        try checkDescription(definition)
        try CommandRequest.range(definition.missedLimit, 1...limits.missedRuns, "the number", "runs", "/missed_limit")
        try CommandRequest.range(
            definition.graceMilliseconds, 1_000...limits.graceMilliseconds, "the grace", "ms", "/grace_s")
        try CommandRequest.range(
            definition.jitterMilliseconds, 0...limits.jitterMilliseconds, "the jitter", "ms", "/jitter_s")
        let furthest: UInt64 = 253_402_300_799_000  // the end of the year 9999
        for (time, pointer) in [(definition.startsAt, "/starts_ms"), (definition.endsAt, "/ends_ms")] {
            guard let time, time > furthest else { continue }
            throw .invalid("\(time) is after the year 9999: Unix milliseconds are meant", pointer: pointer)
        }
        if let starts = definition.startsAt, let ends = definition.endsAt, ends < starts {
            throw .invalid("it would end before it starts", pointer: "/ends_ms")
        }
        if times.next(after: now) == nil {
            switch definition.timing {
            case .cron:
                throw .invalid("no time of \"cron\" is left between now, \"starts_ms\" and \"ends_ms\"", pointer: "/ends_ms")
            case .at(let time):
                throw .invalid(
                    "\(time) is not between now (\(now)), \"starts_ms\" and \"ends_ms\": write Unix milliseconds to come",
                    pointer: "/at_ms")
            case .local(let text):
                throw .invalid(
                    "\"\(text)\" in \(definition.zone) is not between now, \"starts_ms\" and \"ends_ms\"", pointer: "/at")
            }
        }
        return try await kind.accept(definition.arguments, principal, jobs.owners)
    }

    private func checkDescription(_ definition: ScheduleDefinition) throws(Problem) {
        try CommandRequest.range(
            definition.description.utf8.count, 0...limits.descriptionBytes, "the description", "bytes long", "/description")
    }

    // MARK: Common

    private func restart(_ schedule: inout Schedule, _ times: ScheduleTimes, _ now: UInt64) {
        let first = restarted(schedule.definition, times, now)
        schedule.machine.restart(next: first.next, due: first.due)
    }

    private func restarted(
        _ definition: ScheduleDefinition, _ times: ScheduleTimes, _ now: UInt64
    ) -> (next: UInt64?, due: UInt64?) {
        guard definition.isEnabled, let next = times.next(after: now) else { return (nil, nil) }
        return (next, due(next, definition, times))
    }

    /// A time and its share of chance: at most half of what lies between it and the time after it.
    func due(_ time: UInt64, _ definition: ScheduleDefinition, _ times: ScheduleTimes) -> UInt64 {
        guard definition.jitterMilliseconds > 0 else { return time }
        var most = definition.jitterMilliseconds
        if let after = times.next(after: time) { most = min(most, (after - time) / 2) }
        return time + UInt64(Double(most) * jobs.chance())
    }

    /// After a commit: the task that acts on times looks again in time.
    private func changed(_ schedule: Schedule) {
        state.withLock { $0.nextDue = min($0.nextDue, schedule.machine.due ?? .max) }
        wakeup.signal()
    }

    static func isBusy(_ name: String, _ store: borrowing some StoreReading & ~Copyable) throws(StoreError) -> Bool {
        try store.exists("SELECT 1 FROM jobs WHERE schedule = ? AND finished_ms IS NULL", name)
    }

    static func correlation(_ name: String) -> String { "schedule:" + name }

    private static func audit(
        _ action: String, _ schedule: Schedule, _ principal: Principal, _ transaction: borrowing Transaction,
        job: JobID? = nil
    ) throws(StoreError) {
        let definition = schedule.definition.json
        var detail: JSONObject = ["title": .string(schedule.title), "revision": .integer(Int64(clamping: schedule.revision))]
        if let job { detail["job"] = .string(job.description) }
        for name in ["kind", "cron", "at", "at_ms", "zone", "enabled"] {
            if let value = definition[name] { detail[name] = value }
        }
        try transaction.audit(
            AuditRecord(principal: principal, action: action, target: schedule.name, detail: .object(detail)))
    }

    func tell(_ kind: String, _ schedule: Schedule, _ data: JSONObject) {
        var data = data
        data["job_kind"] = .string(schedule.definition.kind)
        data["title"] = .string(schedule.title)
        events.publish(Event(kind: kind, subject: schedule.name, data: .object(data)))
    }

    static func unknown(_ name: String) -> Problem {
        Problem(404, "schedule-unknown", "there is no schedule '\(name.prefix(64))'")
    }

    private static func changedMeanwhile(_ schedule: Schedule, _ revision: UInt64) -> Problem {
        Problem(
            412, "changed-meanwhile",
            "the schedule '\(schedule.name)' is at revision \(schedule.revision), the request was made for \(revision)")
    }
}
