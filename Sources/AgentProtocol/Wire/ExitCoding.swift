extension Started {
    var wireNumber: UInt8 {
        switch self {
        case .no: 0
        case .yes: 1
        case .maybe: 2
        }
    }

    init(wireNumber: UInt8) throws(WireError) {
        switch wireNumber {
        case 0: self = .no
        case 1: self = .yes
        case 2: self = .maybe
        default: throw WireError(.malformed, "started is \(wireNumber), not 0 (no), 1 (yes) or 2 (maybe)")
        }
    }
}

/// The payload of `exit`: 88 fixed bytes, then a code and a text, each after a u16 count.
extension ExitRecord {
    static let maximumBytes = 88 + 4 + WireLimits.refusalCodeBytes + WireLimits.refusalTextBytes

    public func write(to writer: inout FrameWriter) {
        var form: UInt8 = 0
        var value: Int32 = 0
        var code = ""
        var text = ""
        switch outcome {
        case .exited(let status): (form, value) = (1, status)
        case .signaled(let signal): (form, value) = (2, signal)
        case .timedOut: form = 3
        case .cancelled: form = 4
        case .startFailed(let stable, let message): (form, code, text) = (5, stable, message)
        case .refused(let stable, let message): (form, code, text) = (6, stable, message)
        case .interrupted(let reason): (form, text) = (7, reason)
        }
        writer.identifier(command)
        writer.u8(form)
        writer.u8(started.wireNumber)
        writer.u8((truncated ? 1 : 0) | (startedAt == nil ? 0 : 2))
        writer.u8(0)
        writer.u32(UInt32(bitPattern: value))
        writer.u64(startedAt ?? 0)
        writer.u64(finishedAt)
        writer.u64(durationMicroseconds)
        writer.u64(userMicroseconds)
        writer.u64(systemMicroseconds)
        writer.u64(maximumResidentBytes)
        writer.u64(standardOutputBytes)
        writer.u64(standardErrorBytes)
        writer.shortText(code, limit: WireLimits.refusalCodeBytes)
        writer.shortText(text, limit: WireLimits.refusalTextBytes)
    }

    public init(reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        try self.init(&reader, bytes)
        try reader.end(bytes)
    }

    init(_ reader: inout ByteReader, _ bytes: borrowing RawSpan) throws(WireError) {
        let command: CommandID = try reader.identifier(bytes)
        let form = try reader.u8(bytes)
        let started = try Started(wireNumber: try reader.u8(bytes))
        let flags = try reader.u8(bytes)
        guard flags & ~3 == 0, try reader.u8(bytes) == 0 else {
            throw WireError(.malformed, "an exit record sets reserved bits")
        }
        let value = Int32(bitPattern: try reader.u32(bytes))
        let startedAt = try reader.u64(bytes)
        let finishedAt = try reader.u64(bytes)
        let duration = try reader.u64(bytes)
        let user = try reader.u64(bytes)
        let system = try reader.u64(bytes)
        let resident = try reader.u64(bytes)
        let output = try reader.u64(bytes)
        let errors = try reader.u64(bytes)
        let code = try reader.shortText(bytes, limit: WireLimits.refusalCodeBytes)
        let text = try reader.shortText(bytes, limit: WireLimits.refusalTextBytes)
        let outcome: Outcome
        switch form {
        case 1: outcome = .exited(code: value)
        case 2: outcome = .signaled(signal: value)
        case 3: outcome = .timedOut
        case 4: outcome = .cancelled
        case 5: outcome = .startFailed(code: code, message: text)
        case 6: outcome = .refused(code: code, message: text)
        case 7: outcome = .interrupted(reason: text)
        default: throw WireError(.malformed, "outcome \(form) is not one of 1 to 7")
        }
        self.init(
            command: command, outcome: outcome, started: started, startedAt: flags & 2 == 0 ? nil : startedAt,
            finishedAt: finishedAt, durationMicroseconds: duration, userMicroseconds: user,
            systemMicroseconds: system, maximumResidentBytes: resident, standardOutputBytes: output,
            standardErrorBytes: errors, truncated: flags & 1 != 0)
    }
}

/// The payload of `report`: 36 fixed bytes, then the exit record if flag 1 is set.
extension ExecutionReport {
    static let headBytes = 36

    public func write(to writer: inout FrameWriter) {
        writer.identifier(command)
        writer.u8(started.wireNumber)
        writer.u8(exit == nil ? 0 : 1)
        writer.u16(0)
        writer.u64(standardOutputBytes)
        writer.u64(standardErrorBytes)
        exit?.write(to: &writer)
    }

