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
    private var parked: [Int32: ParkedConnection] = [:]
    private var silenceTimer: Timer?
    /// Milliseconds between looks at silent parked connections.
    private static let silenceTick: UInt64 = 1_000

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
        // At most this many at a time, so that established connections are served in between. Enough that nobody waits in
        // the kernel, where the lanes of the limiter do not count.
        for _ in 0..<256 {
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
        case .park: park(descriptor, peer)
        case .refuse: Glibc.close(descriptor)
        }
    }

    // MARK: Parked connections

    private func park(_ descriptor: Int32, _ peer: SocketAddress) {
        let connection = ParkedConnection(descriptor: descriptor, peer: peer, listener: self, now: context.loop.now)
        parked[descriptor] = connection
        do throws(ReactorError) { try context.loop.add(connection) } catch { return dropParked(connection) }
        guard silenceTimer == nil else { return }
        let timer = Timer { [weak self] in self?.dropSilent() }
        silenceTimer = timer
        context.loop.schedule(timer, afterMilliseconds: Self.silenceTick)
    }

    /// A parked connection has said something, or has ended.
    func spoke(_ connection: ParkedConnection) {
        guard parked[connection.descriptor] === connection else { return }
        let word = FirstWord.of(connection.descriptor, context.receiveBuffer)
        switch word {
        case .silence: break
        case .gone: dropParked(connection)
        case .stranger, .returning:
            connection.hasSpoken = true
            let isReturning = tls != nil && word == .returning
            switch limiter.spoke(connection.peer.ip, connection.descriptor, isReturning: isReturning) {
            case .admit: startParked(connection)
            case .park: break
            case .refuse: dropParked(connection)
            }
        }
    }

    private func startParked(_ connection: ParkedConnection) {
        parked[connection.descriptor] = nil
        context.loop.remove(connection)
        start(connection.descriptor, connection.peer, isCounted: true)
    }

    private func dropParked(_ connection: ParkedConnection) {
        limiter.left(connection.peer.ip, connection.descriptor)
        parked[connection.descriptor] = nil
        context.loop.remove(connection)
        Glibc.close(connection.descriptor)
    }

    /// Ends parked connections that have said nothing in the time that a handshake may take.
    private func dropSilent() {
        silenceTimer = nil
        let limit = (tls == nil ? configuration.headMilliseconds : configuration.tlsMilliseconds) * 1_000_000
        let now = context.loop.now
        for connection in parked.values where !connection.hasSpoken && now - connection.since > limit {
            dropParked(connection)
        }
        guard !parked.isEmpty, !isDraining else { return }
        let timer = Timer { [weak self] in self?.dropSilent() }
        silenceTimer = timer
        context.loop.schedule(timer, afterMilliseconds: Self.silenceTick)
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
        if let next = limiter.released(stream.peer.ip), let connection = parked[next] { startParked(connection) }
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
        for timer in [retryTimer, silenceTimer] { if let timer { context.loop.cancel(timer) } }
        context.loop.remove(self)
        Glibc.close(descriptor)
        for descriptor in limiter.takeParked() {
            if let connection = parked.removeValue(forKey: descriptor) { context.loop.remove(connection) }
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
