import Glibc
import Program
import System

/// What `cm-agent` does, as a library; the program itself only passes its arguments.
public enum AgentProgram {
    static let usage = """
        usage: cm-agent run --server URL[*WEIGHT][,…] --data-dir DIR [options]
               cm-agent install --server URL --data-dir DIR [options]
               cm-agent uninstall [--data-dir DIR --purge]
               cm-agent reset-identity --data-dir DIR
               cm-agent version

        `cm-agent COMMAND --help` explains a command.
        """

    /// The exit status: 0 well, 1 failed, 2 not understood.
    public static func main(_ arguments: [String]) -> Int32 {
        if let problem = KillPoints.problem() { return fail(problem, status: 2) }
        switch arguments.dropFirst().first {
        case "hold": return hold(Array(arguments.dropFirst(2)))
        case "watch-upgrade": return UpgradeWatcher.main(Array(arguments.dropFirst(2)))
        case "run": return RunCommand.main(Array(arguments.dropFirst(2)))
        case "install": return InstallCommand.install(Array(arguments.dropFirst(2)))
        case "uninstall": return InstallCommand.uninstall(Array(arguments.dropFirst(2)))
        case "reset-identity": return resetIdentity(Array(arguments.dropFirst(2)))
        case "version", "--version":
            say("cm-agent \(BuildID.description)")
            return 0
        case "help", "--help", "-h":
            say(usage)
            return 0
        default: return fail(usage, status: 2)
        }
    }

    /// `hold DIR [CONTROL-GROUP [memory] [cpu]]`: started by `run` alone. First here and without any parser: a holder
    /// has to stay small.
    private static func hold(_ arguments: [String]) -> Int32 {
        guard let directory = arguments.first else {
            return fail("cm-agent hold is started by cm-agent run, with a directory", status: 2)
        }
        var groups: ControlGroupParent?
        if arguments.count > 1 {
            groups = ControlGroupParent(
                path: arguments[1], limitsMemory: arguments[2...].contains("memory"),
                limitsProcessor: arguments[2...].contains("cpu"))
        }
        return Holder.run(directory: directory, controlGroups: groups)
    }

    /// Before an image is copied: the next start is a new machine. Executions of the old one are no longer its.
    private static func resetIdentity(_ arguments: [String]) -> Int32 {
        let allowed: [Flag] = [.option("data-dir", "DIR", "of the agent"), .toggle("help", "this text")]
        do {
            let flags = try Flags(parsing: arguments, allowed: allowed)
            if flags.has("help") {
                say("usage: cm-agent reset-identity --data-dir DIR\n\n" + Flags.help(allowed))
                return 0
            }
            guard let directory = flags.value("data-dir") else { throw FlagError("--data-dir DIR is missing") }
            let lock = try lock(directory)
            try IdentityFiles.reset(dataDirectory: directory)
            try Files.removeTree(directory + "/executions")
            try Files.removeTree(directory + "/terminals")
            withExtendedLifetime(lock) {}
            return 0
        } catch let error as FlagError {
            return fail("\(error)", status: 2)
        } catch { return fail("\(error)", status: 1) }
    }

    /// The data directory for this process alone, with no command running in it.
    static func lock(_ directory: String) throws(SystemError) -> DirectoryLock {
        let lock = try DirectoryLock(directory: directory)
        for (root, what) in [(directory + "/executions", "command"), (directory + "/terminals", "terminal")] {
            for name in Files.exists(root) ? try Files.list(root) : [] {
                if try DirectoryLock.isHeld(directory: root + "/" + name, name: "journal") {
                    throw SystemError("\(what) \(name) still runs in", directory, code: EBUSY)
                }
            }
        }
        return lock
    }

    static func tokenPath(_ directory: String) -> String { directory + "/enroll-token" }

    /// Holders change nothing about their directory, but they get its name: it must not depend on ours.
    static func absolute(_ path: String) -> String {
        guard !path.hasPrefix("/"), let place = getcwd(nil, 0) else { return path }
        defer { free(place) }
        return String(cString: place) + "/" + path
    }

    static func say(_ text: String) { write(text + "\n", to: STDOUT_FILENO) }

    static func fail(_ text: String, status: Int32) -> Int32 {
        write("cm-agent: " + text + "\n", to: STDERR_FILENO)
        return status
    }

    /// A line of the log for a process that has no other.
    static func report(_ event: String, _ detail: String) {
        write("cm-agent: \(event): \(detail)\n", to: STDERR_FILENO)
    }

    private static func write(_ text: String, to descriptor: Int32) {
        var text = text
        _ = text.withUTF8 { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }
}
