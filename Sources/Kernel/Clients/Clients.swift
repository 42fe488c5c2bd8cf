import AgentProtocol
import Crypto
import JSON
import Reactor
import Synchronization

/// The registry: every client that is enrolled, where it stands, and the link to it.
///
/// Memory (`FleetTable`) answers questions; the store holds what a restart must not forget. A change is committed first
/// and then taken over into memory; revisions keep two such steps from overtaking each other. May be used from any
/// thread; nothing here waits with the lock held.
public final class Clients: Sendable {
    public struct Options: Sendable {
        /// What agents are told to beat at.
        public var heartbeatSeconds = 15
        public var heartbeatJitterPercent = 10
        /// A client that has been offline this long is forgotten; `nil` keeps all.
        public var forgetAfterDays: Int?
        /// How long the history of links is kept; `nil` keeps all that `sessionsPerClient` leaves.
        public var sessionDays: Int? = 90
        public var sessionsPerClient = 100
        /// Enrolled clients, whatever their state.
        public var maximumClients = 200_000
        public init() {}

        /// Without a beat for this long a link counts as stale: one beat was missed, the next is due. The link itself
        /// gives up a little later.
        var staleAfterSeconds: Int { heartbeatSeconds * 7 / 4 + 1 }
    }

    /// As they are now; what settings change takes effect with the next connect or sweep.
    public var options: Options { tuning.withLock { $0 } }
    private let tuning: Mutex<Options>
    let store: Store
    let publish: EventSink
    /// Unix milliseconds.
    let clock: @Sendable () -> UInt64
    let fleet: Mutex<FleetTable>
    let unwritten = Mutex(UnwrittenLinks())
    /// Taken since the start.
    let heartbeats = Atomic<UInt64>(0)

    public static let migrations = ClientsSchema.migrations + GroupsSchema.migrations + EnrollmentSchema.migrations

    /// Ends the sessions that the last core left open and reads the whole registry.
    public static func load(
        store: Store, options: Options = Options(), publish: @escaping EventSink,
        clock: @escaping @Sendable () -> UInt64 = { unixMilliseconds() }
    ) async throws(Problem) -> Clients {
        let now = clock()
        try await store.write { (transaction) throws(StoreError) in
            try ClientsSchema.endOpenSessions(transaction, now: now)
        }
        let table = try await store.read { (reader) throws(StoreError) in
            var table = try ClientsSchema.load(reader)
            table.groups = try GroupsSchema.load(reader)
            return table
        }
        return Clients(store, publish, options, clock, table)
    }

    private init(
        _ store: Store, _ publish: @escaping EventSink, _ options: Options,
        _ clock: @escaping @Sendable () -> UInt64,
        _ table: consuming FleetTable
    ) {
        self.store = store
        self.publish = publish
        tuning = Mutex(options)
        self.clock = clock
        fleet = Mutex(table)
    }

    /// Takes the settings that concern the registry, now and whenever they change.
    public func follow(_ settings: Settings) {
        let apply: @Sendable (JSONValue) -> Void = { [self] _ in
            let forget = settings.integer(.forgetAfterDays)
            let sessions = settings.integer(.sessionRetentionDays)
            let beat = settings.integer(.heartbeatSeconds)
            let jitter = settings.integer(.heartbeatJitterPercent)
            tuning.withLock { options in
                options.heartbeatSeconds = beat
                options.heartbeatJitterPercent = jitter
                options.forgetAfterDays = forget == 0 ? nil : forget
                options.sessionDays = sessions == 0 ? nil : sessions
            }
        }
        apply(.null)
        for setting in [Setting.heartbeatSeconds, .heartbeatJitterPercent, .forgetAfterDays, .sessionRetentionDays] {
            settings.observe(setting, apply)
        }
    }

    // MARK: Questions

    public var count: Int { fleet.withLock { $0.count } }
    public func count(of state: ClientState) -> Int { fleet.withLock { $0.count(of: state) } }

    public func get(_ id: ClientID) -> Client? {
        fleet.withLock { table in table.row(of: id).map { table.client($0) } }
    }

    /// `nil` for a client that does not exist.
    public func state(of id: ClientID) -> ClientState? {
        fleet.withLock { table in table.row(of: id)?.state }
    }

    /// The link that work may be sent over; `nil` when there is none or the client is held back or revoked.
    public func link(of id: ClientID) -> AgentLink? {
        fleet.withLock { table in
            guard let row = table.row(of: id), !row.isHeldBack, row.state != .revoked else { return nil }
            return row.link
        }
    }

    /// The clients that meet the selector, by id.
    /// - Throws: `group-unknown`, `group-cycle`, `selector-too-expensive`.
    public func select(_ selector: Selector) throws(Problem) -> [ClientID] {
        try select(selector, allowed: [.everything], denied: [])
    }

