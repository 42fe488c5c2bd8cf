import Crypto

/// Both directions of a link that a proxy can read, sealed with AES-256-GCM under keys of the inner exchange.
///
/// Each WebSocket message is one frame of kind `sealed`: the header's offset is the count of sealed messages before it
/// in this direction, which is also the nonce, and the payload is the sealed frames and a 16-byte tag; the header is
/// authenticated with them. A lost, repeated or reordered message does not open.
public struct SealedChannel: Sendable {
    private let sending: AEAD
    private let receiving: AEAD
    private var sent: UInt64 = 0
    private var received: UInt64 = 0

    init(sendingKey: [UInt8], receivingKey: [UInt8]) throws(CryptoError) {
        sending = try AEAD(.aes256GCM, key: sendingKey)
        receiving = try AEAD(.aes256GCM, key: receivingKey)
    }

    /// Replaces what stands in the writer by one sealed frame that holds it.
    public mutating func seal(_ writer: inout FrameWriter) throws(WireError) {
        let plain = writer.bytes
        let header = Self.header(sequence: sent, length: plain.count + AEAD.tagBytes)
        let sealed: [UInt8]
        do throws(CryptoError) {
            sealed = try sending.seal(plain, nonce: Self.nonce(sent), associatedData: header)
        } catch { throw WireError(.malformed, "a message could not be sealed") }
        sent += 1
        writer.reset()
        writer.frame(.sealed, offset: sent - 1, payload: sealed)
    }

    /// The frames inside a sealed frame.
    public mutating func open(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> [UInt8] {
        guard header.kind == .sealed, header.offset == received else {
            throw WireError(.wrongOffset, "sealed message \(header.offset) came in place of \(received)")
        }
        var reader = ByteReader()
        let bytes = try reader.array(payload, count: payload.byteCount)
        do throws(CryptoError) {
            let plain = try receiving.open(
                bytes, nonce: Self.nonce(received),
                associatedData: Self.header(sequence: received, length: bytes.count))
            received += 1
            return plain
        } catch { throw WireError(.malformed, "sealed message \(header.offset) does not open") }
    }

    private static func nonce(_ sequence: UInt64) -> [UInt8] {
        var text: [UInt8] = [0, 0, 0, 0]
        for shift in stride(from: UInt64(0), to: 64, by: 8) { text.append(UInt8(truncatingIfNeeded: sequence >> shift)) }
        return text
    }

    private static func header(sequence: UInt64, length: Int) -> [UInt8] {
        var writer = FrameWriter(reserving: FrameHeader.byteCount)
        writer.u8(FrameKind.sealed.rawValue)
        writer.u8(0)
        writer.u16(0)
        writer.u32(0)
        writer.u64(sequence)
        writer.u32(UInt32(truncatingIfNeeded: length))
        return writer.bytes
    }
}

/// The value that both sides sign for the binding, and with an inner exchange the seal for what follows.
func boundValue(
    _ binding: LinkBinding, peer: [UInt8]?, challengeHash: [UInt8], helloHash: [UInt8], isCore: Bool
) throws(HandshakeRefusal) -> (value: [UInt8], sealed: SealedChannel?) {
    switch binding {
    case .exporter(let value): return (value, nil)
    case .loopback: return ([], nil)
    case .exchange(let own):
        guard let peer else { throw HandshakeRefusal("binding-mismatch", "the peer sent no exchange key") }
        do throws(CryptoError) {
            let secret = try own.sharedSecret(with: peer)
            let material = HKDF.derive(
                secret: secret, salt: challengeHash + helloHash, info: Array("client-manager.v1 seal".utf8), count: 96)
            let toAgent = Array(material[32..<64])
            let toCore = Array(material[64..<96])
            let sealed = try SealedChannel(
                sendingKey: isCore ? toAgent : toCore, receivingKey: isCore ? toCore : toAgent)
            return (Array(material[0..<32]), sealed)
        } catch { throw HandshakeRefusal("key-invalid", "the exchange with the peer's key failed") }
    }
}
