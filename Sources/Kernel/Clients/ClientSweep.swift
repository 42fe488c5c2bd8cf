import AgentProtocol
import JSON
import Reactor

/// What happens by the passing of time.
extension Clients {
    /// Milliseconds between sweeps.
    private static let interval: UInt64 = 2_000
    /// Sweeps between looks at what has grown old: an hour.
    private static let sweepsPerCleaning = 1_800

    /// Starts the sweeps on the loop; they end with it.
    public func start(on loop: EventLoop) {
        loop.spawn { [self] in
            // The first cleaning comes an hour after the start, when whoever could come back has: a client must not be
            // forgotten because the core was away.
            var sweeps = 1
            while true {
                await loop.sleep(milliseconds: Self.interval)
                markStale()
                do throws(Problem) {
                    try await flush()
                    if sweeps % Self.sweepsPerCleaning == 0 { try await clean() }
                } catch {
                    // The store is full or busy: what was to be written waits for the next sweep.
                }
                sweeps += 1
            }
        }
    }

    /// Online clients whose heartbeat is overdue become stale.
    public func markStale() {
        let now = clock()
        let limit = UInt64(options.staleAfterSeconds) * 1_000
        let overdue = fleet.withLock { table in
            var overdue: [ClientID] = []
            table.slots(in: .online).forEach { slot in
                guard let row = table.row(slot), now > row.lastSeen + limit else { return }
                overdue.append(row.id)
                table.setState(.stale, of: slot, at: now)
            }
            return overdue
        }
        for client in overdue { publish(RegistryEvent("client.stale", client)) }
    }

    /// Drops sessions that are older than they are kept and forgets clients that have been offline for too long.
    public func clean() async throws(Problem) {
        let now = clock()
        let day: UInt64 = 86_400_000
        let options = options
        if let days = options.sessionDays { try await dropSessions(endedBefore: now - min(now, UInt64(days) * day)) }
        guard let days = options.forgetAfterDays else { return }
        let before = now - min(now, UInt64(days) * day)
        let old = fleet.withLock { table in
            var old: [ClientID] = []
            table.slots(in: .offline).forEach { slot in
                if let row = table.row(slot), row.lastSeen < before, row.stateSince < before { old.append(row.id) }
            }
            return old
        }
        let core = Principal(kind: .system, id: "registry")
        for client in old {
            try await forget(client, purge: false, reason: "offline for \(days) days", by: core, ifOfflineSince: before)
        }
    }

    /// In steps, so that no other request waits long behind them.
    private func dropSessions(endedBefore before: UInt64) async throws(Problem) {
        while true {
            let dropped = try await store.write { (transaction) throws(StoreError) in
                try transaction.run(
                    """
                    DELETE FROM client_sessions WHERE id IN
                        (SELECT id FROM client_sessions WHERE disconnected_ms < ? LIMIT 1000)
                    """, before)
            }
            guard dropped == 1_000 else { return }
        }
    }
}
