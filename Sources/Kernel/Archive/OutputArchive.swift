import AgentProtocol
import JSON
import Program
import Reactor
import Synchronization
import System

/// Copies the output of ended targets to an object store: one object for each stream that is not empty, under a name that is made of
/// the ids alone, with the bytes that are kept (masked ones masked). An ended target's output does not change, so whatever a crash
/// leaves unrecorded is copied again, the same bytes under the same names.
///
/// It follows behind: it reads what the journal has anyway, and a command's way has no step for it. Any thread; `start` on a loop.
public final class OutputArchive: Sendable {
    /// Targets whose output is under way at once, each with one piece of `OutputStore.readBytes` in memory.
    static let lanes = 4
    /// Until a command is so old, its unfinished targets are waited for before the position passes them.
    static let carryMilliseconds: UInt64 = 5_000
    /// How often those that were passed are looked at.
    static let openMilliseconds: UInt64 = 2_000

    private let store: Store
    private let commands: Commands
    private let settings: Settings
    private let events: Events
    private let wakeup = Wakeup()
    private let isStopping = Atomic<Bool>(false)
    private let carry: UInt64
    private let written: Counter
    private let copied: Counter
    private let failures: Counter
    private let lost: Counter
    private let state = Mutex(State())

    private struct State {
        var objects: (any ObjectStore)?
        /// For metrics; the database has the truth.
        var known: (destination: ArchiveDestination, position: Int64)?
        var isWriting = false
        var health = ArchiveHealth()
    }

    /// - Parameter carryMilliseconds: as `carryMilliseconds`, for tests.
    init(
        store: Store, commands: Commands, settings: Settings, events: Events, metrics: Metrics,
        carryMilliseconds: UInt64 = OutputArchive.carryMilliseconds
    ) {
        self.store = store
        self.commands = commands
        self.settings = settings
        self.events = events
        carry = carryMilliseconds
        written = metrics.counter("client_manager_output_archive_objects_total", "Objects with output that the object store has.")
        copied = metrics.counter("client_manager_output_archive_bytes_total", "Bytes of output in those objects.")
        failures = metrics.counter("client_manager_output_archive_failures_total", "Rounds of the output's archive that failed.")
        lost = metrics.counter("client_manager_output_archive_missing_total", "Targets whose output was removed before it was copied.")
        metrics.reading("client_manager_output_archive_behind", "Targets that the output's archive has not looked at; 0 when it is off.") { [self] in
            Double(behind)
        }
        for setting in Setting.outputArchive { settings.observe(setting) { [wakeup] _ in wakeup.signal() } }
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
        ArchiveDestination(remote: settings.text(.outputArchiveRemote), prefix: settings.text(.outputArchivePrefix))
    }

    private var behind: UInt64 {
        guard let known = state.withLock({ $0.known }), known.destination == destination else { return 0 }
        return UInt64(max(0, commands.acceptedEnd - 1 - known.position))
    }

    // MARK: Status

    public func status() async throws(Problem) -> OutputArchiveStatus {
        guard let destination else { return OutputArchiveStatus() }
        let end = commands.acceptedEnd
        var status = try await store.read { (reader) throws(StoreError) in
            var status = OutputArchiveStatus()
            status.row = try OutputArchiveRow.read(reader, destination)
            let next = try reader.first(
                "SELECT id FROM command_targets WHERE id > ? ORDER BY id LIMIT 1", status.row?.position ?? -1
            ) { $0.integer(0) }
            status.behind = UInt64(max(0, end - (next ?? end)))
            if let id = status.row?.id {
                status.open = UInt64(try reader.count("SELECT count(*) FROM output_archive_open WHERE archive = ?", id))
            }
            return status
        }
        let (isThere, isWriting, health) = state.withLock { ($0.objects?.isThere ?? false, $0.isWriting, $0.health) }
        status.destination = destination
        status.retentionWaits = commands.retentionWaits
        status.trouble = health.trouble
        status.attempts = health.pace.failures
        status.state = !isThere ? .waiting : status.attempts > 0 ? .failing : isWriting ? .writing : .current
        return status
    }

    // MARK: Work

