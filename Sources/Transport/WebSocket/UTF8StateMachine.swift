/// Checks UTF-8 that comes in pieces: fails at the first byte that no continuation can make valid (RFC 6455 §8.1,
/// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
struct UTF8StateMachine: Sendable {
    /// Continuation bytes still due.
    private var pending: UInt8 = 0
    /// What the next continuation byte must lie between.
    private var low: UInt8 = 0x80
    private var high: UInt8 = 0xBF

    /// False when the bytes so far cannot be the beginning of valid text.
    mutating func append(_ bytes: Span<UInt8>) -> Bool {
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            if pending == 0 {
                switch byte {
                case 0x00...0x7F: continue
                case 0xC2...0xDF: pending = 1
                case 0xE0: (pending, low) = (2, 0xA0)
                case 0xED: (pending, high) = (2, 0x9F)
                case 0xE1...0xEF: pending = 2
                case 0xF0: (pending, low) = (3, 0x90)
                case 0xF4: (pending, high) = (3, 0x8F)
                case 0xF1...0xF3: pending = 3
                default: return false
                }
            } else {
                guard byte >= low, byte <= high else { return false }
                (low, high) = (0x80, 0xBF)
                pending -= 1
            }
        }
        return true
    }

    /// True when no character is cut in two.
    var isComplete: Bool { pending == 0 }
}
