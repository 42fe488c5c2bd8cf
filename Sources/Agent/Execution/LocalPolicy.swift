import AgentProtocol
import Glibc
import JSON
import Program
import System
import Transport

/// What the owner of this machine allows, in `A/policy.json`. The core cannot widen it; no file adds no refusal, and a
/// file that cannot be understood refuses everything.
///
/// ```json
/// { "allow": [["/usr/bin/systemctl", "status", "*"], ["uptime"]], "deny": [["rm", "**"]],
///   "shell": false, "scripts": false, "terminals": false, "users": ["nobody"], "maximum_running": 4,
///   "files": true, "file_writes": false, "file_roots": ["/srv", "/var/log"],
///   "direct_transfers": { "hosts": ["s3.example.com", "*.store.example:9000"], "ca_file": "/etc/ssl/store.pem" },
///   "private_files": { "directory": "/run/secrets-of-apps", "owners": ["app"], "hooks": [["reload", "app.service"]] },
///   "upgrades": true, "downgrades": false }
/// ```
/// A rule is a list of patterns, one per argument; `*` stands for any text inside one argument, `**` as the last
/// element for any further arguments. A deny rule whose first pattern has no slash also matches the last part of a
/// path; an allow rule matches the program's text as it stands. Deny wins. With `allow`, shell and scripts are refused
/// unless they are set to true. `terminals` set to false refuses all programs that somebody works with; a login shell is
/// a shell. `users` names who commands may run as; `maximum_running` can only lower the bound. `files` set to false refuses
/// all work on files, `file_writes` every change of them; `file_roots` are the only directories in which it is done.
/// `direct_transfers` names the servers with which files may be exchanged past the core: a host, or `*.` and the end of one,
/// with a port unless it is the usual one. Without it there is none. `plain_loopback` allows http:// on this machine.
/// `private_files` set to false refuses them; `owners` are the users whom they may be for; a hook is refused unless it matches
/// a rule of `hooks`.
/// `upgrades` set to false refuses every upgrade of the agent; one to an older version is refused unless `downgrades` is true.
struct LocalPolicy: Sendable, Equatable {
    static let maximumBytes = 256 << 10

    var allow: [[String]]?
    var deny: [[String]] = []
    var shell: Bool?
    var scripts: Bool?
    var terminals: Bool?
    var users: [String]?
    var maximumRunning: Int?
    var files: Bool?
    var fileWrites: Bool?
    var fileRoots: [String]?
    var directTransfers = DirectTransfers()
    var privateFiles = PrivateFiles()
    var upgrades: Bool?
    var downgrades: Bool?
    /// Why the file cannot be understood.
    var fault: String?

    struct DirectTransfers: Sendable, Equatable {
        var hosts: [String] = []
        /// PEM of whom to believe; `nil`: the system's authorities.
        var caFile: String?
        var allowsPlainLoopback = false
    }

    struct PrivateFiles: Sendable, Equatable {
        var isAllowed = true
        /// Where they go, instead of the usual places.
        var directory: String?
        /// `nil`: whoever the order names.
        var owners: [String]?
        var hooks: [[String]] = []
    }

    /// No file: everything is allowed.
    static let open = LocalPolicy()

    static func load(_ path: String) -> LocalPolicy {
        do throws(SystemError) {
            guard let bytes = try Files.readIfPresent(path, limit: maximumBytes) else { return .open }
            return LocalPolicy(parsing: bytes)
        } catch { return LocalPolicy(fault: "\(error)") }
    }

    init(parsing bytes: [UInt8]) {
        do throws(JSONError) {
            let value = try JSONValue(
                parsing: bytes, limits: JSONLimits(depth: 8, bytes: Self.maximumBytes), syntax: .lenient)
            try read(value)
        } catch { self = LocalPolicy(fault: "\(error)") }
    }

    private init() {}

    private init(fault: String) { self.fault = fault }

