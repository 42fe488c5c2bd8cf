/// The terminals of one accepted link as the core sees them: which exist, how far output and input have come, what was
/// granted each way.
///
/// Input is the agent's frames and the kernel's wishes, output is events and frames; it holds no bytes. After an error
/// the link must be closed; the state is not repaired.
public struct CoreTerminalsStateMachine: Sendable {
    public enum Event: Sendable, Equatable {
        /// Taken in; nothing to do.
        case none
        case started(UInt32, at: UInt64)
        /// Output goes on at `offset`; with more than was asked for, what lies between is lost.
        case attached(UInt32, at: UInt64)
        /// The frame's payload continues the output at this offset.
        case output(UInt32, at: UInt64)
        /// Input may go up to `limit`; what lies `WireLimits.inputWindowBytes` below has arrived for good.
        case inputGranted(UInt32, limit: UInt64)
        case exited(UInt32, ExitRecord)
    }

    /// Why nothing was sent.
    public enum Refusal: Error, Sendable, Equatable {
        case tooManyTerminals(limit: Int)
        case tooLarge(bytes: Int)
    }

    private enum Attachment: Equatable {
        case none
        /// What still comes belongs to the attachment before, and is dropped.
        case asked(from: UInt64)
        case holds
    }

    private struct Terminal {
        var number: UInt32
        var channel: ChannelID
        var attachment: Attachment
        /// End of the output that has come since the last `attached`.
        var received: UInt64 = 0
        var granted: UInt64 = 0
        var inputSent: UInt64
        var inputLimit: UInt64
        var hasStarted: Bool
        var hasExited = false
    }

    /// Ascending by number, because numbers only grow and removal keeps the order.
    private var terminals: [Terminal] = []
    private var lastNumber = WireLimits.terminalChannel

    public init() {}

    public var count: Int { terminals.count }
    public func isOpen(_ number: UInt32) -> Bool { index(number) != nil }

    // MARK: Frames of the agent

