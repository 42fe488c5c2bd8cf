import Reactor
import Transport

/// A WebSocket of `NetworkTransport`. Confined to its loop.
final class NetworkSocket: APISocket, WebSocketDelegate {
    private let receive: (APIMessage) -> Void
    /// Set once, right after the handshake.
    var connection: WebSocketConnection?
    private(set) var isClosed = false
    private var waiter: UnsafeContinuation<Void, Never>?
    private var isWoken = false

    init(_ receive: @escaping (APIMessage) -> Void) { self.receive = receive }

    func send(_ bytes: [UInt8]) { _ = connection?.send(bytes) }
    func send(text: [UInt8]) { _ = connection?.send(text, isText: true) }
    func close() { connection?.close() }

    func wake() {
        isWoken = true
        waiter?.resume()
        waiter = nil
    }

    func wait(milliseconds: UInt64) async {
        guard let loop = EventLoop.current, !isClosed, !isWoken else {
            isWoken = false
            return
        }
        let timer = Timer { [weak self] in self?.wake() }
        loop.schedule(timer, afterMilliseconds: milliseconds)
        await withUnsafeContinuation { waiter = $0 }
        loop.cancel(timer)
        isWoken = false
    }

    func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool) {
        let bytes = message.withUnsafeBytes { Array($0) }
        receive(isText ? .text(bytes) : .binary(bytes))
    }

    func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String) {
        isClosed = true
        wake()
    }
}
