import AgentProtocol
import Glibc
import Program
import System
import Transport

/// `cm-agent install` and `uninstall`: this file to its place, a systemd unit, and the start of it.
enum InstallCommand {
    static let flags: [Flag] = [
        .option("server", "URL[*WEIGHT][,…]", "as for run"),
        .option("data-dir", "DIR", "/var/lib/client-manager-agent by default"),
        .option("enroll-token", "T", "kept in DIR/enroll-token (0600) until the agent is enrolled"),
        .option("pin", "FINGERPRINT", "as for run", repeated: true),
        .option("fact", "K=V", "as for run", repeated: true),
        .option(
            "release-key", "FILE", "PEM of the public key whose releases may replace the agent, kept in \(releaseKeyPath)"),
        .option("user", "NAME", "run as this user, confined; without it as root, so that commands may do anything"),
        .option(
            "program", "FILE",
            "where the agent goes: /usr/local/bin/cm-agent, or DIR/bin/cm-agent with both --user and --release-key"),
        .option("root", "DIR", "prefix for an image that is being built: files only, nothing is started"),
        .toggle("via-proxy", "as for run"),
        .toggle("help", "this text"),
    ]

    static let removalFlags: [Flag] = [
        .option("data-dir", "DIR", "with --purge: the directory to remove"),
        .option("program", "FILE", "/usr/local/bin/cm-agent by default"),
        .option("root", "DIR", "as for install"),
        .toggle("purge", "remove identity, journal and output too"),
        .toggle("help", "this text"),
    ]

    static let unitPath = "/etc/systemd/system/cm-agent.service"
    /// Root's, so that no program of the agent's user can trust another key.
    static let releaseKeyPath = "/etc/client-manager-agent/release-key.pem"
    private static let defaultDirectory = "/var/lib/client-manager-agent"
    private static let defaultProgram = "/usr/local/bin/cm-agent"

    static func install(_ arguments: [String]) -> Int32 {
        do {
            let flags = try Flags(parsing: arguments, allowed: flags)
            if flags.has("help") {
                AgentProgram.say("usage: cm-agent install --server URL [flags]\n\n" + Flags.help(Self.flags))
                return 0
            }
            let unit = try Unit(flags)
            let root = flags.value("root") ?? ""
            if let key = flags.value("release-key") { try writeReleaseKey(key, root) }
            try write(unit, root, token: flags.value("enroll-token"))
            guard root.isEmpty else { return 0 }
            return enable()
        } catch let error as FlagError {
            return AgentProgram.fail("\(error)", status: 2)
        } catch { return AgentProgram.fail("\(error)", status: 1) }
    }

    private static func writeReleaseKey(_ path: String, _ root: String) throws {
        _ = try ReleaseKeyFile.read(path)
        let place = root + releaseKeyPath
        try Files.makeDirectories(Files.parent(of: place) ?? "/", mode: 0o755)
        try AtomicFile.write(try Files.read(path, limit: 16_384), to: place, mode: 0o644)
    }

    private static func write(_ unit: Unit, _ root: String, token: String?) throws {
        let program = root + unit.program
        try Files.makeDirectories(Files.parent(of: program) ?? "/", mode: 0o755)
        try AtomicFile.write(try Files.read("/proc/self/exe", limit: 256 << 20), to: program, mode: 0o755)
        let directory = root + unit.dataDirectory
        try Files.makeDirectories(directory)
        if let token {
            guard EnrollmentToken(token) != nil else {
                throw FlagError("the enrollment token has not the form cmt1.SECRET.FINGERPRINT")
            }
            try AtomicFile.write(Array((token + "\n").utf8), to: AgentProgram.tokenPath(directory))
        }
        if let user = unit.user {
            guard let account = try UserAccount.find(user) else { throw FlagError("--user \(user): there is no such user") }
            var owned = [directory, AgentProgram.tokenPath(directory)]
            // An agent that replaces its own program has to own the place.
            if unit.ownsProgram { owned += [Files.parent(of: program) ?? "/", program] }
            for path in owned where Files.exists(path) {
                if chown(path, account.user, account.group) != 0 { throw SystemError.last("chown", path) }
            }
        }
        let path = root + unitPath
        try Files.makeDirectories(Files.parent(of: path) ?? "/", mode: 0o755)
        try AtomicFile.write(Array(unit.text.utf8), to: path, mode: 0o644)
        AgentProgram.say("installed \(program) and \(path)")
    }

    private static func enable() -> Int32 {
        guard Files.exists("/run/systemd/system") else {
            AgentProgram.say("systemd does not run here; enable cm-agent.service where it does")
            return 0
        }
        for arguments in [["daemon-reload"], ["enable", "cm-agent.service"], ["restart", "cm-agent.service"]] {
            let status = systemctl(arguments)
            guard status == 0 else {
                return AgentProgram.fail("systemctl \(arguments.joined(separator: " ")) ended with \(status)", status: 1)
            }
        }
        return 0
    }

    static func uninstall(_ arguments: [String]) -> Int32 {
        do {
            let flags = try Flags(parsing: arguments, allowed: removalFlags)
            if flags.has("help") {
                AgentProgram.say("usage: cm-agent uninstall [flags]\n\n" + Flags.help(removalFlags))
                return 0
            }
            let root = flags.value("root") ?? ""
            if root.isEmpty, Files.exists("/run/systemd/system"), Files.exists(unitPath) {
                _ = systemctl(["disable", "--now", "cm-agent.service"])
            }
            try Files.remove(root + unitPath)
            let program = root + (flags.value("program") ?? defaultProgram)
            for path in [program, UpgradeFiles.staged(program), UpgradeFiles.previous(program), root + releaseKeyPath] {
                try Files.remove(path)
            }
            // Somebody else's files in it keep it.
            rmdir(Files.parent(of: root + releaseKeyPath) ?? "")
            if root.isEmpty, Files.exists("/run/systemd/system") { _ = systemctl(["daemon-reload"]) }
            if flags.has("purge") {
                let directory = root + (flags.value("data-dir") ?? defaultDirectory)
                if Files.exists(directory) {
                    let lock = try AgentProgram.lock(directory)
                    if root.isEmpty { try removePrivateFiles(directory) }
                    try Files.removeTree(directory)
                    withExtendedLifetime(lock) {}
                }
            }
            AgentProgram.say("removed")
            return 0
        } catch let error as FlagError {
            return AgentProgram.fail("\(error)", status: 2)
        } catch { return AgentProgram.fail("\(error)", status: 1) }
    }

