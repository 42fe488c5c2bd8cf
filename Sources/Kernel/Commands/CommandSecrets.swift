import AgentProtocol
import Synchronization

/// Variables of a command's environment that a plugin gave as secret: in the memory of the core until the command's last
/// target has ended, because its output is masked with them; never in the database, the audit trail, an event or a log.
final class CommandSecrets: Sendable {
    static let count = 64
    /// Names and values together.
    static let bytes = 16 * 1_024

    let variables: [String: String]
    let patterns: SecretPatterns
    private let memory: CommandSecretsMemory

    /// - Throws: 503 `too-many-secrets`.
    init(_ variables: [String: String], _ memory: CommandSecretsMemory) throws(Problem) {
        let patterns = SecretPatterns(values: variables.values.map { Array($0.utf8) })
        guard memory.take(patterns.bytes) else {
            throw Problem(
                503, "too-many-secrets", "unfinished commands with secrets take all the memory that they may", retryAfter: 5)
        }
        self.variables = variables
        self.patterns = patterns
        self.memory = memory
    }

    deinit { memory.give(patterns.bytes) }
}

/// Bounds what all unfinished commands with secrets hold.
final class CommandSecretsMemory: Sendable {
    static let most = 64 << 20
    private let used = Atomic<Int>(0)

    init() {}

    func take(_ bytes: Int) -> Bool {
        guard used.add(bytes, ordering: .relaxed).newValue <= Self.most else {
            give(bytes)
            return false
        }
        return true
    }

    func give(_ bytes: Int) { used.subtract(bytes, ordering: .relaxed) }
}

extension CommandRequest {
    /// Checks the secret part.
    func validateSecrets() throws(Problem) {
        guard !secretEnvironment.isEmpty else { return }
        // The core would have to keep them for as long as the client is away.
        guard offline != .queue else {
            throw .invalid("secrets are not kept for clients that are away: \"offline\" has to be \"fail\" or \"skip\"", pointer: "/offline")
        }
        guard secretEnvironment.count <= CommandSecrets.count,
            secretEnvironment.reduce(0, { $0 + $1.key.utf8.count + $1.value.utf8.count }) <= CommandSecrets.bytes
        else {
            throw .invalid(
                "a command takes at most \(CommandSecrets.count) secret variables, \(CommandSecrets.bytes) bytes with their names")
        }
        for (name, value) in secretEnvironment {
            guard Self.isEnvironmentName(name), environment[name] == nil, name != "CM_COMMAND_ID" else {
                throw .invalid("\"\(Self.clipped(name))\" is no name for a secret variable, or is given twice")
            }
            guard !value.utf8.contains(0) else { throw .invalid("the value of \(name) contains a zero byte") }
        }
    }
}
