import Agent
import AgentProtocol
import Crypto
import Glibc
import JSON
import Program
import Reactor
import Synchronization
import System
import Testing
import Transport

@testable import Kernel

/// A kernel behind a real server, with simulated agents and a real `cm-agent` that has a program file of its own.
final class UpgradesFixture: Sendable {
    /// Somebody who exists: a job runs in the name of its owner.
    let administrator: Principal
    let directory = CommandsDirectory()
    let key: P256.PrivateKey
    private let running: Mutex<RunningCore>
    private let agents: EventLoop
    private let processes = Mutex<[pid_t]>([])
    private let token: String
    private let port: UInt16
    private let fleet: Mutex<Confined<Fleet>?>

    /// The simulated agents, confined to their loop: an identity outlives its session.
    private final class Fleet {
        struct Member {
            let identity: MemoryIdentity
            let hasKey: Bool
            var version = "0.1.0"
            var session: AgentSession?
        }
        var members: [Member] = []
    }

    var kernel: Kernel { running.withLock { $0.kernel } }
    var upgrades: Upgrades { kernel.upgrades }

    init() async throws {
        key = try .generate()
        let first = try await Self.core(directory.path)
        running = Mutex(first)
        port = first.server.address.port
        agents = try EventLoop.start(name: "agents")
        fleet = Mutex(nil)
        let secret = try Files.read(directory.path + "/core/admin-token", limit: 1_024)
        administrator = try await first.kernel.security.authenticate(
            authorization: "Bearer " + String(decoding: secret.filter { $0 > 0x20 }, as: UTF8.self), address: "127.0.0.1",
            correlation: "test")
        token = try await first.kernel.enrollment.tokens.create(lifetime: 600, uses: 100, by: administrator).text
        let (loop, made) = (agents, Watched<Confined<Fleet>?>(nil))
        loop.post {
            let box = Confined(Fleet(), on: loop)
            made.update { $0 = box }
        }
        let box = await made.wait { $0 != nil }
        fleet.withLock { $0 = box }
    }

    private static func core(_ path: String, port: UInt16 = 0) async throws -> RunningCore {
        try await RunningCore.start(path, port: port) { try $0.upgrades.register(arguments: [:]) }
    }

    func restartCore() async throws {
        await running.withLock { $0 }.stop()
        let new = try await Self.core(directory.path, port: port)
        running.withLock { $0 = new }
    }

    // MARK: Agents

    private func onFleet(_ body: @escaping @Sendable (Fleet, EventLoop) -> Void) {
        let loop = agents
        fleet.withLock { $0 }?.post { body($0, loop) }
    }

    /// Agents of the swarm's kind; returns their ids, in order.
    func simulated(_ count: Int, hasKey: Bool = true) async throws -> [ClientID] {
        let before = Set(try kernel.clients.select(.everything))
        for _ in 0..<count {
            let identity = try P256.PrivateKey.generate()
            onFleet { [self] fleet, loop in
                fleet.members.append(Fleet.Member(identity: MemoryIdentity(key: identity), hasKey: hasKey))
                connect(fleet, fleet.members.count - 1, loop)
            }
        }
        try await wait { try self.online().count == before.count + count }
        return try kernel.clients.select(.everything).filter { !before.contains($0) }
    }

    private func connect(_ fleet: Fleet, _ index: Int, _ loop: EventLoop) {
        guard let servers = try? ServerList("http://127.0.0.1:\(port)") else { return }
        var options = AgentSessionOptions(
            servers: servers, bootID: "boot", agentVersion: fleet.members[index].version, hostname: "host")
        options.token = EnrollmentToken(token)
        options.reconnect.base = 50
        options.reconnect.nearCap = 200
        let upgrades = SimulatedUpgrades(
            loop: loop, key: fleet.members[index].hasKey ? key.publicKey : nil,
            version: { [unowned fleet] in fleet.members[index].version },
            restart: { [unowned fleet] version in
                fleet.members[index].version = version
                fleet.members[index].session?.agentVersion = version
                fleet.members[index].session?.drop()
            })
        let session = AgentSession(
            loop: loop, options: options, identity: fleet.members[index].identity, executor: SimulatedExecutor(loop: loop),
            upgrades: upgrades, facts: { Array("{}".utf8) }, measure: { BeatAnswer() })
        fleet.members[index].session = session
        session.start()
    }

    /// All simulated agents leave, and stay away until `startAgain`.
    func stopAgents() async throws {
        onFleet { fleet, _ in
            for index in fleet.members.indices {
                fleet.members[index].session?.stop()
                fleet.members[index].session = nil
            }
        }
        try await wait { try self.online().isEmpty }
    }

