import JSON
import Program
import Reactor
import Synchronization

/// Brings the audit trail to an object store, in segments that verify by themselves and one after the other. What a segment holds is
/// durable before it goes, and the position moves only when the store has said that the object is there: a crash in between writes the
/// same bytes under the same name again.
///
/// Nothing of the core waits for it but the retention of the trail. Any thread; `start` on a loop.
public final class AuditArchive: Sendable {
    private let store: Store
    private let audit: Audit
    private let settings: Settings
    private let events: Events
    private let wakeup = Wakeup()
    private let isStopping = Atomic<Bool>(false)
    private let written: Counter
    private let failures: Counter
    private let grace: UInt64
    private let state: Mutex<State>

    private struct State {
        var objects: (any ObjectStore)?
        /// For metrics; the database has the truth.
        var known: (destination: ArchiveDestination, position: UInt64)?
        var isWriting = false
        var health: ArchiveHealth
    }

    init(
        store: Store, audit: Audit, settings: Settings, events: Events, metrics: Metrics,
        graceMilliseconds: UInt64 = ArchiveHealth.graceMilliseconds
    ) {
        grace = graceMilliseconds
        state = Mutex(State(health: ArchiveHealth(graceMilliseconds: graceMilliseconds)))
        self.store = store
        self.audit = audit
        self.settings = settings
        self.events = events
        written = metrics.counter("client_manager_audit_archive_segments_total", "Segments of the audit trail that the object store has.")
        failures = metrics.counter("client_manager_audit_archive_failures_total", "Attempts at such a segment that failed.")
        metrics.reading("client_manager_audit_archive_behind", "Audit records that the archive does not have; 0 when it is off.") { [self] in
            Double(behind)
        }
        for setting in Setting.auditArchive { settings.observe(setting) { [wakeup] _ in wakeup.signal() } }
    }

    /// What offers objects from now on, if it is there.
    public func use(_ objects: any ObjectStore) {
        state.withLock { $0.objects = objects }
        wakeup.signal()
    }

    /// The store came or went: what waits for it looks again, and a pause after failures is over.
    public func storeChanged() { wakeup.signal() }

    func start(on loop: EventLoop, log: @escaping @Sendable (Problem) -> Void) {
        loop.spawn { await self.run(on: loop, log) }
    }

    func stop() {
        isStopping.store(true, ordering: .relaxed)
        wakeup.signal()
    }

    /// As the settings say now.
    private var destination: ArchiveDestination? {
        ArchiveDestination(remote: settings.text(.auditArchiveRemote), prefix: settings.text(.auditArchivePrefix))
    }

    private var behind: UInt64 {
        guard let known = state.withLock({ $0.known }), known.destination == destination else { return 0 }
        return audit.newest - min(known.position, audit.newest)
    }

    // MARK: Status

    public func status() async throws(Problem) -> AuditArchiveStatus {
        let destination = destination
        let (position, oldest) = try await store.read { (reader) throws(StoreError) in
            let oldest = try Audit.bounds(reader).oldest
            guard let destination else { return (ArchivePosition?.none, oldest) }
            return (try ArchivePosition.read(reader, destination), oldest)
        }
        let (isThere, isWriting, failures, trouble) = state.withLock {
            ($0.objects?.isThere ?? false, $0.isWriting, $0.health.pace.failures, $0.health.trouble)
        }
        let row = position ?? ArchivePosition(position: oldest - 1)
        var status = AuditArchiveStatus(destination: destination, row: row, newest: max(audit.newest, row.position))
        status.retentionWaits = try await audit.retentionWaitsForArchive(now: unixMilliseconds())
        guard destination != nil else { return status }
        status.trouble = trouble
        status.attempts = failures
        status.state = !isThere ? .waiting : failures > 0 ? .failing : isWriting ? .writing : .current
        return status
    }

    // MARK: Work

    /// What the loop knows of the destination: read anew only after something happened.
    private struct View {
        let destination: ArchiveDestination
        let row: ArchivePosition
        /// When what waits was last found not to be worth a segment.
        var looked: UInt64 = 0
    }

    private func run(on loop: EventLoop, _ log: @Sendable (Problem) -> Void) async {
        var view: View?
        while !isStopping.load(ordering: .relaxed) {
            guard let destination else {
                view = nil
                reset()
                await wakeup.wait(milliseconds: 3_600_000, on: loop)
                continue
            }
            var pause: UInt64 = 1_000
            do throws(ArchiveFailure) {
                var current: View
                if let view, view.destination == destination { current = view } else { current = try await look(destination) }
                guard let objects = state.withLock({ $0.objects }), objects.isThere else { throw .store(.absent) }
                let now = unixMilliseconds()
                if isDue(current, now) {
                    if let segment = try await next(current) {
                        try await write(segment, to: objects)
                        succeeded(segment)
                        view = nil
                        continue
                    }
                    current.looked = now
                }
                succeeded(nil)
                view = current
            } catch {
                if isStopping.load(ordering: .relaxed) { return }
                view = nil
                pause = failed(error, destination, log)
            }
            await wakeup.wait(milliseconds: pause, on: loop)
        }
    }

