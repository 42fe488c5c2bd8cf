/// The few forms of RFC 4251, section 5, that keys and agents are written in.
struct WireReader {
    private let bytes: [UInt8]
    private var at = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func number() throws(Failure) -> Int {
        guard bytes.count - at >= 4 else { throw Failure("ssh-key-invalid", "a key ends too early") }
        defer { at += 4 }
        return bytes[at..<at + 4].reduce(0) { $0 << 8 | Int($1) }
    }

    mutating func string() throws(Failure) -> [UInt8] {
        let count = try number()
        guard bytes.count - at >= count else { throw Failure("ssh-key-invalid", "a key ends too early") }
        defer { at += count }
        return Array(bytes[at..<at + count])
    }
}

enum Wire {
    static func number(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }
    static func string(_ bytes: [UInt8]) -> [UInt8] { number(bytes.count) + bytes }
}

/// RFC 4648, section 4.
enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var value = 0
            for index in 0..<3 { value = value << 8 | (index < group.count ? Int(group[start + index]) : 0) }
            for index in 0..<4 { text.append(index <= group.count ? alphabet[value >> (18 - 6 * index) & 63] : 0x3D) }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// `nil` for anything else than base64; line ends are left out.
    static func decode(_ text: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        var value = 0
        var bits = 0
        var isOver = false
        for byte in text.utf8 where byte > 0x20 {
            if byte == 0x3D {
                isOver = true
                continue
            }
            guard !isOver, let digit = alphabet.firstIndex(of: byte) else { return nil }
            value = (value << 6 | digit) & 0xFF_FFFF
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: value >> bits))
            }
        }
        return bytes
    }
}
