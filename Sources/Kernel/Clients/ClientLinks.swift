import AgentProtocol
import JSON
import Reactor
import Synchronization

/// What links tell the registry. Called on the links' loops.
extension Clients {
    /// Takes over a link whose acceptance was sent. An older link of the same client is fenced at once; a link that
    /// lost its right to be here since it was admitted is closed.
    public func linkUp(_ link: AgentLink) {
        let now = clock()
        enum Verdict {
            case taken(old: AgentLink?)
            case refused(LinkEnd)
        }
        let verdict: Verdict = fleet.withLock { table in
            guard let slot = table.slot(of: link.client), let row = table.row(slot) else {
                return .refused(LinkEnd(code: "forgotten", detail: "the client was forgotten"))
            }
            if row.state == .revoked { return .refused(LinkEnd(code: "revoked", detail: "the client is revoked")) }
            if row.isHeldBack { return .refused(Self.heldBack) }
            guard link.epoch >= row.epoch else {
                return .refused(LinkEnd(code: "fenced", detail: "a newer link was accepted"))
            }
            table.update(slot) { row in
                row.link = link
                row.lastSeen = now
            }
            table.setState(.online, of: slot, at: now)
            return .taken(old: row.link === link ? nil : row.link)
        }
        switch verdict {
        case .refused(let end): link.close(end)
        case .taken(let old):
            old?.close(LinkEnd(code: "fenced", detail: "a newer link of this client was accepted"))
            publish(RegistryEvent("client.online", link.client, ["address": .string(link.address)]))
        }
    }

    static let heldBack = LinkEnd(
        code: "clone-suspected",
        detail: "two machines seem to have this identity; an operator must resolve it")

    public func linkDown(_ link: AgentLink, _ end: LinkEnd) {
        let now = clock()
        let wasCurrent = fleet.withLock { table in
            guard let slot = table.slot(of: link.client), let row = table.row(slot), row.epoch == link.epoch,
                row.link === link || row.link == nil  // It may die between its admission and `linkUp`.
            else { return false }
            table.update(slot) { row in
                row.link = nil
                row.lastSeen = now
            }
            if row.state != .revoked { table.setState(.offline, of: slot, at: now) }
            return true
        }
        guard wasCurrent else { return }  // A fenced link; its session ended when the newer one was admitted.
        let isMuch = unwritten.withLock { unwritten in
            unwritten.ends[link.client] = UnwrittenLinks.End(epoch: link.epoch, at: now, end: end)
            return unwritten.isMuch
        }
        publish(
            RegistryEvent("client.offline", link.client, ["code": .string(end.code), "detail": .string(end.detail)]))
        if isMuch { writeSoon() }
    }

    /// Allocates nothing.
    public func heartbeat(_ client: ClientID, _ beat: Beat) {
        heartbeats.wrappingAdd(1, ordering: .relaxed)
        let now = clock()
        let sample = BeatSample(
            at: UInt32(clamping: now / 1_000), roundTripMicroseconds: beat.roundTripMicroseconds,
            memoryAvailableKiB: beat.memoryAvailableKiB, loadHundredths: UInt16(clamping: beat.loadHundredths))
        let cameBack = fleet.withLock { table in
            guard let slot = table.slot(of: client), let row = table.row(slot), row.link != nil else { return false }
            table.noteBeat(slot, sample, at: now, totalKiB: beat.memoryTotalKiB)
            guard row.state == .stale else { return false }
            table.setState(.online, of: slot, at: now)
            return true
        }
        if cameBack { publish(RegistryEvent("client.online", client, ["after": "stale"])) }
    }

    /// Takes a report of facts over; the same report again costs a hash and nothing else.
    public func facts(_ client: ClientID, _ report: JSONValue) {
        let bytes = report.serialized()
        guard bytes.count <= Facts.maximumReportBytes else { return }  // The link refuses it before.
        let hash = Self.hash(bytes)
        guard fleet.withLock({ $0.row(of: client).map { $0.factsHash != hash } ?? false }) else { return }
        let facts = Facts(report)
        let isKnown = fleet.withLock { table in
            guard let slot = table.slot(of: client) else { return false }
            table.setFacts(facts.values, of: slot)
            table.update(slot) { $0.factsHash = hash }
            return true
        }
        guard isKnown else { return }
        let isMuch = unwritten.withLock { unwritten in
            unwritten.note(
                UnwrittenLinks.Report(report: bytes, packed: facts.packed, hash: hash, at: clock()), of: client)
            return unwritten.isMuch
        }
        if isMuch { writeSoon() }
    }

