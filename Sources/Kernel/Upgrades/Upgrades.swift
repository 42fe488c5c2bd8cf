import AgentProtocol
import JSON
import Program
import Reactor
import Synchronization
import System

/// Upgrades of agents over a fleet: each is a job, runs in waves, and is written down client by client before anything is
/// sent or acknowledged. Functions may be called on any loop.
public final class Upgrades: Sendable {
    static let jobKind = "upgrade"

    /// One that runs in this process.
    struct Running: Sendable {
        var machine: UpgradeRunStateMachine
        let order: UpgradeOrder
        let release: Release
        let file: FileReader
        let wakeup = Wakeup()
    }

    let store: Store
    let files: FileStore
    let clients: Clients
    let jobs: Jobs
    let security: Security
    let events: Events
    let report: @Sendable (Problem) -> Void
    let now: @Sendable () -> UInt64
    let state = Mutex<[UpgradeID: Running]>([:])

    public static let migrations = UpgradeRows.migrations

    init(
        store: Store, files: FileStore, clients: Clients, jobs: Jobs, security: Security, events: Events,
        now: @escaping @Sendable () -> UInt64 = { unixMilliseconds() }, report: @escaping @Sendable (Problem) -> Void
    ) {
        self.store = store
        self.files = files
        self.clients = clients
        self.jobs = jobs
        self.security = security
        self.events = events
        self.now = now
        self.report = report
    }

    func random() -> (UInt64, UInt64) { (.random(in: .min ... .max), .random(in: .min ... .max)) }

    // MARK: The job

    /// Before `Jobs.start`, so that upgrades of the last run go on.
    /// - Parameter arguments: what a request holds, as a JSON Schema.
    public func register(arguments: JSONValue) throws(Problem) {
        var kind = JobKind(
            Self.jobKind, "Replaces agents by a release, wave by wave.", .idempotent,
            check: { [self] (arguments, principal) async throws(Problem) in try await check(arguments, principal) },
            work: .task { [self] lease in await run(lease) })
        kind.arguments = .documented(arguments)
        kind.rights = [.runUpgrades]
        kind.concurrency = 16
        kind.timeoutMilliseconds = 7 * 86_400_000
        // Clients in the middle of their upgrade come to its end.
        kind.cancelGraceMilliseconds = 86_400_000
        kind.cancel = { [self] lease in wake(UpgradeID(sameAs: lease.job)) }
        kind.reattach = { [self] lease in await run(lease) }
        try jobs.register(kind)
    }

    private func check(_ arguments: JSONValue, _ principal: Principal) async throws(Problem) -> String {
        let request = try UpgradeRequest(arguments)
        let release = try await release(request.release)
        let clients = try selection(request, principal)
        guard !clients.isEmpty else {
            throw .invalid("this means no client on which \(principal.id) may run upgrades", pointer: "/selector")
        }
        return "upgrade of \(clients.count) clients to \(release.manifest.version)"
    }

    /// The clients that are meant, as far as the principal has the right on them, by id.
    private func selection(_ request: UpgradeRequest, _ principal: Principal) throws(Problem) -> [ClientID] {
        let scope = security.scope(of: principal, for: .runUpgrades)
        let found: [ClientID]
        switch request.selection {
        case .selector(let selector, _):
            found = try clients.select(selector, allowed: scope.allowed, denied: scope.denied)
        case .clients(let ids):
            let sorted = try clients.narrow(ids, allowed: scope.allowed, denied: scope.denied)
            if let id = sorted.unknown.first { throw .notFound("there is no client \(id)") }
            if let id = sorted.refused.first {
                throw .forbidden("no role of \(principal.id) grants \"\(Right.runUpgrades)\" on client \(id)")
            }
            found = sorted.permitted
        }
        guard found.count <= UpgradeRequest.maximumClients else {
            throw .invalid(
                "\(found.count) clients are meant; one upgrade takes \(UpgradeRequest.maximumClients)", pointer: "/selector")
        }
        return found
    }

