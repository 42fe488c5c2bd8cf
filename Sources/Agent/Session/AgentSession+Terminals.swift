import AgentProtocol
import Reactor
import Transport

/// Terminals on a session's link: frames to the executor, its news to frames.
extension AgentSession: TerminalObserver {
    private var hasTerminals: Bool { features.contains(Feature.terminal) }

    /// Before the end mark of the reports.
    func beginTerminals() {
        terminals = AgentTerminalsStateMachine()
        guard hasTerminals, let terminalExecutor else { return }
        terminalExecutor.observer = self
        terminals.report(terminalExecutor.reports(), to: &writer) { writer in
            send(&writer)
            writer.reset()
        }
    }

    /// The link has ended.
    func leaveExecutors() {
        channels = AgentChannelsStateMachine()
        terminals = AgentTerminalsStateMachine()
        executor.observer = nil
        leaveFiles()
        leaveUpgrades()
        guard let terminalExecutor, terminalExecutor.observer != nil else { return }
        terminalExecutor.observer = nil
        terminalExecutor.linkLost()
    }

    func receiveTerminal(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard hasTerminals, let terminalExecutor else {
            throw WireError(.unexpected, "terminals are not among the features of this link")
        }
        switch try terminals.receive(header, payload) {
        case .none: break
        case .start(let order): terminalExecutor.start(order)
        case .attach(let channel, let from): terminalExecutor.attach(channel, from: from)
        case .detach(let channel): terminalExecutor.detach(channel)
        case .credit(let channel, let offset): terminalExecutor.credit(channel, upTo: offset)
        case .arrived(let channel, let offset): terminalExecutor.arrived(channel, upTo: offset)
        case .input(let channel, let offset):
            pace.typed(at: loop.now)
            terminalExecutor.input(channel, at: offset, payload)
        case .inputEnd(let channel): terminalExecutor.endInput(channel)
        case .resize(let channel, let size): terminalExecutor.resize(channel, size)
        case .signal(let channel, let signal): terminalExecutor.signal(channel, signal)
        case .cancel(let channel): terminalExecutor.cancel(channel)
        case .forget(let channel): terminalExecutor.forget(channel)
        }
    }

    public func terminalStarted(_ channel: ChannelID, at unixMilliseconds: UInt64) {
        terminals.started(channel, at: unixMilliseconds)
        pumpSoon()
    }

    public func terminalAttached(_ channel: ChannelID, at offset: UInt64) {
        guard phase == .online else { return }
        write { terminals.attached(channel, at: offset, to: &$0) }
        pumpSoon()
    }

    /// At once and not with the news of the turn: somebody waits for it.
    public func terminalOutput(_ channel: ChannelID, at offset: UInt64, _ bytes: RawSpan) -> Bool {
        guard phase == .online, let socket else { return true }
        writer.reset()
        guard terminals.output(channel, at: offset, bytes, to: &writer) else { return true }
        send(&writer)
        // An end that waits for this output.
        if terminals.isEnding { pumpSoon() }
        return !socket.isOverHighMark
    }

    public func terminalInputTaken(_ channel: ChannelID, upTo offset: UInt64) {
        guard phase == .online else { return }
        write { terminals.inputTaken(channel, upTo: offset, to: &$0) }
    }

    public func terminalFinished(_ record: ExitRecord) {
        terminals.finished(record)
        pumpSoon()
    }
}
