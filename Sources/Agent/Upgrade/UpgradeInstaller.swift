import AgentProtocol
import Crypto
import Glibc
import Program
import Reactor
import System

/// Takes upgrades for the real agent up to the moment at which its process becomes the watcher of the new program:
/// checks the release, fetches and stages its file, and tells what became of it. Confined to one loop.
public final class UpgradeInstaller: UpgradeExecutor {
    public struct Options: Sendable {
        /// `A`.
        public var dataDirectory: String
        /// Absolute path of the running program; `nil`: it cannot be told, or the file is gone.
        public var program: String?
        /// Fixed when the agent was installed; `nil`: this agent takes no upgrades.
        public var releaseKey: P256.PublicKey?
        public var version: ReleaseVersion?
        /// This process is the new program on trial: it reports, and takes no orders.
        public var isTrial = false

        public init(dataDirectory: String) { self.dataDirectory = dataDirectory }
    }

    /// What has to be free beyond the file's own size.
    private static let spareBytes: UInt64 = 32 << 20

    public weak var observer: (any UpgradeObserver)?

    private let loop: EventLoop
    private let options: Options
    private let files: UpgradeFiles
    private let log: Log?
    private let pool = BlockingPool(name: "agent-upgrade", threads: 1, queue: 64)
    /// The session is to stop, and the process to become the watcher.
    private let takeOver: () -> Void

    private var machine: UpgradeStateMachine?
    /// The end of an order that was never journaled.
    private var refused: UpgradeReport?
    private var fetch: ReleaseFetchStateMachine?
    private var file: StagedFile?
    /// Checks or file work of a step are under way.
    private var isBusy = false
    private var isLinked = false
    private var isLeaving = false

    /// - Parameter machine: what the start found in the journal.
    init(
        _ options: Options, found machine: UpgradeStateMachine?, on loop: EventLoop, log: Log? = nil,
        takeOver: @escaping () -> Void
    ) {
        self.options = options
        self.machine = machine
        self.loop = loop
        self.log = log
        self.takeOver = takeOver
        files = UpgradeFiles(dataDirectory: options.dataDirectory)
    }

    // MARK: From the session

    public func start(_ order: UpgradeOrder) {
        if order.upgrade == machine?.order.upgrade || order.upgrade == refused?.upgrade {
            fetch?.askAgain()
            loop.post(confined { $0.ask() })
            return tellSoon()
        }
        if isBusy || isLeaving || options.isTrial || machine.map({ !$0.isFinal }) ?? false {
            return tellSoon(
                UpgradeReport(
                    upgrade: order.upgrade, progress: .failed, code: "upgrade-busy",
                    message: "this agent is in the middle of another upgrade"))
        }
        do throws(ReleaseRefusal) {
            guard let key = options.releaseKey else {
                throw ReleaseRefusal(
                    "upgrade-not-enabled", "this agent was installed without a release key (cm-agent run --release-key)")
            }
            let manifest = try order.release.checked(with: key)
            let policy = LocalPolicy.load(options.dataDirectory + "/policy.json")
            if let reason = policy.refusal(ofUpgradeFrom: options.version, to: manifest.version) {
                throw ReleaseRefusal("agent-policy", reason)
            }
            guard let program = options.program else {
                throw ReleaseRefusal("upgrade-no-program", "the file of the running program is not where it was started from")
            }
            accept(order, manifest, program)
        } catch { refuse(order.upgrade, error) }
    }

    private func accept(_ order: UpgradeOrder, _ manifest: ReleaseManifest, _ program: String) {
        isBusy = true
        refused = nil
        let files = files
        let machine = UpgradeStateMachine(order, manifest, program: program)
        submit {
            do throws(SystemError) {
                // Nothing to do is an end like another: the program in place is the one that was ordered.
                if try UpgradeFiles.hash(program) == manifest.sha256 { return .success(nil) }
                let directory = Files.parent(of: program) ?? "/"
                guard access(directory, W_OK) == 0 else {
                    return .failure(
                        ReleaseRefusal("upgrade-not-writable", "the agent's user may not write in \(directory)"))
                }
                guard try Files.freeSpace(directory) >= manifest.size + Self.spareBytes else {
                    return .failure(ReleaseRefusal("agent-disk-full", "\(directory) has no room for a second program"))
                }
                try files.save(machine)
                killPoint("agent.upgrade.accepted")
                return .success(try StagedFile(UpgradeFiles.staged(program)))
            } catch { return .failure(StagedFile.refusal(error)) }
        } then: { (installer, result: Result<StagedFile?, ReleaseRefusal>) in
            installer.isBusy = false
            switch result {
            case .failure(let refusal): installer.refuse(order.upgrade, refusal)
            case .success(nil):
                installer.refused = UpgradeReport(upgrade: order.upgrade, progress: .online)
                installer.machine = nil
                installer.tell()
            case .success(let file?):
                installer.log?.info("upgrade.accepted", ["version": .string("\(manifest.version)")])
                installer.machine = machine
                installer.file = file
                installer.fetch = ReleaseFetchStateMachine(size: manifest.size)
                installer.tell()
                installer.ask()
            }
        }
    }

