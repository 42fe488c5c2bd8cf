import JSON

/// `plugins.settings."client-manager.secrets-sync"`.
struct Settings: Sendable {
    var maximumSecrets = 1_000
    var versionsKept = 5
    /// Files on clients, of all secrets together.
    var maximumFiles = 100_000

    /// Of one value. A file of it travels in one piece, and the service copies it.
    static let valueBytes = 64 << 10
    /// Of all values together: their sealed forms are held in memory.
    static let totalBytes = 32 << 20
    static let maximumAssignments = 1_000

    init(_ section: JSONObject) {
        maximumSecrets = Self.number(section["maximum_secrets"]) ?? maximumSecrets
        versionsKept = Self.number(section["versions_kept"]) ?? versionsKept
        maximumFiles = Self.number(section["maximum_files"]) ?? maximumFiles
    }

    private static func number(_ value: JSONValue?) -> Int? { value?.integer.flatMap { Int(exactly: $0) } }
}
