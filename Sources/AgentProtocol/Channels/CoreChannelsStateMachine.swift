/// The channels of one accepted link as the core sees them: which exist, how far each stream has come, what was granted.
///
/// Input is the agent's frames and the kernel's wishes, output is events and frames. It holds 56 bytes per open channel
/// and nothing for an idle link. After an error the link must be closed; the state is not repaired.
public struct CoreChannelsStateMachine: Sendable {
    public enum Event: Sendable, Equatable {
        /// Taken in; nothing to do.
        case none
        /// The agent has said everything that it still holds. The core answers each report with a decision.
        case reportsComplete([ExecutionReport])
        case started(CommandID, at: UInt64)
        /// The frame's payload continues the stream at this offset.
        case output(CommandID, OutputStream, at: UInt64)
        case finished(ExitRecord)
    }

    /// Why an order was not sent.
    public enum Refusal: Error, Sendable, Equatable {
        case tooManyChannels(limit: Int)
        case alreadyOpen
        case tooLarge(bytes: Int)
    }

    private struct Channel {
        var number: UInt32
        var command: CommandID
        var received: StreamPair<UInt64>
        var granted: StreamPair<UInt64>
        var hasStarted = false
        var hasExited = false
    }

    private enum Reporting { case open, decided }

    /// Ascending by number, because numbers only grow and removal keeps the order.
    private var channels: [Channel] = []
    private var reports: [ExecutionReport] = []
    private var reporting = Reporting.open
    private var lastNumber: UInt32 = 0
    private let limit: Int

    /// - Parameter limit: open channels at one time; the number that `accepted` told the agent.
    public init(limit: Int = WireLimits.channels) { self.limit = min(limit, WireLimits.channels) }

    public var openChannels: Int { channels.count }

    // MARK: Frames of the agent

