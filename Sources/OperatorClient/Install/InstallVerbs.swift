import JSON

/// Agents on hosts over SSH: `cmctl install` and what is around it. Served by the plugin ssh-installer.
extension Verb {
    static let install: [Verb] = [
        .list(
            "install list", "/api/v1/installations", "Installations, newest first.",
            ["id", "action", "host", "state", "client", "agent_version:AGENT", "owner:BY", "code", "created_ms:CREATED"]),
        .show("install show ID", "/api/v1/installations/{ID}", "One installation."),
        .change("POST", "install cancel ID", "/api/v1/installations/{ID}/cancel", "Ends an installation and takes back what it changed."),
        .delete("install remove ID", "/api/v1/installations/{ID}", "Removes the record of an installation that is over."),
        Verb(
            "install continue ID", "Goes on with an installation that needs its credentials again, or that failed.",
            flags: credentialFlags + [detach], calls: ["POST /api/v1/installations/{ID}/credentials"],
            .program { (invocation) async throws(OperatorError) in try await invocation.continueInstallation() }),
        .list(
            "install host-keys", "/api/v1/installations/host-keys", "Host keys that were trusted at first use.", ["host", "key"]),
        .delete(
            "install forget-key HOST", "/api/v1/installations/host-keys/{HOST}",
            "Forgets the key of HOST:PORT that was trusted at first use."),
        Verb(
            "install [HOST]…", "Installs, upgrades, repairs or removes the agent on hosts over SSH, and shows how it goes.",
            flags: installFlags + credentialFlags + [detach], calls: ["POST /api/v1/installations"],
            .program { (invocation) async throws(OperatorError) in try await invocation.install() }),
    ]

    private static let detach = VerbFlag.own("detach", nil, "Print the installations' ids and do not wait.", .toggle)

    private static let installFlags: [VerbFlag] = [
        .own("hosts", "FILE", "More hosts, one [USER@]HOST[:PORT] a line; - for standard input."),
        .body("action", "ACTION", "install (without it), upgrade, repair or uninstall."),
        .body("user", "NAME", "Log in as this user; root without it. Others become root by sudo."),
        .body("port", "N", "The SSH port; 22 without it.", .integer),
        .own("known-hosts", "FILE", "Believe these lines; ~/.ssh/known_hosts without any of the three."),
        .own("fingerprint", "SHA256:…", "Believe the host key with this fingerprint."),
        .own("trust-first-use", nil, "Believe the host key that is shown now, and only that from then on.", .toggle),
        .own("jump", "[USER@]HOST[:PORT]", "Go through this host."),
        .own("jump-fingerprint", "SHA256:…", "Believe the jump host's key with this fingerprint."),
        .body("agents-url", "URL", "Where the agents find the core; what its agents.url says without it.", as: "server"),
        .body("label", "NAME=VALUE", "Assert a label on new clients.", .map, as: "labels"),
        .body("fact", "NAME=VALUE", "A fact that the agents report.", .map, as: "facts"),
        .body("run-as", "NAME", "The agents run as this user, confined; as root without it.", as: "run_as"),
        .body("release-key", "FILE", "The public key whose releases the agents take, as `cmctl upgrades key` writes it to NAME.pub.", .file, as: "release_key"),
        .body("wait", "TIME", "How long an agent may take until it is online.", .seconds, as: "wait_s"),
    ]

    private static let credentialFlags: [VerbFlag] = [
        .own("ask-password", nil, "Ask for the password.", .toggle),
        .own("password-file", "FILE", "Read the password from a file, or - for standard input."),
        .own("key", "FILE", "Log in with this private key (Ed25519, ECDSA)."),
        .own("ask-passphrase", nil, "Ask for the key's passphrase.", .toggle),
        .own("passphrase-file", "FILE", "Read the key's passphrase from a file."),
        .own("agent", nil, "Ask the SSH agent of the core's configuration.", .toggle),
        .own("ask-sudo-password", nil, "Ask for sudo's password; the log-in password without it.", .toggle),
        .own("sudo-password-file", "FILE", "Read sudo's password from a file."),
        .own("jump-password-file", "FILE", "The jump host's password; what the hosts get without any of these two."),
        .own("jump-key", "FILE", "The jump host's private key."),
    ]
}

extension Invocation {
    func install() async throws(OperatorError) -> Outcome {
        let hosts = try hosts()
        guard !hosts.isEmpty else { throw .usage("no host is given", advice: "Name hosts, or give --hosts FILE.") }
        var request = try request(method: "POST", path: "/api/v1/installations")
        var body = (try? JSONValue(parsing: request.body ?? []).object) ?? [:]
        body["host"] = nil
        body["hosts"] = .array(hosts.map { .string($0) })
        let hostKey = try hostKey()
        body["host_key"] = hostKey
        let credentials = try credentials()
        body["credentials"] = credentials
        if let jump = flags.value("jump") { body["jump"] = try self.jump(jump, hostKey, credentials) }
        request.body = JSONValue.object(body).serialized()
        let answer = try await core.call(request)
        for refused in answer["refused"]?.array ?? [] {
            console.complain("\(Table.cell(refused["host"] ?? .null)): \(Table.cell(refused["reason"] ?? .null))")
        }
        let outcome = try await follow(installations: answer["items"]?.array ?? [])
        return (answer["refused"]?.array ?? []).isEmpty ? outcome : .remoteFailure
    }