    public mutating func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        guard let index = index(header.channel) else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which is not open")
        }
        switch header.kind {
        case .data: return try receiveOutput(index, header, payload.byteCount)
        case .attached:
            guard case .asked(let from) = terminals[index].attachment else {
                throw WireError(.unexpected, "channel \(header.channel) is attached, which nobody asked for")
            }
            guard header.offset >= from else {
                throw WireError(.wrongOffset, "output goes on at \(header.offset); asked for was \(from)")
            }
            terminals[index].attachment = .holds
            terminals[index].received = header.offset
            terminals[index].granted = header.offset &+ WireLimits.initialWindowBytes
            return .attached(header.channel, at: header.offset)
        case .credit:
            guard header.flags == TerminalStream.input.rawValue else {
                throw WireError(.malformed, "an agent grants stream \(header.flags), not 3 (input)")
            }
            let limit = header.offset
            // What is taken cannot be more than what was sent.
            guard limit >= terminals[index].inputLimit, limit <= terminals[index].inputSent + WireLimits.inputWindowBytes
            else {
                throw WireError(
                    .wrongOffset,
                    "credit for input up to \(limit); \(terminals[index].inputSent) bytes of input were sent")
            }
            terminals[index].inputLimit = limit
            return .inputGranted(header.channel, limit: limit)
        case .started:
            guard !terminals[index].hasStarted, !terminals[index].hasExited else {
                throw WireError(.duplicate, "channel \(header.channel) started twice")
            }
            terminals[index].hasStarted = true
            return .started(header.channel, at: header.offset)
        case .exit:
            let record = try ExitRecord(reading: payload)
            return try receiveExit(index, header, record)
        default: throw WireError(.unexpected, "a \(header.kind) frame from an agent on a terminal")
        }
    }

    private mutating func receiveOutput(
        _ index: Int, _ header: FrameHeader, _ count: Int
    ) throws(WireError) -> Event {
        guard header.flags == TerminalStream.output.rawValue, count > 0 else {
            throw WireError(.malformed, "output of a terminal is stream 1 and not empty")
        }
        guard !terminals[index].hasExited else {
            throw WireError(.unexpected, "output after the end of channel \(header.channel)")
        }
        let at = terminals[index].received
        guard header.offset == at, terminals[index].granted > 0 else {
            throw WireError(.wrongOffset, "output at \(header.offset) where \(at) is next")
        }
        let end = at + UInt64(count)
        guard end <= terminals[index].granted else {
            throw WireError(.creditExceeded, "output up to \(end); granted is \(terminals[index].granted)")
        }
        terminals[index].received = end
        return terminals[index].attachment == .holds ? .output(header.channel, at: at) : .none
    }

    private mutating func receiveExit(
        _ index: Int, _ header: FrameHeader, _ record: ExitRecord
    ) throws(WireError) -> Event {
        guard record.command == CommandID(sameAs: terminals[index].channel) else {
            throw WireError(.foreignChannel, "channel \(header.channel) ends \(record.command), which is not its own")
        }
        guard !terminals[index].hasExited else {
            throw WireError(.duplicate, "channel \(header.channel) ended twice")
        }
        switch terminals[index].attachment {
        // The end belongs to the attachment before, and comes again after this one.
        case .asked: return .none
        case .holds:
            guard record.standardOutputBytes == terminals[index].received else {
                throw WireError(
                    .wrongOffset,
                    "the end claims \(record.standardOutputBytes) bytes; \(terminals[index].received) have come")
            }
        case .none: break
        }
        terminals[index].hasExited = true
        return .exited(header.channel, record)
    }

    private func index(_ number: UInt32) -> Int? {
        var low = 0
        var high = terminals.count
        while low < high {
            let middle = (low + high) / 2
            if terminals[middle].number < number { low = middle + 1 } else { high = middle }
        }
        return low < terminals.count && terminals[low].number == number ? low : nil
    }

    // MARK: Wishes of the kernel

    /// Opens a terminal, attached from its first byte. Returns its number on this link.
    public mutating func open(_ order: TerminalOrder, to writer: inout FrameWriter) throws(Refusal) -> UInt32 {
        let bytes = order.encodedBytes
        guard bytes <= WireLimits.openBytes else { throw .tooLarge(bytes: bytes) }
        let number = try add(order.channel, .asked(from: 0), inputSent: 0, inputTaken: 0, hasStarted: false)
        writer.begin(.open, flags: ChannelKind.terminal.rawValue, channel: number)
        order.write(to: &writer)
        writer.end()
        return number
    }

    /// Takes up a reported terminal. Input goes on at `report.inputReceived`.
    /// - Parameter from: where output goes on; `nil`: nobody is attached.
    public mutating func resume(
        _ report: TerminalReport, from: UInt64?, to writer: inout FrameWriter
    ) throws(Refusal) -> UInt32 {
        let number = try add(
            report.channel, from.map { .asked(from: $0) } ?? .none, inputSent: report.inputReceived,
            inputTaken: report.inputTaken, hasStarted: report.started != .no)
        let decision: TerminalDecision =
            from.map { .attach(channel: report.channel, from: $0) } ?? .leave(channel: report.channel)
        decision.writeFrame(number: number, to: &writer)
        return number
    }

    public func forget(_ channel: ChannelID, to writer: inout FrameWriter) {
        TerminalDecision.forget(channel: channel).writeFrame(number: 0, to: &writer)
    }

    private mutating func add(
        _ channel: ChannelID, _ attachment: Attachment, inputSent: UInt64, inputTaken: UInt64, hasStarted: Bool
    ) throws(Refusal) -> UInt32 {
        guard terminals.count < WireLimits.terminals, lastNumber < .max else {
            throw .tooManyTerminals(limit: WireLimits.terminals)
        }
        lastNumber += 1
        terminals.append(
            Terminal(
                number: lastNumber, channel: channel, attachment: attachment, inputSent: inputSent,
                inputLimit: inputTaken &+ WireLimits.inputWindowBytes, hasStarted: hasStarted))
        return lastNumber
    }

    /// Somebody reads from `offset` on; also after the end, which then comes once more.
    public mutating func attach(_ number: UInt32, from offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(number) else { return }
        // Two that cross would leave it open which of them an answer belongs to.
        if case .asked = terminals[index].attachment { return }
        terminals[index].attachment = .asked(from: offset)
        terminals[index].hasExited = false
        writer.frame(.attach, channel: number, offset: offset)
    }

    /// An answer to `attach` is still to come; until then it cannot be asked for again.
    public func isAttaching(_ number: UInt32) -> Bool {
        guard let index = index(number) else { return false }
        if case .asked = terminals[index].attachment { return true }
        return false
    }

    /// Nobody reads any more. While an answer to `attach` is awaited it changes nothing.
    public mutating func detach(_ number: UInt32, to writer: inout FrameWriter) {
        guard let index = index(number), terminals[index].attachment == .holds else { return }
        terminals[index].attachment = .none
        writer.frame(.detach, channel: number)
    }

    /// Lets the agent send output up to `offset`. A smaller offset than before is nothing.
    public mutating func grant(_ number: UInt32, upTo offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(number), terminals[index].attachment == .holds, !terminals[index].hasExited,
            offset > terminals[index].granted
        else { return }
        terminals[index].granted = offset
        writer.frame(.credit, flags: TerminalStream.output.rawValue, channel: number, offset: offset)
    }

    /// Output below `offset` is here: it need not be kept for this reader.
    public func arrived(_ number: UInt32, upTo offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(number), terminals[index].attachment == .holds, !terminals[index].hasExited else { return }
        writer.frame(.credit, flags: TerminalStream.arrived.rawValue, channel: number, offset: offset)
    }

    /// Bytes of input that may be sent now, and the offset of the first of them.
    public func inputRoom(_ number: UInt32) -> (offset: UInt64, count: Int)? {
        guard let index = index(number), !terminals[index].hasExited else { return nil }
        let (sent, limit) = (terminals[index].inputSent, terminals[index].inputLimit)
        return (sent, limit > sent ? Int(limit - sent) : 0)
    }

    /// Sends input: at most what `inputRoom` says, and at most one frame.
    public mutating func input(_ number: UInt32, _ bytes: borrowing RawSpan, to writer: inout FrameWriter) {
        guard let index = index(number), bytes.byteCount > 0 else { return }
        writer.data(.input, number: number, offset: terminals[index].inputSent, bytes)
        terminals[index].inputSent += UInt64(bytes.byteCount)
    }

    /// No more input: only for streams; after all input was sent.
    public func endInput(_ number: UInt32, to writer: inout FrameWriter) {
        guard let index = index(number), !terminals[index].hasExited else { return }
        writer.frame(.inputEnd, channel: number, offset: terminals[index].inputSent)
    }

    public func resize(_ number: UInt32, _ size: TerminalSize, to writer: inout FrameWriter) {
        guard let index = index(number), !terminals[index].hasExited else { return }
        writer.frame(.resize, channel: number, offset: size.packed)
    }

    public func signal(_ number: UInt32, _ signal: TerminalSignal, to writer: inout FrameWriter) {
        guard let index = index(number), !terminals[index].hasExited else { return }
        writer.frame(.signal, flags: signal.rawValue, channel: number)
    }

    /// Ends the program and everything that it started.
    public func cancel(_ number: UInt32, to writer: inout FrameWriter) {
        guard let index = index(number), !terminals[index].hasExited else { return }
        writer.frame(.cancel, channel: number)
    }

    /// The end is recorded and nobody wants the kept output any more: tells the agent to forget it.
    public mutating func acknowledge(_ number: UInt32, to writer: inout FrameWriter) {
        guard let index = index(number), terminals[index].hasExited else { return }
        writer.frame(.exitAcknowledged, channel: number)
        terminals.remove(at: index)
    }
}
