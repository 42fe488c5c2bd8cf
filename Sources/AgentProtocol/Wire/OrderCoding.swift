/// The payload of `open` with channel kind execution: a fixed head of 72 bytes, then counted fields.
///
/// Binary because every command crosses here twice.
extension Order {
    private struct Presence: OptionSet {
        let rawValue: UInt8
        static let standardInput = Presence(rawValue: 1)
        static let workingDirectory = Presence(rawValue: 2)
        static let user = Presence(rawValue: 4)
        static let timeout = Presence(rawValue: 8)
        static let memoryLimit = Presence(rawValue: 16)
        static let processorLimit = Presence(rawValue: 32)
        static let startBefore = Presence(rawValue: 64)
        /// Needs the feature `secret-environment`.
        static let secretEnvironment = Presence(rawValue: 128)
        static let all = Presence(rawValue: 255)
    }

    /// The payload that `write` makes, in bytes; an order above `WireLimits.openBytes` is refused before it is sent.
    public var encodedBytes: Int {
        func list(_ values: [String]) -> Int { values.reduce(4) { $0 + 4 + $1.utf8.count } }
        var count = 72
        switch invocation {
        case .argv(let arguments): count += list(arguments)
        case .shell(let text): count += 4 + text.utf8.count
        case .script(let interpreter, let body, let arguments):
            count += list(interpreter) + 4 + body.count + list(arguments)
        }
        count += 4 + (standardInput?.count ?? 0)
        count += environment.reduce(4) { $0 + 8 + $1.key.utf8.count + $1.value.utf8.count }
        count += 4 + (workingDirectory?.utf8.count ?? 0) + 4 + (user?.utf8.count ?? 0)
        count += 4 + correlation.utf8.count
        guard !secretEnvironment.isEmpty else { return count }
        return secretEnvironment.reduce(count + 4) { $0 + 8 + $1.key.utf8.count + $1.value.utf8.count }
    }

    public func write(to writer: inout FrameWriter) {
        var present = Presence()
        if standardInput != nil { present.insert(.standardInput) }
        if workingDirectory != nil { present.insert(.workingDirectory) }
        if user != nil { present.insert(.user) }
        if timeoutMilliseconds != nil { present.insert(.timeout) }
        if memoryLimitBytes != nil { present.insert(.memoryLimit) }
        if processorLimitMillis != nil { present.insert(.processorLimit) }
        if startBefore != nil { present.insert(.startBefore) }
        if !secretEnvironment.isEmpty { present.insert(.secretEnvironment) }

        let form: UInt64 =
            switch invocation {
            case .argv: 1
            case .shell: 2
            case .script: 3
            }
        writer.words([
            command.high.byteSwapped, command.low.byteSwapped, form | UInt64(present.rawValue) << 8,
            killGraceMilliseconds, outputLimitBytes, timeoutMilliseconds ?? 0, memoryLimitBytes ?? 0,
            processorLimitMillis ?? 0, startBefore ?? 0,
        ])
        switch invocation {
        case .argv(let arguments): writer.textList(arguments)
        case .shell(let text): writer.longText(text)
        case .script(let interpreter, let body, let arguments):
            writer.textList(interpreter)
            writer.u32(UInt32(body.count))
            writer.raw(body)
            writer.textList(arguments)
        }
        writer.u32(UInt32(standardInput?.count ?? 0))
        if let standardInput { writer.raw(standardInput) }
        writer.variables(environment)
        writer.longText(workingDirectory ?? "")
        writer.longText(user ?? "")
        writer.longText(correlation)
        if !secretEnvironment.isEmpty { writer.variables(secretEnvironment) }
    }

    public init(reading bytes: borrowing RawSpan) throws(WireError) {
        var reader = ByteReader()
        let command: CommandID = try reader.identifier(bytes)
        let form = try reader.u8(bytes)
        let present = Presence(rawValue: try reader.u8(bytes))
        guard present.isSubset(of: .all), try reader.u16(bytes) == 0, try reader.u32(bytes) == 0 else {
            throw WireError(.malformed, "an order sets reserved bits")
        }
        let grace = try reader.u64(bytes)
        let outputLimit = try reader.u64(bytes)
        let timeout = try reader.u64(bytes)
        let memoryLimit = try reader.u64(bytes)
        let processorLimit = try reader.u64(bytes)
        let startBefore = try reader.u64(bytes)
        let invocation: Invocation
        switch form {
        case 1: invocation = .argv(try reader.textList(bytes))
        case 2: invocation = .shell(try reader.longText(bytes))
        case 3:
            let interpreter = try reader.textList(bytes)
            let body = try reader.array(bytes, count: Int(try reader.u32(bytes)))
            invocation = .script(interpreter: interpreter, body: body, arguments: try reader.textList(bytes))
        default: throw WireError(.malformed, "invocation form \(form) is not 1 (argv), 2 (shell) or 3 (script)")
        }
        let input = try reader.array(bytes, count: Int(try reader.u32(bytes)))
        let environment = try reader.variables(bytes)
        let directory = try reader.longText(bytes)
        let user = try reader.longText(bytes)
        let correlation = try reader.longText(bytes)
        let secrets = try present.contains(.secretEnvironment) ? reader.variables(bytes) : [:]
        guard present.contains(.secretEnvironment) == !secrets.isEmpty, secrets.keys.allSatisfy({ environment[$0] == nil }) else {
            throw WireError(.malformed, "an order's secret variables are none, or are given twice")
        }
        try reader.end(bytes)
        self.init(
            command: command, invocation: invocation,
            standardInput: present.contains(.standardInput) ? input : nil, environment: environment,
            workingDirectory: present.contains(.workingDirectory) ? directory : nil,
            user: present.contains(.user) ? user : nil,
            timeoutMilliseconds: present.contains(.timeout) ? timeout : nil, killGraceMilliseconds: grace,
            outputLimitBytes: outputLimit, memoryLimitBytes: present.contains(.memoryLimit) ? memoryLimit : nil,
            processorLimitMillis: present.contains(.processorLimit) ? processorLimit : nil, correlation: correlation,
            startBefore: present.contains(.startBefore) ? startBefore : nil, secretEnvironment: secrets)
    }
}

extension FrameWriter {
    fileprivate mutating func variables(_ environment: [String: String]) {
        u32(UInt32(environment.count))
        for (name, value) in environment {
            longText(name)
            longText(value)
        }
    }
}

extension ByteReader {
    fileprivate mutating func variables(_ bytes: borrowing RawSpan) throws(WireError) -> [String: String] {
        let count = Int(try u32(bytes))
        guard count <= WireLimits.listCount else {
            throw WireError(.oversize, "\(count) environment variables; at most \(WireLimits.listCount) are allowed")
        }
        var environment: [String: String] = [:]
        for _ in 0..<count {
            let name = try longText(bytes)
            guard environment.updateValue(try longText(bytes), forKey: name) == nil else {
                throw WireError(.duplicate, "environment variable \(name.prefix(100)) appears twice")
            }
        }
        return environment
    }
}
