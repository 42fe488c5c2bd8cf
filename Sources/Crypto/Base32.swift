/// Base 32 (RFC 4648 §6) as authenticator apps read it: upper case, no padding.
public enum Base32 {
    public static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        var pending: UInt32 = 0
        var bits = 0
        for byte in bytes {
            pending = pending << 8 | UInt32(byte)
            bits += 8
            while bits >= 5 {
                bits -= 5
                text.append(digit(UInt8(truncatingIfNeeded: pending >> UInt32(bits)) & 31))
            }
        }
        if bits > 0 { text.append(digit(UInt8(truncatingIfNeeded: pending << UInt32(5 - bits)) & 31)) }
        return String(decoding: text, as: UTF8.self)
    }

    /// Either case, without padding; unused bits must be zero.
    public static func decode(_ text: some StringProtocol) -> [UInt8]? {
        var bytes: [UInt8] = []
        var pending: UInt32 = 0
        var bits = 0
        for character in text.utf8 {
            let value: UInt8
            switch character {
            case 0x41...0x5A: value = character - 0x41
            case 0x61...0x7A: value = character - 0x61
            case 0x32...0x37: value = character - 0x32 + 26
            default: return nil
            }
            pending = pending << 5 | UInt32(value)
            bits += 5
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: pending >> UInt32(bits)))
            }
        }
        guard bits < 5, pending & (1 << UInt32(bits) - 1) == 0 else { return nil }
        return bytes
    }

    private static func digit(_ value: UInt8) -> UInt8 { value < 26 ? 0x41 + value : 0x32 + (value - 26) }
}
