/// Why a stream ended, as its handler hears it.
enum StreamEnd: Sendable, Equatable {
    /// Closed from this side.
    case closed
    /// The peer closed in order (TCP FIN, TLS close_notify).
    case peerClosed
    /// Reset, or another error of the socket.
    case failed(errno: Int32)
    case tls(String)
    case untrusted(String)
    case timeout(String)
    /// More waits to be written than the stream's bound allows.
    case overflow

    var error: TransportError {
        switch self {
        case .closed: TransportError(.closed, "the connection was closed on this side")
        case .peerClosed: TransportError(.closed, "the peer closed the connection")
        case .failed(let number): TransportError(.reset, "the connection failed with errno \(number)")
        case .tls(let text): TransportError(.tls, text)
        case .untrusted(let text): TransportError(.untrusted, text)
        case .timeout(let text): TransportError(.timeout, text)
        case .overflow: TransportError(.tooLarge, "the peer does not read: too much waits to be written")
        }
    }
}

/// What speaks over a stream: HTTP, WebSocket, a proxy's greeting. Called on the stream's loop. Public only as the base
/// of public classes.
public class StreamHandler {
    init() {}

    /// Bytes have arrived; the buffer is the loop's and may be changed in place. Returns how many it is done with; the
    /// rest comes again in front of what arrives next.
    func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int { bytes.byteCount }
    /// TCP and TLS are up (at once on an accepted plain stream).
    func opened(_ stream: ByteStream) {}
    /// The peer sends no more; what this side has to say can still go out. Called at most once.
    func peerEnded(_ stream: ByteStream) { stream.close(.peerClosed) }
    /// What had piled up over the high mark has gone down to the low mark.
    func drained(_ stream: ByteStream) {}
    /// The last call: the socket is gone.
    func closed(_ stream: ByteStream, _ end: StreamEnd) {}
}
