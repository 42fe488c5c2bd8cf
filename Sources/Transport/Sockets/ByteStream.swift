import Glibc
import Reactor

/// One TCP connection, plain or under TLS, confined to its loop. It moves bytes; what they mean is its handler's.
///
/// The loop holds the stream, the stream its handler, until `close`; the handler may hold the stream (the cycle ends
/// with `close`, and a stream is always closed in the end: by a side, an error, a time limit or the loop's end).
final class ByteStream: Source {
    /// Reads per event before others get their turn.
    private static let readsPerTurn = 4
    /// Above this many waiting bytes a handler should stop producing; `drained` comes at a quarter of it.
    static let highMark = 256 << 10

    /// Strong and constant: the compiler then borrows it on the hot path instead of counting references.
    private let context: StreamLoop
    @exclusivity(unchecked) private(set) var handler: StreamHandler?
    @exclusivity(unchecked) private(set) var state: State = []
    /// Bytes that the handler has not taken yet (after decryption).
    @exclusivity(unchecked) private var tail = ByteQueue()
    /// Bytes to send that did not go out at once (before encryption).
    @exclusivity(unchecked) private var output = ByteQueue()
    /// Bytes that may wait here; more ends the stream, so that a peer which never reads costs no more than this.
    @exclusivity(unchecked) var outputBound: UInt32 = 16 << 20
    /// The largest read; a handler that expects small things keeps this small.
    @exclusivity(unchecked) var receiveLimit: UInt32 = 64 << 10
    private(set) var peer: SocketAddress
    @exclusivity(unchecked) private var writeError: Int32 = 0
    @exclusivity(unchecked) private var tls: TLSSession?

    /// Takes over a connected (or connecting) non-blocking socket.
    init(descriptor: Int32, peer: SocketAddress, context: StreamLoop, connecting: Bool = false) {
        self.context = context
        self.peer = peer
        super.init(descriptor: descriptor)
        if connecting { state.insert(.connecting) }
    }

    deinit {
        // Reached without `close` only when the loop itself ends.
        if !state.contains(.closed) { Glibc.close(descriptor) }
    }

    var loop: EventLoop { context.loop }
    var isClosed: Bool { state.contains(.closed) }
    /// Bytes that wait for the peer to read.
    var bufferedBytes: Int { output.count + (tls?.pending.count ?? 0) }
    var isOverHighMark: Bool { bufferedBytes > Self.highMark }
    var shared: StreamLoop { context }
    var isPaused: Bool { state.contains(.paused) }
    var isSecure: Bool { tls != nil }
    var tlsSession: TLSSession? { tls }
    /// The peer's end was not authenticated (TLS without close_notify).
    var isTruncated: Bool { state.contains(.truncated) }
    /// Bytes have arrived that the handler could not take yet.
    var hasUntaken: Bool { !tail.isEmpty }

    /// Starts with this handler; call once, on the loop.
    func start(_ handler: StreamHandler) throws(TransportError) {
        self.handler = handler
        do {
            try context.loop.add(self)
        } catch {
            throw TransportError(.system, "\(error)")
        }
        if state.isDisjoint(with: .notOpen) { handler.opened(self) }
    }

    /// Begins TLS on this stream; `handler` hears `opened` when it is up. On the server's side before `start`, on the
    /// client's when TCP (and a proxy) are through.
    func secure(with context: TLSContext, peer: TLSPeer? = nil, handler: StreamHandler? = nil) throws(TransportError) {
        tls = try TLSSession(context, window: self.context.tlsWindow(), peer: peer)
        state.insert(.handshaking)
        if let handler { self.handler = handler }
        if context.role == .client { _ = decrypt(UnsafeRawBufferPointer(start: nil, count: 0)) }
    }

    /// A trusted proxy has said for whom it speaks.
    func assume(peer: SocketAddress) { self.peer = peer }

    var isCounted: Bool {
        get { state.contains(.counted) }
        set { if newValue { state.insert(.counted) } else { state.remove(.counted) } }
    }

    /// From now on `next` hears of everything, first of the bytes that the old handler has not taken.
    func hand(to next: StreamHandler) { handler = next }

    // MARK: Events

