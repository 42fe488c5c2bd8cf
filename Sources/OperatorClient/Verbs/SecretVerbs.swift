import Crypto
import JSON

/// Secrets: `cmctl secrets`. Values come from files or standard input, never from the command line, which other users of the
/// machine can read.
extension Verb {
    private static let secretColumns: [Column] = ["name", "current", "assignments", "shared", "summary"]
    private static let valueFlag = VerbFlag.own("file", "FILE", "The value: content of this file, or - for standard input (the default).")

    static let secrets: [Verb] = [
        .list("secrets list", "/api/v1/secrets", "Secrets, without values.", secretColumns),
        .show("secrets show NAME", "/api/v1/secrets/{NAME}", "One secret with its versions, without values."),
        Verb(
            "secrets create NAME", "Makes a secret; its value comes from standard input or a file.",
            flags: [
                valueFlag, .body("summary", "TEXT", "What it is for."),
                .bodyToggle("shared", "Other plugins may read it (service client-manager.secret/1)."),
                .body("source", "REFERENCE", "No value: another plugin brings it (client-manager.secret-source/1)."),
                .body("refresh", "TIME", "How often the source is asked.", .seconds, as: "refresh_s"),
            ], calls: ["POST /api/v1/secrets"],
            .program { (invocation) async throws(OperatorError) in
                try await invocation.sendSecret("/api/v1/secrets", wantsValue: !invocation.flags.has("source"))
            }),
        .change(
            "PATCH", "secrets change NAME", "/api/v1/secrets/{NAME}", "Changes what is said about a secret.",
            flags: [
                .body("summary", "TEXT", "What it is for."), .body("shared", "true|false", "Whether other plugins may read it.", .boolean),
                .body("refresh", "TIME", "How often the source is asked.", .seconds, as: "refresh_s"),
            ]),
        .delete("secrets delete NAME", "/api/v1/secrets/{NAME}", "Destroys a secret; its files on clients go."),
        .change("POST", "secrets refresh NAME", "/api/v1/secrets/{NAME}/refresh", "Asks the source now."),
        Verb(
            "secrets add NAME", "Adds a version, from standard input or a file, and makes it current.",
            flags: [valueFlag, .own("keep", nil, "Keep the current version; this one waits for 'secrets rotate' or 'activate'.", .toggle)],
            calls: ["POST /api/v1/secrets/{name}/versions"],
            .program { (invocation) async throws(OperatorError) in
                try await invocation.sendSecret("/api/v1/secrets/{NAME}/versions", wantsValue: true)
            }),
        Verb(
            "secrets value NAME [VERSION]", "Prints the value, exactly; leaves an audit record.",
            calls: ["GET /api/v1/secrets/{name}/versions/{version}/value"],
            .program { (invocation) async throws(OperatorError) in try await invocation.printSecret() }),
        .change(
            "POST", "secrets activate NAME", "/api/v1/secrets/{NAME}/activate", "Makes a version the current one at once.",
            flags: [.body("version", "N", "Which one.", .integer)]),
        .delete("secrets destroy NAME VERSION", "/api/v1/secrets/{NAME}/versions/{VERSION}", "Destroys a version that nobody is to have."),
        Verb(
            "secrets rotate NAME", "Rotates in two phases, as a job: to a kept version, or to a value from standard input or a file.",
            flags: [
                valueFlag, .body("version", "N", "A version that is kept; no value is read.", .integer),
                .body("percent", "N", "Of 100 files, how many must show it before it takes over; 100 by default.", .integer),
                .body("timeout", "TIME", "Of each phase; then it goes back.", .seconds, as: "timeout_s"),
                .body("overlap", "TIME", "How long the old one stays beside the new one.", .seconds, as: "overlap_s"),
                .bodyToggle("count-offline", "Clients that are away count as well."),
            ], calls: ["POST /api/v1/secrets/{name}/rotate"],
            .program { (invocation) async throws(OperatorError) in
                try await invocation.sendSecret("/api/v1/secrets/{NAME}/rotate", wantsValue: !invocation.flags.has("version"))
            }),
        .show("secrets rotation NAME", "/api/v1/secrets/{NAME}/rotation", "The newest rotation of a secret."),
        .list(
            "secrets assignments NAME", "/api/v1/secrets/{NAME}/assignments", "Which clients get a secret, and how.",
            ["id", "selector", "file", "owner", "group", "mode", "lifetime_s:LIFETIME", "hook"], paged: false),
        .change(
            "POST", "secrets assign NAME SELECTOR", "/api/v1/secrets/{NAME}/assignments",
            "Assigns a secret to clients, by labels that operators set.",
            flags: [
                .body("file", "NAME", "Its name below the agent's directory for private files; the secret's by default."),
                .body("owner", "USER", "Of the client; the agent's user by default."), .body("group", "GROUP", "Of the client."),
                .body("mode", "MODE", "0400 to 0660."),
                .body("lifetime", "TIME", "The client removes it so long after it last heard of it.", .seconds, as: "lifetime_s"),
                .body("hook", "WORD", "After a change: reload UNIT, signal HUP UNIT, run PROGRAM …; repeat for each word.", .list),
            ]),
        .delete("secrets revoke NAME ID", "/api/v1/secrets/{NAME}/assignments/{ID}", "Takes an assignment back: its files go from the clients."),
        .list(
            "secrets clients NAME", "/api/v1/secrets/{NAME}/clients", "What each client has been shown to have.",
            ["client", "file", "state", "wanted", "placed", "confirmed_ms:CONFIRMED", "code", "reason"],
            flags: [.query("state", "STATE", "wanted, delivered, applied, failed or removing.")]),
        Verb(
            "secrets exec SELECTOR -- ARGV…", "Runs a command with secrets in its environment; its kept output is masked.",
            flags: [
                .own("secret", "VARIABLE=NAME", "Set a variable to a secret's current value; repeat for more.", .list),
                .own("shell", "TEXT", "Run a shell text instead of a program with arguments."),
                .body("env", "NAME=VALUE", "Set a variable to what stands here.", .map),
                .body("cwd", "DIRECTORY", "Run in this directory."), .body("user", "NAME", "Run as this user."),
                .body("timeout", "TIME", "End the command after this time.", .seconds, as: "timeout_s"),
                .body("offline", "fail|skip", "What becomes of clients that are offline; fail by default."),
                .own("detach", nil, "Print the command's id and do not wait.", .toggle),
                .own("quiet", nil, "No output of the clients, only the end.", .toggle),
            ], calls: ["POST /api/v1/secrets/commands"],
            .program { (invocation) async throws(OperatorError) in try await invocation.execWithSecrets() }),
    ]
}

