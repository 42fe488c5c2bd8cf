/// The Castagnoli checksum (RFC 3720 §12.1): finds torn and damaged records, does not stop a forger.
public enum CRC32C {
    public static func checksum(_ bytes: borrowing RawSpan) -> UInt32 {
        var crc: UInt32 = ~0
        bytes.withUnsafeBytes { buffer in
            for byte in buffer { crc = crc >> 8 ^ table[Int((crc ^ UInt32(byte)) & 0xFF)] }
        }
        return ~crc
    }

    public static func checksum(_ bytes: [UInt8]) -> UInt32 { checksum(bytes.span.bytes) }

    private static let table: [UInt32] = (0..<256).map { index in
        (0..<8).reduce(UInt32(index)) { value, _ in value & 1 == 1 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
    }
}