    public func forget(_ upgrade: UpgradeID) {
        if refused?.upgrade == upgrade { refused = nil }
        guard let machine, machine.order.upgrade == upgrade, !isLeaving, !options.isTrial else { return }
        guard machine.isFinal || machine.phase == .receiving || machine.phase == .staged else { return }
        self.machine = nil
        fetch = nil
        file = nil
        let files = files
        let isUnfinished = !machine.isFinal
        submit {
            do throws(SystemError) {
                if isUnfinished { try files.discardStaged(machine.program) }
                try files.forget()
                return nil
            } catch { return error }
        } then: { (installer, failure: SystemError?) in
            if let failure { installer.log?.warning("upgrade.forget-failed", ["error": .string("\(failure)")]) }
        }
    }

    public func received(_ upgrade: UpgradeID, at offset: UInt64, _ bytes: RawSpan) -> Bool {
        // What was on its way when the upgrade ended is let go.
        guard upgrade == machine?.order.upgrade, machine?.phase == .receiving, let file else { return true }
        switch fetch?.arrived(bytes.byteCount, at: offset) ?? .known {
        case .continues: break
        case .known: return true
        case .wrong: return false
        }
        // Invariant: the array copies before the closure ends.
        let piece = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
        submit {
            do throws(SystemError) { return .success(try file.append(piece)) } catch {
                return .failure(StagedFile.refusal(error))
            }
        } then: { (installer, result: Result<UInt64, ReleaseRefusal>) in
            installer.wrote(upgrade, result)
        }
        return true
    }

    public func linkUp() {
        isLinked = true
        guard var machine, !options.isTrial else { return tellSoon() }
        switch machine.phase {
        case .committed:
            guard machine.apply(.cameOnline) else { return }
            // Told when it is written down.
            return keep(machine) { $0.tell() }
        case .receiving where file == nil: receiveAgain(machine)
        // The core repeats the order, and then the file is asked for; both would ask twice.
        case .receiving: break
        case .staged: loop.post(confined { $0.handOver() })
        default: break
        }
        tellSoon()
    }

    public func linkLost() {
        isLinked = false
        fetch?.askAgain()
    }

    // MARK: The file

    /// The agent was started again while the file was on its way.
    private func receiveAgain(_ machine: UpgradeStateMachine) {
        guard !isBusy else { return }
        isBusy = true
        submit {
            do throws(SystemError) { return .success(try StagedFile(UpgradeFiles.staged(machine.program))) } catch {
                return .failure(StagedFile.refusal(error))
            }
        } then: { (installer, result: Result<StagedFile, ReleaseRefusal>) in
            installer.isBusy = false
            switch result {
            case .success(let file):
                installer.file = file
                installer.fetch = ReleaseFetchStateMachine(size: machine.manifest.size)
                installer.ask()
            case .failure(let refusal): installer.fail(refusal)
            }
        }
    }

    private func ask() {
        guard isLinked, let upgrade = machine?.order.upgrade, machine?.phase == .receiving else { return }
        while let (offset, count) = fetch?.nextRequest() {
            observer?.upgradeWants(upgrade, from: offset, count: count)
        }
    }

    private func wrote(_ upgrade: UpgradeID, _ result: Result<UInt64, ReleaseRefusal>) {
        guard let machine, machine.order.upgrade == upgrade, machine.phase == .receiving else { return }
        switch result {
        case .failure(let refusal): fail(refusal)
        case .success(let length):
            fetch?.wrote(upTo: length)
            if fetch?.isComplete ?? false { return finish(machine) }
            ask()
        }
    }

