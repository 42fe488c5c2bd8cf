import Glibc
import Reactor

/// Opens streams to servers: name, TCP, proxy, TLS, one after the other. On the loop of the caller.
enum Connector {
    /// A stream that is ready for the first byte of HTTP. It is paused: give it a handler, then `resume`.
    static func open(_ url: ServerURL, on loop: EventLoop, _ options: ClientOptions) async throws(TransportError) -> ByteStream {
        loop.preconditionCurrent()
        let stream: ByteStream
        if let proxy = options.proxy {
            stream = try await connect(host: proxy.host, port: proxy.port, on: loop, options)
            let machine = ProxyGreetingStateMachine(proxy, host: url.host, port: url.port)
            try await ProxyGreetingHandler(machine).run(stream, within: options.handshakeMilliseconds)
            guard !stream.hasUntaken else {
                stream.close(.closed)
                throw TransportError(.proxy, "the server spoke before it was asked")
            }
        } else {
            stream = try await connect(host: url.host, port: url.port, on: loop, options)
        }
        if url.isSecure { try await secure(stream, url, options) }
        guard !stream.isClosed else { throw TransportError(.closed, "\(url.authority) ended the connection") }
        return stream
    }

    private static func secure(
        _ stream: ByteStream, _ url: ServerURL, _ options: ClientOptions
    ) async throws(TransportError) {
        guard let context = options.tls else {
            stream.close(.closed)
            throw TransportError(.invalid, "\(url) needs TLS, but it was not said whom to trust")
        }
        let waiter = OpeningHandler()
        let peer = TLSPeer(name: url.host, authority: "\(url.host):\(url.port)", resumption: options.resumption)
        try stream.secure(with: context, peer: peer, handler: waiter)
        if let end = await waiter.opened(
            stream, within: options.handshakeMilliseconds, what: "the TLS handshake with \(url.authority)")
        {
            throw end.error
        }
    }

    private static func connect(
        host: String, port: UInt16, on loop: EventLoop, _ options: ClientOptions
    ) async throws(TransportError) -> ByteStream {
        let addresses = try await Resolver.of(loop).addresses(of: host, port: port)
        var last = TransportError(.resolve, "\(host) has no address")
        for address in addresses {
            do throws(TransportError) {
                return try await connect(address, on: loop, options)
            } catch {
                last = error
            }
        }
        throw last
    }

    private static func connect(
        _ address: SocketAddress, on loop: EventLoop, _ options: ClientOptions
    ) async throws(TransportError) -> ByteStream {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(address.ip.isV4 ? AF_INET : AF_INET6, kind, 0)
        guard descriptor >= 0 else { throw TransportError(.system, "socket failed with errno \(errno)") }
        setNoDelay(descriptor)
        if let local = options.localAddress {
            let bound = SocketAddress(ip: local, port: 0).withSocketAddress { Glibc.bind(descriptor, $0, $1) }
            guard bound == 0 else {
                let number = errno
                close(descriptor)
                throw TransportError(.system, "cannot connect from \(local): errno \(number)")
            }
        }
        let status = address.withSocketAddress { Glibc.connect(descriptor, $0, $1) }
        if status != 0, errno != EINPROGRESS {
            let number = errno
            close(descriptor)
            throw refused(address, number)
        }
        let stream = ByteStream(
            descriptor: descriptor, peer: address, context: StreamLoop.of(loop), connecting: true)
        stream.pause()
        let waiter = OpeningHandler()
        try stream.start(waiter)
        if let end = await waiter.opened(
            stream, within: options.connectMilliseconds, what: "connecting to \(address)")
        {
            if case .failed(let number) = end { throw refused(address, number) }
            throw end.error
        }
        return stream
    }

    private static func refused(_ address: SocketAddress, _ number: Int32) -> TransportError {
        switch number {
        case ECONNREFUSED: TransportError(.refused, "nobody listens at \(address)")
        case ETIMEDOUT: TransportError(.timeout, "no answer from \(address)")
        default: TransportError(.system, "connecting to \(address) failed with errno \(number)")
        }
    }
}

/// Waits for a stream to open. Takes no bytes: they stay for the handler after it.
final class OpeningHandler: StreamHandler {
    private let signal = LoopSignal()
    private var isOpen = false
    private var end: StreamEnd?

    override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int { 0 }

    override func opened(_ stream: ByteStream) {
        isOpen = true
        signal.wake()
    }

    override func peerEnded(_ stream: ByteStream) { stream.close(.peerClosed) }

    override func closed(_ stream: ByteStream, _ end: StreamEnd) {
        self.end = end
        signal.wake()
    }

    /// nil when the stream is open, else how it ended. Closes it when the time is over.
    func opened(_ stream: ByteStream, within milliseconds: UInt64, what: String) async -> StreamEnd? {
        let timer = Timer { [weak stream] in
            stream?.close(.timeout("\(what) took longer than \(milliseconds) ms"))
        }
        let loop = stream.loop
        loop.schedule(timer, afterMilliseconds: milliseconds)
        while end == nil, !isOpen { await signal.wait { end != nil || isOpen } }
        loop.cancel(timer)
        return end
    }
}
