import AgentProtocol
import JSON
import Testing

@testable import Kernel

/// `FakeClock` starts at 2027-01-15T08:00:00Z, a Friday.
@Suite(.timeLimit(.minutes(1))) struct SchedulesTests {
    private let minute: UInt64 = 60_000

    private func definition(
        _ cron: String = "* * * * *", kind: String = "once", _ change: (inout ScheduleDefinition) -> Void = { _ in }
    ) throws -> ScheduleDefinition {
        var definition = ScheduleDefinition(kind: kind, timing: .cron(try CronExpression(cron)))
        change(&definition)
        return definition
    }

    private func code(_ body: () async throws -> Void) async -> String? {
        do { try await body() } catch { return (error as? Problem).map { $0.code + ($0.pointer ?? "") } }
        return nil
    }

    @Test func eachTimeBecomesOneJobOfItsOwner() async throws {
        let world = try await JobsFixture()
        let made = try await world.schedules.create("every", try definition(), by: JobsFixture.principal)
        let first = world.clock.now + minute
        #expect(made.machine.next == first && made.title == "t")
        let pause = try await world.schedules.turn()
        #expect(pause == minute, "nothing is looked at before")
        try await world.tick(minute)
        let lease = try #require(world.attempts.last)
        #expect(lease.owner == JobOwner(JobsFixture.principal))
        let job = try await world.jobs.get(lease.job)
        #expect(job.schedule == "every" && job.occurrence == first && job.correlation == "schedule:every")
        try await world.jobs.finish(lease, .succeeded(result: nil))
        try await world.tick(minute)
        #expect(try await world.runs("every").map(\.occurrence) == [first + minute, first])
        let schedule = try await world.schedules.get("every")
        #expect(schedule.runs == 2 && schedule.lastRunAt == first + minute && schedule.skips == 0)
        #expect(try await world.audited("schedule.create") == 1)
        #expect(try await world.audited("job.create") == 2)
        let kinds = world.kinds()
        #expect(kinds.first == "schedule.created")
    }

    @Test func aCrashBeforeOrAfterTheCommitNeitherLosesNorDoublesARun() async throws {
        let world = try await JobsFixture()
        _ = try await world.schedules.create("every", try definition { $0.overlap = .allow }, by: JobsFixture.principal)
        world.clock.advance(minute)
        // The core dies before anything was decided.
        let second = try await world.restarted()
        _ = try await second.schedules.turn()
        #expect(try await second.runs("every").count == 1)
        // It dies after the commit, before the job began.
        let third = try await second.restarted()
        _ = try await third.schedules.turn()
        _ = try await third.jobs.turn()
        #expect(try await third.runs("every").count == 1)
        #expect(third.attempts.leases.count == 1)
        // Nothing is due twice.
        try await third.tick(1)
        #expect(third.attempts.leases.count == 1)
    }

    @Test func downTimeMeetsTheRuleForMissedTimes() async throws {
        let world = try await JobsFixture()
        for missed in ScheduleMissed.allCases {
            _ = try await world.schedules.create(
                missed.rawValue, try definition { $0.missed = missed; $0.missedLimit = 3; $0.overlap = .allow },
                by: JobsFixture.principal)
        }
        world.clock.advance(10 * minute + 61_000 + 30_000)  // in the middle of a minute, long after the grace of the one before
        let next = try await world.restarted()
        _ = try await next.schedules.turn()
        let last = next.clock.now - 31_000
        #expect(try await next.runs("skip").map(\.occurrence) == [last], "it is within its grace")
        #expect(try await next.runs("once").map(\.occurrence) == [last])
        #expect(try await next.runs("all").compactMap(\.occurrence).sorted() == [last - 2 * minute, last - minute, last])
        for name in ["skip", "once", "all"] {
            let skip = try await next.schedules.get(name).lastSkip
            #expect(skip?.reason == .missed)
        }
        #expect(next.kinds().filter { $0 == "schedule.skipped" }.count == 3)
    }

    @Test func whatMustNotOverlapWaitsForTheRunBefore() async throws {
        let world = try await JobsFixture()
        _ = try await world.schedules.create("q", try definition { $0.overlap = .queue }, by: JobsFixture.principal)
        _ = try await world.schedules.create("s", try definition { $0.overlap = .skip }, by: JobsFixture.principal)
        let first = world.clock.now + minute
        for _ in 0..<3 { try await world.tick(minute) }
        #expect(world.attempts.leases.count == 2)
        #expect(try await world.schedules.get("q").machine.backlog == [first + minute])
        #expect(try await world.schedules.get("q").skips == 1)
        #expect(try await world.schedules.get("s").skips == 2)
        // What waits survives a crash, and begins when the run before has ended.
        let next = try await world.restarted()
        for lease in try await next.jobs.list(JobQuery()) { #expect(lease.machine.state == .dead, "interrupted") }
        try await next.tick(1)
        #expect(try await next.runs("q").compactMap(\.occurrence) == [first + minute, first])
        #expect(try await next.runs("s").count == 1)
        #expect(try await next.schedules.get("q").machine.backlog.isEmpty)
    }

    @Test func runsThatAreMadeUpForGoOneAfterTheOther() async throws {
        let world = try await JobsFixture()
        _ = try await world.schedules.create("all", try definition { $0.missed = .all }, by: JobsFixture.principal)
        world.clock.advance(4 * minute + 59_000)
        _ = try await world.schedules.turn()
        #expect(try await world.schedules.get("all").machine.backlog.count == 3)
        for count in 1...4 {
            try await world.tick(0)
            #expect(world.attempts.leases.count == count)
            try await world.jobs.finish(world.attempts.last!, .succeeded(result: nil))
        }
        #expect(try await world.runs("all").count == 4)
    }

    @Test func aOneTimeScheduleRunsOnceAndHasEnded() async throws {
        let world = try await JobsFixture()
        var once = ScheduleDefinition(kind: "once", timing: .at(world.clock.now + 1_500))
        once.deadlineMilliseconds = 5_000
        once.priority = 7
        once.timeoutMilliseconds = 2_000
        _ = try await world.schedules.create("o", once, by: JobsFixture.principal)
        try await world.tick(1_500)
        let job = try await world.jobs.get(try #require(world.attempts.last).job)
        #expect(job.machine.deadline == world.clock.now + 5_000 && job.priority == 7 && job.timeoutMilliseconds == 2_000)
        let schedule = try await world.schedules.get("o")
        #expect(schedule.hasEnded && schedule.machine.next == nil)
        #expect(try await world.schedules.upcoming("o", count: 3).isEmpty)
        #expect(world.kinds().contains("schedule.ended"))
        try await world.tick(minute)
        #expect(try await world.runs("o").count == 1)
        // The same name and time again are still the same run.
        try await world.schedules.delete("o", by: JobsFixture.principal)
        #expect(await code { _ = try await world.schedules.create("o", once, by: JobsFixture.principal) } == "invalid/at_ms")
    }

    @Test func itsOwnerMustStillBeThereWhenItRuns() async throws {
        let world = try await JobsFixture()
        world.owners.grant("alice", ["test.run"])
        var kind = JobKind("guarded", "", .atMostOnce, work: .delegated { [attempts = world.attempts] in attempts.add($0) })
        kind.rights = ["test.run"]
        try world.jobs.register(kind)
        let bob = Principal(kind: .user, id: "bob")
        #expect(await code { _ = try await world.schedules.create("x", try definition(kind: "guarded"), by: bob) } == "forbidden")
        _ = try await world.schedules.create("x", try definition(kind: "guarded"), by: JobsFixture.principal)
        try await world.tick(minute)
        try await world.jobs.finish(world.attempts.last!, .succeeded(result: nil))
        world.owners.grant("alice", [])
        try await world.tick(minute)
        #expect(try await world.runs("x").first?.machine.code == "forbidden")
        world.owners.remove("alice")
        try await world.tick(minute)
        #expect(try await world.runs("x").first?.machine.code == "owner-gone")
        #expect(world.attempts.leases.count == 1)
    }

    @Test func whoeverChangesWhatRunsOwnsIt() async throws {
        let world = try await JobsFixture()
        let made = try await world.schedules.create("x", try definition(), by: JobsFixture.principal)
        let bob = Principal(kind: .user, id: "bob")
        let off = try await world.schedules.change("x", ["enabled": false, "description": "not now"], by: bob)
        #expect(off.owner.id == "alice" && off.machine.next == nil && off.revision == 2)
        try await world.tick(minute)
        #expect(try await world.runs("x").isEmpty)
        let on = try await world.schedules.change("x", ["enabled": true], by: bob)
        #expect(on.owner.id == "alice" && on.machine.next == world.clock.now + minute, "times while it was off are not made up for")
        let changed = try await world.schedules.change("x", ["arguments": ["title": "u"]], by: bob, ifRevision: 3)
        #expect(changed.owner.id == "bob" && changed.title == "u" && changed.machine.next == on.machine.next)
        #expect(changed.createdBy == "alice" && changed.createdAt == made.createdAt)
        #expect(await code { _ = try await world.schedules.change("x", ["enabled": true], by: bob, ifRevision: 3) } == "changed-meanwhile")
        let moved = try await world.schedules.change("x", ["at_ms": .integer(Int64(world.clock.now) + 5_000)], by: bob)
        #expect(moved.definition.timing == .at(world.clock.now + 5_000) && moved.machine.next == world.clock.now + 5_000)
        #expect(try await world.audited("schedule.change") == 4)
        try await world.schedules.delete("x", by: bob)
        #expect(await code { _ = try await world.schedules.get("x") } == "schedule-unknown")
        #expect(await code { try await world.schedules.delete("x", by: bob) } == "schedule-unknown")
        #expect(try await world.audited("schedule.delete") == 1)
    }

    @Test func aRunNowLeavesTheTimesAlone() async throws {
        let world = try await JobsFixture()
        let made = try await world.schedules.create("x", try definition(), by: JobsFixture.principal)
        let bob = Principal(kind: .user, id: "bob")
        let key = IdempotencyKey(key: "k", requestDigest: [1])
        let job = try await world.schedules.runNow("x", key: key, by: bob)
        #expect(job.owner.id == "alice" && job.schedule == "x" && job.occurrence == nil)
        #expect(try await world.schedules.runNow("x", key: key, by: bob).id == job.id, "a repeated request is one run")
        #expect(await code { _ = try await world.schedules.runNow("x", by: bob) } == "schedule-busy")
        let after = try await world.schedules.get("x")
        #expect(after.machine == made.machine && after.runs == 1)
        #expect(try await world.audited("schedule.run") == 1)
        try await world.tick(0)
        try await world.jobs.finish(world.attempts.last!, .succeeded(result: nil))
        _ = try await world.schedules.runNow("x", by: bob)
        #expect(try await world.runs("x").count == 2)
    }

    @Test func jitterPutsATimeOffByHalfItsDistanceAtMost() async throws {
        let world = try await JobsFixture()
        let made = try await world.schedules.create(
            "x", try definition { $0.jitterMilliseconds = 3_600_000; $0.missed = .skip }, by: JobsFixture.principal)
        let (next, due) = (try #require(made.machine.next), try #require(made.machine.due))
        #expect(due >= next && due <= next + minute / 2)
        world.clock.advance(due - world.clock.now - 1)
        try await world.tick(0)
        #expect(world.attempts.leases.isEmpty)
        try await world.tick(1)
        #expect(try await world.runs("x").map(\.occurrence) == [next])
    }

    @Test func aScheduleWithoutItsKindWaitsForIt() async throws {
        let world = try await JobsFixture()
        _ = try await world.schedules.create("x", try definition { $0.missed = .once }, by: JobsFixture.principal)
        _ = try await world.schedules.create("other", try definition(kind: "safe"), by: JobsFixture.principal)
        await world.jobs.unregister("once", owner: "core", reason: "")
        for _ in 0..<3 { try await world.tick(minute) }
        let waiting = try await world.schedules.get("x")
        #expect(world.schedules.waitsFor(waiting) == "kind")
        #expect(try await world.runs("x").isEmpty)
        #expect(try await world.runs("other").count == 1, "it holds up no other")
        #expect(try await world.schedules.turn() > 0, "and is not asked for again and again")
        try world.jobs.register(JobKind("once", "", .atMostOnce, work: .delegated { _ in }))
        try await world.tick(0)
        #expect(try await world.runs("x").map(\.occurrence) == [world.clock.now])
    }

    @Test func upcomingTimesAreShownOnTheClockOfTheZone() async throws {
        let world = try await JobsFixture()
        _ = try await world.schedules.create(
            "x", try definition("30 2 * * *") { $0.zone = "Europe/Berlin" }, by: JobsFixture.principal)
        let times = try await world.schedules.upcoming("x", count: 80)
        #expect(times.count == 80)
        let shown = times.map { ScheduleTime.text($0.time, offset: $0.offset) }
        #expect(shown.first == "2027-01-16T02:30:00+01:00")
        #expect(shown.contains("2027-03-28T03:00:00+02:00"), "the clock skips 02:30 on that day")
        #expect(shown.contains("2027-03-29T02:30:00+02:00"))
        #expect(ScheduleTime.text(0, offset: -12_600) == "1969-12-31T20:30:00-03:30")
    }

    @Test func whatCannotBeScheduledIsRefusedByItsField() async throws {
        var limits = ScheduleLimits()
        limits.schedules = 1
        let world = try await JobsFixture(scheduleLimits: limits)
        func fault(_ json: JSONObject) async -> String? {
            await code {
                var object: JSONObject = ["kind": "once", "cron": "@daily"]
                for member in json { object[member.key] = member.value.isNull ? nil : member.value }
                _ = try await world.schedules.create(
                    "x", try ScheduleDefinition(json: .object(object)), by: JobsFixture.principal)
            }
        }
        #expect(await fault(["cron": "61 * * * *"]) == "invalid/cron")
        #expect(await fault(["cron": nil]) == "invalid/cron")
        #expect(await fault(["at": "2030-01-01T00:00"]) == "invalid/at")
        #expect(await fault(["cron": nil, "at": "x"]) == "invalid/at")
        #expect(await fault(["cron": nil, "at": "2020-01-01T00:00"]) == "invalid/at")
        #expect(await fault(["cron": nil, "at_ms": 5]) == "invalid/at_ms")
        #expect(await fault(["zone": "Mars/Olympus"]) == "invalid/zone")
        #expect(await fault(["zone": "../../etc/passwd"]) == "invalid/zone")
        #expect(await fault(["ends_ms": 5]) == "invalid/ends_ms")
        #expect(await fault(["starts_ms": 6, "ends_ms": 5]) == "invalid/ends_ms")
        #expect(await fault(["starts_ms": .integer(.max)]) == "invalid/starts_ms")
        #expect(await fault(["jitter_s": 100_000]) == "invalid/jitter_s")
        #expect(await fault(["overlap": "perhaps"]) == "invalid/overlap")
        #expect(await fault(["missed": "perhaps"]) == "invalid/missed")
        #expect(await fault(["missed_limit": 101]) == "invalid/missed_limit")
        #expect(await fault(["grace_s": 0]) == "invalid/grace_s")
        #expect(await fault(["deadline_s": 0]) == "invalid/deadline_s")
        #expect(await fault(["priority": 101]) == "invalid/priority")
        #expect(await fault(["timeout_s": 0.1]) == "invalid/timeout_s")
        #expect(await fault(["retry": ["attempts": 0]]) == "invalid/retry/attempts")
        #expect(await fault(["kind": "none"]) == "job-kind-unknown/kind")
        #expect(await fault(["arguments": ["bad": 1]]) == "invalid")
        #expect(await fault(["arguments": ["x": .string(String(repeating: "x", count: 70_000))]]) == "job-too-large/arguments")
        #expect(await fault(["description": .string(String(repeating: "x", count: 2_000))]) == "invalid/description")
        #expect(await code {
            _ = try await world.schedules.create("No Name", try definition(), by: JobsFixture.principal)
        } == "invalid/name")
        #expect(await fault([:]) == nil)
        #expect(await fault([:]) == "schedule-exists")
        #expect(await code {
            _ = try await world.schedules.create("y", try definition(), by: JobsFixture.principal)
        } == "schedules-full")
    }

    @Test func aDefinitionIsTheSameAfterAWayThroughItsText() throws {
        var full = try definition("5 4 * * sun")
        full.description = "d"
        full.arguments = ["a": [1, 2]]
        full.priority = -3
        full.timeoutMilliseconds = 1_500
        full.retry = JobRetry(maximumAttempts: 2, firstMilliseconds: 250, longestMilliseconds: 9_000)
        full.deadlineMilliseconds = 60_000
        full.zone = "Europe/Berlin"
        full.startsAt = 5
        full.endsAt = 6
        full.jitterMilliseconds = 7
        full.overlap = .queue
        full.missed = .all
        full.missedLimit = 4
        full.graceMilliseconds = 8
        full.isEnabled = false
        #expect(try ScheduleDefinition(json: JSONValue(parsing: full.json.serialized())) == full)
        for timing in [ScheduleTiming.at(7), .local("2030-01-01T00:00")] {
            full.timing = timing
            #expect(try ScheduleDefinition(json: full.json) == full)
        }
    }

    @Test func manySchedulesOfOneTimeAreDecidedInBatches() async throws {
        var limits = ScheduleLimits()
        limits.batch = 7
        let world = try await JobsFixture(scheduleLimits: limits)
        for number in 0..<30 {
            _ = try await world.schedules.create("s\(number)", try definition(), by: JobsFixture.principal)
        }
        try await world.tick(minute)
        #expect(try await world.jobs.list(JobQuery()).count == 30)
        #expect(try await world.schedules.list(after: "s28", limit: 10).map(\.name).first == "s29")
        #expect(try await world.schedules.list(kind: "safe", limit: 10).isEmpty)
    }

    @Test func aFullCoreKeepsTheTimeUntilThereIsRoom() async throws {
        var limits = JobLimits()
        limits.openJobs = 1
        let world = try await JobsFixture(limits: limits)
        _ = try await world.schedules.create("x", try definition { $0.overlap = .allow }, by: JobsFixture.principal)
        let lease = try await world.started("safe")
        world.clock.advance(minute)
        #expect(await code { _ = try await world.schedules.turn() } == "too-many-jobs")
        try await world.jobs.finish(lease, .succeeded(result: nil))
        try await world.tick(1_000)
        #expect(try await world.runs("x").count == 1)
    }
}

extension JobsFixture {
    /// Time passes, and everything that it makes due is done.
    fileprivate func tick(_ milliseconds: UInt64) async throws {
        clock.advance(milliseconds)
        _ = try await schedules.turn()
        _ = try await jobs.turn()
    }

    fileprivate func runs(_ name: String) async throws -> [Job] {
        var query = JobQuery()
        query.schedule = name
        return try await jobs.list(query)
    }

    fileprivate func kinds() -> [String] {
        events.page(after: EventCursor(run: events.run, sequence: 0)).events.map(\.kind)
    }
}
