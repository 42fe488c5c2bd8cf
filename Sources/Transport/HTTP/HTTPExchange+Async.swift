/// Body pieces that arrived before somebody asked, and the task that waits: state of the async calls of an exchange.
final class HTTPExchangeInbox: HTTPExchangeDelegate {
    /// Bytes kept for a task before the client is made to wait.
    static let bound = 256 << 10

    private var bytes: [UInt8] = []
    private var isComplete = false
    private var isDrained = false
    private var error: TransportError?
    private let signal = LoopSignal()

    func exchange(_ exchange: HTTPExchange, body: RawSpan) {
        body.withUnsafeBytes { bytes.append(contentsOf: $0) }
        if bytes.count >= Self.bound { exchange.pauseBody() }
        signal.wake()
    }

    func exchangeBodyEnded(_ exchange: HTTPExchange) {
        isComplete = true
        signal.wake()
    }

    func exchangeDrained(_ exchange: HTTPExchange) { signal.wake() }

    func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?) {
        if let error { self.error = error }
        if !isComplete, error == nil { self.error = TransportError(.closed, "the exchange is over") }
        signal.wake()
    }

    /// The next piece; nil at the end.
    func next(_ exchange: HTTPExchange) async throws(TransportError) -> [UInt8]? {
        while bytes.isEmpty {
            if isComplete { return nil }
            if let error { throw error }
            await signal.wait { !bytes.isEmpty || isComplete || error != nil }
        }
        let piece = bytes
        bytes = []
        exchange.resumeBody()
        return piece
    }

    func waitUntilDrained(_ exchange: HTTPExchange) async throws(TransportError) {
        while exchange.isOverHighMark, !exchange.isOver {
            await signal.wait { !exchange.isOverHighMark || exchange.isOver }
        }
        if let error { throw error }
        if exchange.isOver { throw TransportError(.closed, "the exchange is over") }
    }

    func waitUntilOver(_ exchange: HTTPExchange) async {
        while !exchange.isOver { await signal.wait { exchange.isOver } }
    }
}

// One task at a time may use these, and not together with a delegate of its own: they install one.
extension HTTPExchange {
    /// The next piece of the request's body, nil after the last. The client waits while nobody asks.
    public func nextBodyPiece() async throws(TransportError) -> [UInt8]? {
        if delegate !== inbox { delegate = inbox }
        if bodyEnded, !bodyWanted {
            bodyWanted = true
            inbox.exchangeBodyEnded(self)
        }
        startBody()
        return try await inbox.next(self)
    }

    /// The whole body. Throws `too-large` as soon as it is known to be longer than `maximum` bytes.
    public func body(maximum: Int) async throws(TransportError) -> [UInt8] {
        if case .length(let length) = head.framing, length > UInt64(maximum) {
            throw TransportError(.tooLarge, "the body has \(length) bytes; at most \(maximum) are taken here")
        }
        var whole: [UInt8] = []
        while let piece = try await nextBodyPiece() {
            guard whole.count + piece.count <= maximum else {
                throw TransportError(.tooLarge, "the body is longer than \(maximum) bytes")
            }
            if whole.isEmpty { whole = piece } else { whole += piece }
        }
        return whole
    }

    /// Sends a piece of a streamed answer and waits while the client is behind with reading.
    public func send(_ bytes: [UInt8]) async throws(TransportError) {
        if delegate !== inbox { delegate = inbox }
        if isOver { throw TransportError(.closed, "the exchange is over") }
        if !write(bytes.span.bytes) { try await inbox.waitUntilDrained(self) }
    }

    /// Returns when the answer is complete or the client is gone.
    public func untilOver() async {
        if delegate !== inbox { delegate = inbox }
        await inbox.waitUntilOver(self)
    }
}