    public mutating func receive(
        _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(WireError) -> Event {
        switch header.kind {
        case .data: return try receiveData(header, payload.byteCount)
        case .exit: return try receiveExit(header, payload)
        case .started:
            let index = try channel(header)
            guard !channels[index].hasStarted, !channels[index].hasExited else {
                throw WireError(.duplicate, "channel \(header.channel) started twice")
            }
            channels[index].hasStarted = true
            return .started(channels[index].command, at: header.offset)
        case .report: return try receiveReport(header, payload)
        case .reportsEnd:
            guard reporting == .open else { throw WireError(.unexpected, "a second end of the reports") }
            reporting = .decided
            defer { reports = [] }
            return .reportsComplete(reports)
        default: throw WireError(.unexpected, "a \(header.kind) frame from an agent")
        }
    }

    private mutating func receiveData(_ header: FrameHeader, _ count: Int) throws(WireError) -> Event {
        let index = try channel(header)
        guard let stream = OutputStream(rawValue: header.flags) else {
            throw WireError(.malformed, "stream \(header.flags) is not 1 (output) or 2 (errors)")
        }
        guard count > 0 else { throw WireError(.malformed, "a data frame without data") }
        let received = channels[index].received[stream]
        guard !channels[index].hasExited, header.offset == received else {
            throw WireError(
                .wrongOffset,
                channels[index].hasExited
                    ? "data after the exit of channel \(header.channel)"
                    : "channel \(header.channel) stream \(header.flags) goes on at \(received), not at \(header.offset)")
        }
        let (end, overflow) = received.addingReportingOverflow(UInt64(count))
        guard !overflow, end <= channels[index].granted[stream] else {
            throw WireError(
                .creditExceeded,
                "channel \(header.channel) stream \(header.flags) may go up to \(channels[index].granted[stream])")
        }
        channels[index].received[stream] = end
        return .output(channels[index].command, stream, at: received)
    }

    private mutating func receiveExit(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        let index = try channel(header)
        let record = try ExitRecord(reading: payload)
        guard record.command == channels[index].command else {
            throw WireError(.foreignChannel, "channel \(header.channel) does not run command \(record.command)")
        }
        guard !channels[index].hasExited else {
            throw WireError(.duplicate, "channel \(header.channel) ended twice")
        }
        let received = channels[index].received
        guard record.standardOutputBytes == received[.standardOutput],
            record.standardErrorBytes == received[.standardError]
        else {
            throw WireError(
                .wrongOffset,
                """
                the exit of \(record.command) claims \(record.standardOutputBytes) and \(record.standardErrorBytes) \
                bytes of output; \(received[.standardOutput]) and \(received[.standardError]) have come
                """)
        }
        channels[index].hasExited = true
        return .finished(record)
    }

    private mutating func receiveReport(
        _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(WireError) -> Event {
        guard reporting == .open else { throw WireError(.unexpected, "a report after the end of the reports") }
        guard reports.count < WireLimits.reports else {
            throw WireError(.tooManyChannels, "more than \(WireLimits.reports) reports")
        }
        reports.append(try ExecutionReport(reading: payload))
        return .none
    }

    private func channel(_ header: FrameHeader) throws(WireError) -> Int {
        var low = 0
        var high = channels.count
        while low < high {
            let middle = (low + high) / 2
            if channels[middle].number < header.channel { low = middle + 1 } else { high = middle }
        }
        guard low < channels.count, channels[low].number == header.channel else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which is not open")
        }
        return low
    }

    // MARK: Wishes of the kernel

    /// Opens a channel and writes the order. The agent may at once send `WireLimits.initialWindowBytes` of each stream.
    public mutating func open(_ order: Order, to writer: inout FrameWriter) throws(Refusal) {
        let bytes = order.encodedBytes
        guard bytes <= WireLimits.openBytes else { throw .tooLarge(bytes: bytes) }
        let number = try add(order.command, received: StreamPair(0, 0))
        writer.begin(.open, flags: ChannelKind.execution.rawValue, channel: number)
        order.write(to: &writer)
        writer.end()
    }

    /// Answers one report.
    public mutating func decide(_ decision: ResumeDecision, to writer: inout FrameWriter) throws(Refusal) {
        switch decision {
        case .forget: decision.writeFrame(channel: 0, to: &writer)
        case .resume(let command, let output, let errors), .cancel(let command, let output, let errors):
            let number = try add(command, received: StreamPair(output, errors))
            decision.writeFrame(channel: number, to: &writer)
        }
    }

    private mutating func add(_ command: CommandID, received: StreamPair<UInt64>) throws(Refusal) -> UInt32 {
        guard index(of: command) == nil else { throw .alreadyOpen }
        guard channels.count < limit, lastNumber < .max else { throw .tooManyChannels(limit: limit) }
        lastNumber += 1
        channels.append(
            Channel(
                number: lastNumber, command: command, received: received,
                granted: StreamPair(
                    received.output &+ WireLimits.initialWindowBytes, received.errors &+ WireLimits.initialWindowBytes))
        )
        return lastNumber
    }

    /// Lets the agent send the stream up to `offset`. A smaller offset than before, or a channel that is gone, is nothing.
    public mutating func grant(
        _ command: CommandID, _ stream: OutputStream, upTo offset: UInt64, to writer: inout FrameWriter
    ) {
        guard let index = index(of: command), !channels[index].hasExited,
            offset > channels[index].granted[stream]
        else { return }
        channels[index].granted[stream] = offset
        writer.frame(.credit, flags: stream.rawValue, channel: channels[index].number, offset: offset)
    }

    public mutating func cancel(_ command: CommandID, to writer: inout FrameWriter) {
        guard let index = index(of: command), !channels[index].hasExited else { return }
        writer.frame(.cancel, channel: channels[index].number)
    }

    /// The exit record is durable: tells the agent to forget the execution, and closes the channel.
    public mutating func acknowledge(_ command: CommandID, to writer: inout FrameWriter) {
        guard let index = index(of: command), channels[index].hasExited else { return }
        writer.frame(.exitAcknowledged, channel: channels[index].number)
        channels.remove(at: index)
    }

    /// The exit could not be recorded now: the agent keeps it and reports it at its next connect. The channel stays, so
    /// that nothing more can come on it.
    public func isOpen(_ command: CommandID) -> Bool { index(of: command) != nil }

    /// Newest first: most calls are about a channel that was opened a moment ago.
    private func index(of command: CommandID) -> Int? { channels.lastIndex { $0.command == command } }
}

/// One value for each output stream.
public struct StreamPair<Value: Sendable & Equatable>: Sendable, Equatable {
    public var output: Value
    public var errors: Value

    public init(_ output: Value, _ errors: Value) {
        self.output = output
        self.errors = errors
    }

    public subscript(stream: OutputStream) -> Value {
        get { stream == .standardOutput ? output : errors }
        set { if stream == .standardOutput { output = newValue } else { errors = newValue } }
    }
}
