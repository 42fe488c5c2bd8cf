import AgentProtocol
import Glibc
import System

/// Why an order cannot become a program here: a stable code and a text for people.
struct LaunchFailure: Error, Equatable {
    let code: String
    let message: String
}

/// Turns an order into what `Spawn` takes. Owns the descriptors that the program inherits.
struct Launch: ~Copyable {
    var spawn: Spawn
    private let input: Descriptor?
    private let script: Descriptor?
    /// Of the terminal, where it is not the agent's own user.
    private(set) var owner: uid_t?

    /// Inside the program's environment: its command, which also marks what belongs to it.
    static func mark(_ command: CommandID) -> String { "CM_COMMAND_ID=\(command)" }

    /// - Parameter directory: the execution's own, for standard input.
    init(_ order: Order, directory: String, output: Int32, errors: Int32) throws(LaunchFailure) {
        let account = try Self.account(order.user)
        var script: Descriptor?
        let arguments: [String]
        switch order.invocation {
        case .argv(let list): arguments = list
        case .shell(let text): arguments = ["/bin/sh", "-c", text]
        case .script(let interpreter, let body, let extra):
            // A file in memory: readable by the program's user wherever our directory is closed to it.
            script = try Self.scriptFile(body, owner: account)
            arguments = interpreter + ["/proc/self/fd/3"] + extra
        }
        guard let program = arguments.first, !program.isEmpty else {
            throw LaunchFailure(code: "program-missing", message: "the order names no program")
        }
        let scriptNumber = script?.number ?? -1
        var input: Descriptor?
        if let bytes = order.standardInput { input = try Self.inputFile(bytes, directory: directory) }
        let inputNumber = input?.number ?? -1

        var spawn = Spawn(program: program, arguments: arguments)
        spawn.environment = try Self.environment(order, account)
        if let path = spawn.environment["PATH"] { spawn.searchPath = path }
        spawn.directory = order.workingDirectory ?? "/"
        spawn.descriptors = [inputNumber, output, errors]
        if scriptNumber >= 0 { spawn.descriptors.append(scriptNumber) }
        spawn.group = .session
        spawn.account = order.user == nil ? nil : account
        spawn.diesWithStarter = true
        self.spawn = spawn
        self.script = script
        self.input = input
    }

    /// A control group for an order, where the agent may make them.
    static func controlGroup(_ order: Order, _ controlGroups: ControlGroupParent?) throws(LaunchFailure) -> ControlGroup? {
        let limited = order.memoryLimitBytes != nil || order.processorLimitMillis != nil
        guard let controlGroups else {
            guard !limited else {
                throw LaunchFailure(
                    code: "limits-unavailable",
                    message: "this agent may not make control groups (version 2), so it cannot limit memory or CPU")
            }
            return nil
        }
        guard order.memoryLimitBytes == nil || controlGroups.limitsMemory,
            order.processorLimitMillis == nil || controlGroups.limitsProcessor
        else {
            throw LaunchFailure(
                code: "limits-unavailable",
                message: "the control group \(controlGroups.path) has no memory or cpu controller handed down to it")
        }
        do throws(SystemError) {
            let group = try controlGroups.make("\(order.command)")
            if let bytes = order.memoryLimitBytes { try group.limitMemory(bytes) }
            if let millis = order.processorLimitMillis { try group.limitProcessor(millis) }
            return group
        } catch {
            guard limited else { return nil }
            throw LaunchFailure(code: "limits-unavailable", message: "control group: \(error)")
        }
    }

    /// For a terminal, whose three descriptors the caller gives: they are one.
    init(_ terminal: TerminalOrder) throws(LaunchFailure) {
        let order = terminal.order
        let account = try Self.account(order.user)
        var environment = try Self.environment(order, account)
        if terminal.form == .terminal { environment["TERM"] = order.environment["TERM"] ?? terminal.terminalType }
        var spawn: Spawn
        switch order.invocation {
        case .argv(let list) where list.isEmpty:
            let shell = account.shell.isEmpty ? "/bin/sh" : account.shell
            // A dash before the name makes it a login shell.
            spawn = Spawn(program: shell, arguments: ["-" + (shell.split(separator: "/").last.map(String.init) ?? "sh")])
        case .argv(let list):
            guard let program = list.first, !program.isEmpty else {
                throw LaunchFailure(code: "program-missing", message: "the order names no program")
            }
            spawn = Spawn(program: program, arguments: list)
        case .shell(let text): spawn = Spawn(program: "/bin/sh", arguments: ["/bin/sh", "-c", text])
        case .script: throw LaunchFailure(code: "program-missing", message: "a terminal runs no script")
        }
        spawn.environment = environment
        if let path = environment["PATH"] { spawn.searchPath = path }
        spawn.directory = order.workingDirectory ?? (Files.exists(account.home) ? account.home : "/")
        spawn.group = .session
        spawn.account = order.user == nil ? nil : account
        spawn.diesWithStarter = true
        self.spawn = spawn
        script = nil
        input = nil
        owner = order.user == nil ? nil : account.user
    }