    func continueInstallation() async throws(OperatorError) -> Outcome {
        let id = operand("ID") ?? ""
        let credentials = try credentials()
        var body: JSONObject = ["credentials": credentials]
        let path = "/api/v1/installations/" + APIRequest.encoded(id)
        if try await core.get(path)["jump"] != nil { body["jump"] = ["credentials": try jumpCredentials(credentials)] }
        return try await follow(installations: [try await core.post(path + "/credentials", .object(body))])
    }

    private func follow(installations: [JSONValue]) async throws(OperatorError) -> Outcome {
        if flags.has("detach") {
            if session.isJSON {
                session.showRecord(["installations": .array(installations)])
            } else {
                for item in installations { console.print("\(Table.cell(item["id"] ?? .null))  \(Table.cell(item["host"] ?? .null))") }
            }
            return .success
        }
        var run = InstallRun(session, core: try core, installations)
        return try await run.follow()
    }

    // MARK: Reading flags

    private func hosts() throws(OperatorError) -> [String] {
        var hosts: [String] = operands["HOST"] ?? []
        guard let file = flags.value("hosts") else { return hosts }
        for line in String(decoding: try session.content(file), as: UTF8.self).split(whereSeparator: \.isNewline) {
            let words = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace).map(String.init)
            if let word = words.first { hosts.append(word) }
        }
        return hosts
    }

    private func hostKey() throws(OperatorError) -> JSONValue {
        let ways: [String] = ["known-hosts", "fingerprint", "trust-first-use"]
        let given = ways.filter { flags.has($0) }
        guard given.count <= 1 else { throw .usage("--\(given[0]) and --\(given[1]) exclude each other") }
        if let fingerprint = flags.value("fingerprint") { return ["fingerprint": .string(fingerprint)] }
        if flags.has("trust-first-use") { return ["trust_first_use": true] }
        if let path = flags.value("known-hosts") { return ["known_hosts": .string(String(decoding: try session.content(path), as: UTF8.self))] }
        let path = (session.environment["HOME"] ?? "") + "/.ssh/known_hosts"
        guard let lines = session.files.read(path) else {
            throw .usage(
                "nothing says which host keys to believe: there is no \(path)",
                advice: "Give --known-hosts FILE, --fingerprint SHA256:… or --trust-first-use.")
        }
        return ["known_hosts": .string(String(decoding: lines, as: UTF8.self))]
    }

    private func credentials() throws(OperatorError) -> JSONValue {
        var object: JSONObject = [:]
        object["password"] = try secret("password", "Password")
        object["passphrase"] = try secret("passphrase", "Passphrase of the key")
        object["sudo_password"] = try secret("sudo-password", "Password for sudo")
        if let path = flags.value("key") { object["private_key"] = .string(String(decoding: try session.content(path), as: UTF8.self)) }
        if flags.has("agent") { object["agent"] = true }
        guard object["password"] != nil || object["private_key"] != nil || object["agent"] != nil else {
            throw .usage("nothing to log in with", advice: "Give --key FILE, --agent, --ask-password or --password-file FILE.")
        }
        return .object(object)
    }

    private func secret(_ name: String, _ prompt: String) throws(OperatorError) -> JSONValue? {
        if let path = flags.value(name + "-file") { return .string(try line(path)) }
        guard flags.has("ask-" + name) else { return nil }
        return .string(try password(prompt, confirm: false))
    }

    private func line(_ path: String) throws(OperatorError) -> String {
        var bytes = try session.content(path)
        while bytes.last == 0x0A || bytes.last == 0x0D { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func jumpCredentials(_ common: JSONValue) throws(OperatorError) -> JSONValue {
        var object: JSONObject = [:]
        if let path = flags.value("jump-password-file") { object["password"] = .string(try line(path)) }
        if let path = flags.value("jump-key") { object["private_key"] = .string(String(decoding: try session.content(path), as: UTF8.self)) }
        return object.isEmpty ? common : .object(object)
    }

    private func jump(_ text: String, _ hostKey: JSONValue, _ credentials: JSONValue) throws(OperatorError) -> JSONValue {
        var object: JSONObject = ["credentials": try jumpCredentials(credentials)]
        object["host_key"] = flags.value("jump-fingerprint").map { ["fingerprint": .string($0)] } ?? hostKey
        var host = text[...]
        if let at = host.lastIndex(of: "@") {
            object["user"] = .string(String(host[..<at]))
            host = host[host.index(after: at)...]
        }
        if let colon = host.lastIndex(of: ":"), host.first == "[" || host.firstIndex(of: ":") == colon, host.last != "]" {
            guard let port = Int64(host[host.index(after: colon)...]) else { throw .usage("--jump \(text): no port number after the colon") }
            object["port"] = .integer(port)
            host = host[..<colon]
        }
        if host.first == "[", host.last == "]" { host = host.dropFirst().dropLast() }
        object["host"] = .string(String(host))
        return .object(object)
    }
}
