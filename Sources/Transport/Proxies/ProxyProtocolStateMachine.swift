/// The binary header of the PROXY protocol, version 2, with which a load balancer says whom it stands for.
/// A value: bytes in, verdict out.
struct ProxyProtocolStateMachine {
    enum Verdict: Equatable {
        case more
        /// No PROXY header begins here.
        case none
        /// The client's address (nil: the proxy speaks for itself), and how many bytes the header has.
        case header(SocketAddress?, count: Int)
        case malformed(String)
    }

    private static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10]
    /// Addresses and the extra fields that may follow them.
    private static let bound = 2_048

    static func parse(_ input: Span<UInt8>) -> Verdict {
        for index in 0..<min(input.count, signature.count) where input[index] != signature[index] { return .none }
        guard input.count >= 16 else { return .more }
        guard input[12] >> 4 == 2 else { return .malformed("PROXY protocol version \(input[12] >> 4)") }
        let length = Int(input[14]) << 8 | Int(input[15])
        guard length <= bound else { return .malformed("a PROXY header of \(length) bytes") }
        let total = 16 + length
        guard input.count >= total else { return .more }
        switch input[12] & 0x0F {
        case 0: return .header(nil, count: total)
        case 1: break
        default: return .malformed("PROXY command \(input[12] & 0x0F)")
        }
        switch input[13] {
        case 0x11:
            guard length >= 12 else { return .malformed("a PROXY header without its addresses") }
            var ip: UInt32 = 0
            for index in 16..<20 { ip = ip << 8 | UInt32(input[index]) }
            return .header(SocketAddress(ip: IPAddress(v4: ip), port: port(input, 24)), count: total)
        case 0x21:
            guard length >= 36 else { return .malformed("a PROXY header without its addresses") }
            var high: UInt64 = 0
            var low: UInt64 = 0
            for index in 16..<24 { high = high << 8 | UInt64(input[index]) }
            for index in 24..<32 { low = low << 8 | UInt64(input[index]) }
            return .header(SocketAddress(ip: IPAddress(high: high, low: low), port: port(input, 48)), count: total)
        default:
            // Unix sockets and unknown families: the proxy's own address stays.
            return .header(nil, count: total)
        }
    }

    private static func port(_ input: Span<UInt8>, _ offset: Int) -> UInt16 {
        UInt16(input[offset]) << 8 | UInt16(input[offset + 1])
    }
}

/// Reads a PROXY header, if there is one, in front of whatever else a trusted proxy's connection carries.
final class ProxyProtocolHandler: StreamHandler {
    /// Holds the connection until it takes over; its clock runs already.
    private let next: HTTPServerConnection
    private let tls: TLSContext?

    init(_ next: HTTPServerConnection, _ tls: TLSContext?) {
        self.next = next
        self.tls = tls
        super.init()
    }

    override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
        switch ProxyProtocolStateMachine.parse(Span(_bytes: bytes.bytes)) {
        case .more: return 0
        case .none:
            proceed(stream)
            return 0
        case .header(let client, let count):
            if let client { stream.assume(peer: client) }
            proceed(stream)
            return count
        case .malformed(let reason):
            stream.close(.tls(reason))
            return bytes.byteCount
        }
    }

    private func proceed(_ stream: ByteStream) {
        stream.hand(to: next)
        guard let tls else { return next.opened(stream) }
        do throws(TransportError) {
            try stream.secure(with: tls)
        } catch {
            stream.close(.tls(error.message))
        }
    }

    override func closed(_ stream: ByteStream, _ end: StreamEnd) { next.closed(stream, end) }
}
