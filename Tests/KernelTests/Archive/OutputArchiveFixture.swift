import AgentProtocol
import Glibc
import JSON
import Program
import Reactor
import Synchronization

@testable import Kernel

/// Commands with the archive of their output on a loop of its own, in a directory that outlives them.
struct OutputArchiveFixture {
    let core: CommandsFixture
    let events = Events()
    let metrics = Metrics()
    let settings: Settings
    let archive: OutputArchive
    let objects: FakeObjects
    let loop: EventLoop
    let told = Told()

    final class Told: Sendable {
        let codes = Mutex<[String]>([])
    }

    init(
        _ directory: CommandsDirectory = CommandsDirectory(), _ objects: FakeObjects = FakeObjects(), isStarted: Bool = true
    ) async throws {
        self.objects = objects
        core = try await CommandsFixture(directory: directory)
        settings = try await Settings.load(store: core.store, events: events)
        core.commands.follow(settings)
        archive = OutputArchive(
            store: core.store, commands: core.commands, settings: settings, events: events, metrics: metrics, carryMilliseconds: 0)
        archive.use(objects)
        loop = try EventLoop.start(name: "output-archive-test")
        if isStarted { start() }
    }

    func start() {
        archive.start(on: loop) { [told] problem in told.codes.withLock { $0.append(problem.code) } }
    }

    func turnOn(_ remote: String = "backup") async throws {
        try await settings.set("output_archive_remote", to: .string(remote), by: ArchiveFixture.ada)
    }

    func close() {
        archive.stop()
        loop.stop()
        loop.join()
        core.crash()
    }

    /// Looks until it is so; a minute at most.
    func wait(_ what: (OutputArchiveStatus) -> Bool) async throws -> OutputArchiveStatus {
        for _ in 0..<6_000 {
            let status = try await archive.status()
            if what(status) { return status }
            await loop.sleep(milliseconds: 10)
        }
        return try await archive.status()
    }

    /// Until the store has what has ended.
    func caughtUp() async throws -> OutputArchiveStatus { try await wait { $0.behind == 0 && $0.row != nil && $0.state == .current } }

    /// A command of the first client that printed this and ended.
    func run(_ link: FakeLink, output: [UInt8] = [], errors: [UInt8] = []) async throws -> CommandID {
        let id = try await core.submit().id
        await end(link, id, output: output, errors: errors)
        return id
    }

    func end(_ link: FakeLink, _ id: CommandID, output: [UInt8] = [], errors: [UInt8] = []) async {
        await core.finish(link, id, output: output, errors: errors)
    }

    func key(_ id: CommandID, _ stream: String = "stdout") -> String { "output/\(id)/\(core.clients[0]).\(stream)" }
    func object(_ id: CommandID, _ stream: String = "stdout") -> [UInt8]? { objects.objects["backup/" + key(id, stream)] }

    func read(_ id: CommandID, _ stream: OutputStream = .standardOutput) async throws -> [UInt8] {
        try await core.commands.readOutput(id, of: core.clients[0], stream, at: 0, count: 1_024).bytes
    }

    /// Gives every segment the time of the test's clock, and lets so much pass; what retention does happens.
    func age(days: UInt64) async {
        let output = core.directory.path + "/output"
        if let directory = opendir(output) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                guard name.hasSuffix(".segment") else { continue }
                let time = timeval(tv_sec: Int(core.clock.now / 1_000), tv_usec: 0)
                _ = utimes(output + "/" + name, [time, time])
            }
            closedir(directory)
        }
        await core.pass(days * 86_400_000)
    }
}
