/// The channels of one accepted link as the agent sees them: what to run, what of the kept output to send next, and
/// when a record may go.
///
/// Input is the core's frames and the executor's news; output is events and frames. It never holds output: a sender
/// asks `nextOutput`, reads that much from the executor's spool, and says `sent`. After an error the link must be
/// closed; the executor's state is untouched by that, and the next link reports it afresh.
public struct AgentChannelsStateMachine: Sendable {
    public enum Event: Sendable, Equatable {
        /// Taken in; there may be more to send now.
        case none
        case start(Order)
        case cancel(CommandID)
        /// The core has recorded the end, or never knew the command.
        case forget(CommandID)
    }

    /// A piece of kept output that may be sent now.
    public struct Piece: Sendable, Equatable {
        public var command: CommandID
        public var stream: OutputStream
        public var channel: UInt32
        public var offset: UInt64
        /// Bytes that credit, the spool and the frame bound allow; at least 1.
        public var maximum: Int
    }

    private struct Channel {
        /// 0 while the core has not answered the report.
        var number: UInt32
        var command: CommandID
        var sent = StreamPair<UInt64>(0, 0)
        var granted = StreamPair<UInt64>(0, 0)
        /// In the spool.
        var length = StreamPair<UInt64>(0, 0)
        var startedAt: UInt64?
        var startedSent = false
        var exit: ExitRecord?
        var exitSent = false
    }

    /// What one execution may send before its output counts as bulk, so that a short command is never behind a long dump.
    private static let interactiveBytes: UInt64 = 256 * 1_024
    /// A message is sent when it is longer than this; with one more frame it is still within the core's bound.
    static let messageBytes = 32 * 1_024

    private var channels: [Channel] = []
    /// Where the round of the streams goes on.
    private var turn = 0

    public init() {}

    public var openChannels: Int { channels.count }

    // MARK: Reports

    /// Writes what the executor still holds, and the end mark. Call it once, before any other frame of the link.
    /// - Parameter flush: sends what stands in the writer and resets it; called so often that no message grows too long.
    public mutating func report(
        _ reports: [ExecutionReport], to writer: inout FrameWriter, flush: (inout FrameWriter) -> Void
    ) {
        for report in reports.prefix(WireLimits.reports) {
            if writer.bytes.count > Self.messageBytes { flush(&writer) }
            writer.begin(.report)
            report.write(to: &writer)
            writer.end()
            channels.append(
                Channel(
                    number: 0, command: report.command,
                    length: StreamPair(report.standardOutputBytes, report.standardErrorBytes),
                    startedAt: report.exit?.startedAt, startedSent: report.started != .no, exit: report.exit))
        }
        writer.frame(.reportsEnd)
    }

    // MARK: Frames of the core

