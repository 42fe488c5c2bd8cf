import JSON

/// One thing that an administrator can change while the core runs. Each area declares its own as static members in an
/// extension of `Setting` and lists them for `Settings.load`.
public struct Setting: Sendable {
    public enum Kind: Sendable {
        case integer(ClosedRange<Int>)
        case bool
        case choice([String])
        /// So many bytes at most; `fault` says what is wrong with a text, `nil` when nothing is.
        case text(maximum: Int, fault: @Sendable (String) -> String?)
        /// A list of short texts.
        case strings(maximum: Int)
    }
    public let name: String
    public let kind: Kind
    public let initial: JSONValue
    public let summary: String

    public init(_ name: String, _ kind: Kind, initial: JSONValue, _ summary: String) {
        self.name = name
        self.kind = kind
        self.initial = initial
        self.summary = summary
    }

    /// `nil` when the value is allowed, else what is wrong and what would be right.
    func fault(of value: JSONValue) -> String? {
        switch kind {
        case .integer(let range):
            guard let number = value.integer else { return "must be a whole number, not \(value.kindName)" }
            return range.contains(Int(number))
                ? nil : "is \(number) and must be from \(range.lowerBound) to \(range.upperBound)"
        case .bool:
            return value.bool == nil ? "must be true or false, not \(value.kindName)" : nil
        case .choice(let choices):
            guard let text = value.string else { return "must be text, not \(value.kindName)" }
            return choices.contains(text) ? nil : "is \"\(text)\" and must be one of \(choices.joined(separator: ", "))"
        case .text(let maximum, let fault):
            guard let text = value.string else { return "must be text, not \(value.kindName)" }
            guard text.utf8.count <= maximum else { return "has \(text.utf8.count) bytes; \(maximum) are allowed" }
            return fault(text)
        case .strings(let maximum):
            guard let elements = value.array else { return "must be a list of texts, not \(value.kindName)" }
            guard elements.count <= maximum else { return "has \(elements.count) entries; \(maximum) are allowed" }
            return elements.allSatisfy { ($0.string?.utf8.count).map { (1...256).contains($0) } ?? false }
                ? nil : "must hold texts of 1 to 256 bytes only"
        }
    }

    /// A value as the database keeps it; `nil` when there is none, or one that is not allowed (any more).
    func valid(_ stored: String?) -> JSONValue? {
        guard let stored, let value = try? JSONValue(parsing: stored), fault(of: value) == nil else { return nil }
        return value
    }

    public var schemaKind: String {
        switch kind {
        case .integer: "integer"
        case .bool: "boolean"
        case .choice, .text: "string"
        case .strings: "array"
        }
    }
}

extension Setting {
    public static let heartbeatSeconds = Setting(
        "heartbeat_s", .integer(5...3_600), initial: 15, "seconds between the heartbeats of an agent")
    public static let heartbeatJitterPercent = Setting(
        "heartbeat_jitter_percent", .integer(0...50), initial: 10, "how far a heartbeat may move, in percent")
    public static let forgetAfterDays = Setting(
        "forget_after_days", .integer(0...3_650), initial: 0, "days offline after which a client is forgotten; 0: never")
    public static let auditRetentionDays = Setting(
        "audit_retention_days", .integer(0...36_500), initial: 0, "days that audit records are kept; 0: for ever")
    public static let commandRetentionDays = Setting(
        "command_retention_days", .integer(0...36_500), initial: 90,
        "days that finished commands are kept; 0: for ever")
    public static let outputRetentionDays = Setting(
        "output_retention_days", .integer(0...36_500), initial: 30, "days that output is kept; 0: for ever")
    public static let outputStoreMiB = Setting(
        "output_store_mib", .integer(1...1 << 40), initial: 32_768,
        "MiB that the files of output may have together; the oldest are removed first")
    public static let sessionRetentionDays = Setting(
        "session_retention_days", .integer(0...36_500), initial: 90,
        "days that the connection history of clients is kept; 0: for ever")
    public static let commandsStopped = Setting(
        "commands_stopped", .bool, initial: false, "refuses new commands of everybody but the exempt roles")
    public static let commandsStoppedExempt = Setting(
        "commands_stopped_exempt_roles", .strings(maximum: 32), initial: [],
        "roles that may still run commands while commands_stopped is on")
    public static let logLevel = Setting(
        "log_level", .choice(["debug", "info", "warning", "error"]), initial: "info", "what the log tells")

    public static let common: [Setting] = [
        heartbeatSeconds, heartbeatJitterPercent, forgetAfterDays, auditRetentionDays, commandRetentionDays,
        outputRetentionDays, outputStoreMiB, sessionRetentionDays, commandsStopped, commandsStoppedExempt, logLevel,
        requiredOutputFilters,
    ] + files + transfers + archive
}
