import Crypto
import Glibc
import JSON
import Synchronization
import System

@testable import Kernel

/// A managed store in a directory of its own; disk, clock and rights are the test's.
final class FilesFixture: Sendable {
    let directory: CommandsDirectory
    let clock: FakeClock
    let store: Store
    let settings: Settings
    let events = Events()
    let files: FileStore
    static let alice = Principal(kind: .user, id: "alice", correlation: "c-1")
    static let bob = Principal(kind: .user, id: "bob", correlation: "c-2")
    /// May use everybody's files.
    static let root = Principal(kind: .user, id: "root", correlation: "c-3")

    private final class Disk: Sendable {
        let free = Mutex<UInt64>(1 << 50)
        let fails = Atomic<Bool>(false)
    }
    private let disk: Disk

    init(directory: CommandsDirectory = CommandsDirectory(), clock: FakeClock = FakeClock()) async throws {
        self.directory = directory
        self.clock = clock
        let disk = Disk()
        self.disk = disk
        store = try Store.open(
            directory: directory.path, migrations: Settings.migrations + FileStore.migrations)
        settings = try await Settings.load(store: store, events: events)
        var options = FileStore.Options()
        options.checkpointBytes = 1_000
        options.writebackBytes = 512
        options.lookBytes = 256
        options.free = { (_) throws(SystemError) in disk.free.withLock { $0 } }
        options.now = { clock.now }
        options.sync = { (file, path) throws(SystemError) in
            if disk.fails.load(ordering: .relaxed) { throw SystemError("fdatasync", path, code: EIO) }
            try file.syncData(subject: path)
        }
        files = try await FileStore.open(
            directory: directory.path + "/files", store: store, settings: settings, events: events, options: options
        ) { principal, _ in principal.id == "root" }
    }

    func setFree(_ bytes: UInt64) { disk.free.withLock { $0 = bytes } }
    func setSyncFails(_ fails: Bool) { disk.fails.store(fails, ordering: .relaxed) }

    /// The same directory in the next life of the core.
    func reopened() async throws -> FilesFixture {
        store.close()
        return try await FilesFixture(directory: directory, clock: clock)
    }

    func stored(
        _ bytes: [UInt8], _ change: (inout NewFile) -> Void = { _ in }, by principal: Principal = FilesFixture.alice
    ) async throws -> StoredFile {
        var new = NewFile(name: "a.bin")
        change(&new)
        let writer = try await files.begin(new, by: principal)
        try await writer.append(bytes)
        return try await writer.seal()
    }

    /// Names below `files/`, with their folder.
    func onDisk() throws -> Set<String> {
        var names: Set<String> = []
        for folder in ["whole", "unfinished"] {
            for name in try Files.list("\(directory.path)/files/\(folder)") { names.insert("\(folder)/\(name)") }
        }
        return names
    }

    func audited(_ action: String) async throws -> Int {
        try await store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM audit_records WHERE action = ?", action)
        }
    }
}

/// The code of the problem that `body` throws.
func problem(_ body: () async throws -> Void) async -> Problem? {
    do { try await body() } catch { return error as? Problem }
    return nil
}

func pattern(_ count: Int, from start: Int = 0) -> [UInt8] {
    (start..<start + count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }
}
