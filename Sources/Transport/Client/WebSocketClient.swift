import Crypto
import Reactor

/// Opens WebSockets to servers.
public enum WebSocketClient {
    /// Call it on the loop that shall own the connection. `delegate` hears of every message from the first on.
    /// Throws when the server cannot be reached, is not trusted, or answers anything but a proper upgrade; the message
    /// then holds the status and the beginning of its body.
    /// `subprotocols`: what is offered; the server must choose one of them if any is given.
    public static func connect(
        to url: ServerURL, subprotocols: [String] = [], maximumMessage: Int = 1 << 20,
        options: ClientOptions = .init(), delegate: any WebSocketDelegate
    ) async throws(TransportError) -> WebSocketConnection {
        guard let loop = EventLoop.current else {
            throw TransportError(.invalid, "WebSocketClient.connect must be called on an event loop")
        }
        let stream = try await Connector.open(url, on: loop, options)
        let key = Base64.encode(Random.bytes(16))
        let handler = WebSocketUpgradeHandler(
            key: key, subprotocols: subprotocols, maximumMessage: maximumMessage, limits: options.limits,
            delegate: delegate)
        guard !stream.isClosed else { throw TransportError(.closed, "the connection ended before the handshake") }
        stream.hand(to: handler)
        var request: [UInt8] = []
        request.append(text: "GET \(url.target) HTTP/1.1\r\nhost: \(url.authority)\r\n")
        var headers = options.headers
        headers.add("upgrade", "websocket")
        headers.add("connection", "Upgrade")
        headers.add("sec-websocket-version", "13")
        headers.add("sec-websocket-key", key)
        if !subprotocols.isEmpty { headers.add("sec-websocket-protocol", subprotocols.joined(separator: ", ")) }
        headers.write(to: &request)
        request.append(text: "\r\n")
        stream.send(request.span.bytes)
        stream.receiveLimit = UInt32(StreamLoop.receiveCapacity)
        stream.resume()
        return try await handler.socket(stream, within: options.handshakeMilliseconds)
    }
}

/// Reads the answer to an upgrade and hands the stream on.
private final class WebSocketUpgradeHandler: StreamHandler {
    private let key: String
    private let subprotocols: [String]
    private let maximumMessage: Int
    private let limits: HTTPLimits
    private var delegate: (any WebSocketDelegate)?
    private var scanner = HTTPHeadScanner()
    private var result: Result<WebSocketConnection, TransportError>?
    private let signal = LoopSignal()

    init(
        key: String, subprotocols: [String], maximumMessage: Int, limits: HTTPLimits,
        delegate: any WebSocketDelegate
    ) {
        self.key = key
        self.subprotocols = subprotocols
        self.maximumMessage = maximumMessage
        self.limits = limits
        self.delegate = delegate
    }

    func socket(_ stream: ByteStream, within milliseconds: UInt64) async throws(TransportError) -> WebSocketConnection {
        let timer = Timer { [weak stream] in
            stream?.close(.timeout("the server did not answer the upgrade within \(milliseconds) ms"))
        }
        let loop = stream.loop
        loop.schedule(timer, afterMilliseconds: milliseconds)
        while result == nil { await signal.wait { result != nil } }
        loop.cancel(timer)
        guard let result else { throw TransportError(.closed, "the connection ended") }
        return try result.get()
    }

    private func finish(_ value: Result<WebSocketConnection, TransportError>) {
        guard result == nil else { return }
        result = value
        delegate = nil
        signal.wake()
    }

    override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
        let input = Span<UInt8>(_bytes: bytes.bytes)
        do throws(HTTPRefusal) {
            guard let end = try scanner.end(of: input, limits: limits) else { return 0 }
            let head = try HTTPResponseHead.parsing(input.extracting(0..<end), answering: .get, limits: limits)
            if let fault = fault(head) {
                let text = String(repairing: input.extracting(end..<min(input.count, end + 300)))
                let shown = text.isEmpty ? fault : "\(fault): \(text)"
                finish(.failure(TransportError(.webSocket, shown)))
                stream.close(.closed)
                return input.count
            }
            let socket = WebSocketConnection(
                stream: stream, role: .client, maximumMessage: maximumMessage,
                subprotocol: head.headers["sec-websocket-protocol"], listener: nil)
            socket.delegate = delegate
            stream.hand(to: socket)
            finish(.success(socket))
            return end
        } catch {
            finish(.failure(TransportError(.http, error.message)))
            stream.close(.closed)
            return bytes.byteCount
        }
    }

    /// RFC 6455 §4.1: what the client must check.
    private func fault(_ head: HTTPResponseHead) -> String? {
        guard head.status == 101 else { return "the server answered \(head.status) instead of an upgrade" }
        guard head.headers.list("upgrade", contains: "websocket"),
            head.headers.list("connection", contains: "upgrade")
        else { return "the server's upgrade is not to WebSocket" }
        guard head.headers.values("sec-websocket-accept") == [WebSocketHandshake.accept(key)] else {
            return "Sec-WebSocket-Accept does not belong to our key"
        }
        guard !head.headers.contains("sec-websocket-extensions") else {
            return "the server chose an extension that was not offered"
        }
        let chosen = head.headers.values("sec-websocket-protocol")
        guard subprotocols.isEmpty ? chosen.isEmpty : chosen.count == 1 && subprotocols.contains(chosen[0]) else {
            return "the server chose subprotocol \(chosen), offered were \(subprotocols)"
        }
        return nil
    }

    override func closed(_ stream: ByteStream, _ end: StreamEnd) { finish(.failure(end.error)) }
}