    /// In the place that the agent's directory names, if that is the agent's own.
    private static func removePrivateFiles(_ directory: String) throws(SystemError) {
        guard let bytes = try Files.readIfPresent(directory + "/" + PrivateFileKeeper.pointerName, limit: 4_096) else { return }
        let path = String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self)
        if Files.exists(path + "/" + PrivateFilePlace.indexName) { try Files.removeTree(path) }
    }

    private static func systemctl(_ arguments: [String]) -> Int32 {
        var spawn = Spawn(program: "systemctl", arguments: ["systemctl"] + arguments)
        spawn.environment = ["PATH": spawn.searchPath]
        spawn.descriptors = [-1, STDOUT_FILENO, STDERR_FILENO]
        do {
            let child = try spawn.start()
            var item = pollfd(fd: child.descriptor.number, events: Int16(POLLIN), revents: 0)
            while poll(&item, 1, -1) < 0, errno == EINTR {}
            if case .exited(let code) = try child.reap()?.how { return code }
            return 255
        } catch { return 255 }
    }

    /// The systemd unit as a value.
    struct Unit {
        var program: String
        var dataDirectory: String
        var user: String?
        /// The program lies in the agent's own directory, and is its user's.
        var ownsProgram = false
        private var arguments: [String]

        init(_ flags: Flags) throws(FlagError) {
            guard let server = flags.value("server") else { throw FlagError("--server URL is missing") }
            do throws(TransportError) { _ = try ServerList(server) } catch { throw FlagError("--server: \(error)") }
            dataDirectory = flags.value("data-dir") ?? defaultDirectory
            ownsProgram = flags.value("program") == nil && flags.has("user") && flags.has("release-key")
            program = flags.value("program") ?? (ownsProgram ? dataDirectory + "/bin/cm-agent" : defaultProgram)
            for (name, path) in [("program", program), ("data-dir", dataDirectory)] where !path.hasPrefix("/") {
                throw FlagError("--\(name) \(path): an absolute path is needed")
            }
            user = flags.value("user")
            arguments = ["run", "--server", server, "--data-dir", dataDirectory]
            for pin in flags.values("pin") { arguments += ["--pin", pin] }
            for fact in flags.values("fact") { arguments += ["--fact", fact] }
            if flags.has("release-key") { arguments += ["--release-key", releaseKeyPath] }
            if flags.has("via-proxy") { arguments.append("--via-proxy") }
            for text in arguments + [program, user ?? ""]
            where text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) {
                throw FlagError("'\(text)' holds a control character, which a unit file cannot carry")
            }
        }

        /// systemd.service(5), "Command lines": inside double quotes backslash and quote are escaped, `%` and `$` doubled.
        static func quoted(_ text: String) -> String {
            var result = "\""
            for scalar in text.unicodeScalars {
                switch scalar {
                case "\"", "\\": result += "\\" + String(scalar)
                case "%": result += "%%"
                case "$": result += "$$"
                default: result.unicodeScalars.append(scalar)
                }
            }
            return result + "\""
        }

        var text: String {
            let command = ([program] + arguments).map(Self.quoted).joined(separator: " ")
            return """
                [Unit]
                Description=Client Manager agent
                Wants=network-online.target
                After=network-online.target

                [Service]
                ExecStart=\(command)
                Restart=always
                RestartSec=5
                # Commands and their holders outlive a restart or an upgrade of the agent.
                KillMode=process
                # Control groups of its own: limits, and the end of whole process trees.
                Delegate=yes
                UMask=0077
                LimitNOFILE=65536
                # Private files: in memory, and there when the agent comes back.
                RuntimeDirectory=client-manager-agent
                RuntimeDirectoryMode=0711
                RuntimeDirectoryPreserve=yes
                \(confinement)
                [Install]
                WantedBy=multi-user.target

                """
        }

        /// What the agent may not do, its commands may not either. As root only what no administration needs is taken.
        private var confinement: String {
            guard let user else {
                return "KeyringMode=private\n"
            }
            return """
                User=\(Self.escapedValue(user))
                NoNewPrivileges=yes
                ProtectSystem=strict
                ReadWritePaths=\(Self.quoted(dataDirectory))
                ProtectHome=read-only
                PrivateTmp=yes
                PrivateDevices=yes
                ProtectKernelTunables=yes
                ProtectKernelModules=yes
                ProtectKernelLogs=yes
                ProtectClock=yes
                ProtectHostname=yes
                RestrictSUIDSGID=yes
                RestrictRealtime=yes
                RestrictNamespaces=yes
                LockPersonality=yes
                KeyringMode=private
                CapabilityBoundingSet=
                SystemCallArchitectures=native

                """
        }

        private static func escapedValue(_ text: String) -> String { text.split(separator: "%", omittingEmptySubsequences: false).joined(separator: "%%") }
    }
}

extension String {
    fileprivate func replacing(_ character: Character, with text: String) -> String {
        reduce(into: "") { result, next in result += next == character ? text : String(next) }
    }
}
