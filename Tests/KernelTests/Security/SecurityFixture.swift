import Crypto
import Glibc
import Synchronization
import Testing

@testable import Kernel

/// A clock that stands still until the test moves it. Unix milliseconds.
final class TestClock: Sendable {
    private let now = Atomic<UInt64>(1_800_000_000_000)
    var milliseconds: UInt64 { now.load(ordering: .relaxed) }
    func advance(_ milliseconds: UInt64) { now.wrappingAdd(milliseconds, ordering: .relaxed) }
}

/// Security over a store of its own.
final class SecurityFixture: Sendable {
    let directory: TemporaryDirectory
    let store: Store
    let security: Security
    let clock: TestClock

    init(
        directory: TemporaryDirectory = TemporaryDirectory(), clock: TestClock = TestClock(),
        _ change: (inout Security.Options) -> Void = { _ in }
    ) async throws {
        var options = Security.Options()
        change(&options)
        self.directory = directory
        self.clock = clock
        store = try Store.open(directory: directory.path, migrations: Security.migrations)
        security = try await Security.load(
            store: store, directory: directory.path, options: options, clock: { clock.milliseconds })
    }

    /// Stops the store, so that the directory can be opened again.
    func close() { store.close() }

    var adminToken: String {
        guard let file = fopen(directory.path + "/admin-token", "r") else { return "" }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer.prefix(count).filter { $0 != 0x0A }, as: UTF8.self)
    }

    func authenticate(_ token: String, from address: String = "127.0.0.1") async throws(Problem) -> Principal {
        try await security.authenticate(authorization: "Bearer " + token, address: address, correlation: "c")
    }

    func admin() async throws(Problem) -> Principal { try await authenticate(adminToken) }

    func audited(_ action: String) async throws -> Int {
        try await store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM audit_records WHERE action = ?", action)
        }
    }
}

/// The stable code of the problem that `body` ends in; `nil` when it succeeds.
func code(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch let problem as Problem {
        return problem.code
    } catch { return "\(error)" }
}
