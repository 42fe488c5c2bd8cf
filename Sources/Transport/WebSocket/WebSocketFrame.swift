/// Opcodes of RFC 6455 §5.2.
public enum WebSocketOpcode: UInt8, Sendable {
    case continuation = 0x0
    case text = 0x1
    case binary = 0x2
    case close = 0x8
    case ping = 0x9
    case pong = 0xA

    var isControl: Bool { rawValue & 0x8 != 0 }
}

/// Close codes of RFC 6455 §7.4 that this implementation sends. Private codes are 4000 to 4999.
public struct WebSocketCloseCode: RawRepresentable, Sendable, Hashable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let normal = Self(rawValue: 1000)
    public static let goingAway = Self(rawValue: 1001)
    public static let protocolError = Self(rawValue: 1002)
    public static let unsupportedData = Self(rawValue: 1003)
    /// Never on the wire: the peer's close frame held no code.
    public static let noStatus = Self(rawValue: 1005)
    /// Never on the wire: the connection ended without a close frame.
    public static let abnormal = Self(rawValue: 1006)
    public static let invalidPayload = Self(rawValue: 1007)
    public static let policyViolation = Self(rawValue: 1008)
    public static let tooBig = Self(rawValue: 1009)
    public static let internalError = Self(rawValue: 1011)
    public static let serviceRestart = Self(rawValue: 1012)
    public static let tryAgainLater = Self(rawValue: 1013)

    /// Whether a peer may send this code (RFC 6455 §7.4.1, §7.4.2 and the IANA registry).
    var isAllowedOnTheWire: Bool {
        switch rawValue {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }
}

/// Why a peer's frames were refused: what the close frame says.
public struct WebSocketRefusal: Error, Sendable, Equatable {
    public let code: WebSocketCloseCode
    /// At most 123 bytes, so that it fits into the close frame.
    public let reason: String

    init(_ code: WebSocketCloseCode, _ reason: String) {
        self.code = code
        self.reason = reason
    }
}

/// Which side of a connection this is; clients mask, servers do not (RFC 6455 §5.1).
public enum WebSocketRole: Sendable {
    case server
    case client
}

/// The header of an outgoing frame: at most 14 bytes, in a value without allocation.
struct WebSocketFrameHeader {
    private(set) var bytes: InlineArray<14, UInt8> = .init(repeating: 0)
    private(set) var count: Int

    init(opcode: WebSocketOpcode, final: Bool, payload: Int, mask: UInt32?) {
        bytes[0] = opcode.rawValue | (final ? 0x80 : 0)
        let maskBit: UInt8 = mask == nil ? 0 : 0x80
        if payload < 126 {
            bytes[1] = maskBit | UInt8(payload)
            count = 2
        } else if payload <= 0xFFFF {
            bytes[1] = maskBit | 126
            bytes[2] = UInt8(payload >> 8)
            bytes[3] = UInt8(payload & 0xFF)
            count = 4
        } else {
            bytes[1] = maskBit | 127
            for index in 0..<8 { bytes[2 + index] = UInt8(truncatingIfNeeded: payload >> (56 - 8 * index)) }
            count = 10
        }
        if let mask {
            for index in 0..<4 { bytes[count + index] = UInt8(truncatingIfNeeded: mask >> UInt32(8 * index)) }
            count += 4
        }
    }
}
