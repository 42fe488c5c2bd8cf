/// Takes messages out of a stream of frames (RFC 6455 §5): a value, bytes in, steps out.
///
/// Whole unfragmented messages stay where they are (unmasked in place); what arrives in pieces is gathered in
/// `assembled`. Limits hold while reading: a frame that announces too much is refused by its header.
struct WebSocketInputStateMachine {
    enum Step: Equatable {
        /// A whole message at this range of the input.
        case message(WebSocketOpcode, Range<Int>)
        /// A whole message in `assembled`; take it with `takeAssembled`.
        case assembled(WebSocketOpcode)
        /// A ping or pong at this range.
        case control(WebSocketOpcode, Range<Int>)
        /// A close frame: its code (`noStatus` if it holds none) and the range of its reason.
        case close(WebSocketCloseCode, Range<Int>)
        /// The first `consumed` bytes are done with; the rest must come again with more behind it.
        case more(consumed: Int)
    }

    private let role: WebSocketRole
    private let maximumMessage: UInt32
    /// The kind of the message in progress; nil between messages.
    private var message: WebSocketOpcode?
    /// Payload bytes of the frame in progress that have not arrived; only when `inPayload`.
    private var inPayload = false
    private var isFinal = false
    private var left: UInt32 = 0
    private var mask: UInt32 = 0
    private var phase: UInt8 = 0
    private var text = UTF8StateMachine()
    private(set) var assembled: [UInt8] = []

    /// `maximumMessage` in bytes, all fragments together.
    init(role: WebSocketRole, maximumMessage: Int) {
        self.role = role
        self.maximumMessage = UInt32(clamping: maximumMessage)
    }

    /// The bytes of the message that `assembled` announced; the buffer is given away with it.
    mutating func takeAssembled() -> [UInt8] {
        let bytes = assembled
        assembled = []
        return bytes
    }

    /// The next step over `input` from `offset` on. After a step with a range go on at its upper bound, after
    /// `assembled` at `resume`.
    private(set) var resume = 0

    mutating func next(
        _ input: inout MutableRawSpan, from start: Int
    ) throws(WebSocketRefusal) -> Step {
        var offset = start
        while true {
            if inPayload {
                if try gather(&input, &offset) {
                    resume = offset
                    if let message, isFinal {
                        self.message = nil
                        return .assembled(message)
                    }
                    continue
                }
                return .more(consumed: offset)
            }
            let available = input.byteCount - offset
            guard available >= 2 else { return .more(consumed: offset) }
            let first = input.byte(offset)
            let second = input.byte(offset + 1)
            guard first & 0x70 == 0 else {
                throw WebSocketRefusal(.protocolError, "reserved bits are set, but no extension was negotiated")
            }
            guard let opcode = WebSocketOpcode(rawValue: first & 0x0F) else {
                throw WebSocketRefusal(.protocolError, "reserved opcode \(first & 0x0F)")
            }
            let final = first & 0x80 != 0
            let masked = second & 0x80 != 0
            guard masked == (role == .server) else {
                throw WebSocketRefusal(
                    .protocolError, masked ? "a server must not mask frames" : "a client must mask its frames")
            }
            let short = Int(second & 0x7F)
            try check(opcode, final: final, short: short)
            let lengthBytes = short < 126 ? 0 : short == 126 ? 2 : 8
            let headerCount = 2 + lengthBytes + (masked ? 4 : 0)
            guard available >= headerCount else { return .more(consumed: offset) }
            let length = try payloadLength(input, offset, short: short, lengthBytes: lengthBytes)
            if masked {
                mask = UInt32(littleEndian: input.unsafeLoadUnaligned(
                    fromByteOffset: offset + headerCount - 4, as: UInt32.self))
            }
            let payload = offset + headerCount

            if opcode.isControl {
                guard available >= headerCount + Int(length) else { return .more(consumed: offset) }
                let range = payload..<(payload + Int(length))
                if masked { unmask(&input, range, phase: 0) }
                return opcode == .close ? try close(input, range) : .control(opcode, range)
            }
            guard UInt64(assembled.count) + length <= UInt64(maximumMessage) else {
                throw WebSocketRefusal(.tooBig, "the message is longer than \(maximumMessage) bytes")
            }
            if final, opcode != .continuation, UInt64(available - headerCount) >= length {
                let range = payload..<(payload + Int(length))
                if masked { unmask(&input, range, phase: 0) }
                if opcode == .text {
                    var check = UTF8StateMachine()
                    guard check.append(Span(_bytes: input.bytes.extracting(range))), check.isComplete else {
                        throw WebSocketRefusal(.invalidPayload, "a text message is not UTF-8")
                    }
                }
                return .message(opcode, range)
            }
            if opcode != .continuation { message = opcode }
            isFinal = final
            left = UInt32(length)
            phase = 0
            inPayload = true
            offset = payload
            // Where half of it is there already: a promise alone costs no memory.
            if assembled.isEmpty, UInt64(available - headerCount) * 2 >= length { assembled.reserveCapacity(Int(length)) }
        }
    }

