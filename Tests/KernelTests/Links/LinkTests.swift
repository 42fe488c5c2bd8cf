import Agent
import AgentProtocol
import Crypto
import JSON
import Reactor
import Testing
import Transport

@testable import Kernel

/// Core and agent over a real WebSocket on loopback.
@Suite(.timeLimit(.minutes(1))) struct LinkTests {
    private func order(_ number: UInt64, _ argv: [String]) -> Order {
        Order(command: CommandID(high: 1, low: number), invocation: .argv(argv))
    }

    @Test func agentComesOnlineReportsAndBeats() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        let token = try #require(fixture.token)
        try await fixture.agent(token: token)
        let log = await fixture.services.log.wait { !$0.facts.isEmpty && $0.beats > 0 && $0.reportsPerLink == [0] }
        #expect(log.hellos.first?.enrollmentToken == token.text)
        #expect(log.hellos.first?.epoch == 1)
        #expect(log.hellos.first?.address == "127.0.0.1")
        #expect(log.facts == [["os": "test"]])
        #expect(log.links.first?.client == LinkFixture.client)
        #expect(await fixture.endpoint.connections() == 1)
    }

    @Test func orderRunsAndItsEndIsAcknowledged() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        let agent = try await fixture.agent(token: fixture.token)
        let link = try #require(await fixture.services.log.wait { !$0.links.isEmpty }.links.first)
        for number in 1...50 as ClosedRange<UInt64> { link.send(order(number, ["hello", "\(number)"])) }
        let log = await fixture.services.log.wait { $0.records.count == 50 }
        for number in 1...50 as ClosedRange<UInt64> {
            #expect(log.output[CommandID(high: 1, low: number)] == Array("hello \(number)\n".utf8))
        }
        #expect(log.records.allSatisfy { $0.outcome == .exited(code: 0) })
        // Acknowledged: after a new connect the agent has nothing to report. (The answer to a challenge comes after the
        // acknowledgements were read.)
        #expect(await link.challenge(timeoutMilliseconds: 10_000))
        agent.post { $0.session.drop() }
        let later = await fixture.services.log.wait { $0.reportsPerLink.count == 2 }
        #expect(later.reportsPerLink == [0, 0])
        #expect(later.lost == 1)
        #expect(later.ends.count == 1)
    }

    /// Ends of one turn are one write, but not without bound: each may hold 8 KiB of output.
    @Test(arguments: [1, 256, 257, 600]) func endsOfOneTurnComeInPieces(count: Int) async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        let (endpoint, loop) = (fixture.endpoint, fixture.loop)
        loop.post {
            let home = LinkHome(endpoint: endpoint, loop: loop)
            let link = AgentLink(client: LinkFixture.client, epoch: 1, address: "")
            for index in 0..<count {
                let record = ExitRecord(
                    command: CommandID(high: 1, low: UInt64(index)), outcome: .exited(code: 0), started: .yes, finishedAt: 1)
                home.report(ReportedEnd(link: link, record: record))
            }
        }
        let log = await fixture.services.log.wait { $0.records.count >= count }
        #expect(log.records.map(\.command.low) == (0..<count).map(UInt64.init))
        #expect(log.pieces == (0..<count / 256).map { _ in 256 } + (count % 256 == 0 ? [] : [count % 256]))
    }

    @Test func anAcknowledgementGoesAloneWhenNothingElseIsSaid() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        let agent = try await fixture.agent(token: fixture.token)
        let link = try #require(await fixture.services.log.wait { !$0.links.isEmpty }.links.first)
        // The first one's rides with the second order, the last one's has nothing to ride with.
        for number in 1...3 as ClosedRange<UInt64> {
            link.send(order(number, ["hello"]))
            await fixture.services.log.wait { $0.records.count == number }
        }
        var isIdle = false
        for _ in 0..<1_000 where !isIdle {
            isIdle = await withCheckedContinuation { answer in
                agent.post { answer.resume(returning: $0.executor.isIdle) }
            }
            if !isIdle { await fixture.loop.sleep(milliseconds: 10) }
        }
        #expect(isIdle)
    }

    @Test func largeOutputSurvivesCutLinksWhole() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        let size = 2 << 20
        fixture.services.mayReach.withLock { $0 = 1 << 19 + 128 << 10 }
        fixture.services.waiting.withLock { $0 = [order(1, ["bytes", "\(size)"])] }
        let agent = try await fixture.agent(token: fixture.token)
        let command = CommandID(high: 1, low: 1)
        for part in 1...3 {
            await fixture.services.log.wait { ($0.output[command]?.count ?? 0) > part << 19 }
            fixture.services.mayReach.withLock { $0 = part < 3 ? UInt64(part + 1) << 19 + 128 << 10 : .max }
            agent.post { $0.session.drop() }
        }
        let log = await fixture.services.log.wait { !$0.records.isEmpty }
        let output = log.output[command] ?? []
        #expect(output.count == size)
        let isExact = output.enumerated().allSatisfy { $1 == SimulatedExecutor.byte(at: UInt64($0)) }
        #expect(isExact)
        #expect(log.records.count == 1)
        #expect(log.reportsPerLink.count == 4)
    }

    @Test func cancelEndsALongCommand() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        try await fixture.agent(token: fixture.token)
        let link = try #require(await fixture.services.log.wait { !$0.links.isEmpty }.links.first)
        link.send(order(1, ["sleep", "600000"]))
        link.cancel(CommandID(high: 1, low: 1))
        let log = await fixture.services.log.wait { !$0.records.isEmpty }
        #expect(log.records.first?.outcome == .cancelled)
    }

    @Test func tooLargeOrderIsRefusedAtOnce() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        try await fixture.agent(token: fixture.token)
        let link = try #require(await fixture.services.log.wait { !$0.links.isEmpty }.links.first)
        link.send(order(1, [String(repeating: "x", count: WireLimits.openBytes)]))
        let log = await fixture.services.log.wait { !$0.records.isEmpty }
        guard case .refused("order-too-large", _) = log.records.first?.outcome else {
            Issue.record("\(log.records)")
            return
        }
        #expect(log.records.first?.started == .no)
    }

    @Test func pendingAgentIsLetInOnTheSameLink() async throws {
        let fixture = try await LinkFixture { _ in .pending(enrollment: "e-1", fingerprint: "f") }
        defer { fixture.stop() }
        // Neither pin nor token: no secret is shown, and only pending can come of it.
        try await fixture.agent()
        await fixture.agentLog.wait { $0.pending == ["e-1"] }
        #expect(fixture.services.log.value.hellos.first?.enrollmentToken == nil)
        #expect(fixture.services.log.value.links.isEmpty)
        fixture.services.verdicts.update {
            $0 = .accepted(AdmittedClient(client: LinkFixture.client, epoch: 1, heartbeatSeconds: 15))
        }
        await fixture.agentLog.wait { $0.online == 1 }
        #expect(fixture.services.log.value.hellos.count == 1)
    }

    @Test func refusalReachesTheAgentWithItsCode() async throws {
        let fixture = try await LinkFixture { _ in .refused(code: "token-used-up", message: "no uses left") }
        defer { fixture.stop() }
        try await fixture.agent(token: fixture.token)
        let log = await fixture.agentLog.wait { !$0.ends.isEmpty }
        #expect(log.ends.first == "token-used-up")
        #expect(fixture.services.log.value.failures.first == "token-used-up")
    }

    @Test func wrongCoreSeesNeitherTokenNorProof() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        let other = try P256.PrivateKey.generate().publicKey.fingerprint
        try await fixture.agent(token: EnrollmentToken.generate(fingerprint: other))
        let log = await fixture.agentLog.wait { !$0.ends.isEmpty }
        #expect(log.ends.first == "core-identity-mismatch")
        #expect(fixture.services.log.value.hellos.isEmpty)
    }

    @Test func liveAgentAnswersAFreshChallenge() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        let agent = try await fixture.agent(token: fixture.token)
        let link = try #require(await fixture.services.log.wait { !$0.links.isEmpty }.links.first)
        #expect(await link.challenge(timeoutMilliseconds: 10_000))
        agent.post { $0.session.stop() }
        await fixture.services.log.wait { $0.lost == 1 }
        #expect(await link.challenge(timeoutMilliseconds: 10_000) == false)
    }

    @Test func plannedStopGivesEachAgentItsSlot() async throws {
        var options = AgentEndpointOptions()
        options.reconnectAfterMilliseconds = 40_000
        options.reconnectsPerSecond = 1
        let fixture = try await LinkFixture(options: options)
        defer { fixture.stop() }
        for _ in 0..<3 { try await fixture.agent(token: fixture.token) }
        await fixture.services.log.wait { $0.links.count == 3 }
        await fixture.endpoint.stop()
        let log = await fixture.agentLog.wait { $0.ends.count == 3 }
        #expect(log.ends == ["core-stopping", "core-stopping", "core-stopping"])
        #expect(log.delays.sorted() == [40_000, 41_000, 42_000])
    }

    @Test func revokedLinkClosesAtOnceWithItsCode() async throws {
        let fixture = try await LinkFixture()
        defer { fixture.stop() }
        try await fixture.agent(token: fixture.token)
        let link = try #require(await fixture.services.log.wait { !$0.links.isEmpty }.links.first)
        link.close(LinkEnd(code: "revoked", detail: "by an operator"))
        let log = await fixture.agentLog.wait { !$0.ends.isEmpty }
        #expect(log.ends.first == "revoked")
        // Not a moment later, as after a mere loss.
        #expect((log.delays.first ?? 0) > 3)
        #expect(fixture.services.log.value.ends == ["revoked"])
    }

    @Test func sealedLinkWorksWithoutTLS() async throws {
        var options = AgentEndpointOptions()
        options.viaProxy = true
        let fixture = try await LinkFixture(options: options)
        defer { fixture.stop() }
        try await fixture.agent(token: fixture.token, viaProxy: true)
        let link = try #require(await fixture.services.log.wait { !$0.links.isEmpty }.links.first)
        link.send(order(1, ["bytes", "300000"]))
        let log = await fixture.services.log.wait { !$0.records.isEmpty }
        #expect(log.output[CommandID(high: 1, low: 1)]?.count == 300_000)
    }
}
