import AgentProtocol
import Reactor
import Synchronization
import Transport

/// Bounds and times of the agents' side of the core.
public struct AgentEndpointOptions: Sendable {
    /// A proxy ends TLS in front of the core: the handshake brings its own exchange and frames are sealed.
    public var viaProxy = false
    /// Open executions of one link.
    public var channels = WireLimits.channels
    /// Agents per second that a planned stop calls back.
    public var reconnectsPerSecond = 2_000
    /// Before the first of them: the time that a restart takes.
    public var reconnectAfterMilliseconds: UInt64 = 1_000
    /// Of unauthenticated agent connections that are in their handshake, per loop.
    public var handshakesPerLoop = 4_096
    public var coreVersion = ""

    public init() {}
}

/// Where agents come in: takes upgraded connections of the path `/agent`, drives the registry (`AgentAuthority`) and
/// the commands (`ExecutionSink`), and keeps each connection on the loop that accepted it.
///
/// Sendable: the parts per loop are confined; the table of them is behind a mutex that is held only to look one up.
public final class AgentEndpoint: Sendable {
    public let options: AgentEndpointOptions
    let authority: any AgentAuthority
    let sink: any ExecutionSink
    /// `nil`: this core has nothing to do with terminals, and does not offer them.
    let terminals: (any TerminalSink)?
    /// `nil`: likewise with files.
    let transfers: Transfers?
    /// `nil`: likewise with upgrades.
    let upgrades: (any UpgradeSink)?
    private let identity: @Sendable () -> CoreIdentity
    private let homes = Mutex<[ObjectIdentifier: Confined<LinkHome>]>([:])
    private let isStopping = Atomic<Bool>(false)

    /// - Parameter identity: asked once per connection; cheap.
    public convenience init(
        options: AgentEndpointOptions = .init(), identity: @escaping @Sendable () -> CoreIdentity,
        authority: any AgentAuthority, sink: any ExecutionSink, channels: Channels? = nil, transfers: Transfers? = nil,
        upgrades: Upgrades? = nil
    ) {
        self.init(
            options: options, identity: identity, authority: authority, sink: sink, terminals: channels, transfers: transfers,
            upgrades: upgrades)
    }

    /// What this core can do beside commands.
    var features: [String] {
        Feature.all.filter {
            ($0 != Feature.terminal || terminals != nil) && (![Feature.file, Feature.fileURL, Feature.fileHash].contains($0) || transfers != nil)
                && ($0 != Feature.upgrade || upgrades != nil)
        }
    }

    init(
        options: AgentEndpointOptions, identity: @escaping @Sendable () -> CoreIdentity,
        authority: any AgentAuthority, sink: any ExecutionSink, terminals: (any TerminalSink)?, transfers: Transfers? = nil,
        upgrades: (any UpgradeSink)? = nil
    ) {
        self.terminals = terminals
        self.transfers = transfers
        self.upgrades = upgrades
        self.options = options
        self.identity = identity
        self.authority = authority
        self.sink = sink
    }

    /// Takes one request for `/agent` over, on its loop. What is no proper upgrade is answered here.
    public func accept(_ exchange: HTTPExchange) {
        guard let loop = exchange.loop else { return }
        guard !isStopping.load(ordering: .relaxed) else {
            return exchange.refuse(HTTPRefusal(503, "the core is stopping"))
        }
        guard WebSocketHandshake.offered(AgentConnection.subprotocol, by: exchange.head) else {
            return exchange.refuse(
                HTTPRefusal(400, "agents offer the WebSocket subprotocol \(AgentConnection.subprotocol)"))
        }
        let home = home(of: loop)
        guard home.handshakes < options.handshakesPerLoop else {
            return exchange.refuse(HTTPRefusal(503, "too many agents are in their handshake; try again"))
        }
        do throws(HTTPRefusal) {
            let socket = try exchange.upgrade(
                subprotocol: AgentConnection.subprotocol, maximumMessage: WireLimits.messageBytesToCore + 64)
            let binding: LinkBinding
            if options.viaProxy {
                guard let key = LinkBinding.freshExchange() else {
                    return socket.close(.internalError, "no key exchange now")
                }
                binding = key
            } else if let value = socket.exportKeyingMaterial(
                label: LinkBinding.exporterLabel, count: LinkBinding.exporterBytes)
            {
                binding = .exporter(value)
            } else if exchange.address.isLoopback, !exchange.isSecure {
                binding = .loopback
            } else {
                return socket.close(.policyViolation, "agents connect over TLS; plain only on loopback")
            }
            let address = exchange.address.description
            let connection = AgentConnection(
                socket: socket, home: home, address: address, identity: identity(), binding: binding)
            socket.delegate = connection
            connection.begin()
        } catch { exchange.refuse(error) }
    }

