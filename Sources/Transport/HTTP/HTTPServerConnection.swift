import Glibc
import Reactor

/// The server's side of one HTTP/1.1 connection: requests one after the other, pipelined ones wait unread.
final class HTTPServerConnection: StreamHandler {
    /// Time limits are looked at this often at most, so that activity costs no timer work.
    private static let tick: UInt64 = 5_000

    unowned let stream: ByteStream
    private let loop: EventLoop
    private let configuration: HTTPServerConfiguration
    private let listener: Listener
    private var scanner = HTTPHeadScanner()
    @exclusivity(unchecked) private var known = HTTPKnownHead()
    @exclusivity(unchecked) private var body = HTTPBodyStateMachine(.none, limits: HTTPLimits())
    // What each request touches is not checked for exclusivity: it is confined to the loop, and no access lasts over a call.
    @exclusivity(unchecked) private var current: HTTPExchange?
    @exclusivity(unchecked) private var bodyPaused = false
    /// Set while `received` runs: an answer that ends inside it lets the loop there go on, without a new read.
    @exclusivity(unchecked) private var isReading = false
    @exclusivity(unchecked) private var closesAfterAnswer = false
    private var timer: Timer?
    /// When the present phase must have ended, and what it is, for the message.
    @exclusivity(unchecked) private var deadline: UInt64 = .max
    @exclusivity(unchecked) private var phase = Phase.idle
    private var bufferedAtLastTick = 0
    @exclusivity(unchecked) private var scratch: [UInt8] = []
    /// The address of the last request and its text.
    private var lastAddress: (ip: IPAddress, text: String)?

    private enum Phase {
        case tls
        case idle
        case head
        case body
        /// The handler has the word; only a client that does not read is watched.
        case answering
        case lingering
    }

    init(stream: ByteStream, listener: Listener) {
        self.stream = stream
        loop = stream.loop
        self.listener = listener
        configuration = listener.configuration
    }

    // MARK: Stream

    /// Starts the clock of the first handshake.
    func begin(isSecure: Bool) {
        timer = Timer { [weak self] in self?.checkTime() }
        enter(isSecure ? .tls : .head)
        schedule()
    }

    /// A new connection has the time of one head to say something.
    override func opened(_ stream: ByteStream) { enter(.head) }

