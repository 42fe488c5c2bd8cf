/// Takes a body out of a stream of bytes: fixed length, chunked (RFC 9112 §7.1) or until the end of the connection.
/// A value: bytes in, ranges of body bytes out.
struct HTTPBodyStateMachine {
    enum Step: Equatable {
        /// Body bytes at this range of the input; the state has moved past `upperBound`.
        case data(Range<Int>)
        /// The first `consumed` bytes are done with; the rest must come again with more behind it.
        case more(consumed: Int)
        /// The body is complete; the next message begins after `consumed` bytes.
        case end(consumed: Int)
    }

    private enum State {
        case length(UInt64)
        case chunkSize
        case chunkData(UInt64)
        case chunkEnd
        case trailers
        case untilClose
        case done
    }
    private var state: State
    private var trailerBytes = 0
    private let limits: HTTPLimits

    init(_ framing: HTTPFraming, limits: HTTPLimits) {
        self.limits = limits
        switch framing {
        case .none: state = .done
        case .length(let length): state = length == 0 ? .done : .length(length)
        case .chunked: state = .chunkSize
        case .untilClose: state = .untilClose
        }
    }

    var isDone: Bool { if case .done = state { true } else { false } }
    /// True when the end of the connection is the regular end of this body.
    var endsWithConnection: Bool { if case .untilClose = state { true } else { false } }

    /// The next step over `input` from `offset` on. Call again with the new offset after `data`.
    mutating func next(_ input: Span<UInt8>, from offset: Int) throws(HTTPRefusal) -> Step {
        var offset = offset
        while true {
            let available = input.count - offset
            switch state {
            case .done:
                return .end(consumed: offset)
            case .untilClose:
                return available > 0 ? .data(offset..<input.count) : .more(consumed: offset)
            case .length(let left):
                guard available > 0 else { return .more(consumed: offset) }
                let count = Int(min(left, UInt64(available)))
                state = left == UInt64(count) ? .done : .length(left - UInt64(count))
                return .data(offset..<(offset + count))
            case .chunkSize:
                guard let end = try lineEnd(input, from: offset, limit: limits.chunkLineBytes) else {
                    return .more(consumed: offset)
                }
                let size = try chunkSize(input.extracting(offset..<(end - 2)))
                state = size == 0 ? .trailers : .chunkData(size)
                offset = end
            case .chunkData(let left):
                guard available > 0 else { return .more(consumed: offset) }
                let count = Int(min(left, UInt64(available)))
                state = left == UInt64(count) ? .chunkEnd : .chunkData(left - UInt64(count))
                return .data(offset..<(offset + count))
            case .chunkEnd:
                guard available >= 2 else {
                    guard available == 0 || input[offset] == HTTPBytes.carriageReturn else {
                        throw HTTPRefusal(400, "chunk data is longer than the chunk's size")
                    }
                    return .more(consumed: offset)
                }
                guard input[offset] == HTTPBytes.carriageReturn, input[offset + 1] == HTTPBytes.lineFeed else {
                    throw HTTPRefusal(400, "chunk data is longer than the chunk's size")
                }
                offset += 2
                state = .chunkSize
            case .trailers:
                guard let end = try lineEnd(input, from: offset, limit: limits.trailerBytes - trailerBytes) else {
                    return .more(consumed: offset)
                }
                if end - offset == 2 {
                    state = .done
                } else {
                    // Checked like a header, then dropped: nothing here uses trailers.
                    _ = try HTTPHeaders.parsing(input.extracting(offset..<end), from: 0, limit: 1)
                    trailerBytes += end - offset
                }
                offset = end
            }
        }
    }

    /// The index after the CR LF of the line at `offset`; nil while it has not arrived.
    private func lineEnd(_ input: Span<UInt8>, from offset: Int, limit: Int) throws(HTTPRefusal) -> Int? {
        var index = offset
        while index < input.count {
            guard index - offset < limit else {
                throw HTTPRefusal(400, "a chunk line or trailer is longer than its limit")
            }
            if input[index] == HTTPBytes.lineFeed {
                guard index > offset, input[index - 1] == HTTPBytes.carriageReturn else {
                    throw HTTPRefusal(400, "a chunk line ends with a bare line feed; lines end with CR LF")
                }
                return index + 1
            }
            guard index == offset || input[index - 1] != HTTPBytes.carriageReturn else {
                throw HTTPRefusal(400, "a carriage return without a line feed in a chunk line")
            }
            index += 1
        }
        return nil
    }

    /// Hexadecimal digits, then nothing or an extension that begins with `;` (RFC 9112 §7.1.1).
    private func chunkSize(_ line: Span<UInt8>) throws(HTTPRefusal) -> UInt64 {
        var size: UInt64 = 0
        var digits = 0
        while digits < line.count, let value = HTTPBytes.hexValue(line[digits]) {
            guard digits < 15 else { throw HTTPRefusal(400, "a chunk size of more than 15 digits") }
            size = size << 4 | UInt64(value)
            digits += 1
        }
        guard digits > 0 else { throw HTTPRefusal(400, "a chunk size without a hexadecimal digit") }
        guard digits == line.count || line[digits] == 0x3B else {
            throw HTTPRefusal(400, "bytes after a chunk size that are not an extension")
        }
        for index in digits..<line.count where !HTTPBytes.isFieldValue(line[index]) {
            throw HTTPRefusal(400, "a control byte in a chunk extension")
        }
        return size
    }
}

/// The frame of one outgoing chunk.
enum HTTPChunk {
    static let last = "0\r\n\r\n"

    /// The size line of a chunk of `count` bytes; never called with 0, which would end the body.
    static func writeHeader(_ count: Int, to output: inout [UInt8]) {
        var started = false
        for shift in stride(from: 60, through: 0, by: -4) {
            let digit = UInt8(truncatingIfNeeded: count >> shift) & 15
            guard started || digit != 0 else { continue }
            started = true
            output.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
        }
        output.append(HTTPBytes.carriageReturn)
        output.append(HTTPBytes.lineFeed)
    }
}
