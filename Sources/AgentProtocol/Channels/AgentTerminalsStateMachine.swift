/// The terminals of one accepted link as the agent sees them.
///
/// Input is the core's frames and the executor's news, output is events and frames; it holds no bytes. After an error
/// the link must be closed; the terminals go on, and the next link reports them afresh.
public struct AgentTerminalsStateMachine: Sendable {
    public enum Event: Sendable, Equatable {
        /// Taken in; nothing to do.
        case none
        case start(TerminalOrder)
        /// Somebody reads from the offset on. The executor answers with where that begins.
        case attach(ChannelID, from: UInt64)
        case detach(ChannelID)
        /// Output may go up to the offset.
        case credit(ChannelID, upTo: UInt64)
        /// The reader has the output below the offset.
        case arrived(ChannelID, upTo: UInt64)
        /// The frame's payload is input at this offset, all of it new.
        case input(ChannelID, at: UInt64)
        case inputEnd(ChannelID)
        case resize(ChannelID, TerminalSize)
        case signal(ChannelID, TerminalSignal)
        case cancel(ChannelID)
        /// Ended and recorded, or never known to the core: end it if it runs, and drop everything.
        case forget(ChannelID)
    }

    private enum Attachment: Equatable {
        case none
        /// The executor has not yet said where output begins.
        case asked(from: UInt64)
        case holds
    }

    private struct Terminal {
        /// 0 while the core has not answered the report.
        var number: UInt32
        var channel: ChannelID
        var attachment = Attachment.none
        /// Of output, since the last `attached`.
        var sent: UInt64 = 0
        var inputReceived: UInt64 = 0
        var inputLimit: UInt64 = 0
        var startedAt: UInt64?
        var startedSent = false
        var exit: ExitRecord?
        var exitSent = false
    }

    /// Few: a link has a handful, and `WireLimits.terminals` at most.
    private var terminals: [Terminal] = []

    public init() {}

    public var count: Int { terminals.count }
    /// Some terminal has ended and its end is not sent yet.
    public var isEnding: Bool { terminals.contains { $0.exit != nil && !$0.exitSent } }

    // MARK: Reports

    /// Writes what the executor still holds. Call it once, before the end mark of the reports.
    /// - Parameter flush: sends what stands in the writer and resets it; called so often that no message grows too long.
    public mutating func report(
        _ reports: [TerminalReport], to writer: inout FrameWriter, flush: (inout FrameWriter) -> Void
    ) {
        for report in reports.prefix(WireLimits.terminals) {
            if writer.bytes.count > AgentChannelsStateMachine.messageBytes { flush(&writer) }
            writer.begin(.terminalReport)
            report.write(to: &writer)
            writer.end()
            terminals.append(
                Terminal(
                    number: 0, channel: report.channel, inputReceived: report.inputReceived,
                    inputLimit: report.inputTaken &+ WireLimits.inputWindowBytes, startedSent: report.started != .no,
                    exit: report.exit))
        }
    }

    // MARK: Frames of the core

