import JSON
import PluginKit

/// Reads requests, strictly: a member that is not known is a mistake, and what is wrong is named.
enum Reading {
    static let hostsPerRequest = 256
    private static let members: Set<String> = [
        "action", "hosts", "port", "user", "host_key", "credentials", "jump", "server", "labels", "facts", "run_as", "release_key", "wait_s",
    ]
    private static let hostMembers: Set<String> = ["host", "port", "user", "host_key", "credentials", "labels", "facts"]
    private static let jumpMembers: Set<String> = ["host", "port", "user", "host_key", "credentials"]
    private static let credentialMembers: Set<String> = ["password", "private_key", "passphrase", "agent", "sudo_password"]

    static func invalid(_ text: String) -> PluginError { PluginError(.invalid, text, code: "invalid", httpStatus: 422) }

    static func object(_ body: RawSpan) throws(PluginError) -> JSONObject {
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: [UInt8](body), limits: JSONLimits(depth: 8, bytes: 1 << 20))
        } catch { throw invalid("the body is not JSON: \(error)") }
        guard let object = json.object else { throw invalid("the body must be a JSON object") }
        return object
    }

    /// What is to be done, host by host.
    static func plans(
        _ body: JSONObject, _ settings: Settings, serverURL: String?
    ) throws(PluginError) -> [(plan: Plan, secrets: Secrets)] {
        try known(body, members, "the body")
        let named = body["action"]?.string ?? (body["action"] == nil ? Action.install.rawValue : "")
        guard let action = Action(rawValue: named) else {
            throw invalid("\"action\" is one of \(Action.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        guard let hosts = body["hosts"]?.array, (1...hostsPerRequest).contains(hosts.count) else {
            throw invalid("\"hosts\" is a list of 1 to \(hostsPerRequest) hosts")
        }
        let server = try server(body, action, serverURL)
        var common = Secrets()
        common.host = try credentials(body["credentials"], "credentials")
        let jump = try jump(body["jump"], &common)
        let wait = try number(body["wait_s"], "wait_s", 5...600) ?? settings.waitSeconds
        let runAs = try word(body["run_as"], "run_as", Self.isUser)
        let releaseKey = try releaseKey(body["release_key"], action, runAs) ?? (action == .install && runAs == nil ? settings.releaseKey : nil)
        var plans: [(plan: Plan, secrets: Secrets)] = []
        var names: Set<String> = []
        for (index, item) in hosts.enumerated() {
            let (destination, own, object) = try destination(item, body, "hosts[\(index)]")
            guard names.insert(destination.name).inserted else { throw invalid("\(destination.name) is in \"hosts\" twice") }
            var secrets = common
            if let own { secrets.host = own }
            guard !secrets.host.isEmpty else { throw invalid("hosts[\(index)]: \"credentials\" need a password, a private_key or agent: true") }
            var plan = Plan(action: action, destination: destination, jump: jump, server: server, waitSeconds: wait)
            plan.labels = try texts(object["labels"] ?? body["labels"], "labels")
            plan.facts = try texts(object["facts"] ?? body["facts"], "facts")
            // They become words of a command line, which has bounds of its own.
            guard plan.facts.reduce(0, { $0 + $1.0.utf8.count + $1.1.utf8.count }) <= 8_192 else {
                throw invalid("hosts[\(index)]: \"facts\" have more than 8,192 bytes together")
            }
            plan.runAs = runAs
            plan.releaseKey = releaseKey
            plans.append((plan, secrets))
        }
        return plans
    }

    /// The body of POST …/credentials.
    static func secrets(_ body: JSONObject, for plan: Plan) throws(PluginError) -> Secrets {
        try known(body, ["credentials", "jump"], "the body")
        var secrets = Secrets()
        secrets.host = try credentials(body["credentials"], "credentials")
        guard !secrets.host.isEmpty else { throw invalid("\"credentials\" need a password, a private_key or agent: true") }
        if let jump = body["jump"] {
            guard let object = jump.object else { throw invalid("\"jump\" is an object with \"credentials\"") }
            try known(object, ["credentials"], "jump")
            secrets.jump = try credentials(object["credentials"], "jump.credentials")
        }
        guard plan.jump == nil || !secrets.jump.isEmpty else { throw invalid("the installation goes through a jump host: \"jump\" needs \"credentials\"") }
        return secrets
    }

    // MARK: Parts

    /// The public key whose releases the agent takes. The agent looks at it more closely; here it is seen that it is one, and public.
    private static func releaseKey(_ value: JSONValue?, _ action: Action, _ runAs: String?) throws(PluginError) -> String? {
        guard let text = try text(value, "release_key", 4_096) else { return nil }
        let key = try releaseKey(text)
        guard action == .install || action == .repair else { throw invalid("\"release_key\" is for install and repair: it is fixed with the agent's unit") }
        guard runAs == nil else {
            throw invalid("\"release_key\" and \"run_as\" exclude each other: an agent that runs as another user cannot replace root's program; upgrade it over SSH")
        }
        return key
    }

    static func releaseKey(_ text: String) throws(PluginError) -> String {
        let lines = text.split(whereSeparator: \.isNewline)
        guard lines.count >= 3, lines.first == "-----BEGIN PUBLIC KEY-----", lines.last == "-----END PUBLIC KEY-----",
            Base64.decode(lines.dropFirst().dropLast().joined()) != nil
        else { throw invalid("\"release_key\" is the PEM of a public key, as cmctl upgrades key writes it to NAME.pub") }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func server(_ body: JSONObject, _ action: Action, _ normal: String?) throws(PluginError) -> String {
        let given = try text(body["server"], "server", 1_024)
        guard let server = given ?? normal else {
            // Nobody needs to know where the core is to remove an agent, or to give it another program.
            if action == .uninstall || action == .upgrade { return "" }
            throw invalid("nothing says where agents find this core: give \"server\", or set agents.url in the core's configuration")
        }
        guard server.hasPrefix("https://") || server.hasPrefix("wss://") || server.hasPrefix("http://") || server.hasPrefix("ws://"),
            isPlain(server)
        else { throw invalid("\"server\" is an address as for cm-agent run --server: https://HOST:PORT") }
        return server
    }

    private static func jump(_ value: JSONValue?, _ secrets: inout Secrets) throws(PluginError) -> Destination? {
        guard let value else { return nil }
        guard let object = value.object else { throw invalid("\"jump\" is an object") }
        try known(object, jumpMembers, "jump")
        secrets.jump = try credentials(object["credentials"], "jump.credentials")
        guard !secrets.jump.isEmpty else { throw invalid("jump: \"credentials\" need a password, a private_key or agent: true") }
        return try place(object, object, "jump")
    }

    /// A host is a text "HOST" or "HOST:PORT", or an object with what is different for it.
    private static func destination(
        _ value: JSONValue, _ body: JSONObject, _ name: String
    ) throws(PluginError) -> (Destination, Credentials?, JSONObject) {
        if let text = value.string {
            var object: JSONObject = [:]
            var host = text[...]
            if let at = host.lastIndex(of: "@") {
                object["user"] = .string(String(host[..<at]))
                host = host[host.index(after: at)...]
            }
            // "name:22" and "[fe80::1]:22"; a bare IPv6 address has more than one colon and no port.
            if let colon = host.lastIndex(of: ":"), host.first == "[" || host.firstIndex(of: ":") == colon, host.last != "]" {
                guard let port = Int64(host[host.index(after: colon)...]) else { throw invalid("\(name): \"\(text.prefixed(80))\" has no port number after the colon") }
                object["port"] = .integer(port)
                host = host[..<colon]
            }
            if host.first == "[", host.last == "]" { host = host.dropFirst().dropLast() }
            object["host"] = .string(String(host))
            return (try place(object, body, name), nil, object)
        }
        guard let object = value.object else { throw invalid("\(name) is a host's name or an object") }
        try known(object, hostMembers, name)
        let own = try object["credentials"].map { (value) throws(PluginError) in try credentials(value, "\(name).credentials") }
        return (try place(object, body, name), own, object)
    }

    private static func place(_ object: JSONObject, _ body: JSONObject, _ name: String) throws(PluginError) -> Destination {
        guard let host = object["host"]?.string, isHost(host) else { throw invalid("\(name): \"host\" is a name or an address") }
        let port = try number(object["port"] ?? body["port"], "port", 1...65_535) ?? 22
        let user = try word(object["user"] ?? body["user"], "user", isUser) ?? "root"
        return Destination(host: host, port: port, user: user, hostKey: try hostKey(object["host_key"] ?? body["host_key"], name))
    }

    /// Exactly one way, and nothing silently.
    private static func hostKey(_ value: JSONValue?, _ name: String) throws(PluginError) -> JSONObject {
        let ways = "\"host_key\" is exactly one of {\"known_hosts\": lines}, {\"fingerprint\": \"SHA256:…\"} and {\"trust_first_use\": true}"
        guard let object = value?.object, object.count == 1, let member = object.first else { throw invalid("\(name): \(ways)") }
        switch member.key {
        case "known_hosts":
            guard let lines = member.value.string, lines.utf8.count <= 65_536 else { throw invalid("\(name): \"known_hosts\" is a text of at most 65,536 bytes") }
        case "fingerprint":
            guard let text = member.value.string, isFingerprint(text) else {
                throw invalid("\(name): \"fingerprint\" is SHA256: and 43 characters, as ssh-keygen -l prints it; several with commas between")
            }
        case "trust_first_use":
            guard member.value.bool == true else { throw invalid("\(name): \(ways)") }
        default: throw invalid("\(name): \(ways)")
        }
        return object
    }

    private static func credentials(_ value: JSONValue?, _ name: String) throws(PluginError) -> Credentials {
        var credentials = Credentials()
        guard let value else { return credentials }
        guard let object = value.object else { throw invalid("\"\(name)\" is an object") }
        try known(object, credentialMembers, name)
        func secret(_ member: String, _ limit: Int) throws(PluginError) -> [UInt8] {
            guard let value = object[member] else { return [] }
            guard let text = value.string, text.utf8.count <= limit, !text.utf8.contains(0) else {
                throw invalid("\"\(name).\(member)\" is a text of at most \(limit) bytes")
            }
            return Array(text.utf8)
        }
        credentials.password = try secret("password", 1_024)
        credentials.passphrase = try secret("passphrase", 1_024)
        credentials.sudoPassword = try secret("sudo_password", 1_024)
        credentials.privateKey = try secret("private_key", 65_536)
        if !credentials.privateKey.isEmpty {
            if credentials.privateKey.last != 0x0A { credentials.privateKey.append(0x0A) }
            do throws(Failure) { try PrivateKey.check(credentials.privateKey) } catch {
                throw PluginError(.invalid, "\(name): \(error.text)", code: error.code, httpStatus: 422)
            }
        }
        if let agent = object["agent"] {
            guard let flag = agent.bool else { throw invalid("\"\(name).agent\" is true or false") }
            credentials.usesAgent = flag
        }
        return credentials
    }

    // MARK: Forms

    private static func known(_ object: JSONObject, _ names: Set<String>, _ what: String) throws(PluginError) {
        for member in object where !names.contains(member.key) {
            throw invalid("\(what) has the unknown member \"\(member.key.prefixed(64))\"; known are \(names.sorted().joined(separator: ", "))")
        }
    }

    private static func text(_ value: JSONValue?, _ name: String, _ limit: Int) throws(PluginError) -> String? {
        guard let value else { return nil }
        guard let text = value.string, !text.isEmpty, text.utf8.count <= limit else {
            throw invalid("\"\(name)\" is a text of 1 to \(limit) bytes")
        }
        return text
    }

    private static func word(_ value: JSONValue?, _ name: String, _ fits: (String) -> Bool) throws(PluginError) -> String? {
        guard let text = try text(value, name, 128) else { return nil }
        guard fits(text) else { throw invalid("\"\(name)\" is not \"\(text.prefixed(64))\"") }
        return text
    }

    private static func number(_ value: JSONValue?, _ name: String, _ range: ClosedRange<Int64>) throws(PluginError) -> Int? {
        guard let value else { return nil }
        guard let number = value.integer, range.contains(number) else {
            throw invalid("\"\(name)\" is a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return Int(number)
    }

    private static func texts(_ value: JSONValue?, _ name: String) throws(PluginError) -> [(String, String)] {
        guard let value else { return [] }
        guard let object = value.object, object.count <= 64 else { throw invalid("\"\(name)\" is an object of at most 64 texts") }
        var pairs: [(String, String)] = []
        for member in object {
            guard let text = member.value.string, text.utf8.count <= 256, isPlain(text), isPlain(member.key), !member.key.contains("=") else {
                throw invalid("\"\(name)\" is an object of at most 64 texts, each of at most 256 bytes without control characters")
            }
            pairs.append((member.key, text))
        }
        return pairs
    }

    private static func isPlain(_ text: String) -> Bool { text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F } }

    /// useradd(8): and nothing that a command line takes for an option.
    private static func isUser(_ text: String) -> Bool {
        !text.isEmpty && text.first != "-"
            && text.utf8.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || [0x2D, 0x2E, 0x5F, 0x24, 0x40, 0x5C].contains(byte)
            }
    }

    private static func isHost(_ text: String) -> Bool {
        (1...255).contains(text.utf8.count) && text.first != "-"
            && text.utf8.allSatisfy { byte in
                (0x30...0x3A).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || [0x2D, 0x2E, 0x5F, 0x25].contains(byte)
            }
    }

    private static func isFingerprint(_ text: String) -> Bool {
        let parts = text.split(whereSeparator: { $0 == "," || $0 == " " })
        return (1...16).contains(parts.count)
            && parts.allSatisfy { part in
                let bare = part.hasPrefix("SHA256:") ? part.dropFirst(7) : part[...]
                return bare.prefix { $0 != "=" }.utf8.count == 43 && Base64.decode(String(bare)) != nil
            }
    }
}