    private func run(_ lease: JobLease) async -> JobOutcome {
        let id = UpgradeID(sameAs: lease.job)
        do throws(Problem) {
            let request = try UpgradeRequest(lease.arguments)
            let running = try await begin(id, request, lease)
            state.withLock { $0[id] = running }
            defer { state.withLock { $0[id] = nil } }
            // What they said while nobody here listened they say again.
            for target in running.machine.targets where running.machine.isUnderWay(target.client) {
                clients.link(of: target.client)?.upgrade(running.order)
            }
            guard let outcome = try await follow(id, running.wakeup, lease) else { return .cancelled }
            return outcome
        } catch {
            return .failed(code: error.code, reason: error.detail, again: error.status >= 500 ? .nothingWasDone : .never)
        }
    }

    /// Takes it up from its rows, or makes them.
    private func begin(_ id: UpgradeID, _ request: UpgradeRequest, _ lease: JobLease) async throws(Problem) -> Running {
        let release = try await release(request.release)
        let file = try await files.open(release.file)
        let known = try await store.read { (reader) throws(StoreError) in try UpgradeRows.load(id, reader) }
        let first: (targets: [UpgradeRunStateMachine.Target], firstWave: Int, isPaused: Bool)
        if let known {
            var rows = try await store.read { (reader) throws(StoreError) in
                try UpgradeRows.targets(of: id, reader).map(\.target)
            }
            // One that had come to its end was put in again by a person.
            if known.finishedAt != nil { rows = try await anotherTurn(id, rows, lease, release) }
            first = (rows, known.firstWave, known.isPaused)
        } else {
            let made = try await make(id, request, release, lease)
            first = (made.targets, made.firstWave, false)
        }
        var machine = UpgradeRunStateMachine(
            first.targets, parallel: request.parallel, waves: request.waves(first.targets.count, first: first.firstWave),
            failures: request.failures, limits: request.limits)
        machine.isPaused = first.isPaused
        return Running(
            machine: machine,
            order: UpgradeOrder(
                upgrade: id, release: release.signed, onlineWithinSeconds: request.onlineWithinSeconds,
                settleSeconds: request.settleSeconds), release: release, file: file)
    }

    private func make(
        _ id: UpgradeID, _ request: UpgradeRequest, _ release: Release, _ lease: JobLease
    ) async throws(Problem) -> (targets: [UpgradeRunStateMachine.Target], firstWave: Int) {
        let principal = try jobs.principal(of: lease)
        var meant = try selection(request, principal)
        var firstWave = min(request.canary, meant.count)
        if let selector = request.canarySelector {
            var canaries: [ClientID] = []
            for client in meant where try clients.matches(selector, client) { canaries.append(client) }
            guard !canaries.isEmpty else {
                throw .invalid("none of the clients meets \"canary_selector\"", pointer: "/canary_selector")
            }
            let set = Set(canaries)
            meant = canaries + meant.filter { !set.contains($0) }
            firstWave = canaries.count
        }
        let targets = meant.map { UpgradeRunStateMachine.Target(client: $0) }
        let upgrade = UpgradeRows.Upgrade(
            id: id, release: release.id, version: release.manifest.version.description, firstWave: firstWave, isPaused: false, startedAt: now(), finishedAt: nil)
        let audit = AuditRecord(
            principal: principal, action: "upgrade.run", clients: meant, target: id.description,
            detail: [
                "release": .string(release.id.description), "version": .string(upgrade.version),
                "sha256": .string(release.manifest.sha256),
            ])
        killPoint("upgrade.begin.before")
        try await store.write(bytes: 256 * targets.count + 1_024) { (transaction) throws(StoreError) in
            try FileStore.hold(release.file, for: Self.holder(id), transaction)
            try UpgradeRows.insert(upgrade, transaction)
            for (place, target) in targets.enumerated() { try UpgradeRows.insert(target, place, of: id, transaction) }
            _ = try transaction.audit(audit)
        }
        killPoint("upgrade.begin.after")
        tell("upgrade.started", id, ["clients": .integer(Int64(targets.count)), "version": .string(upgrade.version)])
        return (targets, firstWave)
    }

