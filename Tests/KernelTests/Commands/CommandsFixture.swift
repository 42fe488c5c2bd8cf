import AgentProtocol
import Glibc
import Reactor
import Synchronization

@testable import Kernel

/// A link that only notes what the core asks of it.
final class FakeLink: ExecutionLink {
    let client: ClientID
    private let noted = Mutex<(orders: [Order], cancels: [CommandID], grants: [UInt64])>(([], [], []))

    init(_ client: ClientID) { self.client = client }

    func send(_ command: LiveCommand) { noted.withLock { $0.orders.append(command.order) } }
    func cancel(_ command: CommandID) { noted.withLock { $0.cancels.append(command) } }
    func grant(_ command: CommandID, _ stream: OutputStream, upTo offset: UInt64) {
        noted.withLock { $0.grants.append(offset) }
    }
    func acknowledge(_ command: CommandID) {}

    var orders: [CommandID] { noted.withLock { $0.orders.map(\.command) } }
    var cancels: [CommandID] { noted.withLock { $0.cancels } }
    var grants: [UInt64] { noted.withLock { $0.grants } }

    private let typed = Atomic<UInt64>(0)
    var typedAt: UInt64 { typed.load(ordering: .relaxed) }
    func typing() { typed.store(monotonicNanoseconds(), ordering: .relaxed) }
}

/// Lets everybody run everything on the named clients, unless told otherwise.
final class FakeAuthority: CommandAuthority {
    let clients: [ClientID]
    let refusal = Mutex<Problem?>(nil)

    init(_ clients: [ClientID]) { self.clients = clients }

    func admit(_ proposal: CommandProposal, _ principal: Principal) async throws(Problem) -> [ClientID] {
        if let refusal = refusal.withLock({ $0 }) { throw refusal }
        switch proposal.selection {
        case .clients(let named): return named
        case .selector: return clients
        }
    }

    func outOfService(_ client: ClientID) -> String? { nil }
}

final class FakeClock: Sendable {
    private let milliseconds = Mutex<UInt64>(1_800_000_000_000)
    var now: UInt64 { milliseconds.withLock { $0 } }
    func advance(_ by: UInt64) { milliseconds.withLock { $0 += by } }
}

/// Commands on a real store in a directory of its own, with links that the test holds.
final class CommandsFixture: Sendable {
    let directory: CommandsDirectory
    let clock = FakeClock()
    let clients: [ClientID]
    let authority: FakeAuthority
    let store: Store
    let commands: Commands
    static let principal = Principal(kind: .user, id: "alice", address: "127.0.0.1", correlation: "c-1")

    init(
        clients count: Int = 3, directory: CommandsDirectory = CommandsDirectory(), limits: CommandLimits = CommandLimits()
    ) async throws {
        self.directory = directory
        clients = (0..<count).map { ClientID(high: 1 << 60 | UInt64($0), low: 7) }
        authority = FakeAuthority(clients)
        store = try Store.open(directory: directory.path, migrations: Commands.migrations + Templates.migrations + Settings.migrations)
        let outputs = try OutputStore(directory: directory.path + "/output")
        var parts = Commands.Parts(
            store: store, outputs: outputs, authority: authority, templates: try await Templates.open(store))
        parts.limits = limits
        let clock = clock
        parts.now = { clock.now }
        commands = try await Commands.open(parts)
    }

    /// Brings a client online; its agent reports what the test says.
    @discardableResult
    func connect(_ index: Int, _ reports: [ExecutionReport] = []) async -> FakeLink {
        let link = FakeLink(clients[index])
        _ = await commands.reconcile(over: link, reports)
        return link
    }

    func submit(
        _ selection: TargetSelection? = nil, _ change: (inout CommandRequest) -> Void = { _ in }
    ) async throws -> Commands.Acceptance {
        var request = CommandRequest(selection ?? .clients([clients[0]]), .invocation(.argv(["/bin/true"])))
        change(&request)
        return try await commands.submit(request, Self.principal)
    }

    func states(_ id: CommandID) async throws -> [String] {
        let detail = try await commands.get(id)
        return try await commands.targets(detail, from: 0, limit: 10_000, withOutput: true).map(\.state)
    }

    func target(_ id: CommandID, _ index: Int = 0) async throws -> TargetView {
        try await commands.target(id, of: clients[index])
    }

    /// The agent says how it ended.
    @discardableResult
    func finish(
        _ link: FakeLink, _ id: CommandID, code: Int32 = 0, output: [UInt8] = [], errors: [UInt8] = []
    ) async -> Bool {
        if !output.isEmpty { say(link, id, output) }
        if !errors.isEmpty { say(link, id, errors, at: 0, .standardError) }
        return await commands.finished(
            over: link, record(id, code: code, output: output.count, errors: errors.count))
    }

    /// The agent's program prints; false when the core refuses the bytes.
    @discardableResult
    func say(
        _ link: FakeLink, _ id: CommandID, _ bytes: [UInt8], at offset: Int = 0, _ stream: OutputStream = .standardOutput
    ) -> Bool {
        commands.output(over: link, id, stream, at: UInt64(offset), bytes.span.bytes)
    }

    func record(_ id: CommandID, code: Int32 = 0, output: Int = 0, errors: Int = 0) -> ExitRecord {
        ExitRecord(
            command: id, outcome: .exited(code: code), started: .yes, startedAt: 1, finishedAt: 2,
            standardOutputBytes: UInt64(output), standardErrorBytes: UInt64(errors))
    }

    /// Lets `milliseconds` pass; everything that is due happens.
    func pass(_ milliseconds: UInt64) async {
        var periodic = CommandClock(now: clock.now)
        clock.advance(milliseconds)
        await commands.tick(&periodic)
    }

    /// Ends this core as a crash would: nothing more is written. The directory stays for the next one.
    func crash() {
        commands.stop()
        store.close()
    }

    func restarted(limits: CommandLimits = CommandLimits()) async throws -> CommandsFixture {
        crash()
        return try await CommandsFixture(clients: clients.count, directory: directory, limits: limits)
    }
}

/// A data directory that goes away with the last fixture that holds it.
final class CommandsDirectory: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/cm-commands-XXXXXX".utf8CString)
        path = mkdtemp(&template).map { String(cString: $0) } ?? "/tmp"
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != "." && name != ".." { remove(path + "/" + name) }
            }
            closedir(directory)
            rmdir(path)
        } else {
            unlink(path)
        }
    }
}
