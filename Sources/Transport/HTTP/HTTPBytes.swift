/// Byte classes of RFC 9110 §5.6.2 and RFC 3986, and comparisons without a String.
enum HTTPBytes {
    static let carriageReturn: UInt8 = 13
    static let lineFeed: UInt8 = 10
    static let space: UInt8 = 32
    static let tab: UInt8 = 9
    static let colon: UInt8 = 58

    /// `tchar` of RFC 9110 §5.6.2.
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        case 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E, 0x5F, 0x60, 0x7C, 0x7E: true
        default: false
        }
    }

    /// Visible, space, tab or obs-text: everything a field value may hold (RFC 9110 §5.5).
    @inline(__always)
    static func isFieldValue(_ byte: UInt8) -> Bool { byte >= 0x20 && byte != 0x7F || byte == tab }

    @inline(__always)
    static func lowercased(_ byte: UInt8) -> UInt8 { byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte }

    @inline(__always)
    static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte &- 0x30
        case 0x41...0x46: byte &- 0x37
        case 0x61...0x66: byte &- 0x57
        default: nil
        }
    }
}

extension Span<UInt8> {
    /// Exact comparison with ASCII text.
    func matches(_ text: String) -> Bool {
        let other = text.utf8Span.span
        guard count == other.count else { return false }
        for index in indices where self[index] != other[index] { return false }
        return true
    }

    /// Comparison that ignores ASCII case.
    func matchesIgnoringCase(_ text: String) -> Bool {
        let other = text.utf8Span.span
        guard count == other.count else { return false }
        for index in indices where HTTPBytes.lowercased(self[index]) != HTTPBytes.lowercased(other[index]) {
            return false
        }
        return true
    }
}

extension String {
    /// Bytes as text; what is not UTF-8 becomes U+FFFD.
    init(repairing bytes: Span<UInt8>) {
        self = bytes.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
    }
}