    override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
        isReading = true
        defer { isReading = false }
        var offset = 0
        while !stream.isClosed, stream.handler === self {
            let input = Span<UInt8>(_bytes: bytes.bytes)
            do throws(HTTPRefusal) {
                if let exchange = current {
                    guard try takeBody(exchange, input, &offset) else { return offset }
                } else {
                    guard phase != .lingering else { return bytes.byteCount }
                    guard offset < bytes.byteCount else { return offset }
                    guard try takeHead(input, &offset) else { return offset }
                }
            } catch {
                refuse(error)
                return bytes.byteCount
            }
        }
        return offset
    }

    /// True when something was taken and there may be more to take.
    private func takeHead(_ input: Span<UInt8>, _ offset: inout Int) throws(HTTPRefusal) -> Bool {
        if phase != .head { enter(.head) }
        guard let head = try nextHead(input.extracting(offset..<input.count), &offset) else { return false }
        body = HTTPBodyStateMachine(head.framing, limits: configuration.limits)
        closesAfterAnswer = !head.keepsAlive || listener.isDraining
        bodyPaused = false
        let exchange = HTTPExchange(
            head: head, address: listener.clientAddress(peer: stream.peer.ip, headers: head.headers),
            isSecure: stream.isSecure, connection: self)
        current = exchange
        enter(.answering)
        listener.service.exchangeBegan(exchange)
        return true
    }

    /// `nil` while it is not all there.
    private func nextHead(_ rest: Span<UInt8>, _ offset: inout Int) throws(HTTPRefusal) -> HTTPRequestHead? {
        if let (head, count) = known.match(rest) {
            scanner.reset()
            offset += count
            return head
        }
        guard rest.count > 0, rest[0] != HTTPBytes.lineFeed else {
            throw HTTPRefusal(400, "a line ends with a bare line feed; lines end with CR LF")
        }
        guard let end = try scanner.end(of: rest, limits: configuration.limits) else { return nil }
        scanner.reset()
        let text = rest.extracting(0..<end)
        let head = try HTTPRequestHead.parsing(text, limits: configuration.limits)
        known.learn(text, head)
        offset += end
        return head
    }

    /// True when the loop may go on; false when bytes must wait.
    private func takeBody(
        _ exchange: HTTPExchange, _ input: Span<UInt8>, _ offset: inout Int
    ) throws(HTTPRefusal) -> Bool {
        if exchange.bodyEnded || !exchange.bodyWanted || bodyPaused {
            // The next request, or a body that nobody wants yet, stays in the kernel's hands.
            if offset < input.count { stream.pause() }
            return false
        }
        switch try body.next(input, from: offset) {
        case .data(let range):
            offset = range.upperBound
            enter(.body)
            exchange.delegate?.exchange(exchange, body: input.extracting(range).bytes)
            if body.isDone { endBody(exchange) }
            return true
        case .more(let consumed):
            offset = consumed
            exchange.delegate?.exchangeBodyWaits(exchange)
            return false
        case .end(let consumed):
            offset = consumed
            endBody(exchange)
            return true
        }
    }

    private func endBody(_ exchange: HTTPExchange) {
        guard !exchange.bodyEnded else { return }
        exchange.bodyEnded = true
        if current === exchange { enter(.answering) }
        exchange.delegate?.exchangeBodyEnded(exchange)
    }

    override func peerEnded(_ stream: ByteStream) {
        guard let exchange = current else { return stream.close(.peerClosed) }
        guard exchange.bodyEnded else {
            fail(exchange, TransportError(.closed, "the client ended the connection inside the body"))
            return stream.close(.peerClosed)
        }
        guard exchange.answer == .none else {
            // An answer under way to a client that has closed: a stream of events would never learn of it otherwise.
            fail(exchange, TransportError(.closed, "the client ended the connection"))
            return stream.closeAfterFlush()
        }
        // Half-closed clients may still read their answer, but there will be no next request.
        closesAfterAnswer = true
    }

    override func drained(_ stream: ByteStream) {
        if let exchange = current { exchange.delegate?.exchangeDrained(exchange) }
    }

    override func closed(_ stream: ByteStream, _ end: StreamEnd) {
        stopTimer()
        if let exchange = current { fail(exchange, end.error) }
        listener.ended(stream)
    }

    private func fail(_ exchange: HTTPExchange, _ error: TransportError) {
        current = nil
        exchange.answer = .failed
        let delegate = exchange.delegate
        exchange.delegate = nil
        delegate?.exchangeEnded(exchange, error)
    }

    func text(of address: IPAddress) -> String {
        if let lastAddress, lastAddress.ip == address { return lastAddress.text }
        let text = address.description
        lastAddress = (address, text)
        return text
    }

    func markAuthenticated() { listener.authenticated(stream) }

    // MARK: Time

    private func enter(_ next: Phase) {
        phase = next
        let milliseconds: UInt64
        switch next {
        case .tls: milliseconds = configuration.tlsMilliseconds
        case .idle: milliseconds = configuration.idleMilliseconds
        case .head: milliseconds = configuration.headMilliseconds
        case .body: milliseconds = configuration.bodyMilliseconds
        case .answering: milliseconds = configuration.writeMilliseconds
        case .lingering: milliseconds = configuration.lingerMilliseconds
        }
        deadline = loop.now &+ milliseconds &* 1_000_000
    }

    private func schedule() {
        guard let timer else { return }
        let shortest = min(
            configuration.tlsMilliseconds, configuration.headMilliseconds, configuration.lingerMilliseconds, Self.tick)
        loop.schedule(timer, afterMilliseconds: max(shortest / 2, 1))
    }

    private func stopTimer() {
        if let timer { loop.cancel(timer) }
        timer = nil
    }

    private func checkTime() {
        guard !stream.isClosed else { return }
        let now = loop.now
        if phase == .answering || phase == .lingering, stream.bufferedBytes != bufferedAtLastTick {
            enter(phase)
        }
        bufferedAtLastTick = stream.bufferedBytes
        if phase == .answering, bufferedAtLastTick == 0 { enter(.answering) }
        guard now >= deadline else { return schedule() }
        switch phase {
        case .idle, .lingering:
            stream.close(.closed)
        case .tls:
            stream.close(.timeout("the TLS handshake was not complete in time"))
        case .head:
            guard stream.hasUntaken else { return stream.close(.timeout("no request came in time")) }
            refuse(HTTPRefusal(408, "the head was not complete after \(configuration.headMilliseconds) ms"))
            schedule()
        case .body:
            guard let exchange = current, exchange.answer == .none, !bodyPaused else {
                if bodyPaused {
                    enter(.body)
                    return schedule()
                }
                return stream.close(.timeout("the body stopped"))
            }
            exchange.delegate?.exchangeEnded(exchange, TransportError(.timeout, "the body stopped"))
            exchange.delegate = nil
            refuse(HTTPRefusal(408, "no byte of the body came for \(configuration.bodyMilliseconds) ms"))
            schedule()
        case .answering:
            stream.close(.timeout("the client does not read its answer"))
        }
    }

    // MARK: Exchange

    func bodyIsWanted(_ exchange: HTTPExchange) {
        guard current === exchange, !exchange.bodyEnded else { return }
        if exchange.head.expectsContinue, exchange.answer == .none {
            stream.send(text: "HTTP/1.1 100 Continue\r\n\r\n")
        }
        enter(.body)
        if !isReading { stream.resume() }
    }

    func pauseBody(_ exchange: HTTPExchange) {
        guard current === exchange, !exchange.bodyEnded else { return }
        bodyPaused = true
    }

    func resumeBody(_ exchange: HTTPExchange) {
        guard current === exchange, bodyPaused else { return }
        bodyPaused = false
        if !exchange.bodyEnded { enter(.body) }
        if !isReading { stream.resume() }
    }

    private func writeHead(
        _ exchange: HTTPExchange, _ status: Int, _ headers: HTTPHeaders, framing: (inout [UInt8]) -> Void
    ) {
        // What is left of a body that nobody read cannot be told from the next request.
        if !exchange.bodyEnded { closesAfterAnswer = true }
        scratch.removeAll(keepingCapacity: true)
        scratch.append(static: "HTTP/1.1 ")
        scratch.append(decimal: UInt64(status))
        scratch.append(HTTPBytes.space)
        scratch.append(static: HTTPStatus.reason(status))
        scratch.append(static: "\r\ndate: ")
        scratch.append(contentsOf: stream.shared.date())
        scratch.append(static: "\r\n")
        headers.write(to: &scratch)
        framing(&scratch)
        if closesAfterAnswer {
            scratch.append(static: "connection: close\r\n")
        } else if exchange.head.minorVersion == 0 {
            scratch.append(static: "connection: keep-alive\r\n")
        }
        scratch.append(static: "\r\n")
    }

    private func sendScratch() {
        let bytes = scratch
        stream.send(bytes.span.bytes)
    }

    func respond(_ exchange: HTTPExchange, _ status: Int, _ headers: HTTPHeaders, _ payload: RawSpan) {
        guard current === exchange else { return }
        let hasBody = status != 204 && status != 304 && status >= 200
        writeHead(exchange, status, headers) { output in
            guard hasBody else { return }
            output.append(static: "content-length: ")
            output.append(decimal: UInt64(payload.byteCount))
            output.append(static: "\r\n")
        }
        if hasBody, exchange.head.method != .head, payload.byteCount <= 16 << 10 {
            payload.withUnsafeBytes { scratch.append(contentsOf: $0) }
            let bytes = scratch
            stream.send(bytes.span.bytes)
        } else {
            sendScratch()
            if hasBody, exchange.head.method != .head { stream.send(payload) }
        }
        complete(exchange)
    }

    func begin(_ exchange: HTTPExchange, _ status: Int, _ headers: HTTPHeaders, length: UInt64?) {
        guard current === exchange else { return }
        let answer: HTTPExchange.AnswerState
        if exchange.head.method == .head || status == 204 || status == 304 {
            answer = .ignored
        } else if let length {
            answer = .length(length)
        } else if exchange.head.minorVersion == 0 {
            answer = .untilClose
            closesAfterAnswer = true
        } else {
            answer = .chunked
        }
        writeHead(exchange, status, headers) { output in
            if let length {
                output.append(static: "content-length: ")
                output.append(decimal: length)
                output.append(static: "\r\n")
            } else if exchange.head.minorVersion == 1, status != 204, status != 304 {
                output.append(static: "transfer-encoding: chunked\r\n")
            }
        }
        exchange.answer = answer
        sendScratch()
    }

    func write(_ exchange: HTTPExchange, _ bytes: RawSpan) -> Bool {
        guard current === exchange else { return false }
        if bytes.byteCount > 0 {
            switch exchange.answer {
            case .chunked:
                scratch.removeAll(keepingCapacity: true)
                HTTPChunk.writeHeader(bytes.byteCount, to: &scratch)
                sendScratch()
                stream.send(bytes)
                stream.send(text: "\r\n")
            case .length(let left):
                guard UInt64(bytes.byteCount) <= left else {
                    // More than announced would be read as the next answer.
                    abort(exchange)
                    return false
                }
                exchange.answer = .length(left - UInt64(bytes.byteCount))
                stream.send(bytes)
            case .untilClose:
                stream.send(bytes)
            case .ignored: break
            case .none, .done, .failed: return false
            }
        }
        return !stream.isClosed && !stream.isOverHighMark
    }

    func finish(_ exchange: HTTPExchange) {
        guard current === exchange else { return }
        switch exchange.answer {
        case .chunked: stream.send(text: HTTPChunk.last)
        case .length(let left) where left > 0: return abort(exchange)
        case .none, .done, .failed: return
        default: break
        }
        complete(exchange)
    }

    func abort(_ exchange: HTTPExchange) {
        guard current === exchange else { return }
        fail(exchange, TransportError(.closed, "the answer was broken off"))
        stream.close(.closed)
    }

    private func complete(_ exchange: HTTPExchange) {
        exchange.answer = .done
        current = nil
        let delegate = exchange.delegate
        exchange.delegate = nil
        if closesAfterAnswer || listener.isDraining {
            enter(.lingering)
            stream.closeAfterFlush(lingering: true)
        } else {
            enter(.idle)
            if !isReading { stream.resume() }
        }
        delegate?.exchangeEnded(exchange, nil)
    }

    /// Answers what the parser refused, as far as an answer is still possible, and ends the connection.
    private func refuse(_ refusal: HTTPRefusal) {
        if let exchange = current {
            let isUnanswered = exchange.answer == .none
            fail(exchange, TransportError(.http, refusal.message))
            guard isUnanswered else { return stream.close(.closed) }
        }
        scratch.removeAll(keepingCapacity: true)
        scratch.append(static: "HTTP/1.1 ")
        scratch.append(decimal: UInt64(refusal.status))
        scratch.append(HTTPBytes.space)
        scratch.append(static: HTTPStatus.reason(refusal.status))
        let (contentType, bytes) = configuration.refusalBody(refusal)
        scratch.append(text: "\r\ncontent-type: \(contentType)\r\nconnection: close\r\ncontent-length: ")
        scratch.append(decimal: UInt64(bytes.count))
        scratch.append(static: "\r\n\r\n")
        scratch.append(contentsOf: bytes)
        sendScratch()
        enter(.lingering)
        stream.closeAfterFlush(lingering: true)
    }

    /// No request in progress: a stopping server may close it at once.
    var isIdle: Bool { current == nil && !stream.hasUntaken }

    /// Closes an idle connection; a busy one closes after its answer.
    func drain() {
        if isIdle { stream.close(.closed) } else { closesAfterAnswer = true }
    }

    // MARK: WebSocket

    func upgrade(
        _ exchange: HTTPExchange, key: String, subprotocol: String?, maximumMessage: Int?, headers: HTTPHeaders
    ) -> WebSocketConnection {
        var headers = headers
        headers.add("upgrade", "websocket")
        headers.add("connection", "Upgrade")
        headers.add("sec-websocket-accept", WebSocketHandshake.accept(key))
        if let subprotocol { headers.add("sec-websocket-protocol", subprotocol) }
        scratch.removeAll(keepingCapacity: true)
        scratch.append(static: "HTTP/1.1 101 Switching Protocols\r\n")
        headers.write(to: &scratch)
        scratch.append(static: "\r\n")
        sendScratch()
        stopTimer()
        let socket = WebSocketConnection(
            stream: stream, role: .server,
            maximumMessage: maximumMessage ?? configuration.maximumWebSocketMessage, subprotocol: subprotocol,
            listener: listener)
        stream.receiveLimit = UInt32(StreamLoop.receiveCapacity)
        stream.hand(to: socket)
        current = nil
        exchange.answer = .done
        let delegate = exchange.delegate
        exchange.delegate = nil
        if !isReading { stream.resume() }
        delegate?.exchangeEnded(exchange, nil)
        return socket
    }
}

extension [UInt8] {
    /// The bytes of the text. (`append(contentsOf: text.utf8)` costs three times as much.)
    mutating func append(text: String) {
        text.utf8Span.span.withUnsafeBufferPointer { append(contentsOf: $0) }
    }

    mutating func append(static text: StaticString) {
        append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func append(decimal number: UInt64) {
        var count = 1
        var rest = number
        while rest >= 10 {
            rest /= 10
            count += 1
        }
        append(addingCapacity: count) { (output: inout OutputSpan<UInt8>) in
            output.withUnsafeMutableBufferPointer { buffer, initialized in
                rest = number
                for index in (0..<count).reversed() {
                    buffer[index] = 0x30 &+ UInt8(truncatingIfNeeded: rest % 10)
                    rest /= 10
                }
                initialized = count
            }
        }
    }
}