    /// RFC 6455 §5.4 and §5.5: what may follow what.
    private func check(_ opcode: WebSocketOpcode, final: Bool, short: Int) throws(WebSocketRefusal) {
        if opcode.isControl {
            guard final else { throw WebSocketRefusal(.protocolError, "a fragmented control frame") }
            guard short <= 125 else {
                throw WebSocketRefusal(.protocolError, "a control frame of more than 125 bytes")
            }
        } else if opcode == .continuation {
            guard message != nil else {
                throw WebSocketRefusal(.protocolError, "a continuation without a message to continue")
            }
        } else {
            guard message == nil else {
                throw WebSocketRefusal(.protocolError, "a new message inside a fragmented one")
            }
        }
    }

    private func payloadLength(
        _ input: borrowing MutableRawSpan, _ offset: Int, short: Int, lengthBytes: Int
    ) throws(WebSocketRefusal) -> UInt64 {
        switch lengthBytes {
        case 0: return UInt64(short)
        case 2:
            let length = UInt16(bigEndian: input.unsafeLoadUnaligned(fromByteOffset: offset + 2, as: UInt16.self))
            guard length >= 126 else {
                throw WebSocketRefusal(.protocolError, "a payload length that is not in its shortest form")
            }
            return UInt64(length)
        default:
            let length = UInt64(bigEndian: input.unsafeLoadUnaligned(fromByteOffset: offset + 2, as: UInt64.self))
            guard length > 0xFFFF else {
                throw WebSocketRefusal(.protocolError, "a payload length that is not in its shortest form")
            }
            guard length < 1 << 63 else {
                throw WebSocketRefusal(.protocolError, "a payload length with the highest bit set")
            }
            return length
        }
    }

    /// Moves what is there of the frame's payload into `assembled`. True when the frame is complete.
    private mutating func gather(
        _ input: inout MutableRawSpan, _ offset: inout Int
    ) throws(WebSocketRefusal) -> Bool {
        let count = min(Int(left), input.byteCount - offset)
        let range = offset..<(offset + count)
        if role == .server { unmask(&input, range, phase: Int(phase)) }
        input.bytes.extracting(range).withUnsafeBytes { assembled.append(contentsOf: $0) }
        if message == .text {
            guard text.append(Span(_bytes: input.bytes.extracting(range))) else {
                throw WebSocketRefusal(.invalidPayload, "a text message is not UTF-8")
            }
        }
        offset += count
        left -= UInt32(count)
        phase = UInt8((Int(phase) + count) & 3)
        guard left == 0 else { return false }
        inPayload = false
        if message == .text, isFinal {
            guard text.isComplete else {
                throw WebSocketRefusal(.invalidPayload, "a text message ends inside a character")
            }
            text = UTF8StateMachine()
        }
        return true
    }

    /// RFC 6455 §5.5.1: no payload, or a code and a reason in UTF-8.
    private func close(_ input: borrowing MutableRawSpan, _ range: Range<Int>) throws(WebSocketRefusal) -> Step {
        guard range.count != 1 else {
            throw WebSocketRefusal(.protocolError, "a close frame with a payload of one byte")
        }
        guard range.count >= 2 else { return .close(.noStatus, range) }
        let code = WebSocketCloseCode(
            rawValue: UInt16(bigEndian: input.unsafeLoadUnaligned(fromByteOffset: range.lowerBound, as: UInt16.self)))
        guard code.isAllowedOnTheWire else {
            throw WebSocketRefusal(.protocolError, "close code \(code.rawValue) is not allowed on the wire")
        }
        let reason = (range.lowerBound + 2)..<range.upperBound
        var check = UTF8StateMachine()
        guard check.append(Span(_bytes: input.bytes.extracting(reason))), check.isComplete else {
            throw WebSocketRefusal(.invalidPayload, "the reason of a close frame is not UTF-8")
        }
        return .close(code, reason)
    }

    @inline(__always)
    private func unmask(_ input: inout MutableRawSpan, _ range: Range<Int>, phase: Int) {
        var part = input._mutatingExtracting(range)
        part.withUnsafeMutableBytes { Masking.apply(mask, phase: phase, to: $0) }
    }
}

extension MutableRawSpan {
    @inline(__always)
    borrowing func byte(_ offset: Int) -> UInt8 { unsafeLoad(fromByteOffset: offset, as: UInt8.self) }
}