    /// Somebody has put the job in again: whoever has not got the release gets another turn, after those that never had one.
    private func anotherTurn(
        _ id: UpgradeID, _ rows: [UpgradeRunStateMachine.Target], _ lease: JobLease, _ release: Release
    ) async throws(Problem) -> [UpgradeRunStateMachine.Target] {
        let now = now()
        let principal = try jobs.principal(of: lease)
        var rows = rows
        var others: [ClientID] = []
        for index in rows.indices where rows[index].machine.apply(.again, now: now) { others.append(rows[index].client) }
        let (done, meant) = (rows, others)
        try await store.write(bytes: 256 * rows.count + 1_024) { (transaction) throws(StoreError) in
            try FileStore.hold(release.file, for: Self.holder(id), transaction)
            try transaction.run("UPDATE upgrades SET paused = 0, finished_ms = NULL WHERE id = ?", id)
            for (place, target) in done.enumerated() { try UpgradeRows.insert(target, place, of: id, transaction) }
            _ = try transaction.audit(
                AuditRecord(principal: principal, action: "upgrade.run", clients: meant, target: id.description))
        }
        return rows
    }

    static func holder(_ id: UpgradeID) -> String { "upgrade \(id)" }

    // MARK: While it runs

    /// - Returns: `nil` when the core stops; the next one takes it up again.
    private func follow(_ id: UpgradeID, _ wakeup: Wakeup, _ lease: JobLease) async throws(Problem) -> JobOutcome? {
        guard let loop = EventLoop.current else { return nil }
        var toldDone = -1
        var unsent: [ClientID] = []
        while !jobs.isStopped {
            let now = now()
            let isCancelled = jobs.isAskedToEnd(lease)
            let (sent, changed, isOver) = turn(id, now, isCancelled)
            do throws(Problem) {
                try await write(changed, of: id)
            } catch {
                // Nothing was sent or acknowledged; it is tried again.
                report(error)
                state.withLock { $0[id]?.machine.putBack(changed.map(\.place)) }
                unsent += sent
                await wakeup.wait(milliseconds: 1_000, on: loop)
                continue
            }
            tell(changed, of: id)
            send(id, to: unsent + sent)
            unsent = []
            acknowledge(changed, of: id)
            let (done, total, deadline, isPaused) = state.withLock { state in
                let machine = state[id]?.machine
                return (
                    (machine?.targets.count ?? 0) - (machine?.open ?? 0), machine?.targets.count ?? 0,
                    machine?.deadline() ?? .max, machine?.isPaused ?? false
                )
            }
            if done != toldDone {
                toldDone = done
                try? jobs.progress(
                    lease, JobProgress(done: UInt64(done), total: UInt64(total), text: isPaused ? "paused" : ""))
            }
            if isOver { return try await finish(id, lease, isCancelled: isCancelled) }
            let left = deadline > now ? deadline - now : 0
            await wakeup.wait(milliseconds: min(max(left, 20), 1_000), on: loop)
        }
        return nil
    }

    private typealias Changes = [(place: Int, target: UpgradeRunStateMachine.Target)]

    /// Whom to send the order, once what has changed is written down.
    /// That it is over counts for the same moment: what is said a moment later is written down by the next turn.
    private func turn(
        _ id: UpgradeID, _ now: UInt64, _ isCancelled: Bool
    ) -> (sent: [ClientID], changed: Changes, isOver: Bool) {
        state.withLock { state in
            if isCancelled { state[id]?.machine.stop("cancelled", now) }
            let sent = state[id]?.machine.turn(now: now) { clients.link(of: $0)?.hasUpgrades ?? false }
            let changed = state[id]?.machine.takeChanged() ?? []
            return (sent ?? [], changed, state[id]?.machine.isOver ?? true)
        }
    }

