/// The one question that is put to a ClientHello before TLS takes it.
enum ClientHello {
    private static let preSharedKey = 41

    /// Whether these first bytes of a connection offer a pre-shared key (RFC 8446 §4.2.11), as those of a client with a
    /// ticket do. Nothing is proved by it. False as well when the bytes end too early.
    static func offersTicket(_ bytes: Span<UInt8>) -> Bool {
        func number(_ offset: Int) -> Int { Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }
        // Record header (5) of type handshake, message header (4) of type client_hello, version (2), random (32).
        var offset = 43
        guard bytes.count > offset, bytes[0] == 22, bytes[5] == 1 else { return false }
        offset += 1 + Int(bytes[offset])  // Session id.
        guard offset + 2 <= bytes.count else { return false }
        offset += 2 + number(offset)  // Cipher suites.
        guard offset + 1 <= bytes.count else { return false }
        offset += 1 + Int(bytes[offset])  // Compression methods.
        offset += 2  // Length of all extensions.
        while offset + 4 <= bytes.count {
            if number(offset) == preSharedKey { return true }
            offset += 4 + number(offset + 2)
        }
        return false
    }
}