    /// The clients that meet the selector and at least one of `allowed` but none of `denied`, by id.
    public func select(
        _ selector: Selector, allowed: [Selector], denied: [Selector]
    ) throws(Problem) -> [ClientID] {
        try fleet.withLock { (table) throws(Problem) in
            try table.ids(table.select(selector, allowed: allowed, denied: denied))
        }
    }

    /// Whether the client meets the selector; false for a client that does not exist.
    /// - Throws: as `select`.
    public func matches(_ selector: Selector, _ id: ClientID) throws(Problem) -> Bool {
        try fleet.withLock { (table) throws(Problem) in
            guard let row = table.row(of: id) else { return false }
            return try table.matches(selector, row)
        }
    }

    /// Everything about one client, with what only the database has.
    public func detail(_ id: ClientID) async throws(Problem) -> ClientDetail? {
        let stored = try await store.read { (reader) throws(StoreError) in
            try reader.first(
                """
                SELECT c.notes, c.metadata, c.enrolled_by, c.revoked_reason, c.contenders, f.report, f.reported_ms,
                    l.boot_id
                FROM clients c LEFT JOIN client_facts f ON f.client = c.id LEFT JOIN client_links l ON l.client = c.id
                WHERE c.id = ?
                """, id
            ) { (row) throws(StoreError) in
                (
                    notes: row.text(0), metadata: row.text(1), by: row.text(2), reason: row.optionalText(3),
                    contenders: row.optionalText(4), facts: row.bytes(5), factsAt: row.optionalUnsigned(6),
                    boot: row.text(7)
                )
            }
        }
        let newer = unwritten.withLock { $0.facts[id] }
        let known = fleet.withLock { table -> (Client, [BeatSample])? in
            guard let slot = table.slot(of: id), let row = table.row(slot) else { return nil }
            return (table.client(row), table.rings.history(of: slot))
        }
        guard let stored, let (client, beats) = known else { return nil }
        return ClientDetail(
            client: client, notes: stored.notes, metadata: Self.json(stored.metadata.utf8),
            facts: Self.json(newer?.report ?? stored.facts), factsReportedAt: newer?.at ?? stored.factsAt,
            enrolledBy: stored.by, bootID: stored.boot, revokedReason: stored.reason,
            contenders: stored.contenders.map { Self.json($0.utf8) } ?? .null, beats: beats)
    }

    /// Past links, newest first.
    /// - Parameter before: the id of the last session of the page before.
    public func sessions(
        of id: ClientID, before: Int64? = nil, limit: Int
    ) async throws(Problem) -> [ClientSession] {
        try await store.read { (reader) throws(StoreError) in
            try reader.all(
                """
                SELECT id, epoch, address, boot_id, agent_version, connected_ms, disconnected_ms, end_code, end_detail
                FROM client_sessions WHERE client = ? AND id < ? ORDER BY id DESC LIMIT ?
                """, id, before ?? .max, limit
            ) { (row) throws(StoreError) in
                ClientSession(
                    id: row.integer(0), epoch: row.unsigned(1), address: row.text(2), bootID: row.text(3),
                    agentVersion: row.text(4), connectedAt: row.unsigned(5), disconnectedAt: row.unsigned(6),
                    end: LinkEnd(code: row.text(7), detail: row.text(8)))
            }
        }
    }

    /// What the core itself wrote is valid JSON; damage shows as null rather than as an error of the whole answer.
    private static func json(_ bytes: some Collection<UInt8>) -> JSONValue {
        (try? JSONValue(parsing: Array(bytes))) ?? .null
    }
}

extension FleetTable {
    func client(_ row: Row) -> Client {
        Client(
            id: row.id, name: name(of: row), state: row.state, stateSince: row.stateSince,
            isHeldBack: row.isHeldBack, enrolledAt: row.enrolledAt, lastSeen: row.lastSeen, revision: row.revision,
            epoch: row.epoch, fingerprint: row.key.hex, address: row.address, agentVersion: row.agentVersion,
            hostname: fact("hostname", of: row) ?? "", labels: labels(of: row),
            lastBeat: slot(of: row.id).flatMap { rings.last(of: $0) }, memoryTotalKiB: row.memoryTotalKiB)
    }

    func select(_ selector: Selector, allowed: [Selector], denied: [Selector]) throws(Problem) -> SlotSet {
        if let id = selector.singleClient {
            guard let slot = slot(of: id), let row = row(slot) else { return SlotSet() }
            return try permits(row, allowed: allowed, denied: denied) ? SlotSet([slot]) : SlotSet()
        }
        var found = try select(selector)
        if !allowed.contains(.everything) {
            var permitted = SlotSet()
            for selector in allowed { permitted.formUnion(try select(selector)) }
            found.formIntersection(permitted)
        }
        for selector in denied { found.subtract(try select(selector)) }
        return found
    }

    /// Ascending.
    func ids(_ set: SlotSet) -> [ClientID] {
        var ids: [ClientID] = []
        ids.reserveCapacity(set.count)
        set.forEach { slot in
            if let row = row(slot) { ids.append(row.id) }
        }
        ids.sort()
        return ids
    }
}
