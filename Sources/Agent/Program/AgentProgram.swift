import Glibc
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

    static func say(_ text: String) { write(text + "\n", to: STDOUT_FILENO) }

    static func fail(_ text: String, status: Int32) -> Int32 {
        write("cm-agent: " + text + "\n", to: STDERR_FILENO)
        return status
    }

    private static func write(_ text: String, to descriptor: Int32) {
        var text = text
        _ = text.withUTF8 { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }
}
