import JSON
import Kernel
import Web

/// The body of `POST /api/v1/commands`, read without a tree: this route is the hot one.
enum CommandReading {
    static let schema = Schema.object(
        [
            .optional("selector", .string("Which clients: `env=prod,role in (db,cache),!canary`, or one id.", length: 1...4_096)),
            .optional("clients", .array(.string(length: 26...26), "Clients by id, instead of a selector.", count: 1...50_000)),
            .optional("argv", .array(.string(length: 0...131_071), "Program and arguments; no shell reads them.", count: 1...4_096)),
            .optional("shell", .string("One text for /bin/sh -c. Needs the right command.shell.", length: 1...131_071)),
            .optional(
                "script",
                .object([
                    .optional("interpreter", .array(.string(length: 0...131_071), "Default: /bin/sh.")),
                    .optional("body", .string("The script as text.", length: 1...1_048_576)),
                    .optional("body_base64", .string("The script as bytes.", length: 1...1_400_000)),
                    .optional("arguments", .array(.string(length: 0...131_071))),
                ])),
            .optional("template", .string("Name of a template.", length: 1...64)),
            .optional("template_version", .integer("Default: the newest.", in: 1...1_000_000_000)),
            .optional("parameters", .map(.any(), "Of the template.")),
            .optional("stdin", .string("Standard input as text.", length: 0...1_048_576)),
            .optional("stdin_base64", .string("Standard input as bytes.", length: 0...1_400_000)),
            .optional("env", .map(.string(), "Added to the agent's clean environment.", count: 0...256)),
            .optional("cwd", .string("Absolute path.")),
            .optional("user", .string("User on the client; default: the agent's own.")),
            .optional("timeout_s", .number("From the start on, on both ends; default 3600.")),
            .optional("kill_grace_s", .number("From TERM to KILL; default 5.")),
            .optional("output_limit", .integer("Bytes of both streams that are kept.")),
            .optional("memory_limit", .integer("Bytes; where the client has cgroups.")),
            .optional("cpu_limit", .integer("Thousandths of a core; where the client has cgroups.")),
            .optional("offline", .choice(["fail", "skip", "queue"], "What becomes of clients that are offline.")),
            .optional("queue_s", .number("How long `queue` waits; default a day.")),
            .optional("concurrency", .integer("Most targets at a time.", in: 1...50_000)),
            .optional("waves", .array(.any("A number of targets or a share such as \"10%\"."), "Sizes of the first waves; the rest is the last one.", count: 0...32)),
            .optional("error_budget", .any("Errors that are tolerated, a number or a share such as \"5%\"; one more stops the rest.")),
            .optional("wait_s", .number("Wait so long for the end and answer with the results.")),
            .optional("note", .string(length: 0...1_024)),
        ], "Exactly one of selector and clients, and one of argv, shell, script and template.")

    private struct Fields {
        var request = CommandRequest(.clients([]), .invocation(.argv([])))
        /// How many members said where, and how many what.
        var selections = 0
        var works = 0
        var version: Int?
        var parameters: JSONObject?

        mutating func select(_ selection: TargetSelection) {
            request.selection = selection
            selections += 1
        }

        mutating func run(_ work: CommandWork) {
            request.work = work
            works += 1
        }
    }

    static func request(_ body: [UInt8], idempotencyKey: String?) throws(Problem) -> CommandRequest {
        var fields = Fields()
        do throws(JSONError) {
            try JSONReader.read(body, limits: JSONLimits(depth: 16, bytes: 4 << 20)) { reader throws(JSONError) in
                try reader.object { key, reader throws(JSONError) in try member(key, &reader, &fields) }
            }
        } catch {
            throw .invalid("the body: \(error)", pointer: error.pointer.isEmpty ? nil : error.pointer)
        }
        guard fields.selections == 1 else { throw .invalid("give either \"selector\" or \"clients\"", pointer: "/selector") }
        guard fields.works == 1 else {
            throw .invalid("give exactly one of \"argv\", \"shell\", \"script\" and \"template\"", pointer: "/argv")
        }
        if case .template(let name, _, _) = fields.request.work {
            fields.request.work = .template(name: name, version: fields.version, parameters: fields.parameters ?? [:])
        } else if fields.version != nil || fields.parameters != nil {
            throw .invalid("\"parameters\" and \"template_version\" belong to a \"template\"", pointer: "/parameters")
        }
        if let idempotencyKey { fields.request.idempotencyKey = IdempotencyKey(key: idempotencyKey, request: body) }
        return fields.request
    }

