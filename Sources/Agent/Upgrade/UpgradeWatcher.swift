import AgentProtocol
import Glibc
import Program
import Reactor
import Synchronization
import System

/// `cm-agent watch-upgrade A -- ARGV…`: what the agent's process becomes while a new program is on trial.
///
/// It is the old program, with the process number that systemd (or whoever started it) knows. It runs the staged file as
/// a child with the agent's own words and waits until that is online. Then it puts the file in place and becomes it;
/// otherwise it ends the child and becomes the old agent again. The program in place is never one that has not been
/// online on this machine, and the child does not outlive its watcher.
enum UpgradeWatcher {
    static let usage = "cm-agent watch-upgrade is started by cm-agent run, with a directory and its own words"
    /// Names the descriptor at which a program on trial says that it is online.
    static let trialVariable = "CM_AGENT_TRIAL"
    /// Set for an agent that follows in the same process.
    static let upgradedVariable = "CM_AGENT_UPGRADED"
    static let trialDescriptor: Int32 = 3

    static func main(_ arguments: [String]) -> Int32 {
        guard arguments.count >= 3, arguments[1] == "--" else { return AgentProgram.fail(usage, status: 2) }
        let (directory, words) = (arguments[0], Array(arguments[2...]))
        limitMemoryArenas()
        signal(SIGPIPE, SIG_IGN)
        Signals.block([SIGTERM, SIGINT, SIGHUP])
        let files = UpgradeFiles(dataDirectory: directory)
        do {
            let lock = try files.watcherLock()
            guard let machine = try files.load(), machine.phase == .trial else {
                // Nothing to watch: an agent is better than none.
                return becomeOld(words)
            }
            killPoint("agent.upgrade.watching")
            let client = try IdentityFiles(dataDirectory: directory).state.client?.description
            let end = Mutex<Outcome>(.stopped)
            let loop = try EventLoop.start(name: "watch")
            loop.post {
                let watch = TrialWatch(machine, files, words, client: client, on: loop) { outcome in
                    end.withLock { $0 = outcome }
                    loop.stop()
                }
                watch.begin()
            }
            loop.join()
            withExtendedLifetime(lock) {}
            return finish(end.withLock { $0 }, machine, files, words)
        } catch {
            // The journal says trial, so the agent that follows writes it off.
            AgentProgram.report("upgrade.watch-failed", "\(error)")
            return becomeOld(words)
        }
    }

    enum Outcome: Sendable {
        /// The new program has the old one's name.
        case inPlace
        case rolledBack
        case stopped
    }

    private static func finish(
        _ outcome: Outcome, _ machine: UpgradeStateMachine, _ files: UpgradeFiles, _ words: [String]
    ) -> Int32 {
        switch outcome {
        case .stopped: return 0
        case .rolledBack: return becomeOld(words)
        case .inPlace:
            setenv(upgradedVariable, "1", 1)
            let failure = Spawn.become(machine.program, ["cm-agent"] + words)
            // It ran a moment ago from this very file; whatever has changed, the old one still stands.
            AgentProgram.report("upgrade.exec-failed", "\(failure)")
            do throws(SystemError) {
                try files.restorePrevious(machine.program)
                if var kept = try files.load(),
                    kept.apply(.rolledBack(code: "upgrade-exec-failed", message: "\(failure)"))
                { try files.save(kept) }
            } catch { AgentProgram.report("upgrade.restore-failed", "\(error)") }
            return becomeOld(words)
        }
    }

    private static func becomeOld(_ words: [String]) -> Int32 {
        setenv(upgradedVariable, "1", 1)
        return AgentProgram.fail("\(Spawn.become("/proc/self/exe", ["cm-agent"] + words))", status: 1)
    }
}

/// One trial, on the watcher's loop.
private final class TrialWatch {
    private static let farewellMilliseconds: UInt64 = 5_000

    private let machine: UpgradeStateMachine
    private let files: UpgradeFiles
    private let words: [String]
    private let loop: EventLoop
    private let done: (UpgradeWatcher.Outcome) -> Void
    private var trial: TrialStateMachine
    private var child: ProcessWatch?
    private var line: TrialLine?
    private var signals: Signals?
    private var timer: Timer?
    private var outcome: UpgradeWatcher.Outcome?

    init(
        _ machine: UpgradeStateMachine, _ files: UpgradeFiles, _ words: [String], client: String?, on loop: EventLoop,
        done: @escaping (UpgradeWatcher.Outcome) -> Void
    ) {
        self.machine = machine
        self.files = files
        self.words = words
        self.loop = loop
        self.done = done
        trial = TrialStateMachine(
            client: client, startedAt: loop.now / 1_000_000, onlineWithin: UInt64(machine.order.onlineWithinSeconds) * 1_000,
            settle: UInt64(machine.order.settleSeconds) * 1_000)
    }

    /// The cycle of this object and its timer lasts as long as the loop.
    func begin() {
        timer = Timer { self.timeOver() }
        do {
            let signals = try Signals([SIGTERM, SIGINT, SIGHUP]) { [unowned self] number in
                if number != SIGHUP { take(.stopWanted) }
            }
            try loop.add(signals)
            self.signals = signals
            try startChild()
        } catch {
            return roll("trial-not-started", "the new program could not be started: \(error)")
        }
        schedule()
    }

