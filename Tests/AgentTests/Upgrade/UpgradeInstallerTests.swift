import AgentProtocol
import Crypto
import Glibc
import Program
import Reactor
import System
import Testing

@testable import Agent

/// An installer on a loop of its own, with what it said.
private final class InstallerBench: Sendable {
    struct Told: Sendable {
        var reports: [UpgradeReport] = []
        var wanted: [(from: UInt64, count: UInt64)] = []
        var takeOvers = 0
    }

    final class Listener: UpgradeObserver {
        let told: Monitor<Told>
        init(_ told: Monitor<Told>) { self.told = told }
        func upgradeReported(_ report: UpgradeReport) { told.update { $0.reports.append(report) } }
        func upgradeWants(_ upgrade: UpgradeID, from offset: UInt64, count: UInt64) {
            told.update { $0.wanted.append((offset, count)) }
        }
    }

    let directory: TemporaryDirectory
    let key: P256.PrivateKey
    let loop: EventLoop
    private let told = Monitor(Told())
    private let parts: Confined<(UpgradeInstaller, Listener)>

    var program: String { directory.path + "/cm-agent" }
    var files: UpgradeFiles { UpgradeFiles(dataDirectory: directory.path) }

    init(
        directory: TemporaryDirectory? = nil, hasKey: Bool = true, isTrial: Bool = false, found: UpgradeStateMachine? = nil,
        key: P256.PrivateKey? = nil
    ) throws {
        let directory = try directory ?? TemporaryDirectory()
        let key = try key ?? .generate()
        let loop = try EventLoop.start(name: "installer")
        if !Files.exists(directory.path + "/cm-agent") {
            try AtomicFile.write(Array("old".utf8), to: directory.path + "/cm-agent", mode: 0o755)
        }
        let made = Monitor<Confined<(UpgradeInstaller, Listener)>?>(nil)
        loop.post { [told] in
            var options = UpgradeInstaller.Options(dataDirectory: directory.path)
            options.program = directory.path + "/cm-agent"
            options.releaseKey = hasKey ? key.publicKey : nil
            options.version = ReleaseVersion("0.1.0")
            options.isTrial = isTrial
            let listener = Listener(told)
            let installer = UpgradeInstaller(options, found: found, on: loop) { told.update { $0.takeOvers += 1 } }
            installer.observer = listener
            let box = Confined((installer, listener), on: loop)
            made.update { $0 = box }
        }
        self.directory = directory
        self.key = key
        self.loop = loop
        parts = try #require(made.wait(until: Self.soon) { $0 })
    }

    deinit { loop.stop() }

    private static var soon: UInt64 { monotonicNanoseconds() + 30_000_000_000 }

    func release(_ text: String, version: String = "0.2.0", by other: P256.PrivateKey? = nil) throws -> (SignedRelease, [UInt8]) {
        let number = try #require(ReleaseVersion(version))
        let bytes = Array(text.utf8) + ReleaseStamp.bytes(number)
        let manifest = ReleaseManifest(
            version: number, platform: ReleasePlatform.own, sha256: SHA256.digest(bytes).hex, size: UInt64(bytes.count),
            created: 1)
        let signature = try (other ?? key).sign(ReleaseManifest.signed(manifest.text))
        return (SignedRelease(manifest: manifest.text, signature: Base64.encodeURL(signature), key: "k"), bytes)
    }

    func order(_ release: SignedRelease, _ number: UInt64 = 1) -> UpgradeOrder {
        UpgradeOrder(upgrade: UpgradeID(high: 9, low: number), release: release)
    }

    func does(_ body: @escaping @Sendable (UpgradeInstaller) -> Void) { parts.post { body($0.0) } }

    /// Waits, bounded, until what was told meets the condition.
    func told(until isMet: (Told) -> Bool) -> Told {
        told.wait(until: Self.soon) { isMet($0) ? $0 : nil } ?? told.update { $0 }
    }

    /// Whether nothing is left in the journal.
    func forgets(_ upgrade: UpgradeID) throws -> Bool {
        does { $0.forget(upgrade) }
        return try waitForChanges(of: directory.path + "/upgrade") { try files.load() == nil }
    }

    func last(_ progress: UpgradeProgress) -> UpgradeReport? {
        told { $0.reports.last?.progress == progress }.reports.last
    }

    /// Gives the pieces that are asked for until the file is whole.
    func feed(_ upgrade: UpgradeID, _ bytes: [UInt8]) {
        var given = 0
        for _ in 0..<1_000 {
            let before = given
            let told = told { $0.wanted.count > before }
            for (from, count) in told.wanted[before...] {
                let piece = Array(bytes[Int(from)..<Int(from + count)])
                does { _ = $0.received(upgrade, at: from, piece.span.bytes) }
            }
            given = told.wanted.count
            if told.wanted.reduce(0, { $0 + $1.count }) >= UInt64(bytes.count) { return }
        }
    }
}

