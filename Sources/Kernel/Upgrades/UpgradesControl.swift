import AgentProtocol
import JSON

/// What operators ask and say about upgrades. Starting and cancelling one is starting and cancelling its job.
extension Upgrades {
    /// An upgrade and how far it has come.
    public struct Summary: Sendable {
        public let job: Job
        /// `nil`: the job has not begun.
        public let version: String?
        public let isPaused: Bool
        public let counts: JSONObject
    }

    public struct Client: Sendable {
        public let place: Int
        public let client: ClientID
        public let state: UpgradeTargetState
        public let code: String
        public let message: String
        public let changedAt: UInt64
    }

    /// - Throws: 404 `upgrade-unknown`.
    public func get(_ id: JobID) async throws(Problem) -> Summary {
        let job: Job
        do throws(Problem) { job = try await jobs.get(id) } catch {
            throw error.status == 404 ? Self.unknown(id) : error
        }
        guard job.kind == Self.jobKind else { throw Self.unknown(id) }
        return try await summary(job)
    }

    /// Newest first.
    public func list(before: JobID?, limit: Int) async throws(Problem) -> [Summary] {
        var query = JobQuery()
        query.kind = Self.jobKind
        query.before = before
        query.limit = limit
        var found: [Summary] = []
        for job in try await jobs.list(query) { found.append(try await summary(job)) }
        return found
    }

    private func summary(_ job: Job) async throws(Problem) -> Summary {
        let id = UpgradeID(sameAs: job.id)
        let (row, counts) = try await store.read { (reader) throws(StoreError) in
            (try UpgradeRows.load(id, reader), try UpgradeRows.counts(of: id, reader))
        }
        return Summary(
            job: job, version: row?.version, isPaused: row?.isPaused ?? false, counts: Self.json(counts))
    }

    /// The clients of an upgrade in the order of their turns.
    public func clients(
        of id: JobID, from place: Int, state: UpgradeTargetState?, limit: Int
    ) async throws(Problem) -> [Client] {
        _ = try await get(id)
        return try await store.read { (reader) throws(StoreError) in
            try UpgradeRows.targets(of: UpgradeID(sameAs: id), from: place, state: state, limit: limit, reader)
        }.map { place, target in
            Client(
                place: place, client: target.client, state: target.machine.state, code: target.machine.code,
                message: target.machine.message, changedAt: target.machine.changedAt)
        }
    }

    /// Nobody else gets the release until it is resumed; who has it goes on. May be repeated.
    /// - Throws: 404; 409 `upgrade-finished`.
    public func pause(_ id: JobID, _ isPaused: Bool, by principal: Principal) async throws(Problem) {
        let upgrade = UpgradeID(sameAs: id)
        guard try await get(id).version != nil else {
            throw .conflict("upgrade-not-begun", "upgrade \(id) has not begun: cancel it, or wait a moment")
        }
        try await store.write { (transaction) throws(StoreError) in
            let changed = try transaction.run(
                "UPDATE upgrades SET paused = ? WHERE id = ? AND finished_ms IS NULL", isPaused, upgrade)
            guard changed == 1 else { throw .refused(.conflict("upgrade-finished", "upgrade \(id) is over")) }
            _ = try transaction.audit(
                AuditRecord(
                    principal: principal, action: isPaused ? "upgrade.pause" : "upgrade.resume", target: id.description))
        }
        state.withLock { $0[upgrade]?.machine.isPaused = isPaused }
        tell(isPaused ? "upgrade.paused" : "upgrade.resumed", upgrade)
        wake(upgrade)
    }

    /// Whoever wants to hold an upgrade back, or let it go on, has the right on each of its clients.
    /// - Throws: 403.
    public func requireAll(_ id: JobID, for principal: Principal) async throws(Problem) {
        let scope = security.scope(of: principal, for: .runUpgrades)
        if scope.allowed.contains(.everything), scope.denied.isEmpty { return }
        let ids = try await store.read { (reader) throws(StoreError) in
            try UpgradeRows.targets(of: UpgradeID(sameAs: id), reader).map(\.target.client)
        }
        let sorted = try clients.narrow(ids, allowed: scope.allowed, denied: scope.denied)
        guard sorted.refused.isEmpty, !ids.isEmpty else {
            throw .forbidden("no role of \(principal.id) grants \"\(Right.runUpgrades)\" on all clients of this upgrade")
        }
    }

    static func unknown(_ id: JobID) -> Problem { Problem(404, "upgrade-unknown", "there is no upgrade \(id)") }
}
