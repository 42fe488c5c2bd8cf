import Reactor
import Synchronization

/// A listening HTTP/1.1 and WebSocket server: one listener per loop, all at the same port.
public final class HTTPServer: Sendable {
    /// Where it listens; the port is real even if 0 was asked for.
    public let address: SocketAddress
    private let listeners: [Confined<Listener>]

    private init(address: SocketAddress, listeners: [Confined<Listener>]) {
        self.address = address
        self.listeners = listeners
    }

    /// Listens at `address` on every one of `loops`. `service` is called once on each loop to make its service.
    /// With `tls` nothing but TLS is spoken. Throws `socket-error` if the address cannot be had.
    public static func start(
        at address: SocketAddress, on loops: [EventLoop], configuration: HTTPServerConfiguration = .init(),
        tls: TLSContext? = nil, service: @escaping @Sendable (EventLoop) -> any HTTPService
    ) async throws(TransportError) -> HTTPServer {
        var listeners: [Confined<Listener>] = []
        var bound = address
        do throws(TransportError) {
            // Sockets that share a port would let a second program in silently; one that does not share finds it.
            if address.port != 0 { try ListeningSocket.checkFree(address) }
            for loop in loops {
                let descriptor = try ListeningSocket.open(bound)
                guard let local = ListeningSocket.localAddress(descriptor) else {
                    throw TransportError(.system, "getsockname failed")
                }
                bound = local
                listeners.append(
                    try await start(descriptor, loop, configuration: configuration, tls: tls, service: service))
            }
        } catch {
            HTTPServer(address: bound, listeners: listeners).stop()
            throw error
        }
        return HTTPServer(address: bound, listeners: listeners)
    }

    private static func start(
        _ descriptor: Int32, _ loop: EventLoop, configuration: HTTPServerConfiguration, tls: TLSContext?,
        service: @escaping @Sendable (EventLoop) -> any HTTPService
    ) async throws(TransportError) -> Confined<Listener> {
        let result: Result<Confined<Listener>, TransportError> = await withUnsafeContinuation { continuation in
            loop.onLoop {
                let listener = Listener(
                    descriptor: descriptor, loop: loop, configuration: configuration, tls: tls,
                    service: service(loop))
                do {
                    try loop.add(listener)
                    continuation.resume(returning: .success(Confined(listener, on: loop)))
                } catch {
                    continuation.resume(returning: .failure(TransportError(.system, "\(error)")))
                }
            }
        }
        return try result.get()
    }

    /// Stops accepting and ends connections as they become idle. Returns when the last is gone; WebSockets are closed
    /// by their owners. Give it a time limit from outside, then `stop`.
    public func drain() async {
        for listener in listeners { listener.post { $0.stopAccepting() } }
        for listener in listeners {
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
                listener.post { $0.drain { continuation.resume() } }
            }
        }
    }

    /// Ends everything at once.
    public func stop() {
        for listener in listeners { listener.post { $0.stop() } }
    }
}