@Suite struct UpgradeInstallerTests {
    @Test func aReleaseIsFetchedStagedAndHandedOver() throws {
        let bench = try InstallerBench()
        let (release, bytes) = try bench.release(String(repeating: "x", count: 700_000))
        let order = bench.order(release)
        bench.does { $0.linkUp() }
        bench.does { $0.start(order) }
        #expect(bench.last(.receiving)?.upgrade == order.upgrade)
        bench.feed(order.upgrade, bytes)
        let told = bench.told { $0.takeOvers == 1 }
        #expect(told.takeOvers == 1 && told.reports.map(\.progress) == [.receiving, .staged])
        #expect(try Files.read(UpgradeFiles.staged(bench.program), limit: 1 << 20) == bytes)
        let journal = try #require(try bench.files.load())
        #expect(journal.phase == .trial && journal.program == bench.program)
        // The old program is where it was.
        #expect(try Files.read(bench.program, limit: 64) == Array("old".utf8))
    }

    @Test func refusalsSayWhyAndTouchNothing() throws {
        let bench = try InstallerBench()
        bench.does { $0.linkUp() }
        let cases = [
            (bench.order(try bench.release("new", by: .generate()).0, 1), "release-signature"),
            (bench.order(try bench.release("new", version: "0.0.9").0, 2), "agent-policy"),
        ]
        for (order, code) in cases {
            bench.does { $0.start(order) }
            let told = bench.told { $0.reports.last?.upgrade == order.upgrade }
            #expect(told.reports.last?.progress == .failed && told.reports.last?.code == code)
        }
        let keyless = try InstallerBench(hasKey: false)
        let order = keyless.order(try keyless.release("new").0)
        keyless.does { $0.start(order) }
        #expect(keyless.last(.failed)?.code == "upgrade-not-enabled")
        let trial = try InstallerBench(isTrial: true)
        let another = trial.order(try trial.release("new").0)
        trial.does { $0.start(another) }
        #expect(trial.last(.failed)?.code == "upgrade-busy")
        for one in [bench, keyless, trial] {
            #expect(try Files.list(one.directory.path) == ["cm-agent"])
        }
    }

    @Test func whatRunsAlreadyIsDoneAtOnce() throws {
        let bench = try InstallerBench()
        let (release, bytes) = try bench.release("new")
        try AtomicFile.write(bytes, to: bench.program, mode: 0o755)
        let order = bench.order(release)
        bench.does { $0.start(order) }
        #expect(bench.last(.online) != nil)
        #expect(bench.told { _ in true }.wanted.isEmpty)
    }

    @Test func damagedFilesEndTheUpgradeAndLeaveNothing() throws {
        let bench = try InstallerBench()
        let (release, bytes) = try bench.release("new")
        let order = bench.order(release)
        bench.does { $0.linkUp() }
        bench.does { $0.start(order) }
        var damaged = bytes
        damaged[0] ^= 1
        bench.feed(order.upgrade, damaged)
        #expect(bench.last(.failed)?.code == "release-hash")
        #expect(!Files.exists(UpgradeFiles.staged(bench.program)))
        #expect(try bench.forgets(order.upgrade))
    }

    @Test func oneThatIsNotWantedAnyMoreIsGivenUp() throws {
        let bench = try InstallerBench()
        let order = bench.order(try bench.release("new").0)
        bench.does { $0.linkUp() }
        bench.does { $0.start(order) }
        _ = bench.told { !$0.wanted.isEmpty }
        let other = bench.order(try bench.release("newer", version: "0.3.0").0, 2)
        bench.does { $0.start(other) }
        #expect(bench.told { $0.reports.last?.upgrade == other.upgrade }.reports.last?.code == "upgrade-busy")
        #expect(try bench.forgets(order.upgrade))
        #expect(try waitForChanges(of: bench.directory.path) { !Files.exists(UpgradeFiles.staged(bench.program)) })
        bench.does { $0.start(other) }
        #expect(bench.last(.receiving)?.upgrade == other.upgrade)
    }

    @Test func anAgentThatWasStartedAgainGoesOn() throws {
        let first = try InstallerBench()
        let (release, bytes) = try first.release(String(repeating: "y", count: 100_000))
        let order = first.order(release)
        first.does { $0.linkUp() }
        first.does { $0.start(order) }
        _ = first.told { !$0.wanted.isEmpty }
        let second = try InstallerBench(directory: first.directory, found: try first.files.load(), key: first.key)
        second.does { $0.linkUp() }
        second.feed(order.upgrade, bytes)
        #expect(second.told { $0.takeOvers == 1 }.takeOvers == 1)
        // In place and accepted by the core: done, until the core has it.
        var machine = try #require(try second.files.load())
        _ = machine.apply(.trialProved)
        _ = machine.apply(.swapped)
        let third = try InstallerBench(directory: first.directory, found: machine, key: first.key)
        third.does { $0.linkUp() }
        #expect(third.last(.online)?.upgrade == order.upgrade)
        #expect(try third.files.load()?.phase == .online)
        #expect(try third.forgets(order.upgrade))
    }
}
