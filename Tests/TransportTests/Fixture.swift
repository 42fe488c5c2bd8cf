import Reactor
import Synchronization
import Testing

@testable import Transport

/// Runs a test's body as a task of a fresh loop and returns what it returned.
func onLoop<Value: Sendable>(
    _ body: @escaping @Sendable (EventLoop) async throws -> Value
) async throws -> Value {
    let loop = try EventLoop.start(name: "test")
    defer { loop.stop() }
    let result: Result<Value, any Error> = await withUnsafeContinuation { continuation in
        loop.spawn {
            do {
                continuation.resume(returning: .success(try await body(loop)))
            } catch {
                continuation.resume(returning: .failure(error))
            }
        }
    }
    return try result.get()
}

/// A service from a closure.
final class ClosureService: HTTPService {
    let handle: (HTTPExchange) -> Void
    init(_ handle: @escaping (HTTPExchange) -> Void) { self.handle = handle }
    func exchangeBegan(_ exchange: HTTPExchange) { handle(exchange) }
}

/// Echoes each message; `close` as text makes it close with 1000.
final class Echo: WebSocketDelegate {
    func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool) {
        socket.send(message, isText: isText)
    }
    func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String) {}
}

extension HTTPServer {
    /// A server on a free loopback port of this loop.
    static func test(
        _ loop: EventLoop, _ configuration: HTTPServerConfiguration = .init(),
        _ handle: @escaping @Sendable (HTTPExchange) -> Void
    ) async throws -> HTTPServer {
        try await start(
            at: SocketAddress(ip: .loopback, port: 0), on: [loop], configuration: configuration
        ) { _ in ClosureService(handle) }
    }

    var url: ServerURL { ServerURL(isSecure: false, host: "127.0.0.1", port: address.port) }
}

/// A bare TCP client: sends bytes, gathers what comes until a condition holds or the peer ends.
final class RawClient: StreamHandler {
    private(set) var bytes: [UInt8] = []
    private(set) var isOver = false
    private let signal = LoopSignal()
    private let stream: ByteStream

    static func connect(_ server: HTTPServer, _ loop: EventLoop) async throws -> RawClient {
        let stream = try await Connector.open(server.url, on: loop, ClientOptions())
        let client = RawClient(stream)
        stream.hand(to: client)
        stream.resume()
        return client
    }

    private init(_ stream: ByteStream) {
        self.stream = stream
        super.init()
    }

    override func received(_ input: inout MutableRawSpan, on stream: ByteStream) -> Int {
        input.bytes.withUnsafeBytes { bytes.append(contentsOf: $0) }
        signal.wake()
        return input.byteCount
    }
    override func closed(_ stream: ByteStream, _ end: StreamEnd) {
        isOver = true
        signal.wake()
    }

    func send(_ text: String) { send(Array(text.utf8)) }
    func send(_ bytes: [UInt8]) { stream.send(bytes.span.bytes) }
    func close() { stream.close(.closed) }

    var text: String { String(decoding: bytes, as: UTF8.self) }

    func until(_ condition: (RawClient) -> Bool) async {
        while !condition(self), !isOver { await signal.wait { condition(self) || isOver } }
    }
    /// Everything that came until the peer ended the connection.
    func rest() async -> String {
        await until { _ in false }
        return text
    }
    func request(_ text: String) async -> String {
        send(text)
        return await rest()
    }
}
