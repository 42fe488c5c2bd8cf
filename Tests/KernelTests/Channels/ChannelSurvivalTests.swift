import AgentProtocol
import Glibc
import JSON
import Reactor
import System
import Testing

@testable import Kernel

/// What a dropped connection, a killed agent and a restarted core do to a channel: nothing.
@Suite(.serialized) struct ChannelSurvivalTests {
    private static let last = 300_000
    private static func sequence() -> [UInt8] { Array((1...last).map { "\($0)\r\n" }.joined().utf8) }

    /// The whole output of `seq`, and that each byte came once.
    private func expectWhole(_ probe: Probe) async {
        let record = await probe.exit()
        #expect(record?.outcome == .exited(code: 0))
        let state = probe.watched.value
        #expect(state.misplaced == 0)
        #expect(state.places.allSatisfy { $0.gap == 0 })
        #expect(state.output == Self.sequence())
    }

    /// `seq`, that may print no further than the test says: it is not over before what the test does to it.
    private func openHeldUp(_ fixture: ChannelsFixture) async throws -> (ChannelAttachment, Probe) {
        try await fixture.open(["/usr/bin/seq", "1", "\(Self.last)"], probe: Probe(grants: false))
    }

    @Test func aDroppedConnectionLosesAndRepeatsNothing() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await openHeldUp(fixture)
            for round in 1...2 {
                channel.grant(upTo: UInt64(round) << 19)
                await probe.watched.wait { $0.end >= UInt64(round) << 19 }
                fixture.kernel.clients.link(of: channel.client)?.close(LinkEnd(code: "test", detail: "dropped"))
                await probe.watched.wait { $0.places.count > round }
            }
            channel.grant(upTo: .max)
            await expectWhole(probe)
            #expect(probe.watched.value.lost == ["client-away", "client-away"])
        }
    }

    @Test func aKilledAgentLosesAndRepeatsNothing() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await openHeldUp(fixture)
            channel.grant(upTo: 1 << 19)
            await probe.watched.wait { $0.end >= 1 << 19 }
            fixture.killAgent()
            channel.grant(upTo: .max)
            try fixture.startAgent()
            await expectWhole(probe)
            #expect(probe.watched.value.lost == ["client-away"])
        }
    }

    @Test func inputComesOnceWhateverDies() async throws {
        try await ChannelsFixture.run { fixture in
            // No echo and no lines, so that what comes back is exactly what went in.
            let (channel, probe) = try await fixture.open(["/bin/sh", "-c", "stty raw -echo; echo go; exec cat"])
            await probe.output(has: "go\n")
            let skipped = probe.watched.value.output.count
            let input = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
            var sent = 0
            var faults = 0
            while sent < input.count {
                let told = probe.watched.value.writable
                let count = channel.write(Array(input[sent...]))
                sent += count
                if sent > 100_000, faults == 0 {
                    faults = 1
                    fixture.killAgent()
                    try fixture.startAgent()
                } else if sent > 250_000, faults == 1, let link = fixture.kernel.clients.link(of: channel.client) {
                    faults = 2
                    link.close(LinkEnd(code: "test", detail: "dropped"))
                }
                if count == 0 { await probe.watched.wait { $0.writable > told } }
            }
            let expected = UInt64(skipped + input.count)
            await probe.watched.wait { $0.end >= expected }
            #expect(Array(probe.watched.value.output[skipped...]) == input)
            #expect(probe.watched.value.lost.count == 2)
            channel.close()
            #expect(await probe.exit()?.outcome == .cancelled)
        }
    }

    @Test func aRestartedCoreFindsItsChannelsAgain() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await fixture.open(["/bin/sh"])
            channel.type("echo first $((1+1))\r")
            await probe.output(has: "first 2\r\n")
            let before = probe.watched.value
            try await fixture.restartCore()

            let views = try fixture.channels.list(ChannelsFixture.administrator)
            #expect(views.map(\.description.id) == [channel.channel])
            #expect(views.first?.description.program == "/bin/sh")
            #expect(views.first?.description.owner == "admin")
            let again = Probe()
            let attachment = try await fixture.channels.attach(
                channel.channel, from: before.end, ChannelsFixture.administrator, consumer: again)
            let place = await again.watched.wait { !$0.places.isEmpty }.places[0]
            #expect(place.gap == 0)
            // All that was typed has arrived, and what is typed now follows it.
            #expect(place.input == 20)
            attachment.type("echo second; exit\r")
            await again.output(has: "second\r\n")
            #expect(await again.exit()?.outcome == .exited(code: 0))
            #expect(again.watched.value.start == before.end)
        }
    }

    @Test func anotherPersonsChannelIsRefusedAndThatIsWrittenDown() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, _) = try await fixture.open(["/bin/cat"])
            let stranger = Principal(kind: .user, id: "stranger", roles: ["operator"])
            await #expect(throws: Problem.self) {
                _ = try await fixture.channels.attach(channel.channel, from: 0, stranger, consumer: Probe())
            }
            await #expect(throws: Problem.self) { try await fixture.channels.close(channel.channel, stranger) }
            // A shell is more than the operators' policy allows.
            let specification = ChannelSpecification(on: channel.client)
            await #expect(throws: Problem.self) {
                _ = try await fixture.channels.open(specification, stranger, consumer: Probe())
            }
            let actions = try await fixture.auditActions()
            #expect(actions.contains("terminal.open allowed"))
            #expect(actions.contains("terminal.attach refused"))
            #expect(actions.contains("terminal.close refused"))
            #expect(actions.contains("terminal.open refused"))
        }
    }

    @Test func anAttachTakesOverAndReadsFromTheBeginning() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, first) = try await fixture.open(["/bin/cat"])
            channel.type("one\r")
            await first.output(has: "one\r\none\r\n")
            let second = Probe()
            let attachment = try await fixture.channels.attach(
                channel.channel, from: 0, ChannelsFixture.administrator, consumer: second)
            await second.output(has: "one\r\none\r\n")
            #expect(first.watched.value.lost == ["taken-over"])
            // The old hold does nothing any more.
            #expect(channel.type("lost\r") == 0)
            attachment.type("two\r")
            await second.output(has: "two\r\ntwo\r\n")
            #expect(!second.watched.value.text.contains("lost"))
            #expect(first.watched.value.text == "one\r\none\r\n")
        }
    }

    @Test func whatNobodyReadMakesRoomAndTheGapIsTold() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await fixture.open([
                "/bin/sh", "-c", "echo up; read x; seq 1 100000; echo done > \(fixture.directory.path)/done; read y",
            ]) { $0.scrollbackBytes = 65_536 }
            await probe.output(has: "up\r\n")
            channel.type("go\r")
            channel.detach()
            // It runs on: the program has printed ten times what is kept.
            while !Files.exists(fixture.directory.path + "/done") { await Task.yield() }
            let again = Probe()
            let attachment = try await fixture.channels.attach(
                channel.channel, from: probe.watched.value.end, ChannelsFixture.administrator, consumer: again)
            await again.output(has: "100000\r\n")
            let state = again.watched.value
            #expect(state.places[0].gap > 400_000)
            #expect(state.output.count <= 65_536)
            #expect(state.misplaced == 0)
            #expect(state.text.hasSuffix("\r\n99999\r\n100000\r\n"))
            attachment.type("\r")
            #expect(await again.exit()?.outcome == .exited(code: 0))
        }
    }

    @Test func aSlowReaderHoldsTheProgramUp() async throws {
        try await ChannelsFixture.run { fixture in
            let probe = Probe(grants: false)
            let (channel, _) = try await fixture.open(["/usr/bin/seq", "1", "\(Self.last)"], probe: probe) {
                $0.scrollbackBytes = 65_536
            }
            await probe.watched.wait { $0.end >= 65_536 }
            #expect(probe.watched.value.end == 65_536)
            // In steps, each followed by exactly that much.
            channel.grant(upTo: 200_000)
            await probe.watched.wait { $0.end >= 200_000 }
            #expect(probe.watched.value.end == 200_000)
            channel.grant(upTo: .max)
            await expectWhole(probe)
        }
    }

    @Test func nothingIsLeftRunning() async throws {
        try await ChannelsFixture.run { fixture in
            // What leaves the session says its own number: `setsid` may fork.
            let script = "sleep 1000 & echo pid $!.; setsid sh -c 'echo pid $$.; exec sleep 1000' & nohup sleep 1000 >/dev/null 2>&1 & echo pid $!."
            let (channel, probe) = try await fixture.open(["/bin/sh"])
            channel.type(script + "\r")
            let pids = Self.pids(await probe.watched.wait { Self.pids($0.text).count == 3 }.text)
            for pid in pids { #expect(kill(pid, 0) == 0) }
            channel.type("exit 0\r")
            #expect(await probe.exit()?.outcome == .exited(code: 0))
            for pid in pids { #expect(Self.isGone(pid)) }

            let (second, other) = try await fixture.open(["/bin/sh", "-c", "trap '' TERM HUP; \(script); while :; do sleep 1; done"])
            let stubborn = Self.pids(await other.watched.wait { Self.pids($0.text).count == 3 }.text)
            second.close()
            #expect(await other.exit()?.outcome == .cancelled)
            for pid in stubborn { #expect(Self.isGone(pid)) }
        }
    }

    @Test func limitsOfTimeEndIt() async throws {
        try await ChannelsFixture.run { fixture in
            let (_, idle) = try await fixture.open(["/bin/cat"]) { $0.idleMilliseconds = 300 }
            #expect(await idle.exit()?.outcome == .timedOut)
            let (channel, busy) = try await fixture.open(["/bin/cat"]) { $0.maximumMilliseconds = 300 }
            channel.type("x")
            #expect(await busy.exit()?.outcome == .timedOut)
            // Without a core: the agent dies, and the holder by itself ends it.
            let (_, orphan) = try await fixture.open(["/bin/sh", "-c", "echo pid $$.; exec sleep 1000"]) {
                $0.orphanMilliseconds = 300
            }
            await orphan.output(has: ".\r\n")
            let pids = Self.pids(orphan.watched.value.text)
            fixture.killAgent()
            for pid in pids { while !Self.isGone(pid) { await Task.yield() } }
            try fixture.startAgent()
            #expect(await orphan.exit()?.outcome == .timedOut)
        }
    }

    /// A prompt may stand before a line: what is typed early is echoed before the shell has asked for it.
    private static func pids(_ text: String) -> [pid_t] {
        text.split(separator: "\r\n").compactMap { line in
            guard line.hasSuffix("."), let word = line.dropLast().split(separator: " ").last, line.contains("pid ") else {
                return nil
            }
            return pid_t(word)
        }
    }

    private static func isGone(_ pid: pid_t) -> Bool {
        guard let status = try? Files.read("/proc/\(pid)/status", limit: 8_192) else { return true }
        return String(decoding: status, as: UTF8.self).contains("State:\tZ")
    }
}

extension ChannelsFixture {
    /// `action outcome` of each record.
    func auditActions() async throws -> [String] {
        try await kernel.store.read { (reader) throws(StoreError) -> [String] in
            var actions: [String] = []
            try reader.each("SELECT action, outcome FROM audit_records ORDER BY sequence") { (row) throws(StoreError) in
                actions.append(row.text(0) + " " + row.text(1))
            }
            return actions
        }
    }
}