    private func run(on loop: EventLoop, _ log: @Sendable (Problem) -> Void) async {
        var looked: UInt64 = 0
        while !isStopping.load(ordering: .relaxed) {
            guard let destination else {
                state.withLock { state in
                    state.known = nil
                    state.health = ArchiveHealth()
                }
                await wakeup.wait(milliseconds: 3_600_000, on: loop)
                continue
            }
            var pause: UInt64 = 1_000
            do throws(ArchiveFailure) {
                guard let objects = state.withLock({ $0.objects }), objects.isThere else { throw .store(.absent) }
                let now = monotonicNanoseconds() / 1_000_000
                let looksAtOpen = now >= looked + Self.openMilliseconds
                let isFull = try await round(destination, objects, looksAtOpen: looksAtOpen, on: loop, log)
                if !isFull, looksAtOpen { looked = now }
                succeeded(destination)
                // Else what ends meanwhile is one round, and not one each.
                if isFull { continue }
            } catch {
                if isStopping.load(ordering: .relaxed) { return }
                pause = failed(error, destination, log)
            }
            await wakeup.wait(milliseconds: pause, on: loop)
        }
    }

    /// - Returns: whether there may be more to do at once.
    private func round(
        _ destination: ArchiveDestination, _ objects: any ObjectStore, looksAtOpen: Bool, on loop: EventLoop,
        _ log: @Sendable (Problem) -> Void
    ) async throws(ArchiveFailure) -> Bool {
        // Before the database is read: a target below it is there then, or never will be.
        let end = commands.acceptedEnd
        let carryBefore = commands.now() - min(carry, commands.now())
        let (row, batch) = try await ArchiveFailure.ofCore { () throws(Problem) in
            let row: OutputArchiveRow
            if let known = try await store.read({ (reader) throws(StoreError) in try OutputArchiveRow.read(reader, destination) }) {
                row = known
            } else {
                row = try await store.write { (transaction) throws(StoreError) in try OutputArchiveRow.begin(transaction, destination) }
            }
            let batch = try await store.read { (reader) throws(StoreError) in
                try row.batch(reader, below: end, carry: carryBefore, looksAtOpen: looksAtOpen)
            }
            return (row, batch)
        }
        state.withLock { $0.known = (destination, row.position) }
        guard !batch.items.isEmpty || batch.position != row.position else { return batch.isFull }
        let (done, failure) = await copy(batch.items, destination, objects, on: loop)
        let last = done.last { $0.output != nil || $0.errors != nil }
        let lastKey = last.map {
            ArchiveNames.output(destination.prefix, $0.item.command, $0.item.client, $0.errors == nil ? .standardOutput : .standardError)
        }
        if !done.isEmpty || failure == nil {
            killPoint("output.archive.record")
            let isWhole = failure == nil
            try await ArchiveFailure.ofCore { () throws(Problem) in
                let now = unixMilliseconds()
                try await store.write(bytes: 256 + 64 * done.count + 32 * batch.open.count) { (transaction) throws(StoreError) in
                    try row.record(transaction, done, batch, isWhole: isWhole, lastKey: lastKey, now: now)
                }
            }
            if isWhole { state.withLock { $0.known = (destination, batch.position) } }
            tell(done, destination, log)
        }
        if let failure { throw failure }
        return batch.isFull
    }

    /// Copies in a few lanes. After a failure no other begins; those that have begun come to their end.
    private func copy(
        _ items: [OutputArchiveItem], _ destination: ArchiveDestination, _ objects: any ObjectStore, on loop: EventLoop
    ) async -> ([OutputArchived], ArchiveFailure?) {
        guard !items.isEmpty else { return ([], nil) }
        state.withLock { $0.isWriting = true }
        defer { state.withLock { $0.isWriting = false } }
        return await withTaskGroup(of: Result<OutputArchived, ArchiveFailure>.self) { group in
            var waiting = items[...]
            var done: [OutputArchived] = []
            var failure: ArchiveFailure?
            func begin() {
                guard failure == nil, let item = waiting.popFirst() else { return }
                group.addTask(executorPreference: loop) {
                    do throws(ArchiveFailure) {
                        return .success(try await self.copy(item, destination, objects))
                    } catch {
                        return .failure(error)
                    }
                }
            }
            for _ in 0..<Self.lanes { begin() }
            while let result = await group.next() {
                switch result {
                case .success(let one): done.append(one)
                case .failure(let error): failure = failure ?? error
                }
                begin()
            }
            return (done, failure)
        }
    }

    private func copy(
        _ item: OutputArchiveItem, _ destination: ArchiveDestination, _ objects: any ObjectStore
    ) async throws(ArchiveFailure) -> OutputArchived {
        var done = OutputArchived(item: item)
        let summary = try await ArchiveFailure.ofCore { () throws(Problem) in try await commands.history.output(item.target) }
        guard let summary else {
            done.isMissing = true
            return done
        }
        for stream in OutputStream.allCases {
            guard let length = summary.readable(stream) else {
                done.isMissing = true
                continue
            }
            guard length > 0 else { continue }
            let key = ArchiveNames.output(destination.prefix, item.command, item.client, stream)
            let isThere = try await ArchiveFailure.ofStore(key) { () throws(ArchiveFailure) in
                try await put(summary, stream, length, destination, key, objects)
            }
            guard isThere else {
                done.isMissing = true
                continue
            }
            if stream == .standardOutput { done.output = length } else { done.errors = length }
        }
        return done
    }

