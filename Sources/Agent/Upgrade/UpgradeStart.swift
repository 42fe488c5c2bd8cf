import AgentProtocol
import Glibc
import Program
import Reactor
import System

/// How a starting agent stands to an upgrade: on trial, following one in the same process, or simply started; and what
/// the journal leaves to do before anything else.
struct UpgradeStart {
    /// Where to say that a core has accepted this program; `nil`: it is not on trial.
    let trialDescriptor: Int32?
    /// The process was something else before and may have children of that time.
    let followsInProcess: Bool

    /// Reads the variables and takes them away: they are for this process alone.
    init() {
        trialDescriptor = getenv(UpgradeWatcher.trialVariable).flatMap { Int32(String(cString: $0)) }
        followsInProcess = getenv(UpgradeWatcher.upgradedVariable) != nil
        unsetenv(UpgradeWatcher.trialVariable)
        unsetenv(UpgradeWatcher.upgradedVariable)
        if let trialDescriptor { _ = fcntl(trialDescriptor, F_SETFD, FD_CLOEXEC) }
    }

    /// The data directory for this process. The agent before may be in its last moment when this one is meant to follow.
    func lock(_ directory: String) throws(SystemError) -> DirectoryLock {
        var attempts = trialDescriptor != nil || followsInProcess ? 50 : 1
        while true {
            do throws(SystemError) { return try DirectoryLock(directory: directory) } catch {
                attempts -= 1
                guard error.wouldBlock, attempts > 0 else { throw error }
                usleep(100_000)
            }
        }
    }

    /// After the lock was taken. Looks after what an interrupted upgrade left; `nil`: there is no upgrade.
    ///
    /// Does not return when the old program has to be put back: this process then becomes it.
    func recover(_ files: UpgradeFiles) throws(SystemError) -> UpgradeStateMachine? {
        guard var machine = try files.load() else { return nil }
        guard trialDescriptor == nil else { return machine }
        let before = machine
        // Only these two ask which file is in place, and it costs a look at all of it.
        let asks = machine.phase == .proven || machine.phase == .committed
        let isInPlace = asks ? try UpgradeFiles.hash(machine.program) == machine.manifest.sha256 : false
        let recovery = machine.recover(isInPlace: isInPlace)
        if recovery == .restorePrevious, Files.exists(UpgradeFiles.previous(machine.program)) {
            try files.restorePrevious(machine.program)
            try files.save(machine)
            setenv(UpgradeWatcher.upgradedVariable, "1", 1)
            throw Spawn.become(machine.program, CommandLine.arguments)
        }
        // The file first: once the journal says that all is over nobody looks for it.
        if recovery == .discardStaged { try files.discardStaged(machine.program) }
        if machine != before { try files.save(machine) }
        return machine
    }

    /// The file that runs, if it is still the one at its path.
    static func program() -> String? {
        guard let path = try? Files.readLink("/proc/self/exe"), path.hasPrefix("/"),
            let there = try? Files.status(path), let own = try? Files.status("/proc/self/exe"),
            there.inode == own.inode, there.device == own.device
        else { return nil }
        return path
    }

    func sayOnline(_ client: ClientID) {
        guard let trialDescriptor else { return }
        var text = "online \(client)\n"
        _ = text.withUTF8 { write(trialDescriptor, $0.baseAddress, $0.count) }
    }

    /// Takes over the children of the time before, holders above all: somebody has to reap them. On the loop.
    func adoptChildren(on loop: EventLoop) {
        guard followsInProcess, let names = try? Files.list("/proc") else { return }
        for name in names {
            guard let pid = pid_t(name), Machine.parent(of: pid) == getpid(),
                let child = ChildProcess(adopting: pid)
            else { continue }
            let watch = ProcessWatch(child, on: loop) { _ in }
            try? loop.add(watch)
        }
    }
}
