import AgentProtocol
import JSON
import Program
import Reactor
import Synchronization

/// Programs on clients that somebody works with: terminals, and streams without one. Functions may be called on any loop.
///
/// A channel is written down, with its audit record, before its order is sent, and is found again after a restart of the
/// core: program and kept output live with the client's holder. What flows never touches the disk: bytes go from the
/// link to the consumer and back on the link's loop.
public final class Channels: Sendable {
    /// Of all clients together.
    static let maximum = 4_096
    /// An end that nobody comes for keeps its output this long.
    static let lingerMilliseconds: UInt64 = 600_000
    /// An order that waits longer on its way is not started.
    static let startMilliseconds: UInt64 = 60_000

    let store: Store
    private let clients: Clients
    private let security: Security
    private let report: @Sendable (Problem) -> Void

    struct State {
        var channels: [ChannelID: Channel] = [:]
        /// Channels that are between their admission and the table.
        var opening = 0
        /// Ends that the database refused; the next tick tries them again.
        var unrecorded: [(Channel, ExitRecord, isOver: Bool)] = []
        var isStopped = false
    }
    let state = Mutex(State())

    /// Reads what was open when the core stopped; it goes on as its clients connect.
    static func open(
        store: Store, clients: Clients, security: Security, report: @escaping @Sendable (Problem) -> Void
    ) async throws(Problem) -> Channels {
        let channels = Channels(store, clients, security, report)
        let known = try await load(store)
        channels.state.withLock { state in
            for description in known { state.channels[description.id] = Channel(description, isNew: false) }
        }
        return channels
    }

    private init(
        _ store: Store, _ clients: Clients, _ security: Security, _ report: @escaping @Sendable (Problem) -> Void
    ) {
        self.store = store
        self.clients = clients
        self.security = security
        self.report = report
    }

    // MARK: Open

    /// Opens a channel; `consumer` is attached from its first byte. When this returns, channel and audit record are on
    /// the disk and the order is on its way.
    /// - Throws: 400 `invalid`, 403, 404, 409 `client-offline` and `terminal-unsupported`, 429, 503 `too-many-terminals`.
    public func open(
        _ specification: ChannelSpecification, _ principal: Principal, consumer: any ChannelConsumer
    ) async throws(Problem) -> ChannelAttachment {
        try specification.validate()
        let client = specification.client
        guard let registered = clients.state(of: client) else { throw .notFound("there is no client \(client)") }
        do throws(Problem) {
            let scope = try security.commandScope(
                principal, specification.subject, right: .terminalOpen, shellRight: nil)
            guard try clients.permits(client, allowed: scope.allowed, denied: scope.denied) else {
                throw .forbidden("\(principal.id) may not open this on client \(client)")
            }
        } catch {
            if error.status == 403 { try await auditRefusal("terminal.open", client, nil, error, principal) }
            throw error
        }
        guard registered != .revoked, let link = clients.link(of: client) else {
            throw .conflict("client-offline", "client \(client) is not connected")
        }
        guard link.hasTerminals else {
            throw .conflict(
                "terminal-unsupported", "the agent of client \(client) has no terminals; install a newer one")
        }
        try security.spend(client: client)
        try reserve()
        defer { state.withLock { $0.opening -= 1 } }

        let now = unixMilliseconds()
        let description = ChannelDescription(
            id: ChannelID(milliseconds: now, random: (.random(in: .min ... .max), .random(in: .min ... .max))),
            client: client, kind: specification.kind, ownerKind: principal.kind, owner: principal.id,
            program: specification.title, user: specification.user, keeper: specification.keeper,
            openedAt: now)
        try await record(description, principal)
        let channel = Channel(description, isNew: true)
        let attachment = channel.attach(consumer, from: 0)
        state.withLock { $0.channels[description.id] = channel }
        let order = specification.order(
            description.id, correlation: principal.correlation, startBefore: now + Self.startMilliseconds)
        link.reach { $0.openTerminal(channel, order) }
        return attachment
    }

    private func reserve() throws(Problem) {
        let refusal = state.withLock { state -> Problem? in
            guard !state.isStopped else { return Problem(503, "stopping", "the core is stopping", retryAfter: 5) }
            guard state.channels.count + state.opening < Self.maximum else {
                return Problem(
                    503, "too-many-terminals", "\(Self.maximum) terminals are open, which is the most that may be",
                    retryAfter: 30)
            }
            state.opening += 1
            return nil
        }
        if let refusal { throw refusal }
    }

