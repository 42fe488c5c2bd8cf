import AgentProtocol
import Reactor

/// Terminals in memory that echo what is typed, as a terminal with nothing behind it does. For load, not for work.
///
/// `exit` and a carriage return ends one with 0. The newest 64 KiB of output are kept.
public final class SimulatedTerminals: TerminalExecutor {
    private static let keptBytes = 64 << 10

    public weak var observer: (any TerminalObserver)?

    private struct Terminal {
        var channel: ChannelID
        var startedAt: UInt64
        var kept: [UInt8] = []
        var end: UInt64 = 0
        /// Of output, told to the observer; `nil`: nobody is attached.
        var sent: UInt64?
        var credit: UInt64 = 0
        var input: UInt64 = 0
        var line: [UInt8] = []
        var record: ExitRecord?

        var keptFrom: UInt64 { end - UInt64(kept.count) }
    }

    private let loop: EventLoop
    private var terminals: [Terminal] = []

    public init(loop: EventLoop) { self.loop = loop }

    private func index(_ channel: ChannelID) -> Int? { terminals.firstIndex { $0.channel == channel } }

    public func start(_ order: TerminalOrder) {
        if index(order.channel) == nil {
            terminals.append(Terminal(channel: order.channel, startedAt: unixMilliseconds()))
        }
        attach(order.channel, from: 0)
    }

    /// Never from inside a call: on a turn of its own.
    private func soon(_ channel: ChannelID, _ body: @escaping @Sendable (SimulatedTerminals, Int) -> Void) {
        let me = Confined(self, on: loop)
        loop.post {
            me.assumeOnLoop { terminals in
                if let index = terminals.index(channel) { body(terminals, index) }
            }
        }
    }

    public func attach(_ channel: ChannelID, from offset: UInt64) {
        soon(channel) { simulated, index in
            let terminal = simulated.terminals[index]
            let at = min(max(offset, terminal.keptFrom), terminal.end)
            simulated.terminals[index].sent = at
            simulated.terminals[index].credit = at + WireLimits.initialWindowBytes
            simulated.observer?.terminalStarted(channel, at: terminal.startedAt)
            simulated.observer?.terminalAttached(channel, at: at)
            simulated.flush(index)
        }
    }

    public func detach(_ channel: ChannelID) {
        if let index = index(channel) { terminals[index].sent = nil }
    }

    public func credit(_ channel: ChannelID, upTo offset: UInt64) {
        guard let index = index(channel) else { return }
        terminals[index].credit = max(terminals[index].credit, offset)
        soon(channel) { $0.flush($1) }
    }

    public func arrived(_ channel: ChannelID, upTo offset: UInt64) {}

    public func input(_ channel: ChannelID, at offset: UInt64, _ bytes: RawSpan) {
        guard let index = index(channel), terminals[index].record == nil else { return }
        terminals[index].input = offset + UInt64(bytes.byteCount)
        // Invariant: the buffer is read before the closure ends.
        unsafe bytes.withUnsafeBytes { for byte in unsafe $0 { type(byte, index) } }
        soon(channel) { simulated, index in
            simulated.observer?.terminalInputTaken(channel, upTo: simulated.terminals[index].input)
            simulated.flush(index)
        }
    }

    private func type(_ byte: UInt8, _ index: Int) {
        var echo = [byte]
        if byte == 0x0D {
            echo.append(0x0A)
            if terminals[index].line == Array("exit".utf8) { end(terminals[index].channel, .exited(code: 0)) }
            terminals[index].line = []
        } else if terminals[index].line.count < 80 {
            terminals[index].line.append(byte)
        }
        terminals[index].kept += echo
        terminals[index].end += UInt64(echo.count)
        let surplus = terminals[index].kept.count - Self.keptBytes
        if surplus > 0 { terminals[index].kept.removeFirst(surplus) }
    }

    private func flush(_ index: Int) {
        while let sent = terminals[index].sent, let observer {
            let from = max(sent, terminals[index].keptFrom)
            let count = min(min(terminals[index].end, terminals[index].credit) &- from, UInt64(WireLimits.dataBytes))
            guard terminals[index].credit > from, terminals[index].end > from else { break }
            let start = Int(from - terminals[index].keptFrom)
            terminals[index].sent = from + count
            let piece = terminals[index].kept
            _ = observer.terminalOutput(
                terminals[index].channel, at: from, piece.span.bytes.extracting(start..<start + Int(count)))
        }
    }

    private func end(_ channel: ChannelID, _ outcome: Outcome) {
        soon(channel) { simulated, index in
            guard simulated.terminals[index].record == nil else { return }
            let record = ExitRecord(
                command: CommandID(sameAs: channel), outcome: outcome, started: .yes,
                startedAt: simulated.terminals[index].startedAt, finishedAt: unixMilliseconds(),
                standardOutputBytes: simulated.terminals[index].end)
            simulated.terminals[index].record = record
            simulated.observer?.terminalFinished(record)
        }
    }

    public func endInput(_ channel: ChannelID) { end(channel, .exited(code: 0)) }
    public func resize(_ channel: ChannelID, _ size: TerminalSize) {}
    public func signal(_ channel: ChannelID, _ signal: TerminalSignal) {
        if signal == .kill || signal == .terminate || signal == .hangUp {
            end(channel, .signaled(signal: Int32(signal.rawValue)))
        }
    }
    public func cancel(_ channel: ChannelID) { end(channel, .cancelled) }
    public func forget(_ channel: ChannelID) { terminals.removeAll { $0.channel == channel } }

    public func reports() -> [TerminalReport] {
        terminals.map {
            TerminalReport(
                channel: $0.channel, started: .yes, keptFrom: $0.keptFrom, outputEnd: $0.end, inputReceived: $0.input,
                inputTaken: $0.input, exit: $0.record)
        }
    }

    public func linkLost() {
        for index in terminals.indices { terminals[index].sent = nil }
    }

    public func resumeOutput() {
        for index in terminals.indices { flush(index) }
    }
}
