import AgentProtocol
import JSON
import Reactor
import System

/// What time makes of schedules.
extension Schedules {
    /// Acts on times until `stop`. After `Jobs.start`.
    public func start(on loop: EventLoop) {
        loop.spawn { await self.run(on: loop) }
    }

    public func stop() {
        state.withLock { $0.isStopped = true }
        wakeup.signal()
    }

    private var isStopped: Bool { state.withLock { $0.isStopped } }

    private func run(on loop: EventLoop) async {
        while !isStopped {
            var pause: UInt64 = 1_000
            do throws(Problem) {
                pause = try await turn()
            } catch {
                report(error)
            }
            guard !isStopped else { return }
            await wakeup.wait(milliseconds: max(pause, 1), on: loop)
        }
    }

    /// One look at everything that time or news make due.
    /// - Returns: milliseconds until the next one is needed.
    func turn() async throws(Problem) -> UInt64 {
        let now = now()
        let (isDue, hasNews) = state.withLock { state in
            defer {
                state.hasNews = false
                // What is made or changed from here on lowers it again.
                if state.nextDue <= now || state.hasNews { state.nextDue = .max }
            }
            return (state.nextDue <= now || state.hasNews, state.hasNews)
        }
        if isDue {
            do throws(Problem) {
                while try await actOnTimes(now) {}
                if hasNews { while try await actOnBacklog(now) {} }
                let next = try await nextDue()
                state.withLock { $0.nextDue = min($0.nextDue, next) }
            } catch {
                state.withLock { $0.hasNews = true }
                throw error
            }
        }
        return state.withLock { state in
            guard !state.hasNews else { return 0 }
            // The clock may be set: it is looked at each minute.
            let next = min(state.nextDue, now + 60_000)
            return next > now ? next - now : 0
        }
    }

    // MARK: Times

    private struct Plan: Sendable {
        var schedule: Schedule
        var kind: JobKind
        var arrival: ScheduleStateMachine.Arrival
        /// One for each run that there can be.
        var ids: [JobID]
    }

    /// Decides the times that have come, a bounded number of schedules at a time.
    /// - Returns: whether there may be more.
    private func actOnTimes(_ now: UInt64) async throws(Problem) -> Bool {
        let (batch, batchBytes) = (limits.batch, limits.batchBytes)
        let kinds = jobs.kindsByName
        let due = try await store.read { (reader) throws(StoreError) -> [Schedule] in
            var query = ScheduleRows.select()
            query.and("due_ms IS NOT NULL AND due_ms <= ?", .integer(Int64(clamping: now)))
            Self.onlyOf(kinds, &query)
            query.append(" ORDER BY due_ms LIMIT ?", .integer(Int64(batch)))
            return try ScheduleRows.all(query, reader)
        }
        guard !due.isEmpty else { return false }
        try jobs.requireRoom()
        var plans: [Plan] = []
        var unreadable: [(name: String, revision: UInt64)] = []
        var bytes = 0
        for schedule in due where bytes <= batchBytes {
            guard let kind = kinds[schedule.definition.kind] else { continue }
            do throws(Problem) {
                let plan = try await plan(schedule, kind, now)
                bytes += plan.ids.count * (1_024 + schedule.definition.arguments.serialized().count)
                plans.append(plan)
            } catch {
                // The machine's time zones lack one that they had. The time is kept, and looked at again.
                report(error)
                unreadable.append((schedule.name, schedule.revision))
            }
        }
        try await commit(plans, unreadable, bytes, now)
        return due.count == batch || bytes > batchBytes
    }

    private func plan(_ schedule: Schedule, _ kind: JobKind, _ now: UInt64) async throws(Problem) -> Plan {
        let times = try await times(schedule.definition)
        let next = schedule.machine.next ?? now
        let newest = times.newest(schedule.definition.missedLimit + 1, from: next, through: now)
        let following = times.next(after: max(now, next))
        let arrival = ScheduleStateMachine.Arrival(
            // A time that a change of the zone's rules moved is still the time that was announced.
            newest: newest.times.isEmpty ? [next] : newest.times, isAll: newest.isAll, following: following,
            followingDue: following.map { due($0, schedule.definition, times) })
        return Plan(
            schedule: schedule, kind: kind, arrival: arrival, ids: arrival.newest.map { _ in jobs.newID(now) })
    }

