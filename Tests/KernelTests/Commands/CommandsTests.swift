import AgentProtocol
import Testing

@testable import Kernel

@Suite struct CommandsTests {
    @Test func oneCommandFromSubmitToResult() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let accepted = try await core.submit()
        #expect(link.orders == [accepted.id])
        #expect(try await core.states(accepted.id) == ["sent"])
        core.commands.started(over: link, accepted.id)
        #expect(try await core.states(accepted.id) == ["running"])
        #expect(await core.finish(link, accepted.id, code: 3, output: Array("hello\n".utf8), errors: [0xFF]))
        let answer = try await core.commands.answer(accepted, waitMilliseconds: 1_000)
        #expect(answer.isFinished && answer.counts[.failed] == 1)
        #expect(answer.targets[0].end?.exitCode == 3)
        #expect(answer.targets[0].output?.inline == StreamPair(Array("hello\n".utf8), [0xFF]))

        let stored = try await core.target(accepted.id)
        #expect(stored.state == "failed" && stored.end?.exitCode == 3 && stored.end?.started == .yes)
        #expect(stored.output?.inline == StreamPair(Array("hello\n".utf8), [0xFF]))
        #expect(core.commands.openTargets == 0)
    }

    @Test func anAnswerForAnotherClientsCommandChangesNothing() async throws {
        let core = try await CommandsFixture()
        let owner = await core.connect(0)
        let stranger = await core.connect(1)
        let accepted = try await core.submit()
        #expect(await core.commands.finished(over: stranger, core.record(accepted.id)))
        #expect(core.say(stranger, accepted.id, Array("x".utf8)))
        core.commands.started(over: stranger, accepted.id)
        #expect(try await core.states(accepted.id) == ["sent"])
        #expect(await core.finish(owner, accepted.id))
        #expect(try await core.target(accepted.id).output?.output == 0)
    }

    @Test func anOlderLinkOfTheSameClientIsNotHeard() async throws {
        let core = try await CommandsFixture()
        let old = await core.connect(0)
        let accepted = try await core.submit()
        let new = await core.connect(0, [ExecutionReport(command: accepted.id, started: .yes, standardOutputBytes: 0, standardErrorBytes: 0, exit: nil)])
        #expect(await core.commands.finished(over: old, core.record(accepted.id)))
        #expect(try await core.states(accepted.id) == ["running"])
        #expect(await core.finish(new, accepted.id))
        #expect(try await core.states(accepted.id) == ["succeeded"])
    }

    @Test func gapsAreRefusedAndOverlapsDropped() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let id = try await core.submit().id
        func send(_ text: String, at offset: Int) -> Bool {
            core.say(link, id, Array(text.utf8), at: offset)
        }
        #expect(send("abc", at: 0))
        #expect(send("bcde", at: 1))
        #expect(send("ab", at: 0))
        #expect(!send("zz", at: 6))
        #expect(await !core.commands.finished(over: link, core.record(id, output: 6)))
        #expect(await core.commands.finished(over: link, core.record(id, output: 5)))
        #expect(try await core.target(id).output?.inline?.output == Array("abcde".utf8))
    }

    @Test func largeOutputIsKeptWholeAndReadByRange() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let id = try await core.submit().id
        let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
        for start in stride(from: 0, to: bytes.count, by: 16_384) {
            let piece = Array(bytes[start..<min(bytes.count, start + 16_384)])
            #expect(core.say(link, id, piece, at: start))
            #expect(core.say(link, id, [7], at: start / 16_384, .standardError))
        }
        #expect(await core.commands.finished(over: link, core.record(id, output: bytes.count, errors: 19)))
        #expect(link.grants.contains { $0 > 300_000 })
        let after = try await core.restarted()
        var read: [UInt8] = []
        while read.count < bytes.count {
            let piece = try await after.commands.readOutput(
                id, of: after.clients[0], .standardOutput, at: UInt64(read.count), count: 100_000)
            #expect(piece.isComplete && piece.length == 300_000 && !piece.bytes.isEmpty)
            read += piece.bytes
        }
        #expect(read == bytes)
        let errors = try await after.commands.readOutput(id, of: after.clients[0], .standardError, at: 10, count: 100)
        #expect(errors.bytes == [UInt8](repeating: 7, count: 9))
    }

    /// Ends that come together: small ones, one with output on the disk, one whose output is not all here, one twice, and one of
    /// a command that is somebody else's.
    @Test func endsThatComeTogetherEachHaveTheirOwnAnswer() async throws {
        let core = try await CommandsFixture()
        let links = [await core.connect(0), await core.connect(1)]
        var ids: [CommandID] = []
        for _ in 0..<4 { ids.append(try await core.submit().id) }
        let large = [UInt8](repeating: 9, count: 60_000)
        for index in 0..<3 { #expect(core.say(links[0], ids[1], large, at: 60_000 * index)) }
        core.say(links[0], ids[2], [1, 2, 3])
        let answers = await core.commands.finished([
            ReportedEnd(link: links[0], record: core.record(ids[1], output: 180_000)),
            ReportedEnd(link: links[0], record: core.record(ids[0])),
            ReportedEnd(link: links[0], record: core.record(ids[2], output: 4)),
            ReportedEnd(link: links[1], record: core.record(ids[3])),
            ReportedEnd(link: links[0], record: core.record(ids[3], code: 7)),
            ReportedEnd(link: links[0], record: core.record(ids[0])),
        ])
        #expect(answers == [true, true, false, true, true, true])
        var states: [[String]] = []
        for id in ids { states.append(try await core.states(id)) }
        #expect(states == [["succeeded"], ["succeeded"], ["running"], ["failed"]])
        #expect(try await core.commands.readOutput(ids[1], of: core.clients[0], .standardOutput, at: 0, count: 200_000).bytes.count > 0)
        #expect(try await core.target(ids[1]).output?.output == 180_000)
    }

    @Test func outputBeyondTheLimitIsDroppedAndSaid() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let id = try await core.submit { $0.outputLimitBytes = 10_000 }.id
        let piece = [UInt8](repeating: 1, count: 16_000)
        for index in 0..<4 {
            #expect(core.say(link, id, piece, at: 16_000 * index))
        }
        #expect(await core.commands.finished(over: link, core.record(id, output: 64_000)))
        let view = try await core.target(id)
        #expect(view.output?.output == 10_000 && view.output?.truncated == true)
    }

    @Test func aRepeatedRequestWithTheSameKeyRunsOnce() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let key = IdempotencyKey(key: "k-1", requestDigest: [1])
        let first = try await core.submit { $0.idempotencyKey = key }
        let second = try await core.submit { $0.idempotencyKey = key }
        #expect(first.id == second.id && first.isNew && !second.isNew)
        #expect(link.orders.count == 1)
        await #expect(throws: Problem.self) {
            _ = try await core.submit { $0.idempotencyKey = IdempotencyKey(key: "k-1", requestDigest: [2]) }
        }
        _ = await core.finish(link, first.id)
        let answer = try await core.commands.answer(
            try await core.submit { $0.idempotencyKey = key }, waitMilliseconds: 1_000)
        #expect(answer.isFinished && answer.id == first.id)
    }

    /// The registry shows a client as online from its accept on; its agent's report takes a moment longer.
    @Test func aCommandForAClientThatIsJustArrivingWaitsForIt() async throws {
        let core = try await CommandsFixture()
        let link = FakeLink(core.clients[0])
        core.commands.accepted(link)
        let early = try await core.submit().id
        #expect(try await core.states(early) == ["waiting"])
        #expect(link.orders.isEmpty)
        _ = await core.commands.reconcile(over: link, [])
        #expect(link.orders == [early])
        await core.finish(link, early)
        #expect(try await core.states(early) == ["succeeded"])

        let lost = FakeLink(core.clients[1])
        core.commands.accepted(lost)
        let other = try await core.submit(.clients([core.clients[1]])).id
        core.commands.lost(lost)
        await core.pass(61_000)
        #expect(try await core.target(other, 1).end?.code == "client-offline")
        let late = try await core.submit(.clients([core.clients[1]])).id
        #expect(try await core.target(late, 1).end?.code == "client-offline")
    }

    @Test func howLongAClientWasAwayDoesNotCountOnceItIsArriving() async throws {
        let core = try await CommandsFixture()
        let old = await core.connect(0)
        _ = try await core.submit()
        core.commands.lost(old)
        await core.pass(120_000)
        let link = FakeLink(core.clients[0])
        core.commands.accepted(link)
        let id = try await core.submit().id
        await core.pass(1_000)
        #expect(try await core.states(id) == ["waiting"])
        await core.pass(60_000)
        #expect(try await core.target(id).end?.code == "client-offline")
    }

    @Test func offlinePoliciesFailSkipAndQueue() async throws {
        let core = try await CommandsFixture()
        let failed = try await core.submit { $0.offline = .fail }
        #expect(try await core.states(failed.id) == ["refused"])
        #expect(try await core.target(failed.id).end?.code == "client-offline")
        let skipped = try await core.submit { $0.offline = .skip }
        #expect(try await core.states(skipped.id) == ["skipped"])
        let queued = try await core.submit {
            $0.offline = .queue
            $0.queueMilliseconds = 60_000
        }
        let expiring = try await core.submit {
            $0.offline = .queue
            $0.queueMilliseconds = 5_000
        }
        #expect(try await core.states(queued.id) == ["waiting"])
        await core.pass(6_000)
        #expect(try await core.states(expiring.id) == ["expired"])
        #expect(try await core.target(expiring.id).end?.started == .no)
        let link = await core.connect(0)
        #expect(link.orders == [queued.id])
    }

    @Test func cancelIsIdempotentAndWaitsForAnAgentThatIsAway() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let id = try await core.submit(.clients([core.clients[0], core.clients[1]])) { $0.offline = .queue }.id
        #expect(try await core.states(id) == ["sent", "waiting"])
        core.commands.lost(link)
        try await core.commands.cancel(id, CommandsFixture.principal)
        try await core.commands.cancel(id, CommandsFixture.principal)
        #expect(try await core.states(id) == ["sent", "cancelled"])
        let after = try await core.restarted()
        let back = FakeLink(after.clients[0])
        let decisions = await after.commands.reconcile(
            over: back,
            [ExecutionReport(command: id, started: .yes, standardOutputBytes: 9, standardErrorBytes: 0, exit: nil)])
        #expect(decisions == [.cancel(command: id, standardOutputFrom: 0, standardErrorFrom: 0)])
        #expect(try await after.commands.cancel(id, CommandsFixture.principal) == 1)
        let exit = ExitRecord(command: id, outcome: .cancelled, started: .yes)
        #expect(await after.commands.finished(over: back, exit))
        #expect(try await after.states(id) == ["cancelled", "cancelled"])
        #expect(try await after.commands.cancel(id, CommandsFixture.principal) == 0)
        await #expect(throws: Problem.self) {
            try await after.commands.cancel(CommandID(high: 5, low: 5), CommandsFixture.principal)
        }
    }

    @Test func fanOutKeepsTheWindowAndStopsAtTheErrorBudget() async throws {
        let core = try await CommandsFixture(clients: 20)
        var links: [FakeLink] = []
        for index in 0..<20 { links.append(await core.connect(index)) }
        let id = try await core.submit(.selector("*")) {
            $0.concurrency = 4
            $0.errorBudget = .count(1)
        }.id
        #expect(links.map(\.orders.count).reduce(0, +) == 4)
        await core.finish(links[0], id)
        #expect(links.map(\.orders.count).reduce(0, +) == 5)
        await core.finish(links[1], id, code: 1)
        await core.finish(links[2], id, code: 1)
        let states = try await core.states(id)
        #expect(states.filter { $0 == "aborted" }.count == 14)
        for index in [3, 4, 5] { await core.finish(links[index], id) }
        let summary = try await core.commands.get(id).summary
        #expect(summary.isFinished && summary.counts[.succeeded] == 4 && summary.counts[.failed] == 2)
        #expect(summary.counts[.aborted] == 14 && summary.finishedAt != nil)

        let again = try await core.commands.rerun(id, outcomes: [.failed, .aborted], CommandsFixture.principal)
        #expect(try await core.commands.get(again.id).summary.targetCount == 16)
    }

    @Test func aClientTakesOnlySoManyAtOnceInOrder() async throws {
        var limits = CommandLimits()
        limits.activePerClient = 2
        limits.queuedPerClient = 2
        let core = try await CommandsFixture(limits: limits)
        let link = await core.connect(0)
        var ids: [CommandID] = []
        for _ in 0..<5 { ids.append(try await core.submit().id) }
        #expect(link.orders == Array(ids[0..<2]))
        #expect(try await core.target(ids[4]).end?.code == "client-busy")
        await core.finish(link, ids[1])
        #expect(link.orders == [ids[0], ids[1], ids[2]])
        try await core.commands.cancel(ids[3], CommandsFixture.principal)
        await core.finish(link, ids[0])
        await core.finish(link, ids[2])
        #expect(link.orders == [ids[0], ids[1], ids[2]])
        #expect(core.commands.openTargets == 0)
    }

    @Test func everyTargetEndsEvenIfItsClientNeverComesBack() async throws {
        var limits = CommandLimits()
        limits.lostAfterMilliseconds = 100_000
        let core = try await CommandsFixture(limits: limits)
        let link = await core.connect(0)
        let id = try await core.submit().id
        core.commands.started(over: link, id)
        core.commands.lost(link)
        await core.pass(50_000)
        #expect(try await core.states(id) == ["running"])
        await core.pass(60_000)
        let view = try await core.target(id)
        #expect(view.state == "interrupted" && view.end?.started == .yes && view.end?.code == "client-lost")
        // It does come back after all: what it says is acknowledged and changes nothing.
        let back = await core.connect(0, [ExecutionReport(command: id, started: .yes, standardOutputBytes: 0, standardErrorBytes: 0, exit: core.record(id))])
        #expect(await core.commands.finished(over: back, core.record(id)))
        #expect(try await core.states(id) == ["interrupted"])
    }

    @Test func aRevokedClientsTargetsEnd() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let running = try await core.submit().id
        core.commands.lost(link)
        let queued = try await core.submit { $0.offline = .queue }.id
        await core.commands.clientGone(core.clients[0], code: "client-revoked")
        #expect(try await core.states(running) == ["interrupted"])
        #expect(try await core.target(running).end?.started == .maybe)
        #expect(try await core.states(queued) == ["refused"])
        #expect(try await core.target(queued).end?.started == .no)
    }

    @Test func anAgentThatIgnoresTheTimeoutIsOverruled() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let id = try await core.submit { $0.timeoutMilliseconds = 1_000 }.id
        core.commands.started(over: link, id)
        await core.pass(20_000)
        #expect(link.cancels.isEmpty)
        await core.pass(40_000)
        #expect(link.cancels == [id])
        await core.pass(40_000)
        #expect(try await core.states(id) == ["timed-out"])
    }

    @Test func aRefusedSubmitIsAuditedAndLeavesNothing() async throws {
        let core = try await CommandsFixture()
        core.authority.refusal.withLock { $0 = .forbidden("not with that program") }
        await #expect(throws: Problem.self) { _ = try await core.submit() }
        #expect(try await core.commands.list(CommandQuery()).items.isEmpty)
        let audited = try await core.store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM audit_records WHERE action = 'command.submit' AND outcome = 'refused'")
        }
        #expect(audited == 1)
    }

    @Test func aWaitingCallerIsAnsweredAtTheEndOrWhenTheTimeIsOver() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let first = try await core.submit()
        async let answer = core.commands.answer(first, waitMilliseconds: 60_000)
        await core.finish(link, first.id)
        #expect(try await answer.isFinished)
        let second = try await core.submit()
        async let late = core.commands.answer(second, waitMilliseconds: 1_000)
        for _ in 0..<100_000 where core.commands.state.withLock({ $0.book.waited.isEmpty }) { await Task.yield() }
        await core.pass(2_000)
        let answered = try await late
        #expect(!answered.isFinished && answered.targets[0].state == "sent")
    }

    @Test func aWatcherSeesEveryByteAndEveryEnd() async throws {
        let core = try await CommandsFixture()
        let links = [await core.connect(0), await core.connect(1)]
        let id = try await core.submit(.clients([core.clients[0], core.clients[1]])).id
        var watch = try await core.commands.watch(id)
        var text: [ClientID: [UInt8]] = [:]
        var ended: [String] = []
        var isFinished = false
        var step = 0
        while !watch.isEnded, step < 50 {
            step += 1
            if step == 2 {
                core.say(links[0], id, Array("one ".utf8), at: 0)
            }
            if step == 4 {
                let bulk = [UInt8](repeating: 65, count: 60_000)
                core.say(links[0], id, bulk, at: 4)
                #expect(await core.commands.finished(over: links[0], core.record(id, output: 60_004)))
                await core.finish(links[1], id, output: Array("two".utf8))
            }
            for item in try await watch.next(waitMilliseconds: 0) {
                switch item {
                case .output(let client, _, let offset, let bytes):
                    #expect(offset == UInt64(text[client]?.count ?? 0))
                    text[client, default: []] += bytes
                case .target(let view): if view.end != nil { ended.append(view.state) }
                case .command(_, let finished, _, _): isFinished = finished
                }
            }
        }
        #expect(isFinished && ended == ["succeeded", "succeeded"])
        #expect(text[core.clients[0]]?.count == 60_004 && text[core.clients[1]] == Array("two".utf8))
    }

    @Test func tenThousandTargetsInOneSubmit() async throws {
        let core = try await CommandsFixture(clients: 10_000)
        var links: [FakeLink] = []
        for index in 0..<10_000 { links.append(await core.connect(index)) }
        let id = try await core.submit(.selector("*")).id
        #expect(links.allSatisfy { $0.orders == [id] })
        let recorded = await withTaskGroup(of: Bool.self) { group in
            for link in links { group.addTask { await core.finish(link, id) } }
            return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        #expect(recorded == 10_000)
        let summary = try await core.commands.get(id).summary
        #expect(summary.isFinished && summary.counts[.succeeded] == 10_000)
    }
}