    func startAgain() {
        onFleet { [self] fleet, loop in
            for index in fleet.members.indices { connect(fleet, index, loop) }
        }
    }

    func online() throws -> [ClientID] {
        try kernel.clients.select(.everything).filter { kernel.clients.link(of: $0) != nil }
    }

    var program: String { directory.path + "/machine/cm-agent" }
    var data: String { directory.path + "/machine/data" }

    /// The built agent under a name of its own: it replaces the file that it runs from.
    func startAgent(environment: [String: String] = [:]) throws -> pid_t {
        if !Files.exists(program) {
            try Files.makeDirectories(directory.path + "/machine")
            let built = try RunningCore.agentProgram()
            for path in [program, directory.path + "/machine/real-agent"] where link(built, path) != 0 {
                try AtomicFile.write(try Files.read(built, limit: 1 << 28), to: path, mode: 0o755)
            }
            let text = try releaseKeyPEM()
            try AtomicFile.write(Array(text.utf8), to: directory.path + "/machine/release-key.pub")
        }
        var spawn = Spawn(
            program: program,
            arguments: [
                "cm-agent", "run", "--server", "http://127.0.0.1:\(port)", "--data-dir", data, "--enroll-token", token,
                "--log-level", "error", "--release-key", directory.path + "/machine/release-key.pub",
            ])
        spawn.environment = ["PATH": spawn.searchPath].merging(environment) { $1 }
        let (pid, descriptor) = try spawn.start().release()
        close(descriptor)
        processes.withLock { $0.append(pid) }
        return pid
    }

    private func releaseKeyPEM() throws -> String {
        "-----BEGIN PUBLIC KEY-----\n\(Base64.encode(key.publicKey.spki))\n-----END PUBLIC KEY-----\n"
    }

    // MARK: Releases

    /// A signed release that is a shell script: the agent's contract is with a program, not with a language.
    func release(_ script: String, _ version: String, by other: P256.PrivateKey? = nil) async throws -> Release {
        let number = try #require(ReleaseVersion(version))
        let bytes = Array("#!/bin/sh\n\(script)\n".utf8) + ReleaseStamp.bytes(number)
        let manifest = ReleaseManifest(
            version: number, platform: ReleasePlatform.own, sha256: SHA256.digest(bytes).hex, size: UInt64(bytes.count),
            created: 1)
        let signature = try (other ?? key).sign(ReleaseManifest.signed(manifest.text))
        let (kernel, administrator) = (kernel, administrator)
        return try await onLoop {
            let writer = try await kernel.files.begin(NewFile(name: "r", size: manifest.size), by: administrator)
            try await writer.append(bytes)
            let file = try await writer.seal()
            return try await kernel.upgrades.addRelease(
                SignedRelease(manifest: manifest.text, signature: Base64.encodeURL(signature), key: "k"), file: file.id,
                by: administrator)
        }
    }

    func onLoop<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
        let loop = running.withLock { $0.loop }
        let result: Result<Value, any Error> = await withCheckedContinuation { continuation in
            loop.post {
                loop.spawn {
                    do { continuation.resume(returning: .success(try await body())) } catch {
                        continuation.resume(returning: .failure(error))
                    }
                }
            }
        }
        return try result.get()
    }

    func run(_ arguments: JSONValue, by other: Principal? = nil) async throws -> JobID {
        let (kernel, principal) = (kernel, other ?? administrator)
        return try await onLoop { try await kernel.jobs.create(JobRequest("upgrade", arguments), by: principal).id }
    }

    /// Waits, bounded, until the upgrade is over.
    func end(_ id: JobID) async throws -> Upgrades.Summary {
        try await wait { try await self.upgrades.get(id).job.machine.state.isFinal }
        return try await upgrades.get(id)
    }

    func states(_ id: JobID) async throws -> [UpgradeTargetState] {
        try await upgrades.clients(of: id, from: 0, state: nil, limit: 1_000).map(\.state)
    }

    func wait(_ isMet: () async throws -> Bool) async throws {
        for _ in 0..<6_000 {
            if try await isMet() { return }
            try await onLoop { await EventLoop.current?.sleep(milliseconds: 10) }
        }
        throw Problem(503, "waited-too-long", "not within a minute")
    }

    func stop() async {
        for pid in processes.withLock({ $0 }) {
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
        }
        agents.stop()
        agents.join()
        await running.withLock { $0 }.stop()
    }

    static func run(_ body: (UpgradesFixture) async throws -> Void) async throws {
        let fixture = try await UpgradesFixture()
        do {
            try await body(fixture)
            await fixture.stop()
        } catch {
            await fixture.stop()
            throw error
        }
    }
}
