import AgentProtocol
import Crypto
import JSON

/// The two JSON texts of a command in the database: `shown`, which the API hands out as it stands, and `input`, which
/// holds what may be secret (values of the environment, standard input) and only goes to the clients.
enum CommandText {
    static func shown(_ specification: CommandSpecification) -> [UInt8] {
        var writer = JSONWriter(reserving: 256)
        writer.object { writer in
            switch specification.invocation {
            case .argv(let argv): writer.field("argv", argv)
            case .shell(let text): writer.field("shell", text)
            case .script(let interpreter, let body, let arguments):
                writer.object("script") { writer in
                    writer.field("interpreter", interpreter)
                    writer.bytes("body", body)
                    if !arguments.isEmpty { writer.field("arguments", arguments) }
                }
            }
            if let template = specification.template {
                writer.field("template", template.name)
                writer.field("template_version", template.version)
            }
            if let input = specification.standardInput { writer.field("stdin_bytes", input.count) }
            if !specification.environment.isEmpty { writer.field("env_names", specification.environment.keys.sorted()) }
            if !specification.secretNames.isEmpty {
                writer.field("secret_env_names", specification.secretNames)
                writer.field("masked", true)
            }
            if !specification.outputFilters.isEmpty { writer.field("output_filters", specification.outputFilters) }
            writer.field("cwd", ifPresent: specification.workingDirectory)
            writer.field("user", ifPresent: specification.user)
            writer.field("timeout_ms", specification.timeoutMilliseconds)
            writer.field("kill_grace_ms", specification.killGraceMilliseconds)
            writer.field("output_limit", specification.outputLimitBytes)
            writer.field("memory_limit", ifPresent: specification.memoryLimitBytes)
            writer.field("cpu_limit", ifPresent: specification.processorLimitMillis)
            writer.field("offline", specification.offline.rawValue)
            writer.field("queue_until_ms", ifPresent: specification.queueUntil)
            writer.field("concurrency", ifPresent: specification.concurrency)
            if !specification.waves.isEmpty { writer.field("waves", specification.waves) }
            writer.field("error_budget", ifPresent: specification.errorBudget)
            writer.field("note", ifPresent: specification.note)
            writer.field("rerun_of", ifPresent: specification.rerunOf?.description)
        }
        return writer.finish()
    }

    static func input(_ specification: CommandSpecification) -> [UInt8]? {
        guard specification.standardInput != nil || !specification.environment.isEmpty else { return nil }
        var writer = JSONWriter(reserving: 256)
        writer.object { writer in
            if let input = specification.standardInput { writer.bytes("stdin", input) }
            writer.object("env") { writer in
                for (name, value) in specification.environment { writer.member(name, value) }
            }
        }
        return writer.finish()
    }

    static func read(_ shown: [UInt8], _ input: [UInt8]?, into fields: inout CommandFields) throws(JSONError) {
        var result = fields
        try JSONReader.read(shown) { reader throws(JSONError) in
            try reader.object { key, reader throws(JSONError) in
                try readMember(key, &reader, &result)
            }
        }
        if let input {
            try JSONReader.read(input) { reader throws(JSONError) in
                try reader.object { key, reader throws(JSONError) in
                    if key.is("env") {
                        try reader.object { name, reader throws(JSONError) in
                            result.environment[name.string] = try reader.string()
                        }
                    } else if key.is("stdin") {
                        result.standardInput = Array(try reader.string().utf8)
                    } else if key.is("stdin_base64") {
                        result.standardInput = try reader.base64()
                    }
                }
            }
        }
        fields = result
    }

    private static func readMember(
        _ key: borrowing JSONKey, _ reader: inout JSONReader, _ fields: inout CommandFields
    ) throws(JSONError) {
        if key.is("argv") {
            fields.invocation = .argv(try reader.strings())
        } else if key.is("shell") {
            fields.invocation = .shell(try reader.string())
        } else if key.is("script") {
            fields.invocation = try script(&reader)
        } else if key.is("template") {
            fields.template = .init(name: try reader.string(), version: fields.template?.version ?? 0)
        } else if key.is("template_version") {
            fields.template?.version = Int(try reader.integer())
        } else if key.is("secret_env_names") {
            fields.secretNames = try reader.strings()
        } else if key.is("output_filters") {
            fields.outputFilters = try reader.strings()
        } else if key.is("cwd") {
            fields.workingDirectory = try reader.string()
        } else if key.is("user") {
            fields.user = try reader.string()
        } else if key.is("timeout_ms") {
            fields.timeoutMilliseconds = try reader.unsigned()
        } else if key.is("kill_grace_ms") {
            fields.killGraceMilliseconds = try reader.unsigned()
        } else if key.is("output_limit") {
            fields.outputLimitBytes = try reader.unsigned()
        } else if key.is("memory_limit") {
            fields.memoryLimitBytes = try reader.unsigned()
        } else if key.is("cpu_limit") {
            fields.processorLimitMillis = try reader.unsigned()
        } else if key.is("offline") {
            fields.offline = OfflinePolicy(rawValue: try reader.string()) ?? .fail
        } else if key.is("queue_until_ms") {
            fields.queueUntil = try reader.unsigned()
        } else if key.is("concurrency") {
            fields.concurrency = Int(try reader.integer())
        } else if key.is("waves") {
            var waves: [Int] = []
            try reader.array { reader throws(JSONError) in waves.append(Int(try reader.integer())) }
            fields.waves = waves
        } else if key.is("error_budget") {
            fields.errorBudget = Int(try reader.integer())
        } else if key.is("note") {
            fields.note = try reader.string()
        } else if key.is("rerun_of") {
            fields.rerunOf = CommandID(try reader.string())
        }
    }

    private static func script(_ reader: inout JSONReader) throws(JSONError) -> Invocation {
        var interpreter: [String] = []
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
            }
        }
        return .script(interpreter: interpreter, body: body, arguments: arguments)
    }
}

extension JSONWriter {
    /// Bytes as text under `name` when they are UTF-8, else as base 64 under `name_base64`.
    public mutating func bytes(_ name: StaticString, _ bytes: [UInt8]) {
        do {
            let text = try UTF8Span(validating: bytes.span)
            key(name)
            string(text)
        } catch {
            member("\(name)_base64", Base64.encode(bytes))
        }
    }
}

extension JSONReader {
    /// A string of base 64 as bytes.
    public mutating func base64() throws(JSONError) -> [UInt8] {
        guard let bytes = Base64.decode(try string()) else {
            throw fail("expected base 64 with padding (RFC 4648)")
        }
        return bytes
    }
}

extension JSONReader {
    mutating func unsigned() throws(JSONError) -> UInt64 {
        let value = try integer()
        guard value >= 0 else { throw fail("expected a number from 0 on, found \(value)") }
        return UInt64(value)
    }
}
