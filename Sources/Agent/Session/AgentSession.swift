import AgentProtocol
import Crypto
import Reactor
import Transport

/// What a session tells its program. On the agent's loop.
public protocol AgentSessionObserver: AnyObject {
    func sessionOnline(_ client: ClientID)
    func sessionOffline(code: String, message: String, retryMilliseconds: UInt64)
    /// The operator is to compare both fingerprints with what the core shows.
    func sessionPending(enrollment: String, agentFingerprint: String, coreFingerprint: String)
}

/// What one session needs beside its identity and executor. Immutable once given.
public struct AgentSessionOptions: Sendable {
    public var servers: ServerList
    /// Without a TLS context of its own, a session makes one that leaves the proof of the core to the handshake inside.
    public var connection = ClientOptions()
    public var token: EnrollmentToken?
    /// Fingerprints that the operator named, beside those that were kept.
    public var pins: [String] = []
    /// A proxy ends TLS in front of the core: the handshake brings its own exchange, and frames are sealed.
    public var viaProxy = false
    public var bootID: String
    public var agentVersion: String
    public var hostname: String
    public var reconnect = ReconnectStateMachine.Policy()
    /// Features that are not offered, although their executors are there: an older agent, as tests want one.
    var withheldFeatures: Set<String> = []

    public init(servers: ServerList, bootID: String, agentVersion: String, hostname: String) {
        self.servers = servers
        self.bootID = bootID
        self.agentVersion = agentVersion
        self.hostname = hostname
    }
}

/// One agent's side of the connection to its core, confined to its loop: connects, proves, reports, sends what the
/// executor keeps, and comes back after every end until `stop`.
///
/// While the core is away it holds no output: that stays in the executor's spool, and memory is flat.
public final class AgentSession {
    enum Phase {
        case idle, waiting, connecting, awaitingChallenge, handshake, pending, online, stopped
    }

    let loop: EventLoop
    let options: AgentSessionOptions
    let identity: any IdentityStore
    let executor: any Executor
    /// `nil`: this agent has no terminals, and says so.
    let terminalExecutor: (any TerminalExecutor)?
    /// `nil`: this agent does nothing with files, and says so.
    let fileExecutor: (any FileExecutor)?
    /// `nil`: this agent keeps no private files, and says so.
    let privateFiles: (any PrivateFileExecutor)?
    /// `nil`: this agent does not replace its own program, and says so.
    let upgradeExecutor: (any UpgradeExecutor)?
    /// The facts as one JSON object of at most `WireLimits.factsBytes`; asked after each accept.
    let facts: @Sendable () async -> [UInt8]
    /// The load and memory of this moment, for a heartbeat.
    let measure: () -> BeatAnswer
    public weak var observer: (any AgentSessionObserver)?

    var phase = Phase.idle
    var socket: WebSocketConnection?
    var handshake: AgentHandshakeStateMachine?
    var seal: SealedChannel?
    var channels = AgentChannelsStateMachine()
    var terminals = AgentTerminalsStateMachine()
    var transfers = AgentTransfersStateMachine()
    /// Pulls that may have something to send, in turn.
    var sending: [TransferID] = []
    /// Of the accepted link.
    var features: [String] = []
    var writer = FrameWriter(reserving: 0)
    public internal(set) var client: ClientID?
    /// Said in each handshake; a simulated agent changes it.
    public var agentVersion: String
    var epoch: UInt64 = 0
    var heartbeatSeconds: UInt64 = 15
    /// Loop time of the last bytes from the core.
    var heardAt: UInt64 = 0
    var isPumpPosted = false
    var pace = OutputPaceStateMachine()
    var paceTimer: Timer?
    private var reconnect: ReconnectStateMachine
    var failedServers: Set<Int> = []
    private var serverIndex = 0
    /// The identity key of the core that has accepted this link.
    var coreKey: P256.PublicKey?
    /// Waits until nothing runs here that the present core ordered.
    var pendingMove: MoveStatement?
    /// The move under way, with why its last attempt failed.
    var failedRelocation: Relocation?
    /// Counts connections, so that what belongs to an old one is known as such.
    private var generation: UInt64 = 0
    /// Set when the core turned this agent away for want of a valid enrollment: then the token is shown again.
    private var needsToken = false
    private var farewell: Farewell?
    private var timer: Timer?

