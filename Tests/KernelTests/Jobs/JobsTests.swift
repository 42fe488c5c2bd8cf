import AgentProtocol
import JSON
import Testing

@testable import Kernel

@Suite(.timeLimit(.minutes(1))) struct JobsTests {
    @Test func aJobRunsAndItsResultIsKept() async throws {
        let world = try await JobsFixture()
        let lease = try await world.started()
        #expect(lease.attempt == 1 && lease.fence == 1)
        try world.jobs.progress(lease, JobProgress(done: 3, total: 9, text: "three"))
        #expect(try await world.jobs.get(lease.job).progress == JobProgress(done: 3, total: 9, text: "three"))
        try await world.jobs.finish(lease, .succeeded(result: Array("{\"n\":1}".utf8)))
        let job = try await world.jobs.get(lease.job)
        #expect(job.machine.state == .succeeded)
        #expect(job.result == Array("{\"n\":1}".utf8))
        #expect(job.progress?.done == 3, "kept with the end")
        #expect(try await world.audited("job.create") == 1)
        let kinds = world.events.page(after: EventCursor(run: world.events.run, sequence: 0)).events.map(\.kind)
        #expect(kinds == ["job.created", "job.started", "job.progress", "job.succeeded"])
    }

    @Test func anEndedAttemptIsFencedEverywhere() async throws {
        let world = try await JobsFixture()
        let lease = try await world.started()
        try await world.jobs.finish(lease, .failed(code: "x", reason: "y", again: .ifIdempotent))
        try await world.pass(2_000)
        let second = try #require(world.attempts.last)
        #expect(second.attempt == 2 && second.fence > lease.fence)
        func code(_ body: () async throws -> Void) async -> String? {
            do { try await body() } catch { return (error as? Problem)?.code }
            return nil
        }
        #expect(await code { try await world.jobs.finish(lease, .succeeded(result: nil)) } == "job-fenced")
        #expect(await code { try await world.jobs.checkpoint(lease, [1]) } == "job-fenced")
        #expect(await code { try await world.jobs.log(lease, .info, "late") } == "job-fenced")
        #expect(await code { try world.jobs.progress(lease, JobProgress(done: 1)) } == "job-fenced")
        #expect(await code {
            _ = try await world.jobs.createChild(JobRequest("safe"), of: lease, by: JobsFixture.principal)
        } == "job-fenced")
        try await world.jobs.finish(second, .succeeded(result: nil))
        #expect(try await world.machine(lease.job).state == .succeeded)
    }

    @Test func aCrashRunsIdempotentJobsAgainAndLeavesTheOthersDead() async throws {
        let world = try await JobsFixture()
        let safe = try await world.started("safe")
        try await world.jobs.checkpoint(safe, [7, 7])
        let once = try await world.started("once")
        let waiting = try await world.create("once") { $0.dueAt = world.clock.now + 60_000 }
        let next = try await world.restarted()
        let dead = try await next.machine(once.job)
        #expect(dead.state == .dead && dead.code == "interrupted" && dead.reason.hasSuffix("attempt 1 ran"))
        #expect(try await next.audited("job.dead") == 1)
        _ = try await next.jobs.turn()
        let again = try #require(next.attempts.last)
        #expect(again.job == safe.job && again.attempt == 2 && again.fence > once.fence && again.checkpoint == [7, 7])
        #expect(next.attempts.leases.count == 1)
        try await next.pass(60_000)
        #expect(next.attempts.last?.job == waiting.id)
        // Whoever still holds the first attempt is turned away.
        await #expect(throws: Problem.self) { try await next.jobs.finish(safe, .succeeded(result: nil)) }
    }

    @Test func aDeadJobRunsAgainWhenAnOperatorSaysSo() async throws {
        let world = try await JobsFixture()
        let lease = try await world.started("once")
        await #expect(throws: Problem.self) { _ = try await world.jobs.retry(lease.job, by: JobsFixture.principal) }
        try await world.jobs.finish(lease, .failed(code: "x", reason: "y", again: .ifIdempotent))
        #expect(try await world.machine(lease.job).state == .dead)
        _ = try await world.jobs.retry(lease.job, by: JobsFixture.principal)
        _ = try await world.jobs.turn()
        #expect(world.attempts.last?.attempt == 2)
        #expect(try await world.audited("job.retry") == 1)
    }

    @Test func higherPriorityAndThenOlderGoFirstWithinTheKindsPlaces() async throws {
        let world = try await JobsFixture { $0.concurrency = 2 }
        var ids: [JobID] = []
        for priority in [0, 5, -3, 5] {
            ids.append(try await world.create("safe", [:]) { $0.priority = priority }.id)
            world.clock.advance(1)
        }
        let other = try await world.create("once")
        _ = try await world.jobs.turn()
        #expect(Set(world.attempts.leases.map(\.job)) == [ids[1], ids[3], other.id], "one kind's queue holds up no other")
        try await world.jobs.finish(world.attempts.leases.first { $0.job == ids[1] }!, .succeeded(result: nil))
        _ = try await world.jobs.turn()
        #expect(world.attempts.last?.job == ids[0])
        #expect(world.jobs.waitsFor(try await world.jobs.get(ids[2])) == "place")
    }

    @Test func aJobWithoutAKindWaitsForIt() async throws {
        let world = try await JobsFixture()
        let job = try await world.create("safe")
        await world.jobs.unregister("safe", owner: "somebody", reason: "")
        #expect(world.jobs.kinds.count == 2, "only the owner takes a kind away")
        await world.jobs.unregister("safe", owner: "core", reason: "")
        _ = try await world.jobs.turn()
        #expect(world.attempts.leases.isEmpty)
        #expect(world.jobs.waitsFor(try await world.jobs.get(job.id)) == "kind")
        await #expect(throws: Problem.self) { _ = try await world.create("safe") }
        try world.jobs.register(JobKind("safe", "", .idempotent, work: .delegated { [attempts = world.attempts] in attempts.add($0) }))
        _ = try await world.jobs.turn()
        #expect(world.attempts.last?.job == job.id)
        // Taken away while it runs: an interruption.
        await world.jobs.unregister("safe", owner: "core", reason: "gone")
        let machine = try await world.machine(job.id)
        #expect(machine.state == .waiting && machine.reason == "gone")
        var foreign = JobKind("once", "", .atMostOnce, work: .delegated { _ in })
        foreign.owner = "plugin"
        #expect(throws: Problem.self) { try world.jobs.register(foreign) }
    }

    @Test func aCancelReachesTheWholeFamily() async throws {
        let world = try await JobsFixture()
        let parent = try await world.started("safe")
        let child = try await world.jobs.createChild(JobRequest("once"), of: parent, by: JobsFixture.principal)
        let grandchild = try await world.create("safe") { $0.parent = child.id; $0.dueAt = world.clock.now + 1_000 }
        #expect(try await world.jobs.cancel(parent.job, by: JobsFixture.principal) == 3)
        #expect(world.attempts.cancelled == [parent.job])
        #expect(try await world.machine(child.id).state == .cancelled)
        #expect(try await world.machine(grandchild.id).state == .cancelled)
        #expect(try await world.machine(parent.job).state == .running)
        #expect(try await world.jobs.cancel(parent.job, by: JobsFixture.principal) == 0, "may be repeated")
        try await world.jobs.finish(parent, .cancelled)
        #expect(try await world.machine(parent.job).state == .cancelled)
        #expect(try await world.audited("job.cancel") == 1)
    }

    @Test func anAttemptThatDoesNotEndWhenAskedIsFenced() async throws {
        let world = try await JobsFixture { $0.cancelGraceMilliseconds = 5_000 }
        let lease = try await world.started("safe") { $0.timeoutMilliseconds = 10_000 }
        try await world.pass(9_999)
        #expect(world.attempts.cancelled.isEmpty)
        try await world.pass(1)
        #expect(world.attempts.cancelled == [lease.job])
        try await world.pass(5_000)
        let machine = try await world.machine(lease.job)
        #expect(machine.state == .waiting && machine.code == "timed-out")
        await #expect(throws: Problem.self) { try await world.jobs.finish(lease, .succeeded(result: nil)) }

        let cancelled = try await world.started("once")
        try await world.jobs.cancel(cancelled.job, by: JobsFixture.principal)
        try await world.pass(5_000)
        #expect(try await world.machine(cancelled.job).state == .cancelled)
    }

    @Test func aDeadlineEndsAnAttemptThatRuns() async throws {
        let world = try await JobsFixture()
        let lease = try await world.started("safe") { $0.deadline = world.clock.now + 1_000 }
        #expect(lease.endsBy == world.clock.now + 1_000)
        try await world.pass(1_000)
        #expect(world.attempts.cancelled == [lease.job])
        try await world.jobs.finish(lease, .cancelled)
        let machine = try await world.machine(lease.job)
        #expect(machine.state == .dead && machine.code == "deadline-passed")
    }

    @Test func anEndAndItsSideRecordAreOneCommit() async throws {
        let world = try await JobsFixture()
        let lease = try await world.started()
        let side = { @Sendable (transaction: borrowing Transaction) throws(StoreError) in
            _ = try transaction.run("INSERT INTO job_numbers VALUES ('side', 1)")
        }
        try await world.jobs.finish(lease, .succeeded(result: nil), side: side)
        #expect(try await world.machine(lease.job).state == .succeeded)
        // A record that cannot be kept leaves the attempt as it is.
        let second = try await world.started()
        await #expect(throws: Problem.self) { try await world.jobs.finish(second, .succeeded(result: nil), side: side) }
        #expect(try await world.machine(second.job).state == .running)
        try await world.jobs.finish(second, .failed(code: "side", reason: "could not be kept", again: .never))
        // One that comes too late is not kept either.
        await #expect(throws: Problem.self) {
            try await world.jobs.finish(second, .succeeded(result: nil)) { (transaction) throws(StoreError) in
                _ = try transaction.run("INSERT INTO job_numbers VALUES ('late', 1)")
            }
        }
        let kept = try await world.store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM job_numbers WHERE name IN ('side', 'late')")
        }
        #expect(kept == 1)
    }

    @Test func anAttemptActsForItsOwnerAsHeIsNow() async throws {
        let world = try await JobsFixture()
        let lease = try await world.started()
        #expect(try world.jobs.principal(of: lease).id == "alice")
        world.owners.remove("alice")
        #expect(throws: Problem.self) { try world.jobs.principal(of: lease) }
    }

    @Test func aDeadlineEndsAJobThatWaits() async throws {
        let world = try await JobsFixture { $0.concurrency = 1 }
        _ = try await world.started("safe")
        let late = try await world.create("safe") { $0.deadline = world.clock.now + 1_000 }
        try await world.pass(1_000)
        let machine = try await world.machine(late.id)
        #expect(machine.state == .dead && machine.code == "deadline-passed")
    }

    @Test func aParentGoesOnWhenItsLastChildHasEnded() async throws {
        let world = try await JobsFixture()
        let parent = try await world.started("safe")
        var children: [Job] = []
        for _ in 0..<2 {
            children.append(try await world.jobs.createChild(JobRequest("once"), of: parent, by: JobsFixture.principal))
        }
        try await world.jobs.finish(parent, .afterChildren)
        #expect(world.jobs.waitsFor(try await world.jobs.get(parent.job)) == "children")
        _ = try await world.jobs.turn()
        let leases = world.attempts.leases.filter { lease in children.contains { $0.id == lease.job } }
        #expect(leases.count == 2)
        try await world.jobs.finish(leases[0], .succeeded(result: nil))
        _ = try await world.jobs.turn()
        #expect(try await world.machine(parent.job).waitsForChildren)
        try await world.jobs.finish(leases[1], .failed(code: "x", reason: "", again: .never))
        _ = try await world.jobs.turn()
        #expect(world.attempts.last?.job == parent.job && world.attempts.last?.attempt == 2)
        // With nobody left to wait for it goes on at once.
        try await world.jobs.finish(world.attempts.last!, .afterChildren)
        #expect(try await !world.machine(parent.job).waitsForChildren)
        var query = JobQuery()
        query.parent = parent.job
        #expect(try await world.jobs.list(query).count == 2)
    }

    @Test func aCheckpointAndItsSideRecordAreOneCommit() async throws {
        let world = try await JobsFixture()
        let lease = try await world.started()
        try await world.jobs.checkpoint(lease, [1]) { (transaction) throws(StoreError) in
            try transaction.run("INSERT INTO job_numbers VALUES ('side', 1)")
        }
        await #expect(throws: Problem.self) {
            try await world.jobs.checkpoint(lease, [2]) { (transaction) throws(StoreError) in
                try transaction.run("INSERT INTO job_numbers VALUES ('side', 2)")
            }
        }
        #expect(try await world.jobs.get(lease.job).checkpoint == [1])
        await #expect(throws: Problem.self) {
            try await world.jobs.checkpoint(lease, [UInt8](repeating: 0, count: 70_000))
        }
        await #expect(throws: Problem.self) {
            try await world.jobs.finish(lease, .succeeded(result: [UInt8](repeating: 0x20, count: 70_000)))
        }
    }

    @Test func logsKeepTheNewestLines() async throws {
        var limits = JobLimits()
        limits.logLines = 3
        limits.logLineBytes = 10
        let world = try await JobsFixture(limits: limits)
        let lease = try await world.started()
        for number in 1...5 { try await world.jobs.log(lease, .warning, "line \(number)") }
        try await world.jobs.log(lease, .info, "a line that is too long")
        let lines = try await world.jobs.logs(lease.job, after: 0, limit: 100)
        #expect(lines.map(\.text) == ["line 4", "line 5", "a line tha…"])
        #expect(lines.map(\.sequence) == [4, 5, 6])
        #expect(try await world.jobs.logs(lease.job, after: 5, limit: 100).count == 1)
        await #expect(throws: Problem.self) {
            _ = try await world.jobs.logs(JobID(high: 1, low: 1), after: 0, limit: 1)
        }
    }

    @Test func aRepeatedRequestIsOneJob() async throws {
        let world = try await JobsFixture()
        let key = IdempotencyKey(key: "k", requestDigest: [1])
        let first = try await world.create { $0.idempotencyKey = key }
        let second = try await world.create { $0.idempotencyKey = key }
        #expect(first.id == second.id)
        await #expect(throws: Problem.self) {
            _ = try await world.create { $0.idempotencyKey = IdempotencyKey(key: "k", requestDigest: [2]) }
        }
    }

    @Test func whatCannotBeRunIsRefused() async throws {
        var limits = JobLimits()
        limits.openJobs = 2
        limits.depth = 1
        let world = try await JobsFixture(limits: limits)
        func code(_ kind: String = "safe", _ arguments: JSONValue = [:], _ change: (inout JobRequest) -> Void) async -> String? {
            do { _ = try await world.create(kind, arguments, change) } catch { return (error as? Problem)?.code }
            return nil
        }
        #expect(await code("none") { _ in } == "job-kind-unknown")
        #expect(await code("safe", ["bad": 1]) { _ in } == "invalid")
        #expect(await code("safe", 1) { _ in } == "invalid")
        #expect(await code("safe", ["x": .string(String(repeating: "x", count: 70_000))]) { _ in } == "job-too-large")
        #expect(await code { $0.priority = 101 } == "invalid")
        #expect(await code { $0.timeoutMilliseconds = 1 } == "invalid")
        #expect(await code { $0.retry = JobRetry(maximumAttempts: 0) } == "invalid")
        #expect(await code { $0.deadline = world.clock.now } == "invalid")
        #expect(await code { $0.parent = JobID(high: 1, low: 1) } == "job-unknown")
        #expect(await code { $0.idempotencyKey = IdempotencyKey(key: "a b", requestDigest: []) } == "invalid")
        let parent = try await world.create()
        #expect(await code { $0.parent = parent.id } == nil)
        #expect(await code { _ in } == "too-many-jobs")
    }

    @Test func oldJobsAreRemovedWithTheirLogs() async throws {
        var limits = JobLimits()
        limits.historyJobs = 2
        let world = try await JobsFixture(limits: limits)
        var ids: [JobID] = []
        for _ in 0..<3 {
            let lease = try await world.started()
            try await world.jobs.log(lease, .info, "x")
            try await world.jobs.finish(lease, .succeeded(result: nil))
            ids.append(lease.job)
            world.clock.advance(1_000)
        }
        let open = try await world.create { $0.dueAt = world.clock.now + 1_000 }
        try await world.jobs.sweep()
        #expect(try await world.jobs.list(JobQuery()).map(\.id) == [open.id, ids[2], ids[1]])
        world.clock.advance(limits.historyMilliseconds + 1)
        try await world.jobs.sweep()
        #expect(try await world.jobs.list(JobQuery()).map(\.id) == [open.id])
        #expect(try await world.store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM job_logs")
        } == 0)
    }
}