    private func record(_ channel: ChannelDescription, _ principal: Principal) async throws(Problem) {
        var detail: JSONObject = ["kind": .string(channel.kind.rawValue), "program": .string(channel.program)]
        if let user = channel.user { detail["user"] = .string(user) }
        let audit = AuditRecord(
            principal: principal, action: "terminal.open", clients: [channel.client], target: "\(channel.id)",
            detail: .object(detail))
        try await store.write(bytes: 1_024) { (transaction) throws(StoreError) in
            try transaction.run(
                """
                INSERT INTO channels (id, client, kind, owner_kind, owner, program, user, keeper, opened_ms)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                channel.id, channel.client, channel.kind.rawValue, channel.ownerKind.rawValue, channel.owner,
                channel.program, channel.user, channel.keeper, channel.openedAt)
            _ = try transaction.audit(audit)
        }
    }

    private func auditRefusal(
        _ action: String, _ client: ClientID, _ target: String?, _ problem: Problem, _ principal: Principal
    ) async throws(Problem) {
        let audit = AuditRecord(
            principal: principal, action: action, clients: [client], target: target, outcome: .refused,
            reason: problem.detail)
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(audit) }
    }

    // MARK: What is open

    /// Takes a channel over: its present consumer hears `taken-over`. Output comes from `offset` on, or from the oldest
    /// byte that is kept; while the client is away nothing comes and nothing is lost.
    /// - Throws: 403, 404, what the store throws.
    public func attach(
        _ id: ChannelID, from offset: UInt64, _ principal: Principal, consumer: any ChannelConsumer
    ) async throws(Problem) -> ChannelAttachment {
        let channel = try await authorize(id, "terminal.attach", principal)
        let audit = AuditRecord(
            principal: principal, action: "terminal.attach", clients: [channel.client], target: "\(id)",
            detail: ["from": .integer(Int64(clamping: offset))])
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(audit) }
        guard state.withLock({ $0.channels[id] }) === channel else { throw Self.unknown(id) }
        return channel.attach(consumer, from: offset)
    }

    /// Ends a channel's program and all that it started, whoever is attached.
    /// - Throws: 403, 404, what the store throws.
    public func close(_ id: ChannelID, _ principal: Principal) async throws(Problem) {
        let channel = try await authorize(id, "terminal.close", principal)
        let audit = AuditRecord(
            principal: principal, action: "terminal.close", clients: [channel.client], target: "\(id)")
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(audit) }
        channel.close()
    }

    /// Oldest first: the principal's own, and those of clients on which it has the right `terminal.read`.
    public func list(
        client: ClientID? = nil, keeper: String? = nil, _ principal: Principal
    ) throws(Problem) -> [ChannelView] {
        let all = state.withLock { Array($0.channels.values) }.filter {
            (client == nil || $0.client == client) && (keeper == nil || $0.description.keeper == keeper)
        }
        let scope = security.scope(of: principal, for: .terminalRead)
        var views: [ChannelView] = []
        for channel in all.sorted(by: { $0.id < $1.id }) {
            var isShown = channel.description.isOwned(by: principal) || principal.kind == .system
            if !isShown {
                isShown = try clients.permits(channel.client, allowed: scope.allowed, denied: scope.denied)
            }
            if isShown { views.append(channel.view) }
        }
        return views
    }

    /// The owner, who still has to have the right to open there, somebody with `terminal.manage`, or a part of the core.
    private func authorize(
        _ id: ChannelID, _ action: String, _ principal: Principal
    ) async throws(Problem) -> Channel {
        guard let channel = state.withLock({ $0.channels[id] }) else { throw Self.unknown(id) }
        if principal.kind == .system { return channel }
        let isOwner = channel.description.isOwned(by: principal)
        let scope = security.scope(of: principal, for: isOwner ? .terminalOpen : .terminalManage)
        guard try clients.permits(channel.client, allowed: scope.allowed, denied: scope.denied) else {
            let problem = Problem.forbidden(
                isOwner
                    ? "\(principal.id) may no longer open terminals on client \(channel.client)"
                    : "channel \(id) belongs to \(channel.description.owner); this needs the right \"terminal.manage\"")
            try await auditRefusal(action, channel.client, "\(id)", problem, principal)
            throw problem
        }
        return channel
    }

    private static func unknown(_ id: ChannelID) -> Problem { .notFound("there is no channel \(id); it may have ended") }

    /// Channels that have not ended.
    public var count: Int { state.withLock { $0.channels.count } }

    // MARK: Ends

    /// Records an end once; true when the client may forget it.
    /// - Parameter isOver: nothing more can be read, whoever waits for it.
    func finish(_ channel: Channel, _ record: ExitRecord, isOver: Bool) async -> Bool {
        if !channel.isRecorded {
            let audit = AuditRecord(
                principal: Principal(kind: .agent, id: "\(channel.client)"), action: "terminal.end",
                clients: [channel.client], target: "\(channel.id)", detail: Self.detail(record))
            let (id, now) = (channel.id, unixMilliseconds())
            do throws(Problem) {
                try await store.write { (transaction) throws(StoreError) in
                    guard try transaction.run("UPDATE channels SET ended_ms = ? WHERE id = ?", now, id) > 0 else { return }
                    _ = try transaction.audit(audit)
                }
            } catch {
                report(error)
                state.withLock { $0.unrecorded.append((channel, record, isOver: isOver)) }
                return false
            }
        }
        guard channel.ended(record, isOver: isOver, now: unixMilliseconds()) else { return false }
        await drop(channel)
        return true
    }

    private func drop(_ channel: Channel) async {
        let id = channel.id
        state.withLock { $0.channels[id] = nil }
        do throws(Problem) {
            try await store.write { (transaction) throws(StoreError) in
                try transaction.run("DELETE FROM channels WHERE id = ?", id)
            }
        } catch {
            // The row is found at the next start, and the client then knows nothing of it: it ends there.
            report(error)
        }
    }

    private static func detail(_ record: ExitRecord) -> JSONValue {
        var detail: JSONObject = ["output_bytes": .integer(Int64(clamping: record.standardOutputBytes))]
        switch record.outcome {
        case .exited(let code): detail["exit_code"] = .integer(Int64(code))
        case .signaled(let signal): detail["signal"] = .integer(Int64(signal))
        case .timedOut: detail["ended_by"] = "time limit"
        case .cancelled: detail["ended_by"] = "close"
        case .startFailed(let code, let message), .refused(let code, let message):
            detail["code"] = .string(code)
            detail["message"] = .string(message)
        case .interrupted(let reason): detail["interrupted"] = .string(reason)
        }
        return .object(detail)
    }

    /// The client was revoked or forgotten: nobody will hear of its channels again.
    public func clientGone(_ client: ClientID, code: String) async {
        for channel in channels(of: client) { await lose(channel, reason: code) }
    }

    func lose(_ channel: Channel, reason: String) async {
        let record = ExitRecord(
            command: CommandID(sameAs: channel.id), outcome: .interrupted(reason: reason), started: .maybe,
            finishedAt: unixMilliseconds())
        _ = await finish(channel, record, isOver: true)
    }

    func channels(of client: ClientID) -> [Channel] {
        state.withLock { state in state.channels.values.filter { $0.client == client } }
    }

    // MARK: Regular work

    func start(on loop: EventLoop) {
        loop.spawn {
            // Ends with the loop: a timer of a loop that has stopped never fires.
            while !self.state.withLock({ $0.isStopped }) {
                await loop.sleep(milliseconds: 10_000)
                await self.tick(now: unixMilliseconds())
            }
        }
    }

    func stop() { state.withLock { $0.isStopped = true } }

    /// Writes what the database refused, and lets go of ends that nobody came for.
    func tick(now: UInt64) async {
        let (unrecorded, all) = state.withLock { state in
            defer { state.unrecorded = [] }
            return (state.unrecorded, Array(state.channels.values))
        }
        for (channel, record, isOver) in unrecorded {
            if await finish(channel, record, isOver: isOver) { channel.acknowledge() }
        }
        for channel in all {
            guard let record = channel.unclaimed(now: now, after: Self.lingerMilliseconds) else { continue }
            channel.acknowledge()
            _ = await finish(channel, record, isOver: true)
        }
    }
}

extension Right {
    static let terminalOpen: Right = "terminal.open"
    static let terminalRead: Right = "terminal.read"
    /// Other people's terminals.
    static let terminalManage: Right = "terminal.manage"
}