    /// The loop's own part, made at its first agent. On that loop.
    private func home(of loop: EventLoop) -> LinkHome {
        let confined = homes.withLock { homes in
            if let known = homes[ObjectIdentifier(loop)] { return known }
            let made = Confined(LinkHome(endpoint: self, loop: loop), on: loop)
            homes[ObjectIdentifier(loop)] = made
            return made
        }
        return confined.assumeOnLoop { $0 }
    }

    /// Open agent connections, accepted or not. A moment's number.
    public func connections() async -> Int {
        var count = 0
        for home in homes.withLock({ Array($0.values) }) { count += await home.ask { $0.count } }
        return count
    }

    /// A planned stop: takes no more agents, gives each its own time to come back, and closes. Returns when every
    /// farewell is handed to its connection.
    public func stop() async {
        isStopping.store(true, ordering: .relaxed)
        var position = 0
        for home in homes.withLock({ Array($0.values) }) {
            let first = position
            position += await home.ask { $0.farewell(from: first) }
        }
    }
}

extension Confined {
    /// An answer from the value's loop.
    fileprivate func ask(_ question: @escaping @Sendable (Value) -> Int) async -> Int {
        await withCheckedContinuation { continuation in
            post { continuation.resume(returning: question($0)) }
        }
    }
}

/// What all agent connections of one loop share, confined to it.
final class LinkHome {
    let endpoint: AgentEndpoint
    let loop: EventLoop
    /// One message at a time is built here. What each message touches is not checked for exclusivity: it is confined to the
    /// loop, and nothing that is called while it is written comes back here.
    @exclusivity(unchecked) var writer = FrameWriter()
    /// Connections that are not yet accepted or pending.
    var handshakes = 0
    private var connections: [AgentConnection] = []
    /// Ends that agents have reported and no task has taken yet.
    @exclusivity(unchecked) private var reported: [ReportedEnd] = []
    /// Acknowledgements that wait for a message to ride with. Most are gone when their time comes.
    @exclusivity(unchecked) private var owed = DueQueue<(connection: AgentConnection, debt: UInt32)>()
    private lazy var owedTimer = Timer { [unowned self] in payOff() }
    /// A packet of its own for each acknowledgement would be a third of a short command's cost.
    private static let owedMilliseconds: UInt64 = 250
    /// So many packets in one turn of the loop, then others have theirs.
    private static let owedPerTurn = 16

    init(endpoint: AgentEndpoint, loop: EventLoop) {
        self.endpoint = endpoint
        self.loop = loop
    }

    var count: Int { connections.count }

    /// Of one write, so that a storm of ends with all the output that they may hold stays within a few MiB.
    private static let endsPerTask = 256

    /// Has the end recorded with the others of this turn: the task begins when the loop has read what there is. There are
    /// always as many tasks on their way as the reported ends need.
    func report(_ end: ReportedEnd) {
        reported.append(end)
        guard reported.count % Self.endsPerTask == 1 else { return }
        let me = Confined(self, on: loop)
        loop.spawn { [sink = endpoint.sink] in
            let ends = me.assumeOnLoop { $0.takeReported() }
            for (end, isKept) in zip(ends, await sink.finished(ends)) where isKept { end.link.acknowledge(end.record.command) }
        }
    }

    private func takeReported() -> [ReportedEnd] {
        let ends = Array(reported.prefix(Self.endsPerTask))
        reported.removeFirst(ends.count)
        return ends
    }

    /// Calls `tellSettled` of the debt when its time has come.
    func owe(_ connection: AgentConnection, _ debt: UInt32) {
        owed.append((connection, debt), due: loop.now &+ Self.owedMilliseconds * 1_000_000)
        if !owedTimer.isScheduled { loop.schedule(owedTimer, afterMilliseconds: Self.owedMilliseconds) }
    }

    private func payOff() {
        var sent = 0
        while sent < Self.owedPerTurn, let (connection, debt) = owed.take(now: loop.now) {
            if connection.tellSettled(debt) { sent += 1 }
        }
        guard let due = owed.nextDue else { return }
        // Never none: a timer that is due at once belongs to this very turn.
        loop.schedule(owedTimer, afterMilliseconds: max(1, (due &- min(due, loop.now)) / 1_000_000))
    }

    func add(_ connection: AgentConnection) {
        connection.place = connections.count
        connections.append(connection)
    }

    func remove(_ connection: AgentConnection) {
        let place = connection.place
        guard place < connections.count, connections[place] === connection else { return }
        let last = connections.removeLast()
        guard last !== connection else { return }
        connections[place] = last
        last.place = place
    }

    /// Closes all, each with its own slot. Returns how many.
    func farewell(from first: Int) -> Int {
        let leaving = connections
        let options = endpoint.options
        for (index, connection) in leaving.enumerated() {
            let slot = options.reconnectAfterMilliseconds
                + UInt64(first + index) * 1_000 / UInt64(max(1, options.reconnectsPerSecond))
            connection.end(
                LinkEnd(code: "core-stopping", detail: "planned stop"), tellAgent: true, reconnectAfter: slot)
        }
        return leaving.count
    }
}