extension Invocation {
    /// A POST with the row's flags, and the value of `--file`.
    fileprivate func sendSecret(_ path: String, wantsValue: Bool) async throws(OperatorError) -> Outcome {
        var request = try request(method: "POST", path: path)
        var body = (try? JSONValue(parsing: request.body ?? []).object) ?? [:]
        if flags.has("keep") { body["activate"] = false }
        if wantsValue {
            var value = try session.content(flags.value("file") ?? "-")
            // `echo` and editors end a line; a secret with a line end of its own goes by the API or has two.
            if value.last == 0x0A { value.removeLast() }
            guard !value.isEmpty else { throw .usage("the value is empty", advice: "Give it on standard input or with --file FILE.") }
            if let text = String(validating: value, as: UTF8.self) {
                body["value"] = .string(text)
            } else {
                body["value_base64"] = .string(Base64.encode(value))
            }
        } else if flags.has("file") {
            throw .usage("--file gives a value, and none is wanted here")
        }
        request.body = JSONValue.object(body).serialized()
        session.showRecord(try await core.call(request))
        return .success
    }

    fileprivate func printSecret() async throws(OperatorError) -> Outcome {
        let name = APIRequest.encoded(operand("NAME") ?? "")
        let version = APIRequest.encoded(operand("VERSION") ?? "current")
        let answer = try await core.get("/api/v1/secrets/\(name)/versions/\(version)/value")
        if session.isJSON {
            session.showRecord(answer)
        } else if let text = answer["value"]?.string {
            console.write(Array(text.utf8), toError: false)
        } else if let bytes = answer["value_base64"]?.string.flatMap({ Base64.decode($0) }) {
            console.write(bytes, toError: false)
        }
        return .success
    }

    fileprivate func execWithSecrets() async throws(OperatorError) -> Outcome {
        var body: JSONObject = ["selector": .string(operand("SELECTOR") ?? "")]
        switch (rest, flags.value("shell")) {
        case (let rest?, nil) where !rest.isEmpty: body["argv"] = .array(rest.map { .string($0) })
        case (nil, let text?): body["shell"] = .string(text)
        default: throw .usage("give one of -- PROGRAM ARGUMENTS… and --shell TEXT", advice: verb.usage)
        }
        var secrets = JSONObject()
        for pair in flags.values("secret") {
            let (variable, name) = try Self.pair(pair, "--secret")
            secrets[variable] = .string(name)
        }
        guard !secrets.isEmpty else { throw .usage("--secret VARIABLE=NAME says which secret the command gets") }
        body["secrets"] = .object(secrets)
        for flag in verb.flags where !flag.member.isEmpty && flags.has(flag.flag.name) { body[flag.member] = try value(of: flag) }
        return try await follow(try await core.post("/api/v1/secrets/commands", .object(body)))
    }
}
