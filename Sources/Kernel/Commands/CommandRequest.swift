import AgentProtocol
import Crypto
import JSON

/// Which clients a command is for.
public enum TargetSelection: Sendable, Equatable {
    case selector(String)
    case clients([ClientID])
}

/// What becomes of targets whose client is offline when their turn comes.
public enum OfflinePolicy: String, Sendable, CaseIterable {
    /// The target ends as `refused` with code `client-offline`.
    case fail
    /// The target ends as `skipped`.
    case skip
    /// The target waits for the client until the command's queue time is over.
    case queue
}

/// A number of targets, or a share of all targets of the command.
public enum TargetCount: Sendable, Equatable {
    case count(Int)
    case percent(Double)

    /// Shares are rounded up, so that "1%" of 20 is one.
    func of(_ total: Int) -> Int {
        switch self {
        case .count(let count): return count
        case .percent(let percent):
            let exact = Double(total) * percent / 100
            return Int(exact.rounded(.up))
        }
    }
}

/// What is to be run.
public enum CommandWork: Sendable, Equatable {
    case invocation(Invocation)
    /// A stored or built-in template with its parameters by name; `version` nil means the newest.
    case template(name: String, version: Int?, parameters: JSONObject)
}

/// Makes a repeated request safe.
public struct IdempotencyKey: Sendable, Equatable {
    public var key: String
    /// A hash of the whole request: the key of another request is refused.
    public var requestDigest: [UInt8]
    public init(key: String, requestDigest: [UInt8]) {
        self.key = key
        self.requestDigest = requestDigest
    }

    /// - Parameter request: the whole request as it came.
    public init(key: String, request: [UInt8]) { self.init(key: key, requestDigest: SHA256.hash(request)) }

    func validate(pointer: String? = nil) throws(Problem) {
        guard (1...128).contains(key.utf8.count), key.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw .invalid("an idempotency key has 1 to 128 printable ASCII characters", pointer: pointer)
        }
    }
}

/// A request to run something, as it came in. Everything that it carries is checked by `validated`.
public struct CommandRequest: Sendable {
    public var selection: TargetSelection
    public var work: CommandWork
    public var standardInput: [UInt8]?
    public var environment: [String: String] = [:]
    /// Further variables, given as secret: kept in memory only, and masked in the stored output. See `CommandSecrets`.
    public var secretEnvironment: [String: String] = [:]
    public var workingDirectory: String?
    public var user: String?
    /// `nil`: the default of the limits.
    public var timeoutMilliseconds: UInt64?
    public var killGraceMilliseconds: UInt64?
    public var outputLimitBytes: UInt64?
    public var memoryLimitBytes: UInt64?
    /// Thousandths of one core.
    public var processorLimitMillis: UInt64?
    public var offline: OfflinePolicy = .fail
    /// How long targets may wait for their client with `.queue`; `nil`: the default of the limits.
    public var queueMilliseconds: UInt64?
    /// Most targets in flight at a time; `nil`: all.
    public var concurrency: Int?
    /// Sizes of the first waves; what remains is the last wave.
    public var waves: [TargetCount] = []
    /// Errors that are tolerated; one more stops the rest. `nil`: no bound.
    public var errorBudget: TargetCount?
    /// How long the caller waits for the end; 0: not at all.
    public var waitMilliseconds: UInt64 = 0
    /// A repeated request with the same key, of the same principal, is answered with the first one's command.
    public var idempotencyKey: IdempotencyKey?
    public var note: String?
    /// Set by the core when this repeats another command for some of its targets.
    public var rerunOf: CommandID?

    public init(_ selection: TargetSelection, _ work: CommandWork) {
        self.selection = selection
        self.work = work
    }
}

