/// The payload of `open` with channel kind terminal: 32 fixed bytes, the terminal's type, then an order.
extension TerminalOrder {
    static let headBytes = 32

    public var encodedBytes: Int { Self.headBytes + 4 + terminalType.utf8.count + order.encodedBytes }

    public func write(to writer: inout FrameWriter) {
        writer.u8(form.rawValue)
        writer.u8(isLossy ? 1 : 0)
        writer.u16(size.rows)
        writer.u16(size.columns)
        writer.u16(0)
        writer.u64(keptBytes)
        writer.u64(idleMilliseconds ?? 0)
        writer.u64(orphanMilliseconds)
        writer.longText(terminalType)
        order.write(to: &writer)
    }

    public init(reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        let formNumber = try reader.u8(bytes)
        guard let form = Form(rawValue: formNumber) else {
            throw WireError(.malformed, "terminal form \(formNumber) is not 1 (terminal) or 2 (stream)")
        }
        let flags = try reader.u8(bytes)
        let size = TerminalSize(rows: try reader.u16(bytes), columns: try reader.u16(bytes))
        guard flags & ~1 == 0, try reader.u16(bytes) == 0 else {
            throw WireError(.malformed, "a terminal's order sets reserved bits")
        }
        let kept = try reader.u64(bytes)
        let idle = try reader.u64(bytes)
        let orphan = try reader.u64(bytes)
        let type = try reader.longText(bytes)
        guard type.utf8.count <= 64 else {
            throw WireError(.oversize, "a terminal type of \(type.utf8.count) bytes; at most 64 are allowed")
        }
        let order = try Order(reading: bytes.extracting(reader.offset..<bytes.byteCount))
        if case .script = order.invocation { throw WireError(.malformed, "a terminal runs no script") }
        guard order.standardInput == nil else { throw WireError(.malformed, "a terminal has no fixed standard input") }
        guard order.secretEnvironment.isEmpty else { throw WireError(.malformed, "a terminal has no secret variables") }
        self.init(
            form: form, order: order, size: size, terminalType: type, keptBytes: kept, isLossy: flags & 1 != 0,
            idleMilliseconds: idle == 0 ? nil : idle, orphanMilliseconds: orphan)
    }
}

/// The payload of `terminal-report`: 52 fixed bytes, then the exit record if flag 1 is set.
extension TerminalReport {
    static let headBytes = 52

    public func write(to writer: inout FrameWriter) {
        writer.identifier(channel)
        writer.u8(started.wireNumber)
        writer.u8(exit == nil ? 0 : 1)
        writer.u16(0)
        writer.u64(keptFrom)
        writer.u64(outputEnd)
        writer.u64(inputReceived)
        writer.u64(inputTaken)
        exit?.write(to: &writer)
    }

    public init(reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        let channel: ChannelID = try reader.identifier(bytes)
        let started = try Started(wireNumber: try reader.u8(bytes))
        let flags = try reader.u8(bytes)
        guard flags & ~1 == 0, try reader.u16(bytes) == 0 else {
            throw WireError(.malformed, "a terminal's report sets reserved bits")
        }
        let from = try reader.u64(bytes)
        let end = try reader.u64(bytes)
        let received = try reader.u64(bytes)
        let taken = try reader.u64(bytes)
        let exit = flags & 1 == 0 ? nil : try ExitRecord(&reader, bytes)
        try reader.end(bytes)
        guard from <= end, taken <= received, received - taken <= WireLimits.inputWindowBytes else {
            throw WireError(
                .wrongOffset,
                "a report keeps \(from) to \(end), has \(received) bytes of input and has passed on \(taken)")
        }
        if let exit, exit.command != CommandID(sameAs: channel) {
            throw WireError(.foreignChannel, "the report of \(channel) holds an exit record of \(exit.command)")
        }
        self.init(
            channel: channel, started: started, keptFrom: from, outputEnd: end, inputReceived: received,
            inputTaken: taken, exit: exit)
    }
}

/// The payload of `terminal-decision`: the channel and the offset to go on from; the header's flags are the action.
extension TerminalDecision {
    static let byteCount = 24

    /// A whole frame. `number` is 0 for `forget`, else the new number of the channel on this link.
    public func writeFrame(number: UInt32, to writer: inout FrameWriter) {
        let (action, from): (UInt8, UInt64) =
            switch self {
            case .attach(_, let from): (1, from)
            case .forget: (2, 0)
            case .leave: (3, 0)
            }
        writer.begin(.terminalDecision, flags: action, channel: number)
        writer.identifier(channel)
        writer.u64(from)
        writer.end()
    }

    init(action: UInt8, reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        let channel: ChannelID = try reader.identifier(bytes)
        let from = try reader.u64(bytes)
        try reader.end(bytes)
        switch action {
        case 1: self = .attach(channel: channel, from: from)
        case 2: self = .forget(channel: channel)
        case 3: self = .leave(channel: channel)
        default: throw WireError(.malformed, "decision \(action) is not 1 (attach), 2 (forget) or 3 (leave)")
        }
    }
}

/// What a `data` or `credit` frame of a terminal is about.
public enum TerminalStream: UInt8, Sendable {
    case output = 1
    /// Only in a `credit` frame of the core: output that has arrived.
    case arrived = 2
    case input = 3
}

extension FrameWriter {
    /// A data frame of a terminal with a copy of `bytes`, at most `WireLimits.dataBytes`.
    public mutating func data(_ stream: TerminalStream, number: UInt32, offset: UInt64, _ bytes: borrowing RawSpan) {
        begin(.data, flags: stream.rawValue, channel: number, offset: offset)
        append(bytes)
        end()
    }
}
