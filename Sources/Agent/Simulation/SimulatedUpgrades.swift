import AgentProtocol
import Crypto
import Program
import Reactor

/// Upgrades without a program: the release is checked and its file fetched and hashed as the real agent does, then thrown
/// away. The agent leaves its link and comes back with the release's version; a version with the word `bad` in it stands
/// for one that fails its trial, and the agent comes back as it was.
public final class SimulatedUpgrades: UpgradeExecutor {
    public weak var observer: (any UpgradeObserver)?

    private let loop: EventLoop
    private let key: P256.PublicKey?
    private let version: () -> String
    /// Leaves the link and comes back as this version.
    private let restart: (String) -> Void

    private var report: UpgradeReport?
    private var order: UpgradeOrder?
    private var manifest: ReleaseManifest?
    private var fetch: ReleaseFetchStateMachine?
    private var digest = SHA256()

    /// - Parameter key: `nil`: it takes no upgrades.
    public init(
        loop: EventLoop, key: P256.PublicKey?, version: @escaping () -> String, restart: @escaping (String) -> Void
    ) {
        self.loop = loop
        self.key = key
        self.version = version
        self.restart = restart
    }

    public func start(_ order: UpgradeOrder) {
        if order.upgrade == report?.upgrade {
            fetch?.askAgain()
            return soon { simulated in
                simulated.tell()
                simulated.ask()
            }
        }
        do throws(ReleaseRefusal) {
            guard let key else { throw ReleaseRefusal("upgrade-not-enabled", "this agent has no release key") }
            let manifest = try order.release.checked(with: key)
            if let present = ReleaseVersion(version()), manifest.version < present {
                throw ReleaseRefusal("agent-policy", "\(manifest.version) is older than \(present)")
            }
            self.order = order
            self.manifest = manifest
            digest = SHA256()
            fetch = ReleaseFetchStateMachine(size: manifest.size)
            say(.receiving)
            soon { $0.ask() }
        } catch { report = UpgradeReport(upgrade: order.upgrade, progress: .failed, code: error.code, message: error.message) }
        soon { $0.tell() }
    }

    public func forget(_ upgrade: UpgradeID) {
        guard report?.upgrade == upgrade else { return }
        (report, order, manifest, fetch) = (nil, nil, nil, nil)
    }

    public func received(_ upgrade: UpgradeID, at offset: UInt64, _ bytes: RawSpan) -> Bool {
        guard upgrade == order?.upgrade, let manifest else { return true }
        switch fetch?.arrived(bytes.byteCount, at: offset) ?? .known {
        case .known: return true
        case .wrong: return false
        case .continues: break
        }
        digest.update(bytes)
        fetch?.wrote(upTo: offset + UInt64(bytes.byteCount))
        guard fetch?.isComplete ?? false else {
            soon { $0.ask() }
            return true
        }
        fetch = nil
        guard digest.digest.hex == manifest.sha256 else {
            report = UpgradeReport(upgrade: upgrade, progress: .failed, code: "release-hash", message: "not the file that was signed")
            soon { $0.tell() }
            return true
        }
        say(.staged)
        soon { simulated in
            simulated.tell()
            simulated.trial(manifest)
        }
        return true
    }

    private func trial(_ manifest: ReleaseManifest) {
        let isBad = manifest.version.description.split { $0 == "-" || $0 == "." }.contains("bad")
        say(isBad ? .rolledBack : .online, isBad ? "trial-ended" : "")
        restart(isBad ? version() : manifest.version.description)
    }

    private func say(_ progress: UpgradeProgress, _ code: String = "") {
        guard let order else { return }
        report = UpgradeReport(upgrade: order.upgrade, progress: progress, code: code, message: code.isEmpty ? "" : "simulated")
    }

    public func linkUp() {
        // The core repeats an order that is not over; then the file is asked for again.
        soon { $0.tell() }
    }

    public func linkLost() { fetch?.askAgain() }

    private func ask() {
        guard let order, observer != nil else { return }
        while let (offset, count) = fetch?.nextRequest() { observer?.upgradeWants(order.upgrade, from: offset, count: count) }
    }

    private func tell() {
        if let report { observer?.upgradeReported(report) }
    }

    private func soon(_ body: @escaping @Sendable (SimulatedUpgrades) -> Void) {
        let box = Confined(self, on: loop)
        loop.post { box.assumeOnLoop(body) }
    }
}
