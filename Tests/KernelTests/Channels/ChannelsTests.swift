import AgentProtocol
import Glibc
import JSON
import Reactor
import System
import Testing

@testable import Kernel

/// Channels from the façade down to a real agent with its holders.
@Suite(.serialized) struct ChannelsTests {
    @Test func keystrokesComeBackAndTheEndIsTold() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await fixture.open(["/bin/cat"])
            #expect(channel.type("hello\r") == 6)
            // Once from the terminal's echo, once from cat.
            await probe.output(has: "hello\r\nhello\r\n")
            channel.type("\u{04}")
            let record = await probe.exit()
            #expect(record?.outcome == .exited(code: 0))
            #expect(record?.standardOutputBytes == probe.watched.value.end)
            #expect(probe.watched.value.started == 1)
            #expect(probe.watched.value.misplaced == 0)
            #expect(try fixture.channels.list(ChannelsFixture.administrator).isEmpty)
        }
    }

    @Test func theProgramSeesTheSizeAndItsChange() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await fixture.open(["/bin/sh"]) { $0.size = TerminalSize(rows: 33, columns: 101) }
            channel.type("stty size; echo a-$TERM-b\r")
            await probe.output(has: "33 101\r\n")
            await probe.output(has: "a-xterm-256color-b\r\n")
            channel.resize(TerminalSize(rows: 50, columns: 132))
            channel.type("stty size\r")
            await probe.output(has: "50 132\r\n")
        }
    }

    /// One bound from the wire over the kernel to the plugin's configuration.
    @Test func scrollbackHasOneBound() throws {
        let client = ClientID(high: 1 << 16, low: 7)
        for bytes in [WireLimits.terminalKeptBytes.lowerBound, WireLimits.terminalKeptBytes.upperBound] {
            let specification = try ChannelSpecification(
                ["client": .string("\(client)"), "scrollback_bytes": .integer(Int64(bytes))])
            #expect(specification.scrollbackBytes == bytes)
        }
        for bytes in [WireLimits.terminalKeptBytes.lowerBound - 1, WireLimits.terminalKeptBytes.upperBound + 1] {
            #expect(throws: Problem.self) {
                try ChannelSpecification(["client": .string("\(client)"), "scrollback_bytes": .integer(Int64(bytes))])
            }
        }
        let root = "/" + #filePath.split(separator: "/").dropLast(4).joined(separator: "/")
        let manifest = try JSONValue(parsing: try Files.read(root + "/plugin-manifest.json", limit: 1 << 20))
        let terminal = try #require(manifest["plugins"]?.array?.first { $0["file"]?.string == "terminal.so" })
        let bound = terminal["configuration"]?["properties"]?["scrollback_bytes"]
        #expect(bound?["minimum"]?.integer == Int64(WireLimits.terminalKeptBytes.lowerBound))
        #expect(bound?["maximum"]?.integer == Int64(WireLimits.terminalKeptBytes.upperBound))
    }

    @Test func anEmptyArgumentListIsTheLoginShell() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await fixture.open([]) { $0.environment = ["MARK": "here"] }
            channel.type("echo \"<$0>\" $((40+2)) $MARK $PWD; exit 7\r")
            let record = await probe.exit()
            #expect(record?.outcome == .exited(code: 7))
            let seen = probe.watched.value
            #expect(seen.misplaced == 0 && seen.end == record?.standardOutputBytes, "\(seen.text.debugDescription)")
            #expect(seen.text.contains("<-"), "\(seen.text.debugDescription)")
            #expect(seen.text.contains("> 42 here /"), "\(seen.text.debugDescription)")
        }
    }

    @Test func aSignalReachesTheForeground() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await fixture.open(["/bin/sh", "-c", "echo up; exec sleep 1000"])
            await probe.output(has: "up\r\n")
            channel.signal(.interrupt)
            #expect(await probe.exit()?.outcome == .signaled(signal: SIGINT))
        }
    }

    @Test func aProgramThatIsNotThereIsToldWithItsCode() async throws {
        try await ChannelsFixture.run { fixture in
            let (_, probe) = try await fixture.open(["/no/such/program"])
            guard case .startFailed(let code, _) = await probe.exit()?.outcome else {
                Issue.record("expected a failed start")
                return
            }
            #expect(code == "program-not-found")
        }
    }

    @Test func aStreamHasNoTerminalAndItsInputEnds() async throws {
        try await ChannelsFixture.run { fixture in
            let (channel, probe) = try await fixture.open(["/bin/sh", "-c", "test -t 0 || echo none; cat; exit 3"], .stream)
            channel.type("one\ntwo\n")
            channel.endInput()
            #expect(await probe.exit()?.outcome == .exited(code: 3))
            #expect(probe.watched.value.text == "none\none\ntwo\n")
        }
    }

    @Test func theClientsOwnPolicyRefuses() async throws {
        try await ChannelsFixture.run(policy: #"{"terminals": false}"#) { fixture in
            let (_, probe) = try await fixture.open(["/bin/cat"])
            guard case .refused(let code, let message) = await probe.exit()?.outcome else {
                Issue.record("expected a refusal")
                return
            }
            #expect(code == "agent-policy")
            #expect(message == "terminals are not allowed on this client")
        }
        try await ChannelsFixture.run(policy: #"{"allow": [["/bin/cat"]]}"#) { fixture in
            let (_, refused) = try await fixture.open([])
            guard case .refused = await refused.exit()?.outcome else {
                Issue.record("a login shell is a shell")
                return
            }
            let (channel, probe) = try await fixture.open(["/bin/cat"])
            channel.type("x\r")
            await probe.output(has: "x\r\nx\r\n")
        }
    }

    @Test func aSimulatedAgentEchoes() async throws {
        try await ChannelsFixture.run(isSimulated: true) { fixture in
            let (channel, probe) = try await fixture.open([])
            channel.type("hello\r")
            await probe.output(has: "hello\r\n")
            fixture.kernel.clients.link(of: channel.client)?.close(LinkEnd(code: "test", detail: "dropped"))
            await probe.watched.wait { $0.places.count > 1 }
            channel.type("exit\r")
            #expect(await probe.exit()?.outcome == .exited(code: 0))
            #expect(probe.watched.value.text == "hello\r\nexit\r\n")
            #expect(probe.watched.value.misplaced == 0)
        }
    }
}