    /// On the loop that the session shall live on.
    public init(
        loop: EventLoop, options: AgentSessionOptions, identity: any IdentityStore, executor: any Executor,
        terminals terminalExecutor: (any TerminalExecutor)? = nil, files fileExecutor: (any FileExecutor)? = nil,
        privateFiles: (any PrivateFileExecutor)? = nil, upgrades upgradeExecutor: (any UpgradeExecutor)? = nil,
        facts: @escaping @Sendable () async -> [UInt8], measure: @escaping () -> BeatAnswer
    ) {
        var options = options
        if options.connection.tls == nil, options.servers.servers.contains(where: \.url.isSecure) {
            // The handshake inside proves the core and is bound to the connection; a chain would prove nothing more. When
            // no context can be made, each attempt fails and says so.
            options.connection.tls = try? TLSContext.client(.handshakeInside)
        }
        if options.connection.resumption == nil { options.connection.resumption = TLSResumption() }
        self.loop = loop
        self.options = options
        agentVersion = options.agentVersion
        self.identity = identity
        self.executor = executor
        self.terminalExecutor = terminalExecutor
        self.fileExecutor = fileExecutor
        self.privateFiles = privateFiles
        self.upgradeExecutor = upgradeExecutor
        self.facts = facts
        self.measure = measure
        reconnect = ReconnectStateMachine(policy: options.reconnect)
    }

    var me: Confined<AgentSession> { Confined(self, on: loop) }

    // MARK: Life

    /// Connects after `milliseconds` (to spread a fleet that starts at one moment), and goes on until `stop`.
    public func start(afterMilliseconds milliseconds: UInt64 = 0) {
        guard phase == .idle else { return }
        // The timer holds the session, and the session its timer, until `stop`: a session that runs is never freed.
        timer = Timer { self.timerFired() }
        wait(milliseconds)
    }

    /// Says goodbye and ends. Executions go on under their holders.
    public func stop() {
        guard phase != .stopped else { return }
        if phase == .online {
            write { $0.frame(.close, payload: Farewell(code: "agent-stopping", message: "").payload) }
        }
        phase = .stopped
        if let timer { loop.cancel(timer) }
        timer = nil
        leaveExecutors()
        socket?.close(.goingAway)
        socket = nil
    }

    /// Drops the connection without a word, as a failing network does. For simulated faults.
    public func drop() { socket?.abort() }

    public var isOnline: Bool { phase == .online }

    private func wait(_ milliseconds: UInt64) {
        guard let timer, phase != .stopped else { return }
        phase = .waiting
        loop.schedule(timer, afterMilliseconds: max(1, milliseconds))
    }

    private func timerFired() {
        switch phase {
        case .waiting: connect()
        case .awaitingChallenge, .handshake:
            lost(code: "handshake-timeout", message: "the core did not finish the handshake in 20 seconds")
        case .pending, .online: checkHalfOpen()
        case .idle, .connecting, .stopped: break
        }
    }

    /// Two and a half heartbeats without a word: the path is dead, whatever the socket says.
    private func checkHalfOpen() {
        if phase == .pending, isMoveLate {
            // `connect` gives the move up, with this as the reason.
            return lost(code: "move-given-up", message: "no operator of the other core has approved this agent in time")
        }
        let limit = heartbeatSeconds * 2_500_000_000
        let silent = loop.now &- heardAt
        guard silent <= limit else {
            return lost(code: "timeout", message: "nothing came from the core for \(silent / 1_000_000_000) s")
        }
        if let timer { loop.schedule(timer, afterMilliseconds: untilMoveEnds((limit - silent) / 1_000_000 + 1)) }
    }

    func watchForSilence() {
        if let timer { loop.schedule(timer, afterMilliseconds: untilMoveEnds(heartbeatSeconds * 2_500)) }
    }

    // MARK: Connecting

    private func connect() {
        phase = .connecting
        generation += 1
        giveUpMoveIfLate()
        let servers = currentServers
        serverIndex = servers.choose(excluding: failedServers, random: Random.uint64())
        let generation = generation
        let url = servers.servers[serverIndex].url
        var connection = options.connection
        // A move may lead from plain loopback to TLS.
        if url.isSecure, connection.tls == nil { connection.tls = try? TLSContext.client(.handshakeInside) }
        let me = me
        loop.spawn {
            do throws(TransportError) {
                let socket = try await WebSocketClient.connect(
                    to: url, subprotocols: ["client-manager.v1"],
                    maximumMessage: WireLimits.messageBytesToAgent + 64, options: connection,
                    delegate: me.assumeOnLoop { $0 })
                me.assumeOnLoop { $0.connected(generation, socket) }
            } catch {
                me.assumeOnLoop { $0.connectFailed(generation, error) }
            }
        }
    }

    private func connected(_ generation: UInt64, _ socket: WebSocketConnection) {
        // The challenge may have come, or the socket gone, before the connector's task ran on.
        guard generation == self.generation else {
            if self.socket !== socket { socket.abort() }
            return
        }
        guard phase == .connecting else { return }
        self.socket = socket
        phase = .awaitingChallenge
        if let timer { loop.schedule(timer, afterMilliseconds: 20_000) }
    }

    private func connectFailed(_ generation: UInt64, _ error: TransportError) {
        guard generation == self.generation, phase == .connecting else { return }
        lost(code: "unreachable", message: "\(error)")
    }