    /// Who the program runs as. Asking the user database costs a holder more memory than all else, so that the
    /// agent's own user comes with the environment that the agent gave to the holder.
    private static func account(_ user: String?) throws(LaunchFailure) -> UserAccount {
        guard let user else {
            func variable(_ name: String, or value: String) -> String {
                getenv(name).map { String(cString: $0) } ?? value
            }
            return UserAccount(
                name: variable("USER", or: "\(geteuid())"), user: geteuid(), group: getegid(), groups: [],
                home: variable("HOME", or: "/"), shell: variable("SHELL", or: "/bin/sh"))
        }
        let found: UserAccount?
        do throws(SystemError) { found = try UserAccount.find(user) } catch {
            throw LaunchFailure(code: "user-unknown", message: "the user database failed: \(error)")
        }
        guard let found else {
            throw LaunchFailure(code: "user-unknown", message: "there is no user \(user) on this client")
        }
        guard geteuid() == 0 || found.user == geteuid() else {
            throw LaunchFailure(
                code: "user-not-permitted",
                message: "the agent runs as user \(geteuid()) and cannot run a command as \(found.name)")
        }
        return found
    }

    private static func environment(_ order: Order, _ account: UserAccount) throws(LaunchFailure) -> [String: String] {
        var environment = [
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
            "HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell,
        ]
        for (name, value) in order.environment.merging(order.secretEnvironment, uniquingKeysWith: { _, secret in secret }) {
            guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "=")), !name.utf8.contains(0), !value.utf8.contains(0)
            else {
                throw LaunchFailure(
                    code: "environment-invalid",
                    // Never the value: it may be a secret.
                    message: "the variable name '\(name)' is empty or holds '=', or it or its value holds a NUL byte")
            }
            environment[name] = value
        }
        environment["CM_COMMAND_ID"] = "\(order.command)"
        return environment
    }

    private static func scriptFile(_ body: [UInt8], owner: UserAccount) throws(LaunchFailure) -> Descriptor {
        do throws(SystemError) {
            let file = try Descriptor.memoryFile("script")
            try file.write(body.span.bytes)
            if fchmod(file.number, 0o555) != 0 { throw SystemError.last("fchmod", "script") }
            return try file.reopened(O_RDONLY)
        } catch { throw LaunchFailure(code: "spawn-failed", message: "the script file: \(error)") }
    }

    /// A file of the execution's directory without a name: large input costs no memory and needs no feeding.
    private static func inputFile(_ bytes: [UInt8], directory: String) throws(LaunchFailure) -> Descriptor {
        let path = directory + "/input"
        do throws(SystemError) {
            let file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC)
            try file.write(bytes.span.bytes, subject: path)
            let input = try Descriptor.open(path, O_RDONLY)
            try Files.remove(path)
            return input
        } catch {
            throw LaunchFailure(
                code: error.isOutOfSpace ? "agent-disk-full" : "spawn-failed", message: "standard input: \(error)")
        }
    }

    /// What the core and people read about a failed start.
    static func explain(_ error: SpawnError, _ spawn: Spawn) -> LaunchFailure {
        let reason = SystemError("", code: error.code).reason
        switch (error.step, error.code) {
        case (.execute, ENOENT):
            return LaunchFailure(
                code: "program-not-found",
                message: spawn.program.utf8.contains(UInt8(ascii: "/"))
                    ? "\(spawn.program) does not exist (or the interpreter that its first line names)"
                    : "\(spawn.program) is in no directory of PATH (\(spawn.searchPath))")
        case (.execute, _):
            return LaunchFailure(code: "program-not-executable", message: "\(spawn.program): \(reason)")
        case (.directory, _):
            return LaunchFailure(
                code: "working-directory-unusable", message: "\(spawn.directory ?? "/"): \(reason)")
        case (.user, _): return LaunchFailure(code: "user-not-permitted", message: "changing the user: \(reason)")
        case (.controlGroup, _): return LaunchFailure(code: "limits-unavailable", message: "control group: \(reason)")
        case (.arguments, _):
            return LaunchFailure(code: "arguments-invalid", message: "an argument or variable holds a NUL byte")
        default: return LaunchFailure(code: "spawn-failed", message: "\(error)")
        }
    }
}
