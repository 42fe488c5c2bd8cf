import AgentProtocol
import Testing

@testable import Kernel

/// How far an agent may send ahead of what is written.
@Suite struct OutputWindowTests {
    private let client = ClientID(high: 1, low: 1)
    private let directory = CommandsDirectory()
    private let piece = [UInt8](repeating: 7, count: 16 << 10)

    private func output() -> LiveOutput {
        LiveOutput(command: CommandID(high: 1, low: 3), client: client, limit: 1 << 30)
    }

    /// Sends as an agent does, as far as it may, until so many bytes have been taken.
    /// - Returns: bytes that were under way at most.
    private func send(
        _ output: LiveOutput, in store: OutputStore, over link: FakeLink, upTo end: UInt64, isTyping: Bool = false
    ) async -> UInt64 {
        let begin = output.received.output
        var most: UInt64 = 0
        for _ in 0..<10_000 {
            // Each time: on a busy disk this takes longer than a keystroke counts.
            if isTyping { link.typing() }
            let at = output.received.output
            guard at < end else { return most }
            let limit = max(begin + WireLimits.initialWindowBytes, link.grants.max() ?? 0)
            most = max(most, limit - at)
            guard at + UInt64(piece.count) <= limit else { return most }
            guard store.take(output, .standardOutput, at: at, piece.span.bytes, from: link), await store.commit(output) else { break }
        }
        Issue.record("the agent could not send on at \(output.received.output)")
        return most
    }

    @Test func creditComesAQuarterOfTheWindowAtATime() async throws {
        let store = try OutputStore(directory: directory.path)
        let (output, link) = (output(), FakeLink(client))
        let most = await send(output, in: store, over: link, upTo: 1 << 20)
        #expect(output.received.output >= 1 << 20)
        #expect(most == store.limits.windowBytes)
        #expect(link.grants.count <= 17)
        store.stop()
    }

    @Test func besideAKeystrokeLittleIsUnderWay() async throws {
        let store = try OutputStore(directory: directory.path)
        let (output, link) = (output(), FakeLink(client))
        let most = await send(output, in: store, over: link, upTo: 1 << 20, isTyping: true)
        #expect(output.received.output >= 1 << 20)
        #expect(most <= WireLimits.initialWindowBytes)
        store.stop()
    }

    /// What was granted over a link that is gone says nothing about the next one, which begins with the first window.
    @Test func aNewLinkGoesOnBesideAKeystroke() async throws {
        let store = try OutputStore(directory: directory.path)
        let output = output()
        _ = await send(output, in: store, over: FakeLink(client), upTo: 1 << 20)
        let link = FakeLink(client)
        _ = await send(output, in: store, over: link, upTo: 2 << 20, isTyping: true)
        #expect(output.received.output >= 2 << 20)
        store.stop()
    }
}
