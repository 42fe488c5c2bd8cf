import Glibc
import Reactor

/// A connection that was accepted and waits, unread, until the limit of its address names it. Confined to its loop.
final class ParkedConnection: Source {
    let peer: SocketAddress
    /// Loop time, nanoseconds.
    let since: UInt64
    /// It has said something and waits for its turn.
    var hasSpoken = false
    private unowned let listener: Listener

    init(descriptor: Int32, peer: SocketAddress, listener: Listener, now: UInt64) {
        self.peer = peer
        self.listener = listener
        since = now
        super.init(descriptor: descriptor)
    }

    override func ready(_ readiness: Readiness) { listener.spoke(self) }
}

/// What the first bytes of a connection say, without taking them from the kernel.
enum FirstWord {
    case silence
    case stranger
    /// A TLS ClientHello with a ticket: somebody who was here before. Nothing is proved by it.
    case returning
    /// The peer has closed.
    case gone

    /// More than a ClientHello with a ticket has.
    private static let glance = 4 << 10

    /// - Parameter buffer: the loop's receive buffer; nobody else may be using it.
    static func of(_ descriptor: Int32, _ buffer: UnsafeMutableRawPointer) -> FirstWord {
        let count = recv(descriptor, buffer, glance, Int32(MSG_PEEK))
        guard count > 0 else { return count < 0 && (errno == EAGAIN || errno == EINTR) ? .silence : .gone }
        let bytes = Span<UInt8>(_unsafeStart: buffer.assumingMemoryBound(to: UInt8.self), count: count)
        return ClientHello.offersTicket(bytes) ? .returning : .stranger
    }
}
