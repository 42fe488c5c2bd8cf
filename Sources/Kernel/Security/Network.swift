import Glibc

/// An address range as in `10.0.0.0/8` or `2001:db8::/32`; a bare address is a range of one.
public struct Network: Sendable, Hashable, CustomStringConvertible {
    /// 4 or 16 bytes; bits beyond the prefix are zero.
    private let base: [UInt8]
    private let prefix: Int

    /// `nil` unless it is an address, with or without a prefix that fits. Bits beyond the prefix are ignored.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, let address = Self.parse(String(parts[0])) else { return nil }
        var prefix = address.count * 8
        if parts.count == 2 {
            guard let given = Int(parts[1]), (0...prefix).contains(given), String(given) == parts[1] else { return nil }
            prefix = given
        }
        self.init(address, prefix)
    }

    init?(_ text: String, prefix: Int) {
        guard let address = Self.parse(text) else { return nil }
        self.init(address, min(prefix, address.count * 8))
    }

    private init(_ address: [UInt8], _ prefix: Int) {
        base = Self.masked(address, prefix)
        self.prefix = prefix
    }

    /// False for text that is no address.
    public func contains(_ address: String) -> Bool {
        guard let bytes = Self.parse(address), bytes.count == base.count else { return false }
        return Self.masked(bytes, prefix) == base
    }

    public var description: String {
        var text = [CChar](repeating: 0, count: 64)
        inet_ntop(base.count == 4 ? AF_INET : AF_INET6, base, &text, socklen_t(text.count))
        let address = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return prefix == base.count * 8 ? address : "\(address)/\(prefix)"
    }

    /// An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
    private static func parse(_ text: String) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 16)
        if inet_pton(AF_INET, text, &bytes) == 1 { return Array(bytes.prefix(4)) }
        guard inet_pton(AF_INET6, text, &bytes) == 1 else { return nil }
        let mapped = bytes.prefix(10).allSatisfy { $0 == 0 } && bytes[10] == 0xFF && bytes[11] == 0xFF
        return mapped ? Array(bytes.suffix(4)) : bytes
    }

    private static func masked(_ address: [UInt8], _ prefix: Int) -> [UInt8] {
        address.enumerated().map { index, byte in
            let bits = min(8, max(0, prefix - index * 8))
            return byte & UInt8(truncatingIfNeeded: 0xFF00 >> bits)
        }
    }
}