    override func ready(_ readiness: Readiness) {
        if state.contains(.connecting) {
            guard finishConnect(readiness) else { return }
        }
        if readiness.contains(.writable) {
            state.remove(.blocked)
            flush()
        }
        guard !isClosed else { return }
        if !readiness.intersection(.peerClosed).isEmpty { state.insert(.peerShut) }
        if readiness.contains(.failed), !mayRead {
            // Nobody reads now, so the error would stay unseen until somebody does.
            return close(.failed(errno: pendingError()))
        }
        guard mayRead, !readiness.intersection([.readable, .peerClosed, .failed]).isEmpty else { return }
        guard state.contains(.counted) else { return read() }
        guard !state.contains(.awaitsTurn) else { return }
        state.insert(.awaitsTurn)
        context.noteStranger(self)
    }

    private var mayRead: Bool { state.isDisjoint(with: .paused) || state.contains(.handshaking) }

    /// Whether a stranger was here before: it waits in a lane of its own. Looks at its first bytes once; only on the way
    /// to its turn, because it uses the shared buffer.
    func isReturning() -> Bool {
        if state.isDisjoint(with: .hasGreeted), state.contains(.handshaking), !isClosed {
            switch FirstWord.of(descriptor, context.receiveBuffer) {
            case .returning: state.insert([.hasGreeted, .returning])
            case .stranger: state.insert(.hasGreeted)
            case .silence, .gone: break
            }
        }
        return state.contains(.returning)
    }

    /// A stranger's turn to be read.
    func takeTurn() {
        state.remove(.awaitsTurn)
        if mayRead, !isClosed { read() }
    }

    private func finishConnect(_ readiness: Readiness) -> Bool {
        let status = pendingError()
        if status != 0 {
            close(.failed(errno: status))
            return false
        }
        guard readiness.contains(.writable) else { return false }
        state.remove(.connecting)
        handler?.opened(self)
        return !isClosed
    }

