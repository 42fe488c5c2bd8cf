import Glibc
import Reactor

/// One listening socket on one loop, and the connections that came in through it.
final class Listener: Source {
    let configuration: HTTPServerConfiguration
    let service: any HTTPService
    private let tls: TLSContext?
    private let context: StreamLoop
    private var retryTimer: Timer?
    private(set) var isDraining = false
    /// Open connections, by descriptor; what a stopping server closes.
    private var streams: [Int32: ByteStream] = [:]
    private var onEmpty: (() -> Void)?
    private var limiter: AddressLimitStateMachine
    /// Accepted and left unread until the limiter names them.
    private var parked: [Int32: SocketAddress] = [:]

    init(
        descriptor: Int32, loop: EventLoop, configuration: HTTPServerConfiguration, tls: TLSContext?,
        service: any HTTPService
    ) {
        self.tls = tls
        self.configuration = configuration
        self.service = service
        limiter = AddressLimitStateMachine(
            limit: configuration.unauthenticatedPerAddress, parkedLimit: configuration.parkedPerAddress)
        context = StreamLoop.of(loop)
        super.init(descriptor: descriptor)
    }

    deinit { if !isDraining { Glibc.close(descriptor) } }

    var connectionCount: Int { streams.count }

    override func ready(_ readiness: Readiness) { acceptAll() }

    private func acceptAll() {
        // At most this many at a time, so that established connections are served in between.
        for _ in 0..<64 {
            var storage = sockaddr_storage()
            let accepted = acceptConnection(descriptor, &storage)
            if accepted >= 0 {
                guard let peer = SocketAddress(storage: storage) else {
                    Glibc.close(accepted)
                    continue
                }
                open(accepted, peer)
                continue
            }
            switch -accepted {
            case EAGAIN: return
            case EINTR, ECONNABORTED, EPROTO: continue
            default:
                // Out of descriptors or memory: the edge is used up, so look again by the clock.
                return retry(afterMilliseconds: 50)
            }
        }
        retry(afterMilliseconds: 0)
    }

    private func retry(afterMilliseconds milliseconds: UInt64) {
        guard !isDraining else { return }
        let timer = retryTimer ?? Timer { [weak self] in self?.acceptAll() }
        retryTimer = timer
        context.loop.schedule(timer, afterMilliseconds: milliseconds)
    }

    private func open(_ descriptor: Int32, _ peer: SocketAddress) {
        guard streams.count + parked.count < configuration.connectionsPerLoop else {
            Glibc.close(descriptor)
            return
        }
        if ForwardedAddress.isTrusted(peer.ip, configuration.trustedProxies) {
            return start(descriptor, peer, isCounted: false)
        }
        switch limiter.arrived(peer.ip, descriptor) {
        case .admit: start(descriptor, peer, isCounted: true)
        case .park: parked[descriptor] = peer
        case .refuse: Glibc.close(descriptor)
        }
    }

    private func start(_ descriptor: Int32, _ peer: SocketAddress, isCounted: Bool) {
        setNoDelay(descriptor)
        let stream = ByteStream(descriptor: descriptor, peer: peer, context: context)
        stream.isCounted = isCounted
        streams[descriptor] = stream
        let connection = HTTPServerConnection(stream: stream, listener: self)
        connection.begin(isSecure: tls != nil)
        do throws(TransportError) {
            if isCounted {
                if let tls { try stream.secure(with: tls) }
                try stream.start(connection)
            } else {
                // Only a trusted proxy may say for whom it speaks.
                try stream.start(ProxyProtocolHandler(connection, tls))
            }
        } catch {
            stream.close(.tls(error.message))
            ended(stream)
        }
    }

    func ended(_ stream: ByteStream) {
        guard streams[stream.descriptor] === stream else { return }
        streams[stream.descriptor] = nil
        authenticated(stream)
        if streams.isEmpty, let onEmpty {
            self.onEmpty = nil
            onEmpty()
        }
    }

    /// The connection has shown who it is (or is gone): the next parked one of its address gets its turn.
    func authenticated(_ stream: ByteStream) {
        guard stream.isCounted else { return }
        stream.isCounted = false
        guard let next = limiter.released(stream.peer.ip), let peer = parked.removeValue(forKey: next) else { return }
        start(next, peer, isCounted: true)
    }

    /// The client behind a peer: itself, unless the peer is a proxy that we trust.
    func clientAddress(peer: IPAddress, headers: HTTPHeaders) -> IPAddress {
        ForwardedAddress.client(peer: peer, headers: headers, trusted: configuration.trustedProxies)
    }

    /// Stops accepting, ends idle HTTP connections and those that become idle. WebSockets are their owner's to close.
    /// `whenEmpty` is called when the last connection is gone.
    func drain(whenEmpty: @escaping () -> Void) {
        stopAccepting()
        for stream in streams.values {
            (stream.handler as? HTTPServerConnection)?.drain()
        }
        if streams.isEmpty { whenEmpty() } else { onEmpty = whenEmpty }
    }

    func stopAccepting() {
        guard !isDraining else { return }
        isDraining = true
        if let retryTimer { context.loop.cancel(retryTimer) }
        context.loop.remove(self)
        Glibc.close(descriptor)
        for descriptor in limiter.takeParked() {
            parked[descriptor] = nil
            Glibc.close(descriptor)
        }
    }

    func stop() {
        stopAccepting()
        for stream in streams.values { stream.close(.closed) }
    }
}

/// Small messages must not wait for the acknowledgement of earlier ones.
func setNoDelay(_ descriptor: Int32) {
    var on: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
}
