/// Base 64 (RFC 4648 §4 and §5). Decoding accepts the canonical form only: right padding, no other characters, unused
/// bits zero. Two texts never stand for the same bytes.
public enum Base64 {
    public static func encode(_ bytes: some Collection<UInt8>) -> String {
        encode(bytes, alphabet: .standard, padded: true)
    }

    /// The URL alphabet (`-`, `_`) without padding, as in JWTs and token texts.
    public static func encodeURL(_ bytes: some Collection<UInt8>) -> String {
        encode(bytes, alphabet: .url, padded: false)
    }

    public static func decode(_ text: some StringProtocol) -> [UInt8]? {
        decode(text.utf8, alphabet: .standard, padded: true)
    }

    public static func decodeURL(_ text: some StringProtocol) -> [UInt8]? {
        decode(text.utf8, alphabet: .url, padded: false)
    }

    private enum Alphabet { case standard, url }

    private static func encode(_ bytes: some Collection<UInt8>, alphabet: Alphabet, padded: Bool) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        var pending: UInt32 = 0
        var bits = 0
        for byte in bytes {
            pending = pending << 8 | UInt32(byte)
            bits += 8
            while bits >= 6 {
                bits -= 6
                text.append(character(of: UInt8(truncatingIfNeeded: pending >> UInt32(bits)) & 63, alphabet))
            }
        }
        if bits > 0 {
            text.append(character(of: UInt8(truncatingIfNeeded: pending << UInt32(6 - bits)) & 63, alphabet))
        }
        while padded, !text.count.isMultiple(of: 4) { text.append(0x3D) }
        return String(decoding: text, as: UTF8.self)
    }

    private static func decode(
        _ text: some Collection<UInt8>, alphabet: Alphabet, padded: Bool
    ) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 4 * 3 + 2)
        var pending: UInt32 = 0
        var bits = 0
        var digits = 0
        var padding = 0
        for character in text {
            if padded, character == 0x3D {
                padding += 1
                continue
            }
            guard padding == 0, let value = value(of: character, alphabet) else { return nil }
            digits += 1
            pending = pending << 6 | UInt32(value)
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: pending >> UInt32(bits)))
            }
        }
        guard digits % 4 != 1, pending & (1 << UInt32(bits) - 1) == 0 else { return nil }
        guard !padded || padding == (4 - digits % 4) % 4 else { return nil }
        return bytes
    }

    private static func character(of value: UInt8, _ alphabet: Alphabet) -> UInt8 {
        switch value {
        case 0..<26: 0x41 + value
        case 26..<52: 0x61 + (value - 26)
        case 52..<62: 0x30 + (value - 52)
        case 62: alphabet == .standard ? 0x2B : 0x2D
        default: alphabet == .standard ? 0x2F : 0x5F
        }
    }

    private static func value(of character: UInt8, _ alphabet: Alphabet) -> UInt8? {
        switch character {
        case 0x41...0x5A: character - 0x41
        case 0x61...0x7A: character - 0x61 + 26
        case 0x30...0x39: character - 0x30 + 52
        case 0x2B where alphabet == .standard: 62
        case 0x2D where alphabet == .url: 62
        case 0x2F where alphabet == .standard: 63
        case 0x5F where alphabet == .url: 63
        default: nil
        }
    }
}