    public mutating func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        switch header.kind {
        case .open: return try receiveOpen(header, payload)
        case .decision: return try receiveDecision(header, payload)
        case .credit:
            let index = try channel(header)
            guard let stream = OutputStream(rawValue: header.flags) else {
                throw WireError(.malformed, "stream \(header.flags) is not 1 (output) or 2 (errors)")
            }
            channels[index].granted[stream] = max(channels[index].granted[stream], header.offset)
            return .none
        case .cancel: return .cancel(channels[try channel(header)].command)
        case .exitAcknowledged:
            let index = try channel(header)
            guard channels[index].exitSent else {
                throw WireError(.unexpected, "channel \(header.channel) was acknowledged before its exit was sent")
            }
            return .forget(channels.remove(at: index).command)
        default: throw WireError(.unexpected, "a \(header.kind) frame from the core")
        }
    }

    private mutating func receiveOpen(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        guard header.channel != 0, !channels.contains(where: { $0.number == header.channel }) else {
            throw WireError(.duplicate, "channel \(header.channel) is opened while it is open")
        }
        guard header.flags == ChannelKind.execution.rawValue else {
            throw WireError(.unexpected, "channel kind \(header.flags) is not among the features of this link")
        }
        let order = try Order(reading: payload)
        guard index(of: order.command) == nil else {
            throw WireError(.duplicate, "command \(order.command) is on this link already")
        }
        guard channels.count < WireLimits.channels + WireLimits.reports else {
            throw WireError(.tooManyChannels, "more than \(WireLimits.channels) channels")
        }
        channels.append(
            Channel(
                number: header.channel, command: order.command,
                granted: StreamPair(WireLimits.initialWindowBytes, WireLimits.initialWindowBytes)))
        return .start(order)
    }

    private mutating func receiveDecision(
        _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(WireError) -> Event {
        let decision = try ResumeDecision(action: header.flags, reading: payload)
        guard let index = channels.firstIndex(where: { $0.number == 0 && $0.command == decision.command }) else {
            throw WireError(.foreignChannel, "a decision on \(decision.command), which waits for none")
        }
        switch decision {
        case .forget:
            channels.remove(at: index)
            return .forget(decision.command)
        case .resume(_, let output, let errors), .cancel(_, let output, let errors):
            guard header.channel != 0, !channels.contains(where: { $0.number == header.channel }) else {
                throw WireError(.duplicate, "channel \(header.channel) is opened while it is open")
            }
            let kept = channels[index].length
            guard output <= kept.output, errors <= kept.errors else {
                throw WireError(
                    .wrongOffset,
                    "the core goes on at \(output) and \(errors); only \(kept.output) and \(kept.errors) are kept")
            }
            channels[index].number = header.channel
            channels[index].sent = StreamPair(output, errors)
            channels[index].granted = StreamPair(
                output &+ WireLimits.initialWindowBytes, errors &+ WireLimits.initialWindowBytes)
            if case .cancel = decision { return .cancel(decision.command) }
            return .none
        }
    }

    private func channel(_ header: FrameHeader) throws(WireError) -> Int {
        guard header.channel != 0, let index = channels.firstIndex(where: { $0.number == header.channel }) else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which is not open")
        }
        return index
    }

    private func index(of command: CommandID) -> Int? { channels.lastIndex { $0.command == command } }

    // MARK: News of the executor

    public mutating func executionStarted(_ command: CommandID, at unixMilliseconds: UInt64) {
        guard let index = index(of: command) else { return }
        channels[index].startedAt = unixMilliseconds
    }

    public mutating func executionHasOutput(_ command: CommandID, _ stream: OutputStream, length: UInt64) {
        guard let index = index(of: command) else { return }
        channels[index].length[stream] = max(channels[index].length[stream], length)
    }

    public mutating func executionFinished(_ record: ExitRecord) {
        guard let index = index(of: record.command), channels[index].exit == nil else { return }
        channels[index].exit = record
        channels[index].length = StreamPair(record.standardOutputBytes, record.standardErrorBytes)
    }

    // MARK: Sending

    /// Writes the control frames that are due: starts, and exits whose output has all been sent. False when the message
    /// is long enough and more is due.
    public mutating func writeControl(to writer: inout FrameWriter) -> Bool {
        for index in channels.indices where channels[index].number != 0 && !channels[index].exitSent {
            if writer.bytes.count > Self.messageBytes { return false }
            if let startedAt = channels[index].startedAt, !channels[index].startedSent {
                writer.frame(.started, channel: channels[index].number, offset: startedAt)
                channels[index].startedSent = true
            }
            guard let exit = channels[index].exit, channels[index].sent == channels[index].length else { continue }
            writer.begin(.exit, channel: channels[index].number)
            exit.write(to: &writer)
            writer.end()
            channels[index].exitSent = true
        }
        return true
    }

    /// The next piece of output that may go, `nil` when there is none: short executions first, and each stream in turn.
    public mutating func nextOutput() -> Piece? {
        let count = channels.count * 2
        guard count > 0 else { return nil }
        var bulk: Int?
        for step in 0..<count {
            let place = (turn + step) % count
            let stream: OutputStream = place & 1 == 0 ? .standardOutput : .standardError
            let channel = channels[place >> 1]
            guard channel.number != 0,
                channel.sent[stream] < min(channel.length[stream], channel.granted[stream])
            else { continue }
            if channel.sent[stream] < Self.interactiveBytes { return piece(at: place, stream) }
            bulk = bulk ?? place
        }
        return bulk.map { piece(at: $0, $0 & 1 == 0 ? .standardOutput : .standardError) }
    }

    private mutating func piece(at place: Int, _ stream: OutputStream) -> Piece {
        turn = place + 1
        let channel = channels[place >> 1]
        let free = min(channel.length[stream], channel.granted[stream]) - channel.sent[stream]
        return Piece(
            command: channel.command, stream: stream, channel: channel.number, offset: channel.sent[stream],
            maximum: Int(min(free, UInt64(WireLimits.dataBytes))))
    }

    /// `count` bytes of the piece have been handed to the connection.
    ///
    /// With 0 the spool did not give what it had announced. If the execution has ended, its record is changed to say so
    /// with the exact prefix that was kept; else the stream waits for news.
    public mutating func sent(_ piece: Piece, _ count: Int) {
        guard let index = index(of: piece.command) else { return }
        channels[index].sent[piece.stream] += UInt64(count)
        guard count == 0 else { return }
        channels[index].length[piece.stream] = channels[index].sent[piece.stream]
        if var exit = channels[index].exit {
            exit.outcome = .interrupted(
                reason: "the kept output cannot be read at byte \(piece.offset) of stream \(piece.stream.rawValue)")
            exit.standardOutputBytes = channels[index].length.output
            exit.standardErrorBytes = channels[index].length.errors
            channels[index].exit = exit
        }
    }
}