    /// FNV-1a, 64 bits: tells reports apart across restarts; nothing rests on its strength.
    private static func hash(_ bytes: [UInt8]) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return hash
    }

    // MARK: Writing later

    private func writeSoon() {
        EventLoop.current?.spawn { [self] in
            do throws(Problem) { try await flush() } catch {
                // Given back; the next sweep tries again.
            }
        }
    }

    /// Writes what links reported since the last time. Also the last step before the store closes.
    public func flush() async throws(Problem) {
        while true {
            let batch = unwritten.withLock { unwritten -> UnwrittenLinks.Batch? in
                guard !unwritten.isWriting, !(unwritten.ends.isEmpty && unwritten.facts.isEmpty) else { return nil }
                unwritten.isWriting = true
                return unwritten.take()
            }
            guard let batch else { return }
            let kept = options.sessionsPerClient
            do throws(Problem) {
                try await store.write(bytes: batch.bytes) { (transaction) throws(StoreError) in
                    for (client, end) in batch.ends {
                        try Self.endSession(transaction, client, end, keeping: kept)
                    }
                    for (client, report) in batch.facts { try Self.write(transaction, client, report) }
                }
            } catch {
                unwritten.withLock { unwritten in
                    unwritten.giveBack(batch)
                    unwritten.isWriting = false
                }
                throw error
            }
            unwritten.withLock { $0.isWriting = false }
        }
    }

    private static func write(
        _ transaction: borrowing Transaction, _ client: ClientID, _ report: UnwrittenLinks.Report
    ) throws(StoreError) {
        // Not for a client that was forgotten in the meantime.
        try transaction.run(
            """
            INSERT INTO client_facts (client, report, packed, hash, reported_ms)
            SELECT id, ?2, ?3, ?4, ?5 FROM clients WHERE id = ?1
            ON CONFLICT (client) DO UPDATE SET report = excluded.report, packed = excluded.packed,
                hash = excluded.hash, reported_ms = excluded.reported_ms
            """, client, report.report, report.packed, Int64(bitPattern: report.hash), report.at)
    }

    /// Moves the open link of that epoch into the history; does nothing if a newer one took its place.
    static func endSession(
        _ transaction: borrowing Transaction, _ client: ClientID, _ end: UnwrittenLinks.End, keeping kept: Int
    ) throws(StoreError) {
        let ended = try transaction.run(
            """
            INSERT INTO client_sessions
                (client, epoch, address, boot_id, agent_version, connected_ms, disconnected_ms, end_code, end_detail)
            SELECT client, epoch, address, boot_id, agent_version, connected_ms, ?3, ?4, ?5
            FROM client_links WHERE client = ?1 AND epoch = ?2 AND disconnected_ms IS NULL
            """, client, end.epoch, end.at, end.end.code, end.end.detail)
        guard ended > 0 else { return }
        try transaction.run(
            "UPDATE client_links SET disconnected_ms = ? WHERE client = ? AND epoch = ?", end.at, client, end.epoch)
        try transaction.run(
            """
            DELETE FROM client_sessions WHERE client = ?1 AND id <=
                (SELECT id FROM client_sessions WHERE client = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
            """, client, kept)
    }

    enum SessionStart: Sendable {
        case begun
        /// The epoch was accepted before.
        case repeated
        /// A higher epoch was accepted since this hello arrived.
        case overtaken
        case forgotten
    }

    /// What one connect writes: the new epoch and, if the last session is still open, its end. Durable before the
    /// acceptance is sent.
    /// - Parameters:
    ///   - end: how the last link ended, if that is known but not written yet.
    ///   - withNewKey: epochs start anew with a key.
    static func beginSession(
        _ transaction: borrowing Transaction, _ hello: AgentHello, _ client: ClientID, after end: UnwrittenLinks.End?,
        now: UInt64, keeping kept: Int, withNewKey: Bool = false
    ) throws(StoreError) -> SessionStart {
        let last = try transaction.first(
            """
            SELECT l.epoch, l.connected_ms IS NOT NULL AND l.disconnected_ms IS NULL
            FROM clients c LEFT JOIN client_links l ON l.client = c.id WHERE c.id = ?
            """, client
        ) { (row) throws(StoreError) in (epoch: row.unsigned(0), isOpen: row.bool(1)) }
        guard let last else { return .forgotten }
        guard withNewKey || hello.epoch > last.epoch else { return hello.epoch == last.epoch ? .repeated : .overtaken }
        if last.isOpen {
            let fenced = LinkEnd(code: "fenced", detail: "a newer link was accepted")
            let known = end.flatMap { $0.epoch == last.epoch ? $0 : nil }
            try endSession(
                transaction, client, known ?? UnwrittenLinks.End(epoch: last.epoch, at: now, end: fenced),
                keeping: kept)
        }
        try transaction.run(
            """
            INSERT INTO client_links (client, epoch, address, boot_id, agent_version, connected_ms)
            VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (client) DO UPDATE SET epoch = excluded.epoch, address = excluded.address,
                boot_id = excluded.boot_id, agent_version = excluded.agent_version,
                connected_ms = excluded.connected_ms, disconnected_ms = NULL
            """, client, hello.epoch, hello.address, hello.bootID, hello.agentVersion, now)
        return .begun
    }

    /// After the commit that made the hello's epoch durable.
    func noteAdmitted(_ client: ClientID, _ hello: AgentHello, now: UInt64) {
        fleet.withLock { table in
            guard let slot = table.slot(of: client), let row = table.row(slot), hello.epoch > row.epoch else { return }
            table.update(slot) { row in
                row.epoch = hello.epoch
                row.admittedAt = now
                row.address = hello.address
                row.agentVersion = hello.agentVersion
            }
        }
    }

    /// Epochs start anew: the client has a new key, or an operator said which of two machines stays.
    func resetEpoch(of client: ClientID) {
        fleet.withLock { table in
            guard let slot = table.slot(of: client) else { return }
            table.update(slot) { row in
                row.epoch = 0
                row.admittedAt = 0
            }
        }
    }
}
