import JSON

/// Terminals: `cmctl shell` and what is around it.
extension Verb {
    static let shell: [Verb] = [
        .list(
            "shell list", "/api/v1/terminal/sessions", "Open terminals that you may see.",
            ["id", "client", "owner", "program", "state", "opened_ms:OPENED"], paged: false),
        .show("shell show ID", "/api/v1/terminal/sessions/{ID}", "One terminal and who is in it."),
        .change("DELETE", "shell end ID", "/api/v1/terminal/sessions/{ID}", "Ends a terminal and all that runs in it."),
        .change("POST", "shell ticket ID", "/api/v1/terminal/sessions/{ID}/ticket", "A ticket with which a browser attaches once."),
        Verb(
            "shell attach ID", "Goes into a terminal that is open. Ctrl-] leaves it as it is.",
            flags: [.own("view", nil, "Look only.", .toggle)],
            .program { (invocation) async throws(OperatorError) in
                try await invocation.attach(invocation.operand("ID") ?? "")
            }),
        .list(
            "shell recordings", "/api/v1/terminal/recordings", "Recorded terminals.",
            ["id", "client", "owner", "program", "started_ms:STARTED", "bytes"],
            flags: [
                .query("search", "TEXT", "Part of owner, program, client or id."), .query("client", "ID", "Only of this client."),
            ]),
        Verb(
            "shell recording ID", "Prints a recording, asciicast v2.",
            .program { (invocation) async throws(OperatorError) in
                let id = APIRequest.encoded(invocation.operand("ID") ?? "")
                return try await invocation.session.pass(APIRequest("GET", "/api/v1/terminal/recordings/" + id))
            }),
        .change("DELETE", "shell forget ID", "/api/v1/terminal/recordings/{ID}", "Removes a recording."),
        Verb(
            "shell CLIENT -- ARGV…", "A terminal on a client: the login shell, or a program. Ctrl-] leaves it running.",
            flags: openFlags, .program { (invocation) async throws(OperatorError) in try await invocation.shell() }),
    ]

    private static let openFlags: [VerbFlag] = [
        .body("user", "NAME", "As this user of the client."),
        .body("cwd", "DIRECTORY", "In this directory.", as: "working_directory"),
        .body("env", "NAME=VALUE", "Set a variable.", .map, as: "environment"),
        .bodyToggle("record", "Record it."),
        .own("view", nil, "Look only.", .toggle),
        .body("idle", "TIME", "End it after this time without input and output.", .seconds, as: "idle_s"),
        .body("maximum", "TIME", "End it after this time.", .seconds, as: "maximum_s"),
    ]
}

extension Invocation {
    func shell() async throws(OperatorError) -> Outcome {
        let request = try request(method: "POST", path: "/api/v1/terminal/sessions")
        var body = (try? JSONValue(parsing: request.body ?? []).object) ?? [:]
        body["client"] = .string(try await oneClient(operand("CLIENT") ?? ""))
        if let rest, !rest.isEmpty { body["argv"] = .array(rest.map { .string($0) }) }
        let size = console.windowSize
        body["rows"] = .integer(Int64(size.rows))
        body["columns"] = .integer(Int64(size.columns))
        if let terminal = session.environment["TERM"], !terminal.isEmpty { body["terminal_type"] = .string(terminal) }
        let opened = try await core.post("/api/v1/terminal/sessions", .object(body))
        guard let id = opened["id"]?.string else {
            throw OperatorError(.remoteFailure, "the core opened a terminal but named no id")
        }
        return try await attach(id)
    }

    func attach(_ id: String) async throws(OperatorError) -> Outcome {
        try await ShellRun(session, core: try core, terminal: APIRequest.encoded(id), isViewer: flags.has("view")).run()
    }

    /// A client by id, or the one that a selector or a host name finds.
}
