import JSON

/// How the archive of the commands' output stands, as the API shows it.
public struct OutputArchiveStatus: Sendable, Equatable {
    public internal(set) var state = AuditArchiveStatus.State.off
    var destination: ArchiveDestination?
    var row: OutputArchiveRow?
    /// Targets that were not looked at.
    var behind: UInt64 = 0
    /// Targets that were passed because they had not ended.
    var open: UInt64 = 0
    /// Output or commands are older than the settings allow and stay, because the archive does not have them.
    var retentionWaits = false
    var trouble: ArchiveTrouble?
    var attempts = 0

    public var json: JSONValue {
        guard let destination else { return ["state": .string(state.rawValue)] }
        func number(_ value: UInt64?) -> JSONValue { .integer(Int64(clamping: value ?? 0)) }
        var json: JSONObject = [
            "state": .string(state.rawValue), "remote": .string(destination.remote), "prefix": .string(destination.prefix),
            "behind": number(behind), "open": number(open), "objects": number(row?.objects), "bytes": number(row?.bytes),
            "missing": number(row?.missing), "dropped_bytes": number(row?.droppedBytes), "retention_waits": .bool(retentionWaits),
        ]
        if let row, !row.lastKey.isEmpty {
            json["last_key"] = .string(row.lastKey)
            json["archived_ms"] = number(row.archivedMilliseconds)
        }
        if let trouble { json["error"] = trouble.json(attempts: attempts) }
        return .object(json)
    }
}
