import Crypto
import Glibc
import Reactor

/// What all streams of one loop share, so that an idle connection owns no buffer: the receive buffer, the cork buffer,
/// the list of streams with something to flush at the end of the turn.
///
/// An owner of raw memory; confined to its loop. The buffers are never freed before the loop itself.
final class StreamLoop {
    /// Of each turn of the loop, nanoseconds: handshakes are dear, and whoever is known does not wait for a crowd's.
    private static let strangersShare: UInt64 = 4_000_000
    /// One read of a stream at most; pages that no read has touched cost nothing.
    static let receiveCapacity = 512 << 10
    /// Room for a frame of 64 KiB with its headers.
    static let corkCapacity = 68 << 10

    unowned let loop: EventLoop
    let receiveBuffer = UnsafeMutableRawPointer.allocate(byteCount: receiveCapacity, alignment: 64)
    let corkBuffer = UnsafeMutableRawPointer.allocate(byteCount: corkCapacity, alignment: 64)
    /// The stream in whose read we are: what it sends gathers in the cork buffer and leaves with one call.
    @exclusivity(unchecked) var corked: Unmanaged<ByteStream>?
    @exclusivity(unchecked) var corkCount = 0

    /// Decrypted bytes of one read.
    let plainBuffer = UnsafeMutableRawPointer.allocate(byteCount: plainCapacity, alignment: 64)
    /// A receive, and the record that OpenSSL may have kept from before.
    static let plainCapacity = receiveCapacity + (32 << 10)
    private var window: TLSWindow?

    @exclusivity(unchecked) private var dirty: [ByteStream] = []
    @exclusivity(unchecked) private var readAgain: [ByteStream] = []
    /// Who has not shown who it is and waits to be read, each once.
    private var strangers = Lane()
    private var returning = Lane()
    private var masks: [UInt32] = []
    private var dateSecond: UInt64 = 0
    private var dateBytes: [UInt8] = []

    /// The loop's own, made at the first use.
    static func of(_ loop: EventLoop) -> StreamLoop { loop.resident { StreamLoop($0) } }

    private init(_ loop: EventLoop) {
        self.loop = loop
        loop.atEndOfTurn { [unowned self] in endTurn() }
    }

    deinit {
        receiveBuffer.deallocate()
        corkBuffer.deallocate()
        plainBuffer.deallocate()
    }

    /// The BIO of all TLS connections of this loop.
    func tlsWindow() throws(TransportError) -> TLSWindow {
        if let window { return window }
        guard let made = TLSWindow() else { throw TLSContext.failure("setting up TLS") }
        window = made
        return made
    }

    /// Has `stream` flushed once at the end of this turn, however often it wrote.
    func noteDirty(_ stream: ByteStream) { dirty.append(stream) }

    /// Reads from `stream` later: never inside another stream's read, which holds the shared buffer.
    func noteReadAgain(_ stream: ByteStream) { readAgain.append(stream) }

    /// Streams in the order of their news.
    private struct Lane {
        private var streams: [ByteStream] = []
        private var next = 0
        var isEmpty: Bool { next == streams.count }

        mutating func append(_ stream: ByteStream) { streams.append(stream) }

        mutating func take() -> ByteStream? {
            guard next < streams.count else { return nil }
            defer {
                next += 1
                if next == streams.count {
                    streams.removeAll(keepingCapacity: next <= 1_024)
                    next = 0
                } else if next >= 1_024, next * 2 >= streams.count {
                    streams.removeFirst(next)
                    next = 0
                }
            }
            return streams[next]
        }
    }

    /// Reads from `stream`, which has not shown who it is, when strangers have their share of this turn or a later one.
    func noteStranger(_ stream: ByteStream) { strangers.append(stream) }

    /// Both lanes by turns: a thousand agents that come back hold up no newcomer, and no crowd of newcomers holds up them.
    private func readStrangers() {
        let end = monotonicNanoseconds() + Self.strangersShare
        repeat {
            while let stream = strangers.take() {
                guard stream.isReturning() else {
                    stream.takeTurn()
                    break
                }
                returning.append(stream)
            }
            returning.take()?.takeTurn()
        } while !(strangers.isEmpty && returning.isEmpty) && monotonicNanoseconds() < end
        if !(strangers.isEmpty && returning.isEmpty) { loop.post {} }
    }

    private func endTurn() {
        if !(strangers.isEmpty && returning.isEmpty) { readStrangers() }
        if !readAgain.isEmpty {
            // A stream that is put back by its own read waits for the next turn, so others get their share.
            let batch = readAgain
            readAgain.removeAll(keepingCapacity: true)
            for stream in batch { stream.readAgain() }
            if !readAgain.isEmpty { loop.post {} }
        }
        // Handlers that hear of a drained stream may write again, but not for ever inside one turn.
        for _ in 0..<8 where !dirty.isEmpty {
            let batch = dirty
            dirty.removeAll(keepingCapacity: true)
            for stream in batch { stream.flushDirty() }
        }
        if !dirty.isEmpty { loop.post {} }
    }

    /// A masking key for one frame: unpredictable (RFC 6455 §10.3), drawn in batches without a call into the kernel for each.
    func nextMask() -> UInt32 {
        if masks.isEmpty {
            for _ in 0..<128 {
                let word = Random.uint64()
                masks.append(UInt32(truncatingIfNeeded: word))
                masks.append(UInt32(truncatingIfNeeded: word >> 32))
            }
        }
        return masks.removeLast()
    }

    /// The value of a `date` field, made once per second.
    func date() -> [UInt8] {
        let second = unixMilliseconds() / 1_000
        if second != dateSecond {
            dateSecond = second
            dateBytes = Array(HTTPDate.format(unixSeconds: second).utf8)
        }
        return dateBytes
    }
}
