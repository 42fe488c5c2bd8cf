import Program
import Reactor
import Synchronization

@testable import Kernel

/// A store in memory that can be away, refuse, and die between the object and the answer.
final class FakeObjects: ObjectStore {
    struct State: Sendable {
        var isThere = true
        var objects: [String: [UInt8]] = [:]
        /// Each object that became whole, in order; also those that were written again.
        var ended: [String] = []
        var aborted = 0
        /// What the next acts answer.
        var failures: [ObjectStoreError] = []
        /// The object is whole, and the answer gets lost: what a crash of the core looks like from the store.
        var losesAnswers = 0
        var wrongSizes = 0
    }
    let state = Mutex(State())

    var isThere: Bool { state.withLock { $0.isThere } }
    var objects: [String: [UInt8]] { state.withLock { $0.objects } }
    var ended: [String] { state.withLock { $0.ended } }

    func begin(_ remote: String, _ key: String, contentType: String) async throws(ObjectStoreError) -> any ObjectWriter {
        try refuse()
        return FakeWriter(self, remote + "/" + key)
    }

    func size(_ remote: String, _ key: String) async throws(ObjectStoreError) -> UInt64 {
        let size: UInt64? = state.withLock { state in
            guard let object = state.objects[remote + "/" + key] else { return nil }
            guard state.wrongSizes == 0 else {
                state.wrongSizes -= 1
                return UInt64(object.count) + 1
            }
            return UInt64(object.count)
        }
        guard let size else { throw ObjectStoreError("fake-not-found", "no such object") }
        return size
    }

    fileprivate func refuse() throws(ObjectStoreError) {
        let failure: ObjectStoreError? = state.withLock { state in
            guard state.isThere else { return .absent }
            return state.failures.isEmpty ? nil : state.failures.removeFirst()
        }
        if let failure { throw failure }
    }
}

private final class FakeWriter: ObjectWriter {
    private let store: FakeObjects
    private let key: String
    private let content = Mutex<[UInt8]>([])

    init(_ store: FakeObjects, _ key: String) {
        self.store = store
        self.key = key
    }

    func write(_ piece: [UInt8]) async throws(ObjectStoreError) {
        try store.refuse()
        content.withLock { $0 += piece }
    }

    func end() async throws(ObjectStoreError) {
        try store.refuse()
        let whole = content.withLock { $0 }
        let isLost = store.state.withLock { state in
            state.objects[key] = whole
            state.ended.append(key)
            guard state.losesAnswers > 0 else { return false }
            state.losesAnswers -= 1
            return true
        }
        if isLost { throw ObjectStoreError("fake-lost", "the answer was lost") }
    }

    func abort() async { store.state.withLock { $0.aborted += 1 } }
}

/// A trail with its archive on a loop of its own, in a directory that outlives it. That a store is away is no news to it, however slow
/// the machine is: `ArchiveHealthTests` has that.
struct ArchiveFixture {
    let directory: TemporaryDirectory
    let store: Store
    let events = Events()
    let metrics = Metrics()
    let settings: Settings
    let audit: Audit
    let archive: AuditArchive
    let objects: FakeObjects
    let loop: EventLoop
    static let ada = Principal(kind: .user, id: "ada")

    init(_ directory: TemporaryDirectory, _ objects: FakeObjects, isStarted: Bool = true) async throws {
        self.directory = directory
        self.objects = objects
        store = try Store.open(directory: directory.path, migrations: Settings.migrations)
        settings = try await Settings.load(store: store, events: events)
        audit = Audit(store: store, settings: settings)
        archive = AuditArchive(
            store: store, audit: audit, settings: settings, events: events, metrics: metrics, graceMilliseconds: 3_600_000)
        archive.use(objects)
        loop = try EventLoop.start(name: "archive-test")
        if isStarted { archive.start(on: loop) { _ in } }
    }

    /// Turns it on, with segments of so many records that come at once.
    func turnOn(records: Int = 5, seconds: Int = 1, remote: String = "backup") async throws {
        try await settings.set("audit_archive_records", to: .integer(Int64(records)), by: Self.ada)
        try await settings.set("audit_archive_s", to: .integer(Int64(seconds)), by: Self.ada)
        try await settings.set("audit_archive_remote", to: .string(remote), by: Self.ada)
    }

    func close() {
        archive.stop()
        loop.stop()
        loop.join()
        store.close()
    }

    /// Looks until it is so; a minute at most.
    func wait(_ what: (AuditArchiveStatus) -> Bool) async throws -> AuditArchiveStatus {
        for _ in 0..<6_000 {
            let status = try await archive.status()
            if what(status) { return status }
            await loop.sleep(milliseconds: 10)
        }
        return try await archive.status()
    }

    /// All objects of a remote in the order of their names, as one file.
    func concatenated(_ remote: String = "backup") -> [UInt8] {
        objects.objects.filter { $0.key.hasPrefix(remote + "/") }.sorted { $0.key < $1.key }.flatMap { $0.value }
    }
}
