import Reactor
import Synchronization
import System

/// The audit trail: reading, checkpoints, retention, export. Writing is `Transaction.audit`. Any thread.
public final class Audit: Sendable {
    let store: Store
    private let settings: Settings?
    private let stopped = Atomic<Bool>(false)
    private let files = BlockingPool(name: "audit-files", threads: 1, queue: 16)

    static let checkpointMilliseconds: UInt64 = 60_000

    public init(store: Store, settings: Settings?) {
        self.store = store
        self.settings = settings
    }

    /// The newest durable record, without a query.
    public var newest: UInt64 { store.newestAuditRecord }

    /// Signs the trail up to now and writes the witness file. `nil` for an empty trail.
    @discardableResult
    public func checkpoint() async throws(Problem) -> AuditCheckpoint? {
        let checkpoint = try await store.write(bytes: 256) { (transaction) throws(StoreError) in
            try transaction.chain.checkpoint(transaction)
        }
        guard let checkpoint else { return nil }
        let directory = store.directory
        do {
            try await files.run { () throws(SystemError) in try AuditWitness.write(checkpoint, directory) }
        } catch {
            throw Problem(500, "audit-witness", "the checkpoint could not be written beside the database: \(error)")
        }
        return checkpoint
    }

    /// Signs what is new once a minute and applies the retention once an hour, from now until `stop`.
    public func start(on loop: EventLoop, log: @escaping @Sendable (Problem) -> Void = { _ in }) {
        loop.spawn { await self.maintain(loop, log) }
    }

    /// The last checkpoint of an orderly end. Before the store is closed.
    public func stop() async {
        stopped.store(true, ordering: .relaxed)
        _ = try? await checkpoint()
    }

    private func maintain(_ loop: EventLoop, _ log: @Sendable (Problem) -> Void) async {
        var minutes = 0
        var signed: UInt64 = 0
        while !stopped.load(ordering: .relaxed) {
            await loop.sleep(milliseconds: Self.checkpointMilliseconds)
            guard !stopped.load(ordering: .relaxed) else { return }
            do throws(Problem) {
                if newest > signed { signed = try await checkpoint()?.sequence ?? signed }
                if minutes % 60 == 0 { try await applyRetention(now: unixMilliseconds()) }
            } catch {
                log(error)
            }
            minutes += 1
        }
    }

    /// Cuts what is older than the setting allows. Nothing with the setting at 0.
    public func applyRetention(now: UInt64) async throws(Problem) {
        guard let settings else { return }
        let days = UInt64(settings.integer(.auditRetentionDays))
        guard days > 0, now > days * 86_400_000 else { return }
        _ = try await cut(
            olderThan: now - days * 86_400_000, by: Principal(kind: .system, id: "audit", correlation: "retention"))
    }

    /// True: there are records that the setting would have removed, if the archive had them.
    func retentionWaitsForArchive(now: UInt64) async throws(Problem) -> Bool {
        guard let settings else { return false }
        let days = UInt64(settings.integer(.auditRetentionDays))
        guard days > 0, now > days * 86_400_000 else { return false }
        let limit = now - days * 86_400_000
        return try await store.read { (reader) throws(StoreError) in
            guard let archived = try ArchivePosition.archived(reader) else { return false }
            return try reader.exists(
                "SELECT 1 FROM audit_checkpoints WHERE time_ms < ? AND sequence > ? LIMIT 1", limit, archived)
        }
    }

    /// Removes the records before the newest signed checkpoint that is older than `limit` (Unix milliseconds).
    @discardableResult
    public func cut(olderThan limit: UInt64, by principal: Principal) async throws(Problem) -> UInt64? {
        try await AuditRetention(store: store, mindsArchive: settings != nil).cut(olderThan: limit, by: principal)
    }

    /// Verifies the live trail on a thread of its own.
    public func verify() async throws(Problem) -> AuditReport {
        let directory = store.directory
        do {
            return try await files.run { () throws(Problem) in try AuditVerification.verify(dataDirectory: directory) }
        } catch {
            switch error {
            case .full: throw Problem(503, "busy", "verifications are waiting already", retryAfter: 10)
            case .failed(let problem): throw problem
            }
        }
    }
}
