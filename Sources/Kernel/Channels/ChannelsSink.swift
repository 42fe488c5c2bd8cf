import AgentProtocol
import Reactor

/// Where terminals of an agent's link end up: implemented by `Channels`. Called on the link's loop.
protocol TerminalSink: Sendable {
    /// Once after each accept, before any other frame of a terminal. For each report the channel that it is about; `nil`
    /// for one that this client should not have.
    func reconcile(_ link: AgentLink, _ reports: [TerminalReport]) -> [Channel?]
    /// Records the end durably; true when the agent may forget it.
    func exited(_ channel: Channel, _ record: ExitRecord) async -> Bool
    /// The order could not be sent.
    func openFailed(_ channel: Channel, code: String, message: String) async
}

extension Channels: TerminalSink {
    func reconcile(_ link: AgentLink, _ reports: [TerminalReport]) -> [Channel?] {
        let reported = Set(reports.map(\.channel))
        let missing = channels(of: link.client).filter { !reported.contains($0.id) && $0.isExpected(on: link) }
        if !missing.isEmpty {
            EventLoop.current?.spawn {
                // Its order never arrived, or the client's data is gone.
                for channel in missing { await self.lose(channel, reason: "the client knows nothing of it") }
            }
        }
        return state.withLock { state in
            reports.map { report in
                guard let channel = state.channels[report.channel], channel.client == link.client else { return nil }
                return channel
            }
        }
    }

    func exited(_ channel: Channel, _ record: ExitRecord) async -> Bool {
        await finish(channel, record, isOver: false)
    }

    func openFailed(_ channel: Channel, code: String, message: String) async {
        let record = ExitRecord(
            command: CommandID(sameAs: channel.id), outcome: .refused(code: code, message: message), started: .no,
            finishedAt: unixMilliseconds())
        _ = await finish(channel, record, isOver: true)
    }
}

extension Channel {
    /// The client should report it when it connects by `link`: it was sent before, over an older link.
    func isExpected(on link: AgentLink) -> Bool {
        state.withLock { state in
            switch state.life {
            case .opening: false
            case .linked(let own, _): own.epoch < link.epoch
            case .away: true
            case .ended: false
            }
        }
    }
}