    /// The first message on a new socket is the core's challenge: only now is an epoch spent.
    func beginHandshake(_ socket: WebSocketConnection) -> Bool {
        guard phase == .connecting || phase == .awaitingChallenge else { return false }
        self.socket = socket
        var state = identity.state
        state.epoch += 1
        do throws(IdentityError) {
            try identity.save(state, isAccepted: false)
        } catch {
            lost(code: "identity-not-kept", message: error.description)
            return false
        }
        epoch = state.epoch
        guard let binding = binding(of: socket) else {
            lost(code: "insecure", message: "agents connect over TLS; plain only to loopback addresses")
            return false
        }
        phase = .handshake
        let token = state.client == nil || needsToken ? options.token : nil
        var presented = AgentIdentity(
            key: identity.key, client: state.client, bootID: options.bootID, epoch: state.epoch,
            agentVersion: agentVersion, hostname: options.hostname, pins: state.pins + options.pins,
            token: token, succession: identity.succession)
        if let relocation = state.relocation {
            presented.pins = [relocation.fingerprint]
            if relocation.isToOtherCore {
                presented.client = nil
                presented.succession = nil
                presented.token = EnrollmentToken(relocation.token)
            }
        }
        if terminalExecutor == nil { presented.features.removeAll { $0 == Feature.terminal } }
        if fileExecutor == nil { presented.features.removeAll { $0 == Feature.file || $0 == Feature.fileURL || $0 == Feature.fileHash } }
        if privateFiles == nil { presented.features.removeAll { $0 == Feature.privateFile } }
        if upgradeExecutor == nil { presented.features.removeAll { $0 == Feature.upgrade } }
        presented.features.removeAll { options.withheldFeatures.contains($0) }
        handshake = AgentHandshakeStateMachine(
            identity: presented, nonce: Random.bytes(32), binding: binding, unixSeconds: unixMilliseconds() / 1_000)
        if let timer { loop.schedule(timer, afterMilliseconds: 20_000) }
        return true
    }

    private func binding(of socket: WebSocketConnection) -> LinkBinding? {
        if options.viaProxy { return LinkBinding.freshExchange() }
        if let value = socket.exportKeyingMaterial(
            label: LinkBinding.exporterLabel, count: LinkBinding.exporterBytes)
        {
            return .exporter(value)
        }
        return socket.peer.ip.isLoopback && !socket.isSecure ? .loopback : nil
    }

    // MARK: Ends

    func accepted(_ accepted: Accepted, coreFingerprint: String) {
        var state = identity.state
        state.client = accepted.client
        state.pins = [coreFingerprint] + accepted.backupPins
        if let relocation = state.relocation { adopt(relocation, in: &state) }
        do throws(IdentityError) {
            try identity.save(state, isAccepted: true)
        } catch {
            return lost(code: "identity-not-kept", message: error.description)
        }
        client = accepted.client
        features = accepted.features
        heartbeatSeconds = UInt64(accepted.heartbeatSeconds)
        seal = handshake?.sealed
        coreKey = handshake?.coreKey
        handshake = nil
        failedRelocation = nil
        phase = .online
        needsToken = false
        failedServers = []
        reconnect.succeeded()
        watchForSilence()
        beginChannels()
        beginUpgrades()
        tellFailedMove()
        observer?.sessionOnline(accepted.client)
    }

    /// The core has said why this link ends.
    func heard(_ farewell: Farewell) {
        self.farewell = farewell
        lost(code: farewell.code, message: farewell.message)
    }

    /// Ends the connection, if there is one, and plans the next attempt.
    func lost(code: String, message: String) {
        guard phase != .stopped, phase != .waiting, phase != .idle else { return }
        let wasOnline = phase == .online
        let socket = socket
        self.socket = nil
        generation += 1
        handshake = nil
        seal = nil
        coreKey = nil
        if !wasOnline { noteFailedAttempt(code, message) }
        leaveExecutors()
        phase = .waiting
        // The answer to a close frame may never come over a dead path; the next attempt does not wait for it.
        if wasOnline, farewell == nil { socket?.close(.normal, code) } else { socket?.close(.normal) }
        if !wasOnline { failedServers.insert(serverIndex) }
        if failedServers.count >= currentServers.servers.count { failedServers = [] }
        let delay = untilMoveEnds(plan(code, wasOnline: wasOnline))
        farewell = nil
        observer?.sessionOffline(code: code, message: message, retryMilliseconds: delay)
        wait(delay)
    }

    private func plan(_ code: String, wasOnline: Bool) -> UInt64 {
        let now = loop.now / 1_000_000
        if let slot = farewell?.reconnectAfterMilliseconds { return reconnect.delay(slot: slot, now: now) }
        if farewell != nil, !Self.passing.contains(code) {
            needsToken = needsToken || !wasOnline
            return reconnect.delayAfterRefusal(random: Random.uint64())
        }
        return reconnect.delay(now: now, random: Random.uint64())
    }

    /// Ends that say nothing against this agent.
    private static let passing: Set<String> = [
        "core-stopping", "timeout", "disconnected", "handshake-timeout", "unavailable", "core-failure",
    ]
}
