import AgentProtocol
import Testing

@testable import Kernel

/// The core dies at each point of a command's life and comes back on the same directory.
@Suite struct CommandRestartTests {
    private func report(_ id: CommandID, _ started: Started = .yes, output: UInt64 = 0, exit: ExitRecord? = nil) -> ExecutionReport {
        ExecutionReport(command: id, started: started, standardOutputBytes: output, standardErrorBytes: 0, exit: exit)
    }

    @Test func anOrderThatTheAgentNeverGotIsSentAgain() async throws {
        let core = try await CommandsFixture()
        await core.connect(0)
        let id = try await core.submit().id
        let after = try await core.restarted()
        #expect(try await after.states(id) == ["sent"])
        let link = await after.connect(0)
        #expect(link.orders == [id])
        await after.finish(link, id)
        #expect(try await after.states(id) == ["succeeded"])
    }

    @Test func anOrderThatTheAgentHasIsNotSentAgain() async throws {
        let core = try await CommandsFixture()
        let old = await core.connect(0)
        let id = try await core.submit().id
        core.say(old, id, Array("abc".utf8), at: 0)
        let after = try await core.restarted()
        let link = FakeLink(after.clients[0])
        let decisions = await after.commands.reconcile(over: link, [report(id, output: 3)])
        #expect(decisions == [.resume(command: id, standardOutputFrom: 0, standardErrorFrom: 0)])
        #expect(link.orders.isEmpty)
        await after.finish(link, id, output: Array("abcdef".utf8))
        #expect(try await after.target(id).output?.inline?.output == Array("abcdef".utf8))
    }

    @Test func aReconnectGoesOnWhereTheCoreStands() async throws {
        let core = try await CommandsFixture()
        let old = await core.connect(0)
        let id = try await core.submit().id
        core.say(old, id, Array("abc".utf8), at: 0)
        core.commands.lost(old)
        let link = FakeLink(core.clients[0])
        let decisions = await core.commands.reconcile(over: link, [report(id, output: 6)])
        #expect(decisions == [.resume(command: id, standardOutputFrom: 3, standardErrorFrom: 0)])
        core.say(link, id, Array("def".utf8), at: 3)
        #expect(await core.commands.finished(over: link, core.record(id, output: 6)))
        #expect(try await core.target(id).output?.inline?.output == Array("abcdef".utf8))
    }

    @Test func aRecordedEndIsRecordedOnce() async throws {
        let core = try await CommandsFixture()
        let old = await core.connect(0)
        let id = try await core.submit().id
        await core.finish(old, id, code: 4)
        // The acknowledgement was lost with the core.
        let after = try await core.restarted()
        let link = FakeLink(after.clients[0])
        let decisions = await after.commands.reconcile(over: link, [report(id, exit: core.record(id, code: 5))])
        #expect(decisions == [.forget(command: id)])
        #expect(await after.commands.finished(over: link, core.record(id, code: 5)))
        #expect(try await after.target(id).end?.exitCode == 4)
    }

    @Test func aTargetThatWaitsIsKnownNotToHaveStarted() async throws {
        let core = try await CommandsFixture()
        let id = try await core.submit {
            $0.offline = .queue
            $0.queueMilliseconds = 10_000
        }.id
        let after = try await core.restarted()
        #expect(try await after.states(id) == ["waiting"])
        after.clock.advance(20_000)
        await after.pass(1_000)
        let view = try await after.target(id)
        #expect(view.state == "expired" && view.end?.started == .no)
    }

    @Test func aStagedRolloutGoesOnWithItsWindowAndBudget() async throws {
        let core = try await CommandsFixture(clients: 8)
        var links: [FakeLink] = []
        for index in 0..<8 { links.append(await core.connect(index)) }
        let id = try await core.submit(.selector("*")) {
            $0.concurrency = 2
            $0.errorBudget = .count(1)
        }.id
        await core.finish(links[0], id, code: 1)
        #expect(links[2].orders == [id])
        // 1 and 2 are with their agents, 3 to 7 have not had their turn.
        let after = try await core.restarted()
        links = []
        for index in 0..<8 { links.append(await after.connect(index, index == 1 || index == 2 ? [report(id)] : [])) }
        #expect(links.map(\.orders.count).reduce(0, +) == 0)
        await after.finish(links[1], id)
        #expect(links.map(\.orders.count).reduce(0, +) == 1)
        await after.finish(links[2], id, code: 1)
        let states = try await after.states(id)
        #expect(states.filter { $0 == "aborted" }.count == 4)
        #expect(states[0] == "failed" && states[2] == "failed" && states[1] == "succeeded")
    }

    @Test func oldUnfinishedTargetsAreFoundWithoutReadingTheHistory() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let old = try await core.submit().id
        for _ in 0..<10 { await core.finish(link, try await core.submit().id) }
        await core.pass(60_000)
        let lowWater = try await core.store.read { (reader) throws(StoreError) in
            try reader.count("SELECT low_water FROM command_progress")
        }
        #expect(lowWater == 12)
        let young = try await core.submit().id
        let after = try await core.restarted()
        #expect(after.commands.openTargets == 2)
        let back = await after.connect(0)
        #expect(Set(back.orders) == [old, young])
        await after.finish(back, old)
        await after.finish(back, young)
        let last = try await after.restarted()
        #expect(last.commands.openTargets == 0)
    }

    @Test func idsGrowAlsoWhenTheClockStepsBack() async throws {
        let core = try await CommandsFixture()
        core.clock.advance(1_000_000)
        await core.connect(0)
        let first = try await core.submit().id
        let after = try await core.restarted()
        let second = try await after.submit().id
        #expect(second > first)
    }
}