/// Bounds on commands; all of them can be set in the configuration.
public struct CommandLimits: Sendable {
    public var argumentCount = 4_096
    /// Program, arguments, environment, standard input and script body together.
    public var orderBytes = 1 << 20
    public var targetsPerCommand = 50_000
    /// Unfinished targets of all commands together; beyond that a submit is answered 503.
    public var openTargets = 500_000
    public var activePerClient = 64
    /// Targets that wait until one of the client's active ones has ended.
    public var queuedPerClient = 1_000
    /// Targets of one client that wait for it to come back.
    public var parkedPerClient = 1_000
    public var defaultTimeoutMilliseconds: UInt64 = 3_600_000
    public var maximumTimeoutMilliseconds: UInt64 = 7 * 86_400_000
    public var defaultKillGraceMilliseconds: UInt64 = 5_000
    public var maximumKillGraceMilliseconds: UInt64 = 600_000
    public var defaultOutputBytes: UInt64 = 64 << 20
    public var maximumOutputBytes: UInt64 = 4 << 30
    public var defaultQueueMilliseconds: UInt64 = 86_400_000
    public var maximumQueueMilliseconds: UInt64 = 30 * 86_400_000
    public var maximumWaitMilliseconds: UInt64 = 3_600_000
    /// How long a client may be away before its targets, which may be running there, are given up.
    public var lostAfterMilliseconds: UInt64 = 7 * 86_400_000
    /// How long clients have to come back after a restart of the core before `fail` and `skip` are applied.
    public var returnGraceMilliseconds: UInt64 = 60_000
    /// What an agent may take beyond time-out and kill grace before the core steps in.
    public var overdueMilliseconds: UInt64 = 30_000
    /// How long an agent may hold an order without a sign of a start, besides its time-out.
    public var startWaitMilliseconds: UInt64 = 900_000
    /// How long idempotency keys are remembered.
    public var idempotencyMilliseconds: UInt64 = 86_400_000

    public init() {}
}

extension CommandRequest {
    /// Checks everything that can be checked without looking at clients.
    func validate(_ limits: CommandLimits) throws(Problem) {
        try validateSelection(limits)
        if let timeoutMilliseconds {
            try Self.range(
                timeoutMilliseconds, 1...limits.maximumTimeoutMilliseconds, "the time-out", "ms", "/timeout_s")
        }
        if let killGraceMilliseconds {
            try Self.range(
                killGraceMilliseconds, 0...limits.maximumKillGraceMilliseconds, "the kill grace", "ms",
                "/kill_grace_s")
        }
        if let outputLimitBytes {
            try Self.range(outputLimitBytes, 0...limits.maximumOutputBytes, "the output limit", "bytes", "/output_limit")
        }
        if let memoryLimitBytes {
            try Self.range(memoryLimitBytes, (1 << 20)...(1 << 50), "the memory limit", "bytes", "/memory_limit")
        }
        if let processorLimitMillis {
            try Self.range(
                processorLimitMillis, 10...1_024_000, "the processor limit", "thousandths of a core", "/cpu_limit")
        }
        if let queueMilliseconds {
            guard offline == .queue else {
                throw .invalid("queue_s is only allowed with \"offline\": \"queue\"", pointer: "/queue_s")
            }
            try Self.range(queueMilliseconds, 1...limits.maximumQueueMilliseconds, "the queue time", "ms", "/queue_s")
        }
        try Self.range(waitMilliseconds, 0...limits.maximumWaitMilliseconds, "the waiting time", "ms", "/wait_s")
        try validateRollout(limits)
        try validateSurroundings()
        try validateSecrets()
        try idempotencyKey?.validate(pointer: "/idempotency_key")
        if let note, note.utf8.count > 1_024 {
            throw .invalid("the note has \(note.utf8.count) bytes, at most 1024 are allowed", pointer: "/note")
        }
    }

    private func validateSelection(_ limits: CommandLimits) throws(Problem) {
        switch selection {
        case .selector(let text):
            guard !text.isEmpty else {
                throw .invalid("an empty selector matches nothing: name clients or a condition", pointer: "/selector")
            }
        case .clients(let clients):
            guard !clients.isEmpty else { throw .invalid("the list of clients is empty", pointer: "/clients") }
            guard clients.count <= limits.targetsPerCommand else {
                throw .invalid(
                    "\(clients.count) clients are named, at most \(limits.targetsPerCommand) are allowed",
                    pointer: "/clients")
            }
            guard clients.count == 1 || Set(clients).count == clients.count else {
                throw .invalid("a client is named twice", pointer: "/clients")
            }
        }
    }

    private func validateRollout(_ limits: CommandLimits) throws(Problem) {
        if let concurrency { try Self.range(concurrency, 1...limits.targetsPerCommand, "the concurrency", "targets", "/concurrency") }
        guard waves.count <= 32 else { throw .invalid("\(waves.count) waves, at most 32 are allowed", pointer: "/waves") }
        for (index, wave) in waves.enumerated() {
            try Self.check(wave, limits, least: 1, "/waves/\(index)")
        }
        if let errorBudget { try Self.check(errorBudget, limits, least: 0, "/error_budget") }
    }

    private static func check(
        _ count: TargetCount, _ limits: CommandLimits, least: Int, _ pointer: String
    ) throws(Problem) {
        switch count {
        case .count(let count): try range(count, least...limits.targetsPerCommand, "the number", "targets", pointer)
        case .percent(let percent):
            guard percent >= 0, percent <= 100, least == 0 || percent > 0 else {
                throw .invalid("\(percent) is no share: 0% to 100% are allowed", pointer: pointer)
            }
        }
    }

