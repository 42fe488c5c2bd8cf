import AgentProtocol
import JSON
import Reactor
import Testing

@testable import Kernel

/// What the settings say about keeping happens.
@Suite struct RetentionTests {
    private let administrator = Principal(kind: .user, id: "ada", roles: ["administrator"])

    @Test func finishedCommandsAreKeptAsLongAsTheSettingSays() async throws {
        let core = try await CommandsFixture()
        let settings = try await Settings.load(store: core.store, events: Events())
        core.commands.follow(settings)
        let link = await core.connect(0)
        let id = try await core.submit().id
        await core.finish(link, id)
        try await settings.set("command_retention_days", to: 0, by: administrator)
        await core.pass(1_000 * 86_400_000)
        #expect(try await core.states(id) == ["succeeded"])
        try await settings.set("command_retention_days", to: 1_001, by: administrator)
        await core.pass(61_000)
        #expect(try await core.states(id) == ["succeeded"])
        try await settings.set("command_retention_days", to: 999, by: administrator)
        await core.pass(61_000)
        await #expect(throws: Problem.self) { _ = try await core.commands.get(id) }
        core.crash()
    }

    @Test func outputIsKeptAsLongAsTheSettingSays() async throws {
        let core = try await CommandsFixture()
        let settings = try await Settings.load(store: core.store, events: Events())
        try await settings.set("output_retention_days", to: 7, by: administrator)
        core.commands.follow(settings)
        func kept() -> UInt64? { core.commands.retention.withLock { $0.outputMilliseconds } }
        // A product of literals beside an optional makes the compiler (6.2) compare as AnyHashable and read beyond it.
        let week: UInt64 = 7 * 86_400_000
        #expect(kept() == week)
        try await settings.set("output_retention_days", to: 0, by: administrator)
        #expect(kept() == nil)
        await #expect(throws: Problem.self) { try await settings.set("output_store_mib", to: 0, by: administrator) }
        core.crash()

        // Each store begins a segment of its own.
        let directory = CommandsDirectory()
        let client = ClientID(high: 1, low: 1)
        let bytes = [UInt8](repeating: 7, count: LiveOutput.inlineBytes + 1)
        var store = try OutputStore(directory: directory.path)
        for number in 0..<2 as Range<UInt64> {
            store.stop()
            store = try OutputStore(directory: directory.path)
            let output = LiveOutput(command: CommandID(high: 1, low: number), client: client, limit: 1 << 20)
            let isTaken = store.take(output, .standardOutput, at: 0, bytes.span.bytes, from: FakeLink(client))
            #expect(isTaken)
            #expect(await store.commit(output))
        }
        let later = unixMilliseconds() + 86_400_000
        func removed(keep: UInt64?, most: UInt64 = 1 << 30) async -> Int {
            await store.prune(now: later, keep: keep, most: most, hold: nil).removed
        }
        #expect(await removed(keep: nil) == 0)
        #expect(await removed(keep: 2 * 86_400_000) == 0)
        #expect(await removed(keep: 3_600_000) == 1)
        #expect(await removed(keep: nil, most: 0) == 0, "the newest stays")
        store.stop()
    }

    @Test func heartbeatsMoveAsFarAsTheSettingSays() async throws {
        #expect(AgentConnection.beatDelay(1_000, jitterPercent: 0, random: 77) == 1_000)
        #expect(AgentConnection.beatDelay(1_000, jitterPercent: 10, random: 0) == 900)
        #expect(AgentConnection.beatDelay(1_000, jitterPercent: 10, random: 200) == 1_100)
        #expect(AgentConnection.beatDelay(1_000, jitterPercent: 50, random: 1_000) == 1_500)

        let directory = CommandsDirectory()
        let store = try Store.open(directory: directory.path, migrations: Clients.migrations + Settings.migrations)
        defer { store.close() }
        let clients = try await Clients.load(store: store, publish: { _ in })
        let settings = try await Settings.load(store: store, events: Events())
        clients.follow(settings)
        try await settings.set("heartbeat_jitter_percent", to: 25, by: administrator)
        let enrollment = try await Enrollment.load(clients: clients, fingerprint: { "" }, answers: { _ in true })
        let hello = AgentHello(publicKey: [], bootID: "b", epoch: 1, address: "127.0.0.1")
        guard case .accepted(let admitted) = enrollment.admitted(ClientID(high: 1, low: 1), hello, now: 1) else {
            Issue.record("not accepted")
            return
        }
        #expect(admitted.jitterPercent == 25)
    }
}
