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
        let (descriptors, bound) = try ListeningSocket.openAll(at: address, count: loops.count)
        return try await start(
            descriptors, at: bound, on: loops, configuration: configuration, tls: tls, service: service)
    }

    /// Serves sockets that listen already, all at `address`; they become the server's. Loops take them in turn.
    public static func start(
        _ descriptors: [Int32], at address: SocketAddress, on loops: [EventLoop],
        configuration: HTTPServerConfiguration = .init(), tls: TLSContext? = nil,
        service: @escaping @Sendable (EventLoop) -> any HTTPService
    ) async throws(TransportError) -> HTTPServer {
        var listeners: [Confined<Listener>] = []
        do throws(TransportError) {
            for (index, descriptor) in descriptors.enumerated() {
                listeners.append(
                    try await start(
                        descriptor, loops[index % loops.count], configuration: configuration, tls: tls, service: service))
            }
        } catch {
            HTTPServer(address: address, listeners: listeners).stop()
            throw error
        }
        return HTTPServer(address: address, listeners: listeners)
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