    private func commit(
        _ plans: [Plan], _ unreadable: [(name: String, revision: UInt64)], _ bytes: Int, _ now: UInt64
    ) async throws(Problem) {
        let limits = jobs.limits
        killPoint("schedule.fire.before")
        let done = try await store.write(bytes: 1_024 + bytes) {
            (transaction) throws(StoreError) -> [(Schedule, [Job], [ScheduleStateMachine.Skip])] in
            for (name, revision) in unreadable {
                try transaction.run(
                    "UPDATE schedules SET due_ms = ? WHERE name = ? AND revision = ?", now + 60_000, name, revision)
            }
            var done: [(Schedule, [Job], [ScheduleStateMachine.Skip])] = []
            for plan in plans {
                // Somebody changed or deleted it in between: it is looked at again.
                guard var schedule = try ScheduleRows.load(plan.schedule.name, transaction),
                    schedule.revision == plan.schedule.revision, schedule.machine.next == plan.schedule.machine.next
                else { continue }
                let decision = schedule.machine.arrive(
                    plan.arrival, now: now, isBusy: try Self.isBusy(schedule.name, transaction),
                    rules: ScheduleStateMachine.Rules(schedule.definition))
                var made: [Job] = []
                for (time, id) in zip(decision.runs, plan.ids) {
                    if let job = try Self.putIn(&schedule, time, id, plan.kind, now, transaction, limits) { made.append(job) }
                }
                for skip in decision.skips {
                    schedule.skips += 1
                    schedule.lastSkip = skip
                }
                try ScheduleRows.advance(schedule, transaction)
                done.append((schedule, made, decision.skips))
            }
            return done
        }
        killPoint("schedule.fire.after")
        for (schedule, made, skips) in done {
            for job in made { jobs.created(job) }
            for skip in skips {
                tell(
                    "schedule.skipped", schedule,
                    [
                        "reason": .string(skip.reason.rawValue), "first_ms": .integer(Int64(clamping: skip.first)),
                        "last_ms": .integer(Int64(clamping: skip.last)),
                    ])
            }
            if schedule.hasEnded { tell("schedule.ended", schedule, [:]) }
        }
    }

    /// The job of one time, within the commit that moves the schedule past it.
    /// - Returns: `nil` when that time had its run already, under a schedule of this name that was deleted since.
    private static func putIn(
        _ schedule: inout Schedule, _ time: UInt64, _ id: JobID, _ kind: JobKind, _ now: UInt64,
        _ transaction: borrowing Transaction, _ limits: JobLimits
    ) throws(StoreError) -> Job? {
        guard
            try !transaction.exists(
                "SELECT 1 FROM jobs WHERE schedule = ? AND occurrence_ms = ?", schedule.name, time)
        else { return nil }
        let job = Jobs.make(
            id, kind, schedule.definition.request(now: now), schedule.title, schedule.owner, correlation(schedule.name),
            schedule: schedule.name, occurrence: time, now: now, limits)
        try JobRows.insert(job, nil, transaction)
        schedule.runs += 1
        schedule.lastRunAt = time
        try transaction.audit(
            AuditRecord(
                principal: principal, action: "job.create", target: id.description,
                detail: [
                    "kind": .string(job.kind), "title": .string(job.title), "schedule": .string(schedule.name),
                    "scheduled_ms": .integer(Int64(clamping: time)), "owner": .string(job.owner.id),
                ]))
        return job
    }

    // MARK: Runs that waited for the one before

    /// - Returns: whether there may be more.
    private func actOnBacklog(_ now: UInt64) async throws(Problem) -> Bool {
        let batch = limits.batch
        let kinds = jobs.kindsByName
        var query = ScheduleRows.select()
        query.and("backlog IS NOT NULL")
        query.and("NOT EXISTS (SELECT 1 FROM jobs WHERE schedule = schedules.name AND finished_ms IS NULL)")
        Self.onlyOf(kinds, &query)
        query.append(" ORDER BY name LIMIT ?", .integer(Int64(batch)))
        let waiting = query
        let found = try await store.read { (reader) throws(StoreError) in try ScheduleRows.all(waiting, reader).count }
        guard found > 0 else { return false }
        try jobs.requireRoom()
        let ids = (0..<batch).map { _ in jobs.newID(now) }
        let limits = jobs.limits
        killPoint("schedule.fire.before")
        let done = try await store.write(bytes: found * 2_048) { (transaction) throws(StoreError) -> [(Schedule, Job?)] in
            var done: [(Schedule, Job?)] = []
            for (var schedule, id) in zip(try ScheduleRows.all(waiting, transaction), ids) {
                guard let kind = kinds[schedule.definition.kind], let time = schedule.machine.runEnded() else { continue }
                let job = try Self.putIn(&schedule, time, id, kind, now, transaction, limits)
                try ScheduleRows.advance(schedule, transaction)
                done.append((schedule, job))
            }
            return done
        }
        killPoint("schedule.fire.after")
        for (schedule, job) in done {
            if let job { jobs.created(job) }
            if schedule.hasEnded { tell("schedule.ended", schedule, [:]) }
        }
        return done.count == batch
    }

    /// Schedules of kinds that nobody runs now stay as they are; their rule for missed times holds when the kind is back.
    private static func onlyOf(_ kinds: [String: JobKind], _ query: inout StoreQuery) {
        let marks = kinds.keys.map { _ in "?" }.joined(separator: ", ")
        query.and("kind IN (\(marks))")
        query.values += kinds.keys.map { .text($0) }
    }

    private func nextDue() async throws(Problem) -> UInt64 {
        let kinds = jobs.kindsByName
        return try await store.read { (reader) throws(StoreError) in
            var query = StoreQuery("SELECT due_ms FROM schedules")
            query.and("due_ms IS NOT NULL")
            Self.onlyOf(kinds, &query)
            query.append(" ORDER BY due_ms LIMIT 1")
            return try reader.all(query) { (row) throws(StoreError) in row.unsigned(0) }.first ?? .max
        }
    }
}