    private func pendingError() -> Int32 {
        var status: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &status, &length)
        return status
    }

    // MARK: Reading

    /// Stops hearing of bytes after the present call; what has been read already is kept.
    func pause() { state.insert(.paused) }

    func resume() {
        guard state.contains(.paused), !isClosed else { return }
        state.remove(.paused)
        scheduleRead()
    }

    private func scheduleRead() {
        guard !state.contains(.inReadAgain) else { return }
        state.insert(.inReadAgain)
        context.noteReadAgain(self)
    }

    func readAgain() {
        state.remove(.inReadAgain)
        guard !isClosed, !state.contains(.paused) else { return }
        // Bytes that the handler left when it paused: it gets them first, even if nothing more arrives.
        if !tail.isEmpty {
            beginCork()
            _ = deliver(fresh: 0, in: context.receiveBuffer)
            endCork()
            guard !isClosed, !state.contains(.paused) else { return }
        }
        read()
    }

    private func read() {
        beginCork()
        var rounds = 0
        while true {
            let room = min(Int(receiveLimit), StreamLoop.receiveCapacity - tail.count)
            // A handler that leaves a whole buffer untaken has paused; it is not read for again until it takes some.
            guard room > 0 else { break }
            // Plain bytes go behind the place of the kept ones; ciphertext is decrypted to there.
            let start = context.receiveBuffer + (tls == nil ? tail.count : 0)
            let count = recv(descriptor, start, room, 0)
            if count > 0 {
                guard tls == nil ? deliver(fresh: count, in: context.receiveBuffer) : decrypt(UnsafeRawBufferPointer(start: start, count: count))
                else { break }
                if count < room, !state.contains(.peerShut) { break }
            } else if count == 0 {
                state.insert(.peerShut)
                if tls != nil, !state.contains(.peerEnded) { state.insert(.truncated) }
                endOfInput()
                break
            } else {
                let number = errno
                if number == EINTR { continue }
                if number != EAGAIN { close(.failed(errno: number)) }
                break
            }
            rounds += 1
            if rounds == Self.readsPerTurn {
                scheduleRead()
                break
            }
        }
        endCork()
    }

    /// Takes ciphertext through TLS. False when reading must stop.
    private func decrypt(_ ciphertext: UnsafeRawBufferPointer) -> Bool {
        guard let tls, let window = try? context.tlsWindow() else { return false }
        let kept = tail.count
        let plain = context.plainBuffer
        var isUp = false
        var got = 0
        var last = TLSSession.Outcome.wantsMore
        window.withInput(ciphertext) {
            if state.contains(.handshaking) {
                last = tls.handshakeStep()
                guard case .done = last else { return }
                isUp = true
            }
            while kept + got < StreamLoop.plainCapacity {
                last = tls.read(into: plain + kept + got, capacity: StreamLoop.plainCapacity - kept - got)
                guard case .done(let bytes) = last else { break }
                got += bytes
                // Spares the call that would only say that there is no more.
                if !window.hasInput, !tls.hasPending {
                    last = .wantsMore
                    break
                }
            }
        }
        transmit(window.takeOutput())
        guard closeIfFailed() else { return false }
        if isUp {
            state.remove(.handshaking)
            handler?.opened(self)
            guard !isClosed else { return false }
            if !output.isEmpty { outputGrew() }
        }
        var goesOn = true
        if got > 0 { goesOn = deliver(fresh: got, in: plain) }
        guard !isClosed else { return false }
        switch last {
        case .done, .wantsMore: return goesOn
        case .peerEnded: endOfInput()
        case .failed(let reason): close(.tls(reason))
        case .untrusted(let reason): close(.untrusted(reason))
        }
        return false
    }

    /// Gives the kept bytes and `fresh` new ones, which stand behind their place in the buffer, to the handler. False
    /// when reading must stop.
    private func deliver(fresh: Int, in buffer: UnsafeMutableRawPointer) -> Bool {
        let kept = tail.count
        if kept > 0 {
            tail.withBytes { if let base = $0.baseAddress { memcpy(buffer, base, kept) } }
            tail.clear()
        }
        let count = kept + fresh
        let isPlain = tls == nil
        var taken = state.contains(.lingering) ? count : 0
        while taken < count, state.isDisjoint(with: .paused), let current = handler {
            var span = MutableRawSpan(
                _unsafeBytes: UnsafeMutableRawBufferPointer(start: buffer + taken, count: count - taken))
            taken += current.received(&span, on: self)
            if isClosed { return false }
            if isPlain, tls != nil {
                // TLS begins behind what the handler took.
                return taken == count || decrypt(UnsafeRawBufferPointer(start: buffer + taken, count: count - taken))
            }
            // A new handler gets what the old one left; the same one has taken all it can for now.
            if handler === current { break }
        }
        if taken < count {
            tail.append(UnsafeRawBufferPointer(start: buffer + taken, count: count - taken))
        }
        return !state.contains(.paused)
    }

    private func endOfInput() {
        guard !state.contains(.peerEnded), !isClosed else { return }
        state.insert(.peerEnded)
        if state.contains(.lingering) {
            close(.closed)
        } else {
            handler?.peerEnded(self)
        }
    }

    // MARK: Writing

    private func beginCork() {
        context.corked = Unmanaged.passUnretained(self)
        context.corkCount = 0
    }

    private func endCork() {
        flushCork()
        context.corked = nil
    }

    @inline(__always)
    private var isCorked: Bool {
        guard let corked = context.corked else { return false }
        return corked.toOpaque() == Unmanaged.passUnretained(self).toOpaque()
    }

    /// Sends, or keeps what cannot go now. After `close` it does nothing.
    func send(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { send($0) }
    }

    func send(text: String) { send(text.utf8Span.span.bytes) }

    /// A frame header and its payload, without joining them first.
    func send(header: WebSocketFrameHeader, payload: RawSpan) {
        let count = header.count + payload.byteCount
        if isCorked, output.isEmpty, count <= StreamLoop.corkCapacity, state.isDisjoint(with: [.closed, .connecting, .handshaking]) {
            if context.corkCount + count > StreamLoop.corkCapacity {
                flushCork()
                guard output.isEmpty else { return sendParts(header, payload) }
            }
            cork(header, payload)
            context.corkCount += count
        } else {
            sendParts(header, payload)
        }
    }

    /// Puts both behind what is in the cork buffer, which has room for them.
    @inline(__always)
    private func cork(_ header: WebSocketFrameHeader, _ payload: RawSpan) {
        let place = context.corkBuffer + context.corkCount
        for index in 0..<header.count { place.storeBytes(of: header.bytes[index], toByteOffset: index, as: UInt8.self) }
        payload.withUnsafeBytes {
            if let base = $0.baseAddress { memcpy(place + header.count, base, $0.count) }
        }
    }

    /// From here on a frame does not wait for the end of the turn: to gather it with others would only copy it once more.
    private static let largeFrame = 16 << 10

    /// A large frame, its payload in two parts, goes out at once where nothing is before it, by way of the loop's cork buffer.
    /// False: it must be queued.
    private func sendLarge(
        _ header: WebSocketFrameHeader, _ head: RawSpan, _ payload: RawSpan, maskedWith key: UInt32?
    ) -> Bool {
        let count = header.count + head.byteCount + payload.byteCount
        guard payload.byteCount >= Self.largeFrame, count <= StreamLoop.corkCapacity, context.corkCount == 0, output.isEmpty,
            state.isDisjoint(with: [.closed, .blocked, .connecting, .handshaking]), tls?.pending.isEmpty ?? true
        else { return false }
        var place = context.corkBuffer
        for index in 0..<header.count { place.storeBytes(of: header.bytes[index], toByteOffset: index, as: UInt8.self) }
        place += header.count
        copy(head, phase: 0, maskedWith: key, to: place)
        copy(payload, phase: head.byteCount, maskedWith: key, to: place + head.byteCount)
        let bytes = UnsafeRawBufferPointer(start: context.corkBuffer, count: count)
        let sent = write(bytes)
        if writeError != 0 {
            // Told at the end of the turn: the caller still holds what it sends, and others may not write into that.
            if !state.contains(.dirty) { context.noteDirty(self) }
            state.insert(.dirty)
        } else if sent < count {
            output.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
            outputGrew()
        }
        return true
    }

    private func copy(_ part: RawSpan, phase: Int, maskedWith key: UInt32?, to place: UnsafeMutableRawPointer) {
        part.withUnsafeBytes {
            if let key {
                Masking.copy(key, phase: phase, from: $0, to: place)
            } else if let base = $0.baseAddress {
                memcpy(place, base, $0.count)
            }
        }
    }

    private func sendParts(_ header: WebSocketFrameHeader, _ payload: RawSpan) {
        if isCorked { flushCork() }
        guard !sendLarge(header, RawSpan(), payload, maskedWith: nil) else { return }
        if !isClosed, !isCorked { output.reserve(header.count + payload.byteCount) }
        send(header.bytes.span.bytes.extracting(0..<header.count))
        send(payload)
    }

    /// Like `send(header:payload:)`, the payload masked with `key` on its way (a client's frame).
    func send(header: WebSocketFrameHeader, payload: RawSpan, maskedWith key: UInt32) {
        send(header: header, head: RawSpan(), body: payload, maskedWith: key)
    }

    /// A frame whose payload is `head` and then `body`, which is large, without joining them first.
    func send(header: WebSocketFrameHeader, head: RawSpan, body: RawSpan, maskedWith key: UInt32?) {
        guard state.isDisjoint(with: [.closed]) else { return }
        if isCorked { flushCork() }
        guard !isClosed, !sendLarge(header, head, body, maskedWith: key) else { return }
        output.append(header.bytes.span.bytes.extracting(0..<header.count))
        output.append(head)
        output.append(body)
        if let key { output.withLast(head.byteCount + body.byteCount) { Masking.apply(key, phase: 0, to: $0) } }
        outputGrew()
    }

    private func send(_ bytes: UnsafeRawBufferPointer) {
        guard !isClosed, let base = bytes.baseAddress, bytes.count > 0 else { return }
        if isCorked, output.isEmpty, state.isDisjoint(with: .notOpen) {
            if context.corkCount + bytes.count > StreamLoop.corkCapacity { flushCork() }
            if output.isEmpty, !isClosed {
                if bytes.count <= StreamLoop.corkCapacity {
                    memcpy(context.corkBuffer + context.corkCount, base, bytes.count)
                    context.corkCount += bytes.count
                    return
                }
                // Too large to gather: straight to the kernel, the rest below.
                let sent = write(bytes)
                guard closeIfFailed(), sent < bytes.count else { return }
                output.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
                return outputGrew()
            }
        }
        guard !isClosed else { return }
        output.append(bytes)
        outputGrew()
    }

    private func outputGrew() {
        // By the same measure as `isOverHighMark`, or somebody would wait for a `drained` that nobody owes.
        if isOverHighMark { state.insert(.owesDrained) }
        if output.count > Int(outputBound) { return close(.overflow) }
        guard state.isDisjoint(with: [.dirty, .blocked, .connecting, .handshaking]) else { return }
        state.insert(.dirty)
        context.noteDirty(self)
    }

    private func flushCork() {
        let count = context.corkCount
        guard count > 0 else { return }
        context.corkCount = 0
        guard !isClosed else { return }
        let bytes = UnsafeRawBufferPointer(start: context.corkBuffer, count: count)
        let sent = write(bytes)
        guard closeIfFailed(), sent < count else { return }
        output.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        outputGrew()
    }

    /// How many bytes are on their way: what the kernel took, or TLS.
    private func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard let tls else { return writeRaw(bytes) }
        guard let window = try? context.tlsWindow() else { return 0 }
        var taken = 0
        while taken < bytes.count, tls.pending.isEmpty, writeError == 0 {
            guard case .done(let count) = tls.write(UnsafeRawBufferPointer(rebasing: bytes[taken...])) else {
                writeError = EPROTO
                break
            }
            taken += count
            transmit(window.takeOutput())
        }
        return taken
    }

    /// Sends ciphertext; what the kernel does not take waits in the session.
    private func transmit(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count > 0, let tls else { return }
        let sent = tls.pending.isEmpty ? writeRaw(bytes) : 0
        if sent < bytes.count {
            tls.pending.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
            if isOverHighMark { state.insert(.owesDrained) }
        }
        if tls.pending.count > Int(outputBound) { writeError = EMSGSIZE }
    }

    /// What the kernel took. An error is kept for `closeIfFailed`: closing here would free what the caller still holds.
    private func writeRaw(_ bytes: UnsafeRawBufferPointer) -> Int {
        var sent = 0
        while sent < bytes.count, let base = bytes.baseAddress {
            let count = Glibc.send(descriptor, base + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            if count >= 0 {
                sent += count
            } else {
                let number = errno
                if number == EINTR { continue }
                state.insert(.blocked)
                if number != EAGAIN { writeError = number }
                break
            }
        }
        return sent
    }

    /// Ends the stream if the last write failed; false then.
    private func closeIfFailed() -> Bool {
        guard writeError != 0 else { return true }
        close(.failed(errno: writeError))
        return false
    }

    func flushDirty() {
        state.remove(.dirty)
        guard !isClosed, closeIfFailed() else { return }
        flush()
    }

    private func flush() {
        guard state.isDisjoint(with: [.closed, .blocked, .connecting]) else { return }
        if let tls, !tls.pending.isEmpty {
            let sent = tls.pending.withBytes { writeRaw($0) }
            guard closeIfFailed() else { return }
            tls.pending.consume(sent)
            guard tls.pending.isEmpty else { return }
        }
        guard !state.contains(.handshaking) else { return }
        if !output.isEmpty {
            let sent = output.withBytes { write($0) }
            guard closeIfFailed() else { return }
            output.consume(sent)
        }
        if state.contains(.owesDrained), bufferedBytes <= Self.highMark / 4 {
            state.remove(.owesDrained)
            handler?.drained(self)
        }
        if bufferedBytes == 0, state.contains(.closing), !isClosed { finishClosing() }
    }

    // MARK: Ending

    /// Closes when everything written so far has gone out. With `lingering`, ends only our side then and drops what the
    /// peer still sends, so that a reset does not destroy the last answer under way (RFC 9112 §9.6); somebody must
    /// hold a time limit over it.
    func closeAfterFlush(lingering: Bool = false) {
        guard !isClosed else { return }
        state.insert(.closing)
        if lingering { state.insert(.lingering) }
        if isCorked { flushCork() }
        if bufferedBytes == 0, !isClosed { finishClosing() }
    }

    /// Puts our close_notify on its way. False while it waits for the kernel.
    private func endTLS() -> Bool {
        guard let tls, !state.contains(.tlsEnded), let window = try? context.tlsWindow() else { return true }
        state.insert(.tlsEnded)
        tls.end()
        transmit(window.takeOutput())
        return tls.pending.isEmpty
    }

    private func finishClosing() {
        guard endTLS() else { return }
        state.remove(.closing)
        if state.contains(.lingering), !state.contains(.peerEnded) {
            shutdown(descriptor, Int32(SHUT_WR))
            tail.clear()
            resume()
        } else {
            close(.closed)
        }
    }

    func close(_ end: StreamEnd) {
        guard !isClosed else { return }
        if end == .closed, state.isDisjoint(with: .notOpen) {
            if isCorked { flushCork() }
            guard !isClosed else { return }
            if output.isEmpty { _ = endTLS() }
        }
        state.insert(.closed)
        if isCorked { context.corkCount = 0 }
        context.loop.remove(self)
        Glibc.close(descriptor)
        output.clear()
        let last = handler
        handler = nil
        last?.closed(self, end)
    }
}
