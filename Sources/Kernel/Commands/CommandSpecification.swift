import AgentProtocol

/// One accepted command as it was checked and journaled; it never changes.
public final class CommandSpecification: Sendable {
    /// What its clients are told, without the values of secret variables.
    let order: Order
    public let principalKind: String
    public let principal: String
    /// As given; `nil` when clients were named.
    public let selector: String?
    /// The template that the invocation was made from.
    public let template: TemplateReference?
    /// Names of the variables that were given as secret, sorted; nothing durable has their values.
    public let secretNames: [String]
    /// Owners of the filters that its output passes, sorted: those that were there or required when it was accepted.
    public let outputFilters: [String]
    public let offline: OfflinePolicy
    /// Unix milliseconds after which no target is sent any more; `nil` without a queue.
    public let queueUntil: UInt64?
    public let concurrency: Int?
    public let waves: [Int]
    public let errorBudget: Int?
    public let note: String?
    public let rerunOf: CommandID?

    public struct TemplateReference: Sendable, Equatable {
        public var name: String
        public var version: Int
        public init(name: String, version: Int) {
            self.name = name
            self.version = version
        }
    }

    public var id: CommandID { order.command }
    public var correlation: String { order.correlation }
    public var invocation: Invocation { order.invocation }
    public var standardInput: [UInt8]? { order.standardInput }
    public var environment: [String: String] { order.environment }
    public var workingDirectory: String? { order.workingDirectory }
    public var user: String? { order.user }
    public let timeoutMilliseconds: UInt64
    public var killGraceMilliseconds: UInt64 { order.killGraceMilliseconds }
    public var outputLimitBytes: UInt64 { order.outputLimitBytes }
    public var memoryLimitBytes: UInt64? { order.memoryLimitBytes }
    public var processorLimitMillis: UInt64? { order.processorLimitMillis }

    init(
        id: CommandID, request: CommandRequest, invocation: Invocation, template: TemplateReference?,
        targetCount: Int, principal: Principal, limits: CommandLimits, outputFilters: [String] = []
    ) {
        timeoutMilliseconds = request.timeoutMilliseconds ?? limits.defaultTimeoutMilliseconds
        order = Order(
            command: id, invocation: invocation, standardInput: request.standardInput, environment: request.environment,
            workingDirectory: request.workingDirectory, user: request.user, timeoutMilliseconds: timeoutMilliseconds,
            killGraceMilliseconds: request.killGraceMilliseconds ?? limits.defaultKillGraceMilliseconds,
            outputLimitBytes: request.outputLimitBytes ?? limits.defaultOutputBytes,
            memoryLimitBytes: request.memoryLimitBytes, processorLimitMillis: request.processorLimitMillis,
            correlation: principal.correlation)
        principalKind = principal.kind.rawValue
        self.principal = principal.id
        if case .selector(let text) = request.selection { selector = text } else { selector = nil }
        self.template = template
        secretNames = request.secretEnvironment.keys.sorted()
        self.outputFilters = outputFilters
        offline = request.offline
        queueUntil = request.offline == .queue
            ? id.milliseconds + (request.queueMilliseconds ?? limits.defaultQueueMilliseconds) : nil
        concurrency = request.concurrency
        waves = request.waves.map { max(1, $0.of(targetCount)) }
        errorBudget = request.errorBudget?.of(targetCount)
        note = request.note
        rerunOf = request.rerunOf
    }

    init(id: CommandID, fields: CommandFields) {
        timeoutMilliseconds = fields.timeoutMilliseconds
        order = Order(
            command: id, invocation: fields.invocation, standardInput: fields.standardInput, environment: fields.environment,
            workingDirectory: fields.workingDirectory, user: fields.user, timeoutMilliseconds: fields.timeoutMilliseconds,
            killGraceMilliseconds: fields.killGraceMilliseconds, outputLimitBytes: fields.outputLimitBytes,
            memoryLimitBytes: fields.memoryLimitBytes, processorLimitMillis: fields.processorLimitMillis,
            correlation: fields.correlation)
        principalKind = fields.principalKind
        principal = fields.principal
        selector = fields.selector
        template = fields.template
        secretNames = fields.secretNames
        outputFilters = fields.outputFilters
        offline = fields.offline
        queueUntil = fields.queueUntil
        concurrency = fields.concurrency
        waves = fields.waves
        errorBudget = fields.errorBudget
        note = fields.note
        rerunOf = fields.rerunOf
    }

    /// Targets get their turn one after another instead of all at once.
    var isStaged: Bool { concurrency != nil || !waves.isEmpty }

    /// One line for lists and for the search: what is run, cut to 200 bytes.
    var title: String {
        let text: String
        switch invocation {
        case .argv(let argv): text = argv.count == 1 ? argv[0] : argv.joined(separator: " ")
        case .shell(let shell): text = shell
        case .script(let interpreter, _, let arguments):
            text = (interpreter + ["(script)"] + arguments).joined(separator: " ")
        }
        let named = template.map { "\($0.name): " + text } ?? text
        guard named.utf8.count > 200 else { return named }
        var cut = ""
        for character in named {
            guard cut.utf8.count + character.utf8.count <= 197 else { break }
            cut.append(character)
        }
        return cut + "…"
    }
}

/// The parts of a specification while it is read back from the database.
struct CommandFields {
    var principalKind = ""
    var principal = ""
    var correlation = ""
    var selector: String?
    var template: CommandSpecification.TemplateReference?
    var invocation = Invocation.argv([])
    var standardInput: [UInt8]?
    var environment: [String: String] = [:]
    var secretNames: [String] = []
    var outputFilters: [String] = []
    var workingDirectory: String?
    var user: String?
    var timeoutMilliseconds: UInt64 = 0
    var killGraceMilliseconds: UInt64 = 0
    var outputLimitBytes: UInt64 = 0
    var memoryLimitBytes: UInt64?
    var processorLimitMillis: UInt64?
    var offline = OfflinePolicy.fail
    var queueUntil: UInt64?
    var concurrency: Int?
    var waves: [Int] = []
    var errorBudget: Int?
    var note: String?
    var rerunOf: CommandID?
}