    private func startChild() throws {
        let pipe = try Pipe()
        var spawn = Spawn(program: UpgradeFiles.staged(machine.program), arguments: ["cm-agent"] + words)
        spawn.environment = Self.environment
        spawn.environment[UpgradeWatcher.trialVariable] = "\(UpgradeWatcher.trialDescriptor)"
        spawn.descriptors = [-1, STDOUT_FILENO, STDERR_FILENO, pipe.writeEnd.number]
        spawn.diesWithStarter = true
        let mask = umask(0o077)
        umask(mask)
        spawn.fileModeMask = mask
        let child = ProcessWatch(try spawn.start(), on: loop) { [unowned self] end in childEnded(end) }
        try loop.add(child)
        self.child = child
        let line = try TrialLine(pipe.takeReadEnd()) { [unowned self] id in take(.online(id)) }
        try loop.add(line)
        self.line = line
    }

    /// The agent's own, whole: the new program gets what the old one was given.
    private static var environment: [String: String] {
        var result: [String: String] = [:]
        var place = environ
        while let entry = place.pointee {
            let parts = String(cString: entry).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
            place += 1
        }
        return result
    }

    private func take(_ input: TrialStateMachine.Input) {
        guard outcome == nil, trial.verdict == nil else { return }
        trial.apply(input, now: loop.now / 1_000_000)
        switch trial.verdict {
        case nil: schedule()
        case .good: commit()
        case .bad(let code, let message): roll(code, message)
        case .stopped: leave(.stopped, code: "upgrade-interrupted", "the agent was stopped while the new program was on trial")
        }
    }

    private func schedule() {
        guard let timer, outcome == nil else { return }
        let now = loop.now / 1_000_000
        loop.schedule(timer, afterMilliseconds: trial.deadline - min(now, trial.deadline) + 1)
    }

    private func timeOver() {
        if outcome == nil { return take(.time) }
        // It was asked to end and did not.
        child?.signalGroup(SIGKILL)
        if let timer { loop.schedule(timer, afterMilliseconds: Self.farewellMilliseconds) }
    }

    private func childEnded(_ end: ProcessEnd?) {
        // What it left in its group goes with it. The number means no other group while this one has members.
        if let pid = child?.pid { kill(-pid, SIGKILL) }
        child = nil
        if let outcome { return done(outcome) }
        let how =
            switch end?.how {
            case .exited(let code): "ended with status \(code)"
            case .signaled(let number): "was ended by signal \(number)"
            case nil: "ended"
            }
        take(.ended(how))
    }

    // MARK: Verdicts

    private func commit() {
        var kept = machine
        do throws(SystemError) {
            _ = kept.apply(.trialProved)
            try files.save(kept)
            killPoint("agent.upgrade.proven")
            try files.swap(machine.program)
            _ = kept.apply(.swapped)
            try files.save(kept)
            killPoint("agent.upgrade.committed")
        } catch {
            return roll("upgrade-storage-failed", "the new program could not be put in place: \(error)", kept)
        }
        AgentProgram.report("upgrade.in-place", "\(machine.manifest.version)")
        end(.inPlace, with: SIGTERM)
    }

    private func roll(_ code: String, _ message: String, _ kept: UpgradeStateMachine? = nil) {
        AgentProgram.report("upgrade.rolled-back", "\(code): \(message)")
        writeOff(code, message, kept ?? machine)
        // One that hangs does not hear TERM, and one that works is not wanted.
        end(.rolledBack, with: SIGKILL)
    }

    private func leave(_ outcome: UpgradeWatcher.Outcome, code: String, _ message: String) {
        writeOff(code, message, machine)
        end(outcome, with: SIGTERM)
    }

    /// If the journal cannot be written it says trial, and the agent that follows writes it off.
    private func writeOff(_ code: String, _ message: String, _ kept: UpgradeStateMachine) {
        var kept = kept
        do throws(SystemError) {
            if kept.phase == .committed { try files.restorePrevious(kept.program) }
            guard kept.apply(.rolledBack(code: code, message: message)) else { return }
            killPoint("agent.upgrade.rolled-back.before")
            // The file first: once the journal says that all is over nobody looks for it.
            try files.discardStaged(kept.program)
            try files.save(kept)
            killPoint("agent.upgrade.rolled-back")
        } catch { AgentProgram.report("upgrade.journal-failed", "\(error)") }
    }

    /// The child's holders stay: they lead sessions of their own.
    private func end(_ outcome: UpgradeWatcher.Outcome, with number: Int32) {
        self.outcome = outcome
        guard let child else { return done(outcome) }
        if number == SIGKILL { child.signalGroup(SIGKILL) } else { child.signal(number) }
        if let timer { loop.schedule(timer, afterMilliseconds: Self.farewellMilliseconds) }
    }
}

/// What a program on trial says: `online ID`, a line each time that a core has accepted it.
private final class TrialLine: Source {
    private let pipe: Descriptor
    private let heard: (String) -> Void
    private var text: [UInt8] = []

    init(_ pipe: consuming Descriptor, heard: @escaping (String) -> Void) throws(SystemError) {
        try pipe.setNonBlocking()
        let number = pipe.number
        self.pipe = pipe
        self.heard = heard
        super.init(descriptor: number)
    }

    override func ready(_ readiness: Readiness) {
        var buffer = [UInt8](repeating: 0, count: 256)
        while true {
            let count = (try? buffer.withUnsafeMutableBytes { (bytes) throws(SystemError) in
                try pipe.readAvailable(bytes)
            }) ?? 0
            // Nothing yet, or the end: the child's own end is heard elsewhere.
            guard count > 0 else { return }
            text += buffer[..<count]
            while let end = text.firstIndex(of: 0x0A) {
                let words = String(decoding: text[..<end], as: UTF8.self).split(separator: " ")
                text.removeSubrange(...end)
                if words.count == 2, words[0] == "online" { heard(String(words[1])) }
            }
            if text.count > 256 { text = [] }
        }
    }
}
