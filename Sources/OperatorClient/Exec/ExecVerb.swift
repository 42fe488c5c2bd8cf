import Crypto
import JSON

extension Verb {
    static let exec: [Verb] = [
        Verb(
            "exec SELECTOR -- ARGV…", "Runs a command on clients and shows its output as it comes.",
            flags: [
                .own("shell", "TEXT", "Run a shell text instead of a program with arguments."),
                .own("script", "FILE", "Run a script from this file, or - for standard input."),
                .own("interpreter", "PROGRAM", "What runs the script; /bin/sh by default."),
                .own("template", "NAME", "Run a template; 'cmctl templates list' shows them."),
                .body("template-version", "N", "This version instead of the newest.", .integer),
                .own("param", "NAME=VALUE", "A parameter of the template; repeat for more, or for a list.", .list),
                .own("stdin", "FILE", "Give the command this file, or - for standard input."),
                .body("env", "NAME=VALUE", "Set a variable.", .map),
                .body("cwd", "DIRECTORY", "Run in this directory."),
                .body("user", "NAME", "Run as this user."),
                .body("timeout", "TIME", "End the command after this time.", .seconds, as: "timeout_s"),
                .body("kill-grace", "TIME", "Time between TERM and KILL.", .seconds, as: "kill_grace_s"),
                .body("output-limit", "BYTES", "Most output that is kept of each client.", .integer),
                .body("memory-limit", "BYTES", "Most memory.", .integer),
                .own("cpu-limit", "CORES", "Most processor time, 0.5 for half a core."),
                .body("offline", "fail|skip|queue", "What becomes of clients that are offline; fail by default."),
                .body("queue", "TIME", "How long to wait for them with --offline queue.", .seconds, as: "queue_s"),
                .body("concurrency", "N", "Most clients at a time.", .integer),
                .own("wave", "N|N%", "Size of a first wave; repeat for more.", .list),
                .own("error-budget", "N|N%", "Stop the rest when more than this many fail."),
                .own("idempotency-key", "KEY", "Makes a repeated call safe."),
                .body("note", "TEXT", "Why, for the audit trail."),
                .own("detach", nil, "Print the command's id and do not wait.", .toggle),
                .own("quiet", nil, "No output of the clients, only the end.", .toggle),
            ], calls: ["POST /api/v1/commands"],
            .program { (invocation) async throws(OperatorError) in try await invocation.exec() })
    ]
}

extension Invocation {
    func exec() async throws(OperatorError) -> Outcome {
        let parameters = try await parameters()
        var request = APIRequest("POST", "/api/v1/commands", body: try commandBody(parameters).serialized())
        if let key = flags.value("idempotency-key") { request.headers = [(name: "idempotency-key", value: key)] }
        return try await follow(try await core.call(request))
    }

    /// Follows the command of an answer to `POST /api/v1/commands` or its rerun, unless `--detach` says not to.
    func follow(_ answer: JSONValue) async throws(OperatorError) -> Outcome {
        guard let id = answer["id"]?.string else {
            throw OperatorError(.remoteFailure, "the core accepted the command but named no id")
        }
        if flags.has("detach") {
            if session.isJSON { session.showRecord(["command": .string(id)]) } else { console.print(id) }
            return .success
        }
        var total = answer["target_count"]?.integer
        if total == nil { total = try await core.get("/api/v1/commands/" + APIRequest.encoded(id))["target_count"]?.integer }
        let run = ExecRun(session, core: try core, command: id, targets: total ?? 0, isQuiet: flags.has("quiet"))
        return try await run.follow()
    }

    /// The template's parameters in the types that it declares; `nil` without `--param`.
    private func parameters() async throws(OperatorError) -> JSONObject? {
        let pairs = try flags.values("param").map { text throws(OperatorError) in try Self.pair(text, "--param") }
        guard !pairs.isEmpty else { return nil }
        guard let template = flags.value("template") else { throw .usage("--param belongs to --template") }
        let declared = try await core.get("/api/v1/templates/" + APIRequest.encoded(template))
        var types: [String: String] = [:]
        for parameter in declared["parameters"]?.array ?? [] {
            if let name = parameter["name"]?.string { types[name] = parameter["type"]?.string }
        }
        var result = JSONObject()
        for (name, text) in pairs {
            guard types.keys.contains(name) else {
                throw .usage(
                    "template \(template) has no parameter '\(name)'", advice: "It has: \(types.keys.sorted().joined(separator: ", ")).")
            }
            switch types[name] {
            case "integer": result[name] = Int64(text).map { .integer($0) } ?? .string(text)
            case "boolean": result[name] = text == "true" ? true : text == "false" ? false : .string(text)
            case "texts": result[name] = .array((result[name]?.array ?? []) + [.string(text)])
            default: result[name] = .string(text)
            }
        }
        return result
    }

    /// The body of `POST /api/v1/commands`.
    func commandBody(_ parameters: JSONObject?) throws(OperatorError) -> JSONValue {
        var body: JSONObject = ["selector": .string(operand("SELECTOR") ?? "")]
        let ways = [rest != nil, flags.has("shell"), flags.has("script"), flags.has("template")].count { $0 }
        guard ways == 1 else {
            throw .usage(
                ways == 0 ? "nothing to run is given" : "more than one thing to run is given",
                advice: "Give one of: -- PROGRAM ARGUMENTS…, --shell TEXT, --script FILE, --template NAME.")
        }
        if let rest {
            guard !rest.isEmpty else { throw .usage("nothing stands after --", advice: verb.usage) }
            body["argv"] = .array(rest.map { .string($0) })
        } else if let text = flags.value("shell") {
            body["shell"] = .string(text)
        } else if let path = flags.value("script") {
            let interpreter = (flags.value("interpreter") ?? "/bin/sh").split(separator: " ").map { JSONValue.string(String($0)) }
            var script: JSONObject = ["interpreter": .array(interpreter)]
            Self.set(&script, "body", try session.content(path))
            body["script"] = .object(script)
        } else if let template = flags.value("template") {
            body["template"] = .string(template)
            if let parameters { body["parameters"] = .object(parameters) }
        }
        if let path = flags.value("stdin") {
            guard path != "-" || flags.value("script") != "-" else { throw .usage("only one of --stdin and --script can be -") }
            Self.set(&body, "stdin", try session.content(path))
        }
        for flag in verb.flags where !flag.member.isEmpty && flags.has(flag.flag.name) {
            body[flag.member] = try value(of: flag)
        }
        if let text = flags.value("cpu-limit") {
            guard let cores = Double(text), cores >= 0.01, cores <= 1024 else {
                throw .usage("--cpu-limit \(text): expected a number of cores such as 0.5 or 4")
            }
            body["cpu_limit"] = .integer(Int64(cores * 1000))
        }
        if flags.has("wave") { body["waves"] = .array(flags.values("wave").map(Self.countOrShare)) }
        if let budget = flags.value("error-budget") { body["error_budget"] = Self.countOrShare(budget) }
        return .object(body)
    }

    private static func countOrShare(_ text: String) -> JSONValue { Int64(text).map { .integer($0) } ?? .string(text) }

    /// As text, or in base64 under `…_base64` where it is not UTF-8.
    private static func set(_ object: inout JSONObject, _ member: String, _ bytes: [UInt8]) {
        if let text = String(validating: bytes, as: UTF8.self) {
            object[member] = .string(text)
        } else {
            object[member + "_base64"] = .string(Base64.encode(bytes))
        }
    }
}