    private mutating func read(_ value: JSONValue) throws(JSONError) {
        guard let object = value.object else { return fault = "the policy is \(value.kindName), not an object" }
        for member in object {
            switch member.key {
            case "allow": allow = rules(member)
            case "deny": deny = rules(member) ?? []
            case "shell": shell = bool(member)
            case "scripts": scripts = bool(member)
            case "terminals": terminals = bool(member)
            case "users": users = texts(member.value, member.key)
            case "upgrades": upgrades = bool(member)
            case "downgrades": downgrades = bool(member)
            case "maximum_running":
                maximumRunning = member.value.integer.map { Int(clamping: $0) }
                if (maximumRunning ?? 0) < 1 { fault = "maximum_running has to be a whole number from 1 on" }
            case "files": files = bool(member)
            case "file_writes": fileWrites = bool(member)
            case "file_roots":
                fileRoots = texts(member.value, member.key)
                if fileRoots?.contains(where: { !FilePath.isPlain($0) }) ?? false {
                    fault = "file_roots has to be a list of absolute paths without '.' and '..'"
                }
            case "direct_transfers": readDirectTransfers(member.value)
            case "private_files": readPrivateFiles(member.value)
            default:
                fault = """
                    unknown key '\(member.key)'; known: allow, deny, shell, scripts, terminals, users, maximum_running, files, \
                    file_writes, file_roots, direct_transfers, private_files, upgrades, downgrades
                    """
            }
        }
    }

    private mutating func readDirectTransfers(_ value: JSONValue) {
        guard let object = value.object else { return fault = "direct_transfers has to be an object" }
        for member in object {
            switch member.key {
            case "hosts": directTransfers.hosts = texts(member.value, "direct_transfers.hosts") ?? []
            case "ca_file":
                directTransfers.caFile = member.value.string
                if member.value.string?.hasPrefix("/") != true { fault = "direct_transfers.ca_file has to be an absolute path" }
            case "plain_loopback": directTransfers.allowsPlainLoopback = bool(member) ?? false
            default: fault = "unknown key 'direct_transfers.\(member.key)'; known: hosts, ca_file, plain_loopback"
            }
        }
    }

    private mutating func readPrivateFiles(_ value: JSONValue) {
        if let isAllowed = value.bool { return privateFiles.isAllowed = isAllowed }
        guard let object = value.object else { return fault = "private_files has to be an object, true or false" }
        for member in object {
            switch member.key {
            case "directory":
                privateFiles.directory = member.value.string
                if member.value.string?.hasPrefix("/") != true { fault = "private_files.directory has to be an absolute path" }
            case "owners": privateFiles.owners = texts(member.value, "private_files.owners")
            case "hooks": privateFiles.hooks = rules(member) ?? []
            default: fault = "unknown key 'private_files.\(member.key)'; known: directory, owners, hooks"
            }
        }
    }

    private mutating func bool(_ member: JSONObject.Member) -> Bool? {
        if member.value.bool == nil { fault = "\(member.key) is \(member.value.kindName), not true or false" }
        return member.value.bool
    }

    private mutating func texts(_ value: JSONValue, _ key: String) -> [String]? {
        let texts = value.array?.compactMap(\.string)
        if texts == nil || texts?.count != value.array?.count { fault = "\(key) has to be a list of texts" }
        return texts
    }

    private mutating func rules(_ member: JSONObject.Member) -> [[String]]? {
        guard let lists = member.value.array else {
            fault = "\(member.key) has to be a list of rules, each a list of patterns"
            return nil
        }
        var rules: [[String]] = []
        for list in lists {
            guard let patterns = texts(list, member.key), !patterns.isEmpty else {
                fault = "a rule of \(member.key) is not a list of one or more patterns"
                return nil
            }
            rules.append(patterns)
        }
        return rules
    }

    /// `nil`: this policy has nothing against the order.
    func refusal(of order: Order) -> String? {
        if let fault { return "the policy file of this client cannot be used, so everything is refused: \(fault)" }
        if let users {
            let user = order.user ?? (try? UserAccount.current().name) ?? "\(geteuid())"
            guard users.contains(user) else { return "running as \(user) is not allowed on this client" }
        }
        switch order.invocation {
        case .shell:
            return shell ?? (allow == nil) ? nil : "shell commands are not allowed on this client"
        case .script(let interpreter, _, _):
            guard scripts ?? (allow == nil) else { return "scripts are not allowed on this client" }
            return deniedBy(interpreter)
        case .argv(let arguments):
            if let refusal = deniedBy(arguments) { return refusal }
            guard let allow else { return nil }
            if allow.contains(where: { Self.matches($0, arguments, loosely: false) }) { return nil }
            return "'\(arguments.first ?? "")' with these arguments matches no allow rule of this client"
        }
    }

    /// `nil`: this policy has nothing against the terminal.
    func refusal(of terminal: TerminalOrder) -> String? {
        var order = terminal.order
        if fault == nil, terminals == false { return "terminals are not allowed on this client" }
        // A login shell.
        if case .argv(let arguments) = order.invocation, arguments.isEmpty { order.invocation = .shell("") }
        return refusal(of: order)
    }