    public mutating func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        switch header.kind {
        case .open: return try receiveOpen(header, payload)
        case .terminalDecision: return try receiveDecision(header, payload)
        default: break
        }
        guard let index = terminals.firstIndex(where: { $0.number == header.channel && $0.number != 0 }) else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which is not open")
        }
        let channel = terminals[index].channel
        switch header.kind {
        case .data: return try receiveInput(index, header, payload.byteCount)
        case .credit:
            switch TerminalStream(rawValue: header.flags) {
            case .output: return .credit(channel, upTo: header.offset)
            case .arrived:
                guard terminals[index].attachment != .holds || header.offset <= terminals[index].sent else {
                    throw WireError(
                        .wrongOffset, "output up to \(header.offset) has arrived; \(terminals[index].sent) was sent")
                }
                return .arrived(channel, upTo: header.offset)
            case .input, nil:
                throw WireError(.malformed, "a core grants stream \(header.flags), not 1 (output) or 2 (arrived)")
            }
        case .attach:
            terminals[index].attachment = .asked(from: header.offset)
            terminals[index].exitSent = false
            return .attach(channel, from: header.offset)
        case .detach:
            terminals[index].attachment = .none
            return .detach(channel)
        case .inputEnd:
            guard header.offset == terminals[index].inputReceived else {
                throw WireError(
                    .wrongOffset, "input ends at \(header.offset); \(terminals[index].inputReceived) bytes have come")
            }
            return .inputEnd(channel)
        case .resize: return .resize(channel, try TerminalSize(packed: header.offset))
        case .signal:
            guard let signal = TerminalSignal(rawValue: header.flags) else {
                throw WireError(.malformed, "signal \(header.flags) cannot be sent to a terminal")
            }
            return .signal(channel, signal)
        case .cancel: return .cancel(channel)
        case .exitAcknowledged:
            guard terminals[index].exitSent else {
                throw WireError(.unexpected, "channel \(header.channel) was acknowledged before its exit was sent")
            }
            terminals.remove(at: index)
            return .forget(channel)
        default: throw WireError(.unexpected, "a \(header.kind) frame from the core on a terminal")
        }
    }

    private mutating func receiveOpen(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        try requireFresh(header.channel)
        let order = try TerminalOrder(reading: payload)
        guard !terminals.contains(where: { $0.channel == order.channel }) else {
            throw WireError(.duplicate, "terminal \(order.channel) is on this link already")
        }
        guard terminals.count < WireLimits.terminals * 2 else {
            throw WireError(.tooManyChannels, "more than \(WireLimits.terminals) terminals")
        }
        terminals.append(
            Terminal(
                number: header.channel, channel: order.channel, attachment: .asked(from: 0),
                inputLimit: WireLimits.inputWindowBytes))
        return .start(order)
    }

    private mutating func receiveDecision(
        _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(WireError) -> Event {
        let decision = try TerminalDecision(action: header.flags, reading: payload)
        guard let index = terminals.firstIndex(where: { $0.number == 0 && $0.channel == decision.channel }) else {
            throw WireError(.foreignChannel, "a decision on \(decision.channel), which waits for none")
        }
        switch decision {
        case .forget(let channel):
            terminals.remove(at: index)
            return .forget(channel)
        case .attach(let channel, let from):
            try requireFresh(header.channel)
            terminals[index].number = header.channel
            terminals[index].attachment = .asked(from: from)
            return .attach(channel, from: from)
        case .leave(let channel):
            try requireFresh(header.channel)
            terminals[index].number = header.channel
            return .detach(channel)
        }
    }

    private func requireFresh(_ number: UInt32) throws(WireError) {
        guard number > WireLimits.terminalChannel, !terminals.contains(where: { $0.number == number }) else {
            throw WireError(.duplicate, "channel \(number) is no free number of a terminal")
        }
    }

    private mutating func receiveInput(
        _ index: Int, _ header: FrameHeader, _ count: Int
    ) throws(WireError) -> Event {
        guard header.flags == TerminalStream.input.rawValue, count > 0 else {
            throw WireError(.malformed, "input of a terminal is stream 3 and not empty")
        }
        let at = terminals[index].inputReceived
        guard header.offset == at else {
            throw WireError(.wrongOffset, "input at \(header.offset) where \(at) is next")
        }
        let end = at + UInt64(count)
        guard end <= terminals[index].inputLimit else {
            throw WireError(.creditExceeded, "input up to \(end); granted is \(terminals[index].inputLimit)")
        }
        terminals[index].inputReceived = end
        return .input(terminals[index].channel, at: at)
    }

    // MARK: News of the executor

    private func index(of channel: ChannelID) -> Int? { terminals.firstIndex { $0.channel == channel } }

    public mutating func started(_ channel: ChannelID, at unixMilliseconds: UInt64) {
        guard let index = index(of: channel) else { return }
        terminals[index].startedAt = unixMilliseconds
    }

    /// The program's terminal has taken the input up to `offset`.
    public mutating func inputTaken(_ channel: ChannelID, upTo offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(of: channel), terminals[index].number != 0, !terminals[index].exitSent else { return }
        let limit = min(offset, terminals[index].inputReceived) + WireLimits.inputWindowBytes
        // A quarter of the window at a time: a keystroke costs no frame back.
        guard limit >= terminals[index].inputLimit + WireLimits.inputWindowBytes / 4 else { return }
        terminals[index].inputLimit = limit
        writer.frame(.credit, flags: TerminalStream.input.rawValue, channel: terminals[index].number, offset: limit)
    }

    /// The executor's answer to an attach.
    public mutating func attached(_ channel: ChannelID, at offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(of: channel), terminals[index].number != 0,
            case .asked = terminals[index].attachment
        else { return }
        writeStart(index, to: &writer)
        attach(index, at: offset, to: &writer)
    }

    private mutating func attach(_ index: Int, at offset: UInt64, to writer: inout FrameWriter) {
        terminals[index].attachment = .holds
        terminals[index].sent = offset
        writer.frame(.attached, channel: terminals[index].number, offset: offset)
    }

    /// Output that continues what was sent: its frame. False when nobody is attached: it is not to be sent.
    public mutating func output(
        _ channel: ChannelID, at offset: UInt64, _ bytes: borrowing RawSpan, to writer: inout FrameWriter
    ) -> Bool {
        guard let index = index(of: channel), terminals[index].attachment == .holds, !terminals[index].exitSent,
            terminals[index].sent == offset
        else { return false }
        writer.data(.output, number: terminals[index].number, offset: offset, bytes)
        terminals[index].sent += UInt64(bytes.byteCount)
        return true
    }

    public mutating func finished(_ record: ExitRecord) {
        guard let index = index(of: ChannelID(sameAs: record.command)) else { return }
        terminals[index].exit = record
    }

    /// Writes the starts and the ends that are due: an end follows the last byte of output when somebody is attached.
    public mutating func writeControl(to writer: inout FrameWriter) {
        for index in terminals.indices where terminals[index].number != 0 {
            writeStart(index, to: &writer)
            guard !terminals[index].exitSent, var exit = terminals[index].exit else { continue }
            if exit.hasLostOutput {
                // What was kept is gone, and with it the place where output ends.
                if case .asked(let from) = terminals[index].attachment { attach(index, at: from, to: &writer) }
                exit.standardOutputBytes = terminals[index].sent
            } else if terminals[index].attachment != .none {
                guard terminals[index].attachment == .holds, terminals[index].sent == exit.standardOutputBytes else {
                    continue
                }
            }
            terminals[index].exitSent = true
            writer.begin(.exit, channel: terminals[index].number)
            exit.write(to: &writer)
            writer.end()
        }
    }

    private mutating func writeStart(_ index: Int, to writer: inout FrameWriter) {
        guard let startedAt = terminals[index].startedAt, !terminals[index].startedSent else { return }
        terminals[index].startedSent = true
        writer.frame(.started, channel: terminals[index].number, offset: startedAt)
    }
}