    private func write(_ changed: Changes, of id: UpgradeID) async throws(Problem) {
        guard !changed.isEmpty else { return }
        killPoint("upgrade.change.before")
        try await store.write(bytes: 512 * changed.count) { (transaction) throws(StoreError) in
            for (place, target) in changed {
                try UpgradeRows.insert(target, place, of: id, transaction)
                let machine = target.machine
                guard machine.state.isFinal, machine.state != .skipped else { continue }
                _ = try transaction.audit(
                    AuditRecord(
                        principal: Principal(kind: .system, id: "upgrades", correlation: id.description),
                        action: "upgrade.client", clients: [target.client], target: id.description,
                        outcome: machine.state == .online ? .allowed : .failed, reason: machine.message,
                        detail: ["state": .string(machine.state.rawValue), "code": .string(machine.code)]))
            }
        }
        killPoint("upgrade.change.after")
    }

    private func tell(_ changed: Changes, of id: UpgradeID) {
        for (_, target) in changed {
            var data: JSONObject = ["state": .string(target.machine.state.rawValue)]
            if !target.machine.code.isEmpty { data["code"] = .string(target.machine.code) }
            events.publish(
                Event(kind: "upgrade.client", client: target.client, subject: id.description, data: .object(data)))
        }
    }

    func tell(_ kind: String, _ id: UpgradeID, _ data: JSONObject = [:]) {
        events.publish(Event(kind: kind, subject: id.description, data: .object(data)))
    }

    private func send(_ id: UpgradeID, to ids: [ClientID]) {
        guard !ids.isEmpty, let order = state.withLock({ $0[id]?.order }) else { return }
        for client in ids { clients.link(of: client)?.upgrade(order) }
    }

    private func acknowledge(_ changed: Changes, of id: UpgradeID) {
        for (_, target) in changed where target.machine.state.isFinal {
            clients.anyLink(of: target.client)?.forgetUpgrade(id)
        }
    }

    private func finish(_ id: UpgradeID, _ lease: JobLease, isCancelled: Bool) async throws(Problem) -> JobOutcome {
        let now = now()
        let (counts, failures) = state.withLock { ($0[id]?.machine.counts() ?? [:], $0[id]?.machine.failures ?? 0) }
        // Kept as long as their jobs.
        let old = now - min(now, jobs.limits.historyMilliseconds)
        try await store.write { (transaction) throws(StoreError) in
            try FileStore.release(holder: Self.holder(id), transaction)
            try transaction.run("UPDATE upgrades SET finished_ms = ?, paused = 0 WHERE id = ?", now, id)
            try transaction.run(
                "DELETE FROM upgrade_targets WHERE upgrade IN (SELECT id FROM upgrades WHERE finished_ms < ?)", old)
            try transaction.run("DELETE FROM upgrades WHERE finished_ms < ?", old)
        }
        let shown = Self.json(counts)
        tell("upgrade.finished", id, shown)
        let isStopped = state.withLock { $0[id]?.machine.stopCode } == "stopped"
        if isStopped {
            let skipped = counts[.skipped] ?? 0
            return .failed(
                code: "upgrade-stopped",
                reason: "\(failures) clients did not get the release, more than may fail; \(skipped) were not sent it", again: .never)
        }
        if isCancelled { return .cancelled }
        return .succeeded(result: JSONValue.object(["clients": .object(shown)]).serialized())
    }

    static func json(_ counts: [UpgradeTargetState: Int]) -> JSONObject {
        var object = JSONObject()
        for state in UpgradeTargetState.allCases {
            if let count = counts[state], count > 0 { object[state.rawValue] = .integer(Int64(count)) }
        }
        return object
    }

    func wake(_ id: UpgradeID) { state.withLock { $0[id]?.wakeup }?.signal() }
}