    private func finish(_ machine: UpgradeStateMachine) {
        guard let file, !isBusy else { return }
        isBusy = true
        let files = files
        submit {
            do throws(ReleaseRefusal) {
                try file.finish(machine.manifest, like: machine.program)
                var staged = machine
                _ = staged.apply(.fileStaged)
                do throws(SystemError) { try files.save(staged) } catch { throw StagedFile.refusal(error) }
                killPoint("agent.upgrade.staged")
                return .success(staged)
            } catch { return .failure(error) }
        } then: { (installer, result: Result<UpgradeStateMachine, ReleaseRefusal>) in
            installer.isBusy = false
            installer.file = nil
            installer.fetch = nil
            switch result {
            case .failure(let refusal): installer.fail(refusal)
            case .success(let staged):
                // Forgotten meanwhile.
                guard installer.machine != nil else { return }
                installer.machine = staged
                installer.tell()
                installer.handOver()
            }
        }
    }

    /// From here on the new program decides: this process becomes its watcher.
    private func handOver() {
        guard var machine, !isLeaving, !isBusy, machine.apply(.trialBegan) else { return }
        isLeaving = true
        let version = "\(machine.manifest.version)"
        keep(machine) { installer in
            killPoint("agent.upgrade.trial.before")
            installer.log?.info("upgrade.trial", ["version": .string(version)])
            installer.takeOver()
        }
    }

    // MARK: Ends

    private func refuse(_ upgrade: UpgradeID, _ refusal: ReleaseRefusal) {
        log?.warning("upgrade.refused", ["code": .string(refusal.code), "reason": .string(refusal.message)])
        refused = UpgradeReport(upgrade: upgrade, progress: .failed, code: refusal.code, message: refusal.message)
        // The end of an earlier one, which the core no longer asks about.
        if machine?.isFinal ?? false { machine = nil }
        tellSoon()
    }

    private func fail(_ refusal: ReleaseRefusal) {
        guard var machine, machine.apply(.failed(code: refusal.code, message: refusal.message)) else { return }
        log?.warning("upgrade.failed", ["code": .string(refusal.code), "reason": .string(refusal.message)])
        file = nil
        fetch = nil
        let (files, program) = (files, machine.program)
        _ = pool.submit { try? files.discardStaged(program) }
        keep(machine) { $0.tell() }
    }

    /// Writes the journal, then goes on. When it cannot be written the step is not taken, and said so.
    private func keep(_ machine: UpgradeStateMachine, then next: @escaping @Sendable (UpgradeInstaller) -> Void) {
        self.machine = machine
        let files = files
        submit {
            do throws(SystemError) {
                try files.save(machine)
                return nil
            } catch { return error }
        } then: { (installer, failure: SystemError?) in
            guard let failure else { return next(installer) }
            installer.isLeaving = false
            installer.log?.error("upgrade.journal-failed", ["error": .string("\(failure)")])
            if machine.phase == .trial {
                let refusal = StagedFile.refusal(failure)
                installer.machine = nil
                installer.refused = UpgradeReport(
                    upgrade: machine.order.upgrade, progress: .failed, code: refusal.code, message: refusal.message)
            }
            installer.tell()
        }
    }

    // MARK: Telling

    private func tell() {
        if let refused { observer?.upgradeReported(refused) }
        if let machine { observer?.upgradeReported(machine.report) }
    }

    private func tellSoon() { loop.post(confined { $0.tell() }) }

    private func tellSoon(_ report: UpgradeReport) { loop.post(confined { $0.observer?.upgradeReported(report) }) }

    private func submit<Value: Sendable>(
        _ work: @escaping @Sendable () -> Value, then answer: @escaping @Sendable (UpgradeInstaller, Value) -> Void
    ) {
        let box = Confined(self, on: loop)
        let taken = pool.submit {
            let value = work()
            box.post { answer($0, value) }
        }
        // The queue holds more than a window's pieces and the steps beside them.
        if !taken { log?.error("upgrade.queue-full") }
    }

    private func confined(_ body: @escaping @Sendable (UpgradeInstaller) -> Void) -> @Sendable () -> Void {
        let box = Confined(self, on: loop)
        return { box.assumeOnLoop(body) }
    }
}
