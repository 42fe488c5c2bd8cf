import Glibc
import PluginHost
import Program
import System

/// The words after `client-manager`. Exit status: 0 well, 1 failed, 2 usage.
enum CoreCommandLine {
    private static let usage = """
        usage:
          client-manager serve --data-dir DIR [--config FILE] [--listen ADDRESS:PORT] [--tls auto|off|files]
                               [--plugins DIR] [--respawn] [--safe]
          client-manager config check|show [--config FILE], config document
          client-manager audit verify --data-dir DIR | --file FILE
          client-manager backup --data-dir DIR --to DIR
          client-manager restore --from DIR --data-dir DIR
          client-manager token recover --data-dir DIR [--config FILE]
          client-manager plugin new --lang c|cpp|rust|swift NAME | check FILE | list DIR | manifest FILE
          client-manager version
        """

    static func run(_ arguments: [String]) -> Int32 {
        if let fault = KillPoints.problem() { return fail(fault, status: 2) }
        let words = arguments.filter { !$0.hasPrefix("-") }
        switch (arguments.first, words.dropFirst().first) {
        case ("serve", _): return serve(Array(arguments.dropFirst()))
        case ("config", "check"): return configuration(Array(arguments.dropFirst(2)), show: false)
        case ("config", "show"): return configuration(Array(arguments.dropFirst(2)), show: true)
        case ("audit", "verify"): return CoreMaintenance.auditVerify(Array(arguments.dropFirst(2)))
        // For the core itself: looks at a plugin in a process that may crash.
        case ("plugin", "probe"):
            guard arguments.count == 4 else { return fail("plugin probe is for the core itself; see: plugin check FILE", status: 2) }
            return Probe.main(path: arguments[2], libraries: arguments[3])
        case ("plugin", _): return CorePluginTools.run(Array(arguments.dropFirst()))
        case ("backup", _): return CoreMaintenance.backup(Array(arguments.dropFirst()))
        case ("restore", _): return CoreMaintenance.restore(Array(arguments.dropFirst()))
        case ("token", "recover"): return recoverToken(Array(arguments.dropFirst(2)))
        case ("config", "document"):
            print(Configuration.markdown(CoreConfiguration.declarations), terminator: "")
            return 0
        case ("version", _), ("--version", _):
            print("client-manager \(BuildID.description)")
            return 0
        case ("help", _), ("--help", _), ("-h", _):
            print(usage)
            print("\nflags of serve:\n" + Flags.help(serveFlags))
            return 0
        default:
            return fail(usage, status: 2)
        }
    }

    private static let serveFlags: [Flag] =
        [
            Flag.option("data-dir", "DIR", "Where everything durable is kept."),
            Flag.toggle("respawn", "A small parent holds the listening sockets and starts the core again after a fault."),
            Flag.toggle("safe", "Starts the core alone: no plugin is loaded."),
            Flag.option("config", "FILE", "JSON with comments; the environment and flags go before it."),
        ] + CoreConfiguration.declarations.compactMap(\.commandLineFlag)

    private static func serve(_ arguments: [String]) -> Int32 {
        do {
            let flags = try Flags(parsing: arguments, allowed: serveFlags)
            if let word = flags.words.first { return fail("unexpected word \"\(word)\"; see client-manager help", status: 2) }
            guard let directory = flags.value("data-dir") else {
                return fail("--data-dir DIR is missing: the folder where everything durable is kept", status: 2)
            }
            let configuration = try load(flags)
            AllocatorTuning.restartOnce()
            if flags.has("respawn"), getenv(Respawn.variable) == nil {
                return Respawn.run(arguments: ["serve"] + arguments, directory: directory, configuration: configuration)
            }
            return CoreProcess.serve(directory: directory, configuration: configuration, isSafe: flags.has("safe"))
        } catch {
            return fail("\(error)", status: 2)
        }
    }

    /// The configuration says where the master key is; nothing else of it matters here.
    private static func recoverToken(_ arguments: [String]) -> Int32 {
        do {
            let flags = try Flags(parsing: arguments, allowed: serveFlags)
            if let word = flags.words.first { return fail("unexpected word \"\(word)\"; see client-manager help", status: 2) }
            guard let directory = flags.value("data-dir") else {
                return fail("--data-dir DIR is missing: the data directory of the core, which must not be running", status: 2)
            }
            return CoreMaintenance.recoverToken(directory: directory, try load(flags))
        } catch {
            return fail("\(error)", status: 2)
        }
    }

    private static func configuration(_ arguments: [String], show: Bool) -> Int32 {
        do {
            let flags = try Flags(parsing: arguments, allowed: serveFlags)
            let configuration = try load(flags)
            print(show ? configuration.shown.pretty() : "the configuration is valid")
            for warning in configuration.warnings { say(warning) }
            return 0
        } catch {
            return fail("\(error)", status: 2)
        }
    }

    private static func load(_ flags: Flags) throws -> Configuration {
        var file: (name: String, content: [UInt8])?
        if let path = flags.value("config") { file = (path, try readSmallFile(path, limit: 1 << 20)) }
        return try Configuration(
            CoreConfiguration.declarations, file: file, environment: Environment.current(), flags: flags,
            foreign: ["CM_SERVER", "CM_TOKEN", "CM_PIN", "CM_BIN", "CM_SHOW", "CM_KILL_AT", "CM_KILL_POINTS", Respawn.variable])
    }

    static func fail(_ text: String, status: Int32) -> Int32 {
        say(text)
        return status
    }

    /// One line to standard error.
    static func say(_ text: String) {
        let line = Array("client-manager: \(text)\n".utf8)
        _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