    private func isDue(_ view: View, _ now: UInt64) -> Bool {
        let row = view.row
        return row.planned != nil || ArchivePace.isDue(
            waiting: audit.newest - min(audit.newest, row.position), records: UInt64(settings.integer(.auditArchiveRecords)),
            closed: max(row.archivedMilliseconds, view.looked), seconds: UInt64(settings.integer(.auditArchiveSeconds)), now: now)
    }

    private func look(_ destination: ArchiveDestination) async throws(ArchiveFailure) -> View {
        let row = try await ArchiveFailure.ofCore { () throws(Problem) in
            try await store.read { (reader) throws(StoreError) in
                if let known = try ArchivePosition.read(reader, destination) { return known }
                return ArchivePosition(position: try Audit.bounds(reader).oldest - 1)
            }
        }
        state.withLock { $0.known = (destination, row.position) }
        return View(destination: destination, row: row)
    }

    private func next(_ view: View) async throws(ArchiveFailure) -> ArchiveSegment? {
        let (destination, row) = (view.destination, view.row)
        let records = UInt64(settings.integer(.auditArchiveRecords))
        let waiting = audit.newest - min(audit.newest, row.position)
        // A write into the store is an act that the trail tells as well.
        let own = row.lastKey.isEmpty || waiting >= records ? nil : destination.remote + "/" + row.lastKey
        return try await ArchiveFailure.ofCore { () throws(Problem) in
            if row.planned == nil { try await audit.checkpoint() }
            return try await store.write(bytes: 512) { (transaction) throws(StoreError) in
                try ArchivePosition.plan(transaction, destination, records: records, ownTarget: own).1
            }
        }
    }

    private func write(_ segment: ArchiveSegment, to objects: any ObjectStore) async throws(ArchiveFailure) {
        state.withLock { $0.isWriting = true }
        defer { state.withLock { $0.isWriting = false } }
        let (remote, key) = (segment.destination.remote, segment.key)
        let size = try await ArchiveFailure.ofStore(key) { () throws(ArchiveFailure) in
            let writer: any ObjectWriter
            do throws(ObjectStoreError) { writer = try await objects.begin(remote, key, contentType: "application/jsonl") } catch { throw .store(error) }
            do throws(ArchiveFailure) {
                return try await fill(writer, segment)
            } catch {
                await writer.abort()
                throw error
            }
        }
        let stored = try await ArchiveFailure.ofStore(key) { () throws(ArchiveFailure) in
            do throws(ObjectStoreError) { return try await objects.size(remote, key) } catch { throw .store(error) }
        }
        guard stored == size else {
            throw .store(ObjectStoreError(
                "object-store-size", "the store says that \(key) has \(stored) bytes, and \(size) were written"))
        }
        try await ArchiveFailure.ofCore { () throws(Problem) in
            let now = unixMilliseconds()
            try await store.write(bytes: 512) { (transaction) throws(StoreError) in
                try ArchivePosition.advance(transaction, segment, now: now)
            }
        }
    }

    private func fill(_ writer: any ObjectWriter, _ segment: ArchiveSegment) async throws(ArchiveFailure) -> UInt64 {
        var size: UInt64 = 0
        var export = AuditExport(audit, after: segment.after, through: segment.last)
        while let piece = try await ArchiveFailure.ofCore({ () throws(Problem) in try await export.next() }) {
            // The operator has turned it off, or to another place.
            guard !isStopping.load(ordering: .relaxed), destination == segment.destination else {
                throw .store(ObjectStoreError("object-store-absent", "the archive was turned elsewhere", kind: .absent))
            }
            do throws(ObjectStoreError) { try await writer.write(piece) } catch { throw .store(error) }
            size += UInt64(piece.count)
        }
        do throws(ObjectStoreError) { try await writer.end() } catch { throw .store(error) }
        return size
    }

    // MARK: Telling

    /// - Parameter segment: `nil`: nothing was to do, and nothing is in the way.
    private func succeeded(_ segment: ArchiveSegment?) {
        let known = segment.map { ($0.destination, $0.last) }
        let recovered = state.withLock { state in
            if let known { state.known = known }
            return state.health.succeeded() ? state.known : nil
        }
        if segment != nil { written.add() }
        guard let recovered else { return }
        events.publish(Event(
            kind: "audit.archive-recovered", subject: recovered.destination.name,
            data: ["position": .integer(Int64(clamping: recovered.position))]))
    }

    /// - Returns: the pause before the next attempt.
    private func failed(_ failure: ArchiveFailure, _ destination: ArchiveDestination, _ log: @Sendable (Problem) -> Void) -> UInt64 {
        let (code, text) = failure.told
        let isAbsent = failure.isAbsent
        let (pause, isNews) = state.withLock { $0.health.failed(failure, now: unixMilliseconds()) }
        if !isAbsent { failures.add() }
        if isNews || !isAbsent {
            log(Problem(503, "audit-archive", "the audit trail does not get to \(destination.name): \(text) (\(code))"))
        }
        if isNews {
            events.publish(Event(
                kind: isAbsent ? "audit.archive-waiting" : "audit.archive-failed", subject: destination.name,
                data: ["code": .string(code), "text": .string(text)]))
        }
        return pause
    }

    private func reset() {
        state.withLock { state in
            state.known = nil
            state.health = ArchiveHealth(graceMilliseconds: grace)
        }
    }
}