    public init(reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        let command: CommandID = try reader.identifier(bytes)
        let started = try Started(wireNumber: try reader.u8(bytes))
        let flags = try reader.u8(bytes)
        guard flags & ~1 == 0, try reader.u16(bytes) == 0 else {
            throw WireError(.malformed, "a report sets reserved bits")
        }
        let output = try reader.u64(bytes)
        let errors = try reader.u64(bytes)
        let exit = flags & 1 == 0 ? nil : try ExitRecord(&reader, bytes)
        try reader.end(bytes)
        if let exit, exit.command != command {
            throw WireError(.foreignChannel, "the report of \(command) holds an exit record of \(exit.command)")
        }
        self.init(
            command: command, started: started, standardOutputBytes: output, standardErrorBytes: errors, exit: exit)
    }
}

/// The payload of `decision`: the command and the offsets to go on from; the header's flags are the action.
extension ResumeDecision {
    static let byteCount = 32

    public var command: CommandID {
        switch self {
        case .resume(let command, _, _), .forget(let command), .cancel(let command, _, _): command
        }
    }

    /// The number in the header's flags.
    var action: UInt8 {
        switch self {
        case .resume: 1
        case .forget: 2
        case .cancel: 3
        }
    }

    /// A whole frame. `channel` is 0 for `forget`, else the new number of the channel on this link.
    public func writeFrame(channel: UInt32, to writer: inout FrameWriter) {
        writer.begin(.decision, flags: action, channel: channel)
        writer.identifier(command)
        switch self {
        case .resume(_, let output, let errors), .cancel(_, let output, let errors):
            writer.u64(output)
            writer.u64(errors)
        case .forget:
            writer.u64(0)
            writer.u64(0)
        }
        writer.end()
    }

    init(action: UInt8, reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        let command: CommandID = try reader.identifier(bytes)
        let output = try reader.u64(bytes)
        let errors = try reader.u64(bytes)
        try reader.end(bytes)
        switch action {
        case 1: self = .resume(command: command, standardOutputFrom: output, standardErrorFrom: errors)
        case 2: self = .forget(command: command)
        case 3: self = .cancel(command: command, standardOutputFrom: output, standardErrorFrom: errors)
        default: throw WireError(.malformed, "decision \(action) is not 1 (resume), 2 (forget) or 3 (cancel)")
        }
    }
}

/// The payload of `beatAnswer`, 16 bytes; the header's offset repeats the beat's.
public struct BeatAnswer: Sendable, Equatable {
    public static let byteCount = 16

    /// The one-minute load average times 100.
    public var loadHundredths: UInt32
    public var memoryAvailableKiB: UInt32
    public var memoryTotalKiB: UInt32
    public var runningExecutions: UInt32

    public init(
        loadHundredths: UInt32 = 0, memoryAvailableKiB: UInt32 = 0, memoryTotalKiB: UInt32 = 0,
        runningExecutions: UInt32 = 0
    ) {
        self.loadHundredths = loadHundredths
        self.memoryAvailableKiB = memoryAvailableKiB
        self.memoryTotalKiB = memoryTotalKiB
        self.runningExecutions = runningExecutions
    }

    public func write(to writer: inout FrameWriter) {
        writer.u32(loadHundredths)
        writer.u32(memoryAvailableKiB)
        writer.u32(memoryTotalKiB)
        writer.u32(runningExecutions)
    }

    public init(reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        loadHundredths = try reader.u32(bytes)
        memoryAvailableKiB = try reader.u32(bytes)
        memoryTotalKiB = try reader.u32(bytes)
        runningExecutions = try reader.u32(bytes)
        try reader.end(bytes)
    }
}

extension FrameWriter {
    /// A u16 count and the text, cut at a character boundary so that it takes at most `limit` bytes.
    mutating func shortText(_ text: String, limit: Int) {
        var kept = text[...]
        if text.utf8.count > limit {
            var end = text.startIndex
            var count = 0
            for index in text.indices {
                let next = text.index(after: index)
                count += text[index..<next].utf8.count
                if count > limit { break }
                end = next
            }
            kept = text[..<end]
        }
        u16(UInt16(kept.utf8.count))
        raw([UInt8](kept.utf8))
    }
}

extension ByteReader {
    mutating func shortText(_ bytes: borrowing RawSpan, limit: Int) throws(WireError) -> String {
        let count = Int(try u16(bytes))
        guard count <= limit else { throw WireError(.oversize, "a text of \(count) bytes; at most \(limit) are allowed") }
        return try text(bytes, count: count)
    }
}
