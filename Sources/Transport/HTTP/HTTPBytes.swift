/// Byte classes of RFC 9110 §5.6.2 and RFC 3986, and comparisons without a String.
enum HTTPBytes {
    static let carriageReturn: UInt8 = 13
    static let lineFeed: UInt8 = 10
    static let space: UInt8 = 32
    static let tab: UInt8 = 9
    static let colon: UInt8 = 58

    /// `tchar` of RFC 9110 §5.6.2: a bit for each ASCII character.
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        let bits: UInt64 = byte < 64 ? 0x03FF_6CFA_0000_0000 : byte < 128 ? 0x57FF_FFFF_C7FF_FFFE : 0
        return bits &>> UInt64(byte & 63) & 1 != 0
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
    func matchesIgnoringCase(_ text: String) -> Bool { matchesIgnoringCase(text.utf8Span.span) }

    func matchesIgnoringCase(_ other: Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        for index in indices where HTTPBytes.lowercased(self[index]) != HTTPBytes.lowercased(other[index]) {
            return false
        }
        return true
    }
}

extension Span<UInt8> {
    /// The index of the first byte from `start` on that is a control character, DEL or beyond ASCII; the count when there
    /// is none. Eight bytes at a time: most of a head is plain text.
    func plainPrefix(from start: Int) -> Int {
        withUnsafeBytes { bytes in
            let ones: UInt64 = 0x0101_0101_0101_0101
            var index = start
            while bytes.count - index >= 8 {
                let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
                // Bytes below 0x20 borrow, 0x7F overflows into the high bit, and those beyond ASCII have it. A borrow or
                // carry can only mark a byte above a true hit wrongly: the lowest mark is always right.
                let special = ((word &- ones &* 0x20) | (word &+ ones) | word) & (ones &* 0x80)
                if special != 0 { return index + special.trailingZeroBitCount >> 3 }
                index += 8
            }
            while index < bytes.count, bytes[index] >= 0x20, bytes[index] < 0x7F { index += 1 }
            return index
        }
    }
}

extension String {
    /// Bytes as text; what is not UTF-8 becomes U+FFFD.
    init(repairing bytes: Span<UInt8>) {
        self = bytes.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
    }
}
