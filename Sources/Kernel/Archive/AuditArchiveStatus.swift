import JSON

/// How the archive of the audit trail stands, as the API shows it.
public struct AuditArchiveStatus: Sendable, Equatable {
    public enum State: String, Sendable, CaseIterable {
        /// No remote is set.
        case off
        /// Nobody offers an object store: it goes on by itself when somebody does.
        case waiting
        case writing
        /// The last attempt failed; there will be another one.
        case failing
        /// Nothing that is a segment waits.
        case current
    }
    public internal(set) var state = State.off
    let destination: ArchiveDestination?
    let row: ArchivePosition
    let newest: UInt64
    /// Records are older than the setting allows and stay, because the archive does not have them.
    var retentionWaits = false
    var trouble: ArchiveTrouble?
    var attempts = 0

    init(destination: ArchiveDestination?, row: ArchivePosition, newest: UInt64) {
        self.destination = destination
        self.row = row
        self.newest = newest
    }

    public var json: JSONValue {
        guard let destination else { return ["state": .string(state.rawValue)] }
        var json: JSONObject = [
            "state": .string(state.rawValue), "remote": .string(destination.remote), "prefix": .string(destination.prefix),
            "position": number(row.position), "newest": number(newest), "behind": number(newest - row.position),
            "segments": number(row.segments), "missing": number(row.missing), "retention_waits": .bool(retentionWaits),
        ]
        if !row.lastKey.isEmpty {
            json["last_key"] = .string(row.lastKey)
            json["archived_ms"] = number(row.archivedMilliseconds)
        }
        if let planned = row.planned {
            json["next_key"] = .string(ArchiveNames.segment(destination.prefix, row.position + 1, planned))
        }
        if let trouble { json["error"] = trouble.json(attempts: attempts) }
        return .object(json)
    }

    private func number(_ value: UInt64) -> JSONValue { .integer(Int64(clamping: value)) }
}