    /// - Returns: false when the output is not kept here any more.
    private func put(
        _ summary: OutputSummary, _ stream: OutputStream, _ length: UInt64, _ destination: ArchiveDestination, _ key: String,
        _ objects: any ObjectStore
    ) async throws(ArchiveFailure) -> Bool {
        guard var piece = try await read(summary, stream, at: 0) else { return false }
        let writer: any ObjectWriter
        do throws(ObjectStoreError) {
            writer = try await objects.begin(destination.remote, key, contentType: "application/octet-stream")
        } catch { throw .store(error) }
        do throws(ArchiveFailure) {
            var offset: UInt64 = 0
            while true {
                // The operator has turned it off, or to another place.
                guard !isStopping.load(ordering: .relaxed), self.destination == destination else {
                    throw .store(ObjectStoreError("object-store-absent", "the archive was turned elsewhere", kind: .absent))
                }
                do throws(ObjectStoreError) { try await writer.write(piece) } catch { throw .store(error) }
                offset += UInt64(piece.count)
                if offset >= length { break }
                guard let next = try await read(summary, stream, at: offset) else {
                    await writer.abort()
                    return false
                }
                piece = next
            }
            do throws(ObjectStoreError) { try await writer.end() } catch { throw .store(error) }
        } catch {
            await writer.abort()
            throw error
        }
        let stored: UInt64
        do throws(ObjectStoreError) { stored = try await objects.size(destination.remote, key) } catch { throw .store(error) }
        guard stored == length else {
            throw .store(ObjectStoreError("object-store-size", "the store says that it has \(stored) bytes, and \(length) were written"))
        }
        return true
    }

    /// `nil`: retention has removed it.
    private func read(_ summary: OutputSummary, _ stream: OutputStream, at offset: UInt64) async throws(ArchiveFailure) -> [UInt8]? {
        do throws(Problem) {
            let piece = try await commands.outputs.read(.kept(summary), stream, at: offset, count: OutputStore.readBytes)
            return piece.isEmpty ? nil : piece
        } catch {
            guard error.code == "output-expired" else { throw .core(error) }
            return nil
        }
    }

    // MARK: Telling

    private func tell(_ done: [OutputArchived], _ destination: ArchiveDestination, _ log: @Sendable (Problem) -> Void) {
        var missing = 0
        for one in done {
            for bytes in [one.output, one.errors] {
                guard let bytes else { continue }
                written.add()
                copied.add(bytes)
            }
            if one.isMissing { missing += 1 }
        }
        guard missing > 0 else { return }
        lost.add(UInt64(missing))
        log(Problem(410, "output-archive-gap", "output of \(missing) targets was removed before \(destination.name) had it"))
        events.publish(Event(
            kind: "output.archive-lost", subject: destination.name, data: ["targets": .integer(Int64(missing))]))
    }

    private func succeeded(_ destination: ArchiveDestination) {
        guard state.withLock({ $0.health.succeeded() }) else { return }
        events.publish(Event(kind: "output.archive-recovered", subject: destination.name))
    }

    /// - Returns: the pause before the next attempt.
    private func failed(_ failure: ArchiveFailure, _ destination: ArchiveDestination, _ log: @Sendable (Problem) -> Void) -> UInt64 {
        let (code, text) = failure.told
        let isAbsent = failure.isAbsent
        let (pause, isNews) = state.withLock { $0.health.failed(failure, now: unixMilliseconds()) }
        if !isAbsent { failures.add() }
        if isNews || !isAbsent {
            log(Problem(503, "output-archive", "output of commands does not get to \(destination.name): \(text) (\(code))"))
        }
        if isNews {
            events.publish(Event(
                kind: isAbsent ? "output.archive-waiting" : "output.archive-failed", subject: destination.name,
                data: ["code": .string(code), "text": .string(text)]))
        }
        return pause
    }
}

extension OutputSummary {
    /// Bytes of a stream that can be read, as long as nothing is removed; `nil`: nobody knows where they are.
    func readable(_ stream: OutputStream) -> UInt64? {
        if let inline { return UInt64(inline[stream].count) }
        return extents.map { $0[stream].length }
    }
}