    private func validateSurroundings() throws(Problem) {
        guard environment.count <= 256 else {
            throw .invalid("\(environment.count) environment variables, at most 256 are allowed", pointer: "/env")
        }
        for (name, value) in environment {
            guard Self.isEnvironmentName(name) else {
                throw .invalid(
                    "\"\(Self.clipped(name))\" is no name for an environment variable: letters, digits and _ are allowed, no digit first",
                    pointer: "/env")
            }
            guard !value.utf8.contains(0) else {
                throw .invalid("the value of \(name) contains a zero byte", pointer: "/env/\(name)")
            }
        }
        if let workingDirectory {
            guard workingDirectory.utf8.first == UInt8(ascii: "/"), workingDirectory.utf8.count < 4_096,
                !workingDirectory.utf8.contains(0)
            else {
                throw .invalid(
                    "\"\(Self.clipped(workingDirectory))\" is no absolute path of less than 4096 bytes", pointer: "/cwd")
            }
        }
        if let user {
            guard (1...64).contains(user.utf8.count), user.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x3A && $0 != 0x7F }) else {
                throw .invalid("\"\(Self.clipped(user))\" is no user name or number", pointer: "/user")
            }
        }
    }

    static func isEnvironmentName(_ name: String) -> Bool {
        guard let first = name.utf8.first, name.utf8.count <= 256 else { return false }
        let isDigit = { (byte: UInt8) in byte >= 0x30 && byte <= 0x39 }
        return !isDigit(first)
            && name.utf8.allSatisfy {
                isDigit($0) || $0 == UInt8(ascii: "_") || ($0 & 0xDF >= 0x41 && $0 & 0xDF <= 0x5A)
            }
    }

    static func range<Number: BinaryInteger & Sendable>(
        _ value: Number, _ allowed: ClosedRange<Number>, _ what: String, _ unit: String, _ pointer: String
    ) throws(Problem) {
        guard allowed.contains(value) else {
            throw .invalid(
                "\(what) is \(value) \(unit), \(allowed.lowerBound) to \(allowed.upperBound) are allowed",
                pointer: pointer)
        }
    }

    /// For error messages: what a caller sent, cut to a length that fits a line.
    static func clipped(_ text: String) -> String { text.utf8.count <= 80 ? text : text.prefix(60) + "…" }
}

extension Invocation {
    /// Checks what is run and its size. `others`: bytes of standard input and environment that go in the same order.
    func validate(_ limits: CommandLimits, others: Int) throws(Problem) {
        var bytes = others
        switch self {
        case .argv(let argv):
            guard let program = argv.first, !program.isEmpty else {
                throw .invalid("argv needs a program as its first element", pointer: "/argv")
            }
            bytes += try Self.check(argv, limits, "/argv")
        case .shell(let text):
            guard !text.isEmpty else { throw .invalid("the shell text is empty", pointer: "/shell") }
            bytes += try Self.check([text], limits, "/shell", isList: false)
        case .script(let interpreter, let body, let arguments):
            guard let program = interpreter.first, !program.isEmpty else {
                throw .invalid("a script needs an interpreter", pointer: "/script/interpreter")
            }
            guard !body.isEmpty else { throw .invalid("the script is empty", pointer: "/script/body") }
            bytes += try Self.check(interpreter, limits, "/script/interpreter") + body.count
            bytes += try Self.check(arguments, limits, "/script/arguments")
        }
        guard bytes <= limits.orderBytes else {
            throw Problem(
                413, "command-too-large",
                "the command has \(bytes) bytes with environment, input and script; at most \(limits.orderBytes) are allowed: send larger input as a file"
            )
        }
    }

    private static func check(
        _ words: [String], _ limits: CommandLimits, _ pointer: String, isList: Bool = true
    ) throws(Problem) -> Int {
        guard words.count <= limits.argumentCount else {
            throw .invalid("\(words.count) arguments, at most \(limits.argumentCount) are allowed", pointer: pointer)
        }
        var bytes = 0
        for (index, word) in words.enumerated() {
            guard !word.utf8.contains(0) else {
                throw .invalid("an argument or text contains a zero byte", pointer: isList ? "\(pointer)/\(index)" : pointer)
            }
            // Linux: MAX_ARG_STRLEN is 32 pages, with the terminating zero byte.
            guard word.utf8.count < 131_072 else {
                throw .invalid(
                    "an argument or text has 131072 bytes or more: send it as a script",
                    pointer: isList ? "\(pointer)/\(index)" : pointer)
            }
            bytes += word.utf8.count
        }
        return bytes
    }
}
