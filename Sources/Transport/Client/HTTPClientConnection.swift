import Reactor

/// The client's side of one HTTP/1.1 connection: one request at a time.
final class HTTPClientConnection: StreamHandler {
    /// Body bytes kept for a reader before the server is made to wait.
    private static let bound = 256 << 10

    private let stream: ByteStream
    private let authority: String
    private let options: ClientOptions
    private let signal = LoopSignal()
    private var scanner = HTTPHeadScanner()
    private var body = HTTPBodyStateMachine(.none, limits: HTTPLimits())
    private var state = State.idle
    private var method = HTTPMethod.get
    private var head: HTTPResponseHead?
    private var pieces: [UInt8] = []
    private var error: TransportError?
    private var current: HTTPClientResponse?
    /// The request has been sent to its end: another one may follow on the connection.
    private var isWhole = false
    /// Something of the present answer has arrived.
    private var hasAnswered = false

    private enum State {
        case idle
        case head
        case body
        case ended
    }

    init(_ stream: ByteStream, authority: String, _ options: ClientOptions) {
        self.stream = stream
        self.authority = authority
        self.options = options
        super.init()
        stream.hand(to: self)
        stream.receiveLimit = 256 << 10
    }

    var isReusable: Bool { state == .idle && !stream.isClosed && error == nil }
    /// The connection ended before a byte of the answer came.
    var diedSilently: Bool { stream.isClosed && !hasAnswered }

    func close() { stream.close(.closed) }

    func request(
        _ method: HTTPMethod, _ target: String, _ headers: HTTPHeaders, _ payload: [UInt8], _ milliseconds: UInt64
    ) async throws(TransportError) -> HTTPClientResponse {
        try begin(method)
        send(method, target, headers, payload)
        stream.resume()
        return try await answer(milliseconds)
    }

    /// The body comes piece by piece; what waits for the server is bounded by the stream's high mark and one piece.
    func request(
        _ method: HTTPMethod, _ target: String, _ headers: HTTPHeaders, _ length: UInt64?,
        _ next: () async throws(TransportError) -> [UInt8]?, _ milliseconds: UInt64
    ) async throws(TransportError) -> HTTPClientResponse {
        try begin(method)
        sendHead(method, target, headers) { request in
            if let length {
                request.append(text: "content-length: ")
                request.append(decimal: length)
                request.append(text: "\r\n")
            } else {
                request.append(text: "transfer-encoding: chunked\r\n")
            }
        }
        stream.resume()
        var sent: UInt64 = 0
        do throws(TransportError) {
            while head == nil, error == nil, let piece = try await next() {
                guard !piece.isEmpty else { continue }
                sent += UInt64(piece.count)
                if let length, sent > length { throw TransportError(.invalid, "the body is longer than its announced \(length) bytes") }
                await sendPiece(piece, isChunk: length == nil)
            }
            if head == nil, error == nil {
                if let length, sent < length { throw TransportError(.invalid, "the body ended after \(sent) of \(length) bytes") }
                if length == nil { stream.send(text: HTTPChunk.last) }
                isWhole = true
            }
        } catch {
            close()
            throw error
        }
        return try await answer(milliseconds)
    }

    private func sendPiece(_ piece: [UInt8], isChunk: Bool) async {
        if isChunk {
            var header: [UInt8] = []
            HTTPChunk.writeHeader(piece.count, to: &header)
            stream.send(header.span.bytes)
        }
        stream.send(piece.span.bytes)
        if isChunk { stream.send(text: "\r\n") }
        while stream.isOverHighMark, head == nil, error == nil {
            await signal.wait { !stream.isOverHighMark || head != nil || error != nil }
        }
    }

    override func drained(_ stream: ByteStream) { signal.wake() }

    private func begin(_ method: HTTPMethod) throws(TransportError) {
        guard state == .idle else {
            throw TransportError(.invalid, "the answer before has not been read to its end")
        }
        state = .head
        self.method = method
        head = nil
        current = nil
        hasAnswered = false
        isWhole = false
        scanner.reset()
    }

    private func answer(_ milliseconds: UInt64) async throws(TransportError) -> HTTPClientResponse {
        let timer = milliseconds > 0 ? watch(milliseconds, "no answer within \(milliseconds) ms") : nil
        while head == nil, error == nil { await signal.wait { head != nil || error != nil } }
        if let timer { stream.loop.cancel(timer) }
        guard let head else { throw error ?? TransportError(.closed, "the connection ended") }
        let response = HTTPClientResponse(head, self)
        current = response
        return response
    }

    private func sendHead(
        _ method: HTTPMethod, _ target: String, _ headers: HTTPHeaders, framing: (inout [UInt8]) -> Void
    ) {
        let request = requestHead(method, target, headers, framing)
        stream.send(request.span.bytes)
    }