    /// `nil`: this policy has nothing against work on files as such; where is up to `fileRoots`.
    func refusalOfFiles(writes: Bool) -> String? {
        if let fault { return "the policy file of this client cannot be used, so everything is refused: \(fault)" }
        if files == false { return "work on files is not allowed on this client" }
        if writes, fileWrites == false { return "changing files is not allowed on this client" }
        return nil
    }

    /// `nil`: files may be exchanged with that server. `path` is where this policy is, to be told.
    func refusal(ofTransferWith server: ServerURL, _ path: String) -> String? {
        if let fault { return "the policy file of this client cannot be used, so everything is refused: \(fault)" }
        guard server.isSecure || directTransfers.allowsPlainLoopback && DirectAddress.isLoopback(server.host) else {
            return """
                plain http:// is not allowed on this client; on loopback "plain_loopback": true in "direct_transfers" of \(path) \
                would allow it
                """
        }
        let authority = server.authority.lowercased()
        let isKnown = directTransfers.hosts.contains { host in
            let host = host.lowercased()
            return host.hasPrefix("*.") ? authority.hasSuffix(host.dropFirst()) : authority == host
        }
        guard !isKnown else { return nil }
        return """
            no direct transfer with \(authority) is allowed on this client; "\(authority)" among "hosts" of "direct_transfers" \
            in \(path) would allow it
            """
    }

    /// `nil`: this policy has nothing against the private file.
    func refusal(of file: PrivateFileOrder) -> String? {
        if let fault { return "the policy file of this client cannot be used, so everything is refused: \(fault)" }
        guard privateFiles.isAllowed else { return "private files are not allowed on this client" }
        if let owners = privateFiles.owners {
            let owner = file.owner ?? (try? UserAccount.current().name) ?? "\(geteuid())"
            guard owners.contains(owner) else { return "private files for \(owner) are not allowed on this client" }
        }
        guard file.hook.isEmpty || allows(hook: file.hook) else {
            return "the hook [\(file.hook.joined(separator: ", "))] matches no rule of private_files.hooks of this client"
        }
        return nil
    }

    /// `nil`: this policy has nothing against the upgrade.
    func refusal(ofUpgradeFrom present: ReleaseVersion?, to version: ReleaseVersion) -> String? {
        if let fault { return "the policy file of this client cannot be used, so everything is refused: \(fault)" }
        if upgrades == false { return "upgrades of the agent are not allowed on this client" }
        if let present, version < present, downgrades != true {
            return "\(version) is older than \(present), and this client's policy does not have \"downgrades\": true"
        }
        return nil
    }

    /// Only what a rule names: a hook is never allowed by silence.
    func allows(hook: [String]) -> Bool {
        fault == nil && privateFiles.isAllowed && privateFiles.hooks.contains { Self.matches($0, hook, loosely: false) }
    }

    private func deniedBy(_ arguments: [String]) -> String? {
        guard let rule = deny.first(where: { Self.matches($0, arguments, loosely: true) }) else { return nil }
        return "denied by this client's rule [\(rule.joined(separator: ", "))]"
    }

    private static func matches(_ rule: [String], _ arguments: [String], loosely: Bool) -> Bool {
        var patterns = rule[...]
        let open = patterns.last == "**"
        if open { patterns = patterns.dropLast() }
        guard open ? arguments.count >= patterns.count : arguments.count == patterns.count else { return false }
        for (index, pattern) in patterns.enumerated() {
            var text = arguments[index][...]
            if loosely, index == 0, !pattern.utf8.contains(UInt8(ascii: "/")),
                let slash = text.lastIndex(of: "/")
            { text = text[text.index(after: slash)...] }
            guard glob(Array(pattern.utf8), Array(text.utf8)) else { return false }
        }
        return true
    }

    /// `*` stands for any bytes; linear with one step back.
    private static func glob(_ pattern: [UInt8], _ text: [UInt8]) -> Bool {
        var (p, t) = (0, 0)
        var star: (pattern: Int, text: Int)?
        while t < text.count {
            if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
                star = (p, t)
                p += 1
            } else if p < pattern.count, pattern[p] == text[t] {
                p += 1
                t += 1
            } else if let back = star {
                star = (back.pattern, back.text + 1)
                p = back.pattern + 1
                t = back.text + 1
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
