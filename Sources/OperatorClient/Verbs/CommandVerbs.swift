import JSON

/// Commands that ran or run, and templates.
extension Verb {
    private static let commandColumns: [Column] = ["id", "state", "title", "principal.id:BY", "created_at", "target_count:TARGETS", "counts"]
    private static let followFlags: [VerbFlag] = [.own("quiet", nil, "No output of the clients, only the end.", .toggle)]

    static let commands: [Verb] = [
        .list(
            "commands list", "/api/v1/commands", "The history of commands, newest first.", commandColumns,
            flags: [
                .query("q", "TEXT", "Text in what was run or in the selector."),
                .query("client", "ID", "Only those for this client."), .query("principal", "NAME", "Only those of this caller."),
                .query("state", "running|finished", "Only those in this state."),
                .query("outcome", "OUTCOME", "Only those with a target that ended so."),
                .query("since", "TIME", "Unix milliseconds.", .integer), .query("until", "TIME", "Unix milliseconds.", .integer),
            ]),
        .show("commands archive", "/api/v1/commands/archive", "How far output is archived in an object store, and what is in the way."),
        .show("commands show ID", "/api/v1/commands/{ID}", "One command with what was asked for."),
        .list(
            "commands targets ID", "/api/v1/commands/{ID}/targets", "The targets of a command with their states.",
            ["client", "state", "exit_code", "signal", "duration_ms", "stdout_bytes", "stderr_bytes", "message"]),
        .show("commands target ID CLIENT", "/api/v1/commands/{ID}/targets/{CLIENT}", "One target of a command."),
        .change(
            "GET", "commands output ID CLIENT", "/api/v1/commands/{ID}/targets/{CLIENT}/output/raw",
            "The output of a client as it is, from an offset to the present end.",
            flags: [
                .query("stream", "stdout|stderr", "Which; stdout by default."),
                .query("offset", "N", "First byte.", .integer),
            ], .text),
        .show(
            "commands output-range ID CLIENT", "/api/v1/commands/{ID}/targets/{CLIENT}/output",
            "A range of a client's output as JSON.",
            flags: [
                .query("stream", "stdout|stderr", "Which; stdout by default."),
                .query("offset", "N", "First byte.", .integer), .query("bytes", "N", "Most bytes.", .integer, as: "limit"),
            ]),
        .show(
            "commands result ID CLIENT", "/api/v1/commands/{ID}/targets/{CLIENT}/result",
            "The typed result of a template that has one."),
        Verb(
            "commands follow ID", "Follows a command, from the start of its output to its end.", flags: followFlags,
            calls: ["GET /api/v1/commands/{ID}/watch"],
            .program { (invocation) async throws(OperatorError) in
                try await invocation.follow(["id": .string(invocation.operand("ID") ?? "")])
            }),
        .change(
            "POST", "commands cancel ID", "/api/v1/commands/{ID}/cancel", "Ends the unfinished targets of a command.",
            flags: [.body("client", "ID", "Only on this client; repeat for more.", .list, as: "clients")]),
        Verb(
            "commands rerun ID", "Runs a command again where it ended in one of these ways.",
            flags: [
                .body("outcome", "OUTCOME", "failed, timed-out, skipped …; repeat for more.", .list, as: "outcomes"),
                .own("detach", nil, "Print the new command's id and do not wait.", .toggle),
            ] + followFlags,
            calls: ["POST /api/v1/commands/{ID}/rerun"],
            .program { (invocation) async throws(OperatorError) in
                let outcomes = invocation.flags.values("outcome")
                guard !outcomes.isEmpty else { throw .usage("--outcome is missing", advice: "Such as --outcome failed.") }
                let id = APIRequest.encoded(invocation.operand("ID") ?? "")
                let answer = try await invocation.core.post(
                    "/api/v1/commands/\(id)/rerun", ["outcomes": .array(outcomes.map { .string($0) })])
                return try await invocation.follow(answer)
            }),
        .list(
            "templates list", "/api/v1/templates", "All templates.", ["name", "version", "category", "built_in", "description"],
            paged: false),
        .show(
            "templates show NAME", "/api/v1/templates/{NAME}", "One template with its parameters.",
            flags: [.query("version", "N", "This version instead of the newest.", .integer)]),
        .change(
            "PUT", "templates set NAME", "/api/v1/templates/{NAME}",
            "Stores a template from --data; what was there becomes an older version."),
        .delete("templates delete NAME", "/api/v1/templates/{NAME}", "Takes a template out of use."),
    ]
}