    private func requestHead(
        _ method: HTTPMethod, _ target: String, _ headers: HTTPHeaders, _ framing: (inout [UInt8]) -> Void
    ) -> [UInt8] {
        var request: [UInt8] = []
        request.append(text: method.rawValue)
        request.append(HTTPBytes.space)
        request.append(text: target)
        request.append(text: " HTTP/1.1\r\nhost: ")
        request.append(text: authority)
        request.append(text: "\r\n")
        options.headers.write(to: &request)
        headers.write(to: &request)
        framing(&request)
        request.append(text: "\r\n")
        return request
    }

    private func send(_ method: HTTPMethod, _ target: String, _ headers: HTTPHeaders, _ payload: [UInt8]) {
        var request = requestHead(method, target, headers) { request in
            guard !payload.isEmpty || method == .post || method == .put || method == .patch else { return }
            request.append(text: "content-length: ")
            request.append(decimal: UInt64(payload.count))
            request.append(text: "\r\n")
        }
        isWhole = true
        if payload.count <= 16 << 10 {
            request += payload
            stream.send(request.span.bytes)
        } else {
            stream.outputBound = UInt32(clamping: payload.count + (1 << 20))
            stream.send(request.span.bytes)
            stream.send(payload.span.bytes)
        }
    }

    private func watch(_ milliseconds: UInt64, _ what: String) -> Timer {
        let timer = Timer { [weak stream] in stream?.close(.timeout(what)) }
        stream.loop.schedule(timer, afterMilliseconds: milliseconds)
        return timer
    }

    func nextPiece(of response: HTTPClientResponse, _ milliseconds: UInt64) async throws(TransportError) -> [UInt8]? {
        guard current === response else { return nil }
        let timer =
            milliseconds > 0 && pieces.isEmpty && state == .body
            ? watch(milliseconds, "the answer stopped for \(milliseconds) ms") : nil
        while pieces.isEmpty, state == .body, error == nil {
            await signal.wait { !pieces.isEmpty || state != .body || error != nil }
        }
        if let timer { stream.loop.cancel(timer) }
        if !pieces.isEmpty {
            let piece = pieces
            pieces = []
            stream.resume()
            return piece
        }
        if state == .idle || state == .ended && error == nil {
            current = nil
            return nil
        }
        throw error ?? TransportError(.closed, "the connection ended inside the answer")
    }

    func cancel(_ response: HTTPClientResponse) {
        guard current === response, state == .body else { return }
        close()
    }

    override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
        let input = Span<UInt8>(_bytes: bytes.bytes)
        var offset = 0
        do throws(HTTPRefusal) {
            while offset < input.count || state == .body {
                switch state {
                case .head:
                    hasAnswered = true
                    let rest = input.extracting(offset..<input.count)
                    guard let end = try scanner.end(of: rest, limits: options.limits) else { return offset }
                    scanner.reset()
                    let next = try HTTPResponseHead.parsing(
                        rest.extracting(0..<end), answering: method, limits: options.limits)
                    offset += end
                    // 100 and 103 announce the real answer.
                    guard next.status >= 200 else { continue }
                    head = next
                    body = HTTPBodyStateMachine(next.framing, limits: options.limits)
                    state = .body
                    if body.isDone { endBody() }
                    signal.wake()
                case .body:
                    switch try body.next(input, from: offset) {
                    case .data(let range):
                        input.extracting(range).withUnsafeBufferPointer { pieces.append(contentsOf: $0) }
                        offset = range.upperBound
                        if body.isDone { endBody() }
                        signal.wake()
                        if pieces.count >= Self.bound, state == .body {
                            stream.pause()
                            return offset
                        }
                    case .more(let consumed): return consumed
                    case .end(let consumed):
                        offset = consumed
                        endBody()
                        signal.wake()
                    }
                case .idle, .ended:
                    // Bytes that answer nothing: the connection cannot be trusted any more.
                    stream.close(.closed)
                    return input.count
                }
            }
        } catch {
            fail(TransportError(.http, error.message))
            stream.close(.closed)
            return bytes.byteCount
        }
        return offset
    }

    private func endBody() {
        state = head?.keepsAlive == true && isWhole ? .idle : .ended
        if state == .ended { stream.close(.closed) }
    }

    private func fail(_ error: TransportError) {
        if self.error == nil { self.error = error }
        signal.wake()
    }

    override func peerEnded(_ stream: ByteStream) {
        if state == .body, body.endsWithConnection, !stream.isTruncated {
            state = .ended
            signal.wake()
        }
        stream.close(.peerClosed)
    }

    override func closed(_ stream: ByteStream, _ end: StreamEnd) {
        if state != .ended {
            if state == .body || state == .head { fail(end.error) } else { error = end.error }
        }
        signal.wake()
    }
}
