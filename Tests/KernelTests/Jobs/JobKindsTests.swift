import AgentProtocol
import JSON
import Testing

@testable import Kernel

/// The seam for plugins: kinds come, go and change over while jobs wait and run.
@Suite(.timeLimit(.minutes(1))) struct JobKindsTests {
    private func kind(
        _ name: String, instance: UInt64, _ attempts: HeldAttempts, _ guarantee: JobGuarantee = .idempotent
    ) -> JobKind {
        var kind = JobKind(name, "", guarantee, work: .delegated { attempts.add($0) })
        kind.owner = "plugin"
        kind.instance = instance
        kind.cancel = { attempts.cancel($0) }
        return kind
    }

    private func code(_ body: () async throws -> Void) async -> String? {
        do { try await body() } catch { return (error as? Problem)?.code }
        return nil
    }

    @Test func anUpgradeChangesAllKindsOfAnOwnerInOneStep() async throws {
        let world = try await JobsFixture()
        let (old, new) = (HeldAttempts(), HeldAttempts())
        try world.jobs.replaceKinds(
            of: "plugin", by: [kind("p.a", instance: 1, old), kind("p.b", instance: 1, old), kind("p.gone", instance: 1, old)])
        let running = try await world.create("p.a")
        _ = try await world.jobs.turn()
        let begun = try #require(old.last)
        #expect(begun.job == running.id)
        let waiting = try await world.create("p.a")
        let orphan = try await world.create("p.gone")

        try world.jobs.replaceKinds(
            of: "plugin", by: [kind("p.a", instance: 2, new), kind("p.b", instance: 2, new), kind("p.c", instance: 2, new)])
        _ = try await world.jobs.turn()
        #expect(new.leases.map(\.job) == [waiting.id], "new attempts begin in the new version")
        #expect(world.jobs.waitsFor(try await world.jobs.get(orphan.id)) == "kind")
        #expect(world.jobs.attempts(of: "plugin", instance: 1) == 1)

        // The old version still checkpoints, reports and is asked to end by its own callback.
        try await world.jobs.checkpoint(begun, [1])
        try world.jobs.progress(begun, JobProgress(done: 1))
        try await world.jobs.log(begun, .info, "still here")
        try await world.jobs.cancel(begun.job, by: JobsFixture.principal)
        #expect(old.cancelled == [begun.job] && new.cancelled.isEmpty)
        try await world.jobs.finish(begun, .cancelled)
        #expect(world.jobs.attempts(of: "plugin", instance: 1) == 0)
        #expect(world.jobs.attempts(of: "plugin", instance: 2) == 1)

        // Back again: the orphan goes on.
        try world.jobs.register(kind("p.gone", instance: 2, new))
        _ = try await world.jobs.turn()
        #expect(new.last?.job == orphan.id)
    }

    @Test func whatAnOldVersionLeavesBehindIsInterruptedAndNothingElse() async throws {
        let world = try await JobsFixture()
        let (old, new) = (HeldAttempts(), HeldAttempts())
        try world.jobs.replaceKinds(
            of: "plugin", by: [kind("p.a", instance: 1, old), kind("p.once", instance: 1, old, .atMostOnce)])
        let (again, once) = (try await world.create("p.a"), try await world.create("p.once"))
        _ = try await world.jobs.turn()
        try world.jobs.replaceKinds(
            of: "plugin", by: [kind("p.a", instance: 2, new), kind("p.once", instance: 2, new, .atMostOnce)])
        let mine = try await world.create("p.once")
        _ = try await world.jobs.turn()
        await world.jobs.endAttempts(of: "plugin", instance: 1, reason: "version 1 has stopped")
        _ = try await world.jobs.turn()
        #expect(try await world.machine(once.id).state == .dead)
        #expect(try await world.machine(once.id).reason == "version 1 has stopped")
        #expect(try await world.machine(mine.id).state == .running, "the new version's own")
        #expect(new.last?.job == again.id && new.last?.attempt == 2)
        let late = try #require(old.leases.first { $0.job == again.id })
        #expect(await code { try await world.jobs.finish(late, .succeeded(result: nil)) } == "job-fenced")
        try await world.jobs.finish(try #require(new.last), .succeeded(result: nil))
        #expect(await code { try await world.jobs.finish(new.last!, .succeeded(result: nil)) } == "job-fenced", "once")
    }

    @Test func aPluginThatIsGoneLeavesItsJobsWaiting() async throws {
        let world = try await JobsFixture()
        let attempts = HeldAttempts()
        try world.jobs.replaceKinds(of: "plugin", by: [kind("p.a", instance: 1, attempts)])
        let job = try await world.create("p.a")
        let core = try await world.create("safe")
        _ = try await world.jobs.turn()
        await world.jobs.removeKinds(of: "plugin", reason: "the plugin crashed")
        let machine = try await world.machine(job.id)
        #expect(machine.state == .waiting && machine.reason == "the plugin crashed" && machine.interruptions == 1)
        #expect(try await world.machine(core.id).state == .running)
        _ = try await world.jobs.turn()
        #expect(world.jobs.waitsFor(try await world.jobs.get(job.id)) == "kind")
        #expect(!world.jobs.kinds.contains { $0.owner == "plugin" })
    }

    @Test func aSetOfKindsThatCannotBeIsRefusedAsAWhole() async throws {
        var limits = JobLimits()
        limits.kinds = 4
        let world = try await JobsFixture(limits: limits)
        let attempts = HeldAttempts()
        try world.jobs.replaceKinds(of: "plugin", by: [kind("p.a", instance: 1, attempts)])
        let fine = kind("p.b", instance: 2, attempts)
        var foreign = kind("p.c", instance: 2, attempts)
        foreign.owner = "other"
        #expect(await code { try world.jobs.replaceKinds(of: "plugin", by: [fine, foreign]) } == "invalid")
        #expect(await code { try world.jobs.replaceKinds(of: "plugin", by: [fine, fine]) } == "invalid")
        #expect(await code { try world.jobs.replaceKinds(of: "plugin", by: [fine, kind("safe", instance: 2, attempts)]) } == "job-kind-taken")
        #expect(await code { try world.jobs.replaceKinds(of: "plugin", by: [fine, kind("No Name", instance: 2, attempts)]) } == "invalid")
        #expect(await code {
            try world.jobs.replaceKinds(of: "plugin", by: (0..<3).map { kind("p.\($0)", instance: 2, attempts) })
        } == "job-kinds-full")
        #expect(world.jobs.kinds.map(\.name) == ["once", "p.a", "safe"])
    }

    @Test func placesAreCountedOverBothVersions() async throws {
        let world = try await JobsFixture()
        let (old, new) = (HeldAttempts(), HeldAttempts())
        var first = kind("p.a", instance: 1, old)
        first.concurrency = 1
        try world.jobs.register(first)
        _ = try await world.create("p.a")
        _ = try await world.jobs.turn()
        var second = kind("p.a", instance: 2, new)
        second.concurrency = 1
        try world.jobs.replaceKinds(of: "plugin", by: [second])
        _ = try await world.create("p.a")
        _ = try await world.jobs.turn()
        #expect(old.leases.count == 1 && new.leases.isEmpty)
        try await world.jobs.finish(old.last!, .succeeded(result: nil))
        _ = try await world.jobs.turn()
        #expect(new.leases.count == 1)
    }

    @Test func fewPlacesForAllAreShared() async throws {
        var limits = JobLimits()
        limits.runningAttempts = 3
        let world = try await JobsFixture(limits: limits)
        let attempts = HeldAttempts()
        for name in ["p.a", "p.b", "p.z"] { try world.jobs.register(kind(name, instance: 1, attempts)) }
        // Idle kinds that come first in any order take nobody's place.
        for _ in 0..<5 { _ = try await world.create("p.z") }
        _ = try await world.jobs.turn()
        #expect(attempts.leases.count == 3)
    }

    @Test func aKindAsksForRightsWhenAJobIsMadeAndWhenItRuns() async throws {
        let world = try await JobsFixture()
        let attempts = HeldAttempts()
        var guarded = kind("p.a", instance: 1, attempts)
        guarded.rights = ["cloud.run"]
        try world.jobs.register(guarded)
        #expect(await code { _ = try await world.create("p.a") } == "forbidden")
        world.owners.grant("alice", ["cloud.run"])
        let job = try await world.create("p.a") { $0.dueAt = world.clock.now + 1_000 }
        world.owners.grant("alice", [])
        try await world.pass(1_000)
        let machine = try await world.machine(job.id)
        #expect(machine.state == .dead && machine.code == "forbidden" && attempts.leases.isEmpty)
        // What the core and plugins do by themselves has nobody behind it.
        let own = try await world.jobs.create(JobRequest("p.a"), by: Principal(kind: .system, id: "plugin"))
        _ = try await world.jobs.turn()
        #expect(attempts.last?.job == own.id)
    }

    @Test func aKindIsDescribedInJSON() async throws {
        let world = try await JobsFixture()
        let attempts = HeldAttempts()
        let full: JSONObject = [
            "name": "cloud.upload", "summary": "Uploads a file.", "guarantee": "idempotent", "concurrency": 3, "timeout_s": 90,
            "retry": ["attempts": 2, "first_s": 0.5, "longest_s": 4], "cancel_grace_s": 2, "rights": ["cloud.write"],
            "arguments": [
                "type": "object", "required": ["path"], "additionalProperties": false,
                "properties": ["path": ["type": "string", "minLength": 1], "parts": ["type": "integer", "maximum": 9]],
            ],
        ]
        func kind(_ change: JSONObject = [:]) throws(Problem) -> JobKind {
            var object = full
            for member in change { object[member.key] = member.value.isNull ? nil : member.value }
            return try JobKind(
                specification: .object(object), owner: "org.example.cloud", instance: 7, work: .delegated { attempts.add($0) })
        }
        let made = try kind()
        #expect(made.name == "cloud.upload" && made.owner == "org.example.cloud" && made.instance == 7)
        #expect(made.guarantee == .idempotent && made.concurrency == 3 && made.timeoutMilliseconds == 90_000)
        #expect(made.retry == JobRetry(maximumAttempts: 2, firstMilliseconds: 500, longestMilliseconds: 4_000))
        #expect(made.cancelGraceMilliseconds == 2_000 && made.rights == ["cloud.write"])
        #expect(try kind(["name": "org.example.cloud.x", "retry": nil, "timeout_s": nil]).retry == JobRetry())

        func fault(_ change: JSONObject) async -> String? {
            do { _ = try kind(change) } catch { return error.pointer }
            return nil
        }
        #expect(await fault(["name": "other.upload"]) == "/name")
        #expect(await fault(["name": "cloud.Up Load"]) == "/name")
        #expect(await fault(["summary": nil]) == "/summary")
        #expect(await fault(["guarantee": "perhaps"]) == "/guarantee")
        #expect(await fault(["concurrency": 0]) == "/concurrency")
        #expect(await fault(["timeout_s": 0]) == "/timeout_s")
        #expect(await fault(["retry": ["attempts": 0]]) == "/retry/attempts")
        #expect(await fault(["cancel_grace_s": 9_999]) == "/cancel_grace_s")
        #expect(await fault(["rights": ["everything"]]) == "/rights")
        #expect(await fault(["arguments": ["type": "text"]]) == "/arguments/type")
        #expect(await fault(["colour": 1]) == "/colour")

        // Jobs are checked against it.
        world.owners.grant("alice", ["cloud.write"])
        try world.jobs.register(made)
        func refused(_ arguments: JSONValue) async -> String? {
            do { _ = try await world.create("cloud.upload", arguments) } catch { return (error as? Problem)?.pointer ?? "" }
            return nil
        }
        #expect(await refused(["path": 5]) == "/arguments/path")
        #expect(await refused(["path": "a", "parts": 10]) == "/arguments/parts")
        #expect(await refused(["path": "a", "size": 1]) == "/arguments/size")
        #expect(await refused([:]) == "/arguments")
        #expect(await refused(["path": "a", "parts": 9]) == nil)
        #expect(try await world.jobs.list(JobQuery()).first?.title == "Uploads a file.")
    }

    @Test func moreThanOneTurnCanBeginAreNotForgotten() async throws {
        let world = try await JobsFixture { $0.concurrency = 200 }
        for _ in 0..<150 { _ = try await world.create("safe") }
        var turns = 0
        while try await world.jobs.turn() == 0, turns < 10 { turns += 1 }
        #expect(world.attempts.leases.count == 150)
    }

    /// The commit that begins an attempt and a cancel can come in either order; both know of the other.
    @Test func aCancelWhileAnAttemptBeginsIsNotLost() async throws {
        let world = try await JobsFixture()
        for _ in 0..<40 {
            let job = try await world.create("safe")
            async let turn = world.jobs.turn()
            async let cancelled = world.jobs.cancel(job.id, by: JobsFixture.principal)
            _ = try await (turn, cancelled)
            let machine = try await world.machine(job.id)
            let isAsked = world.attempts.cancelled.contains(job.id)
            #expect(machine.state == .cancelled || isAsked, "\(machine.state)")
            if let lease = world.attempts.leases.first(where: { $0.job == job.id }), machine.state == .running {
                try await world.jobs.finish(lease, .cancelled)
            }
        }
    }
}