    private static func member(
        _ key: borrowing JSONKey, _ reader: inout JSONReader, _ fields: inout Fields
    ) throws(JSONError) {
        if key.is("selector") {
            fields.select(.selector(try reader.string()))
        } else if key.is("clients") {
            fields.select(.clients(try clients(&reader)))
        } else if key.is("argv") {
            fields.run(.invocation(.argv(try reader.strings())))
        } else if key.is("shell") {
            fields.run(.invocation(.shell(try reader.string())))
        } else if key.is("script") {
            fields.run(.invocation(try script(&reader)))
        } else if key.is("template") {
            fields.run(.template(name: try reader.string(), version: nil, parameters: [:]))
        } else if key.is("template_version") {
            fields.version = try reader.integer(in: 1...1_000_000_000)
        } else if key.is("parameters") {
            guard case .object(let object) = try reader.value() else { throw reader.fail("expected an object") }
            fields.parameters = object
        } else {
            try option(key, &reader, &fields.request)
        }
    }

    private static func option(
        _ key: borrowing JSONKey, _ reader: inout JSONReader, _ request: inout CommandRequest
    ) throws(JSONError) {
        if key.is("wait_s") {
            request.waitMilliseconds = try milliseconds(&reader)
        } else if key.is("timeout_s") {
            request.timeoutMilliseconds = try milliseconds(&reader)
        } else if key.is("kill_grace_s") {
            request.killGraceMilliseconds = try milliseconds(&reader)
        } else if key.is("queue_s") {
            request.queueMilliseconds = try milliseconds(&reader)
        } else if key.is("stdin") {
            request.standardInput = Array(try reader.string().utf8)
        } else if key.is("stdin_base64") {
            request.standardInput = try reader.base64()
        } else if key.is("env") {
            try reader.object { name, reader throws(JSONError) in
                request.environment[name.string] = try reader.string()
            }
        } else if key.is("cwd") {
            request.workingDirectory = try reader.string()
        } else if key.is("user") {
            request.user = try reader.string()
        } else if key.is("output_limit") {
            request.outputLimitBytes = try unsigned(&reader)
        } else if key.is("memory_limit") {
            request.memoryLimitBytes = try unsigned(&reader)
        } else if key.is("cpu_limit") {
            request.processorLimitMillis = try unsigned(&reader)
        } else if key.is("offline") {
            let text = try reader.string()
            guard let policy = OfflinePolicy(rawValue: text) else {
                throw reader.fail("\"\(text.prefix(40))\" is none of fail, skip, queue")
            }
            request.offline = policy
        } else if key.is("concurrency") {
            request.concurrency = try reader.integer(in: 1...50_000)
        } else if key.is("waves") {
            try reader.array { reader throws(JSONError) in request.waves.append(try count(&reader)) }
        } else if key.is("error_budget") {
            request.errorBudget = try count(&reader)
        } else if key.is("note") {
            request.note = try reader.string()
        } else {
            throw reader.fail("a command has no member \"\(key.string.prefix(64))\"; see /docs")
        }
    }

    static func clients(_ reader: inout JSONReader) throws(JSONError) -> [ClientID] {
        var clients: [ClientID] = []
        try reader.array { reader throws(JSONError) in
            var refused = ""
            let client = try reader.string { characters -> ClientID? in
                let client = ClientID(characters: characters)
                if client == nil { refused = characters.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) } }
                return client
            }
            guard let client else {
                throw reader.fail("\"\(refused.prefix(64))\" is no client id (26 characters, the first 0 to 7)")
            }
            clients.append(client)
        }
        return clients
    }

    private static func script(_ reader: inout JSONReader) throws(JSONError) -> Invocation {
        var interpreter = ["/bin/sh"]
        var body: [UInt8] = []
        var arguments: [String] = []
        try reader.object { key, reader throws(JSONError) in
            if key.is("interpreter") {
                interpreter = try reader.strings()
            } else if key.is("body") {
                body = Array(try reader.string().utf8)
            } else if key.is("body_base64") {
                body = try reader.base64()
            } else if key.is("arguments") {
                arguments = try reader.strings()
            } else {
                throw reader.fail("a script has interpreter, body (or body_base64) and arguments")
            }
        }
        return .script(interpreter: interpreter, body: body, arguments: arguments)
    }

    /// Seconds, fractions allowed, as milliseconds.
    static func milliseconds(_ reader: inout JSONReader) throws(JSONError) -> UInt64 {
        let seconds = try reader.double()
        guard seconds >= 0, seconds <= 1e9 else { throw reader.fail("\(seconds) seconds: 0 to 1e9 are allowed") }
        return UInt64((seconds * 1_000).rounded(.up))
    }

    private static func unsigned(_ reader: inout JSONReader) throws(JSONError) -> UInt64 {
        let number = try reader.integer()
        guard number >= 0 else { throw reader.fail("\(number) is below 0") }
        return UInt64(number)
    }

    private static func count(_ reader: inout JSONReader) throws(JSONError) -> TargetCount {
        guard case .string = reader.next else { return .count(try reader.integer(in: 0...50_000)) }
        let text = try reader.string()
        guard text.hasSuffix("%"), let percent = Double(text.dropLast()), percent.isFinite else {
            throw reader.fail("\"\(text.prefix(40))\" is neither a number nor a share such as \"10%\"")
        }
        return .percent(percent)
    }
}
