import JSON
import Kernel
import Web

/// `/api/v1/audit/archive`: how the copy of the trail in an object store stands. The settings `audit_archive_…` turn it on and off.
public func auditArchiveRoutes(_ archive: AuditArchive) -> [Route] {
    [
        Route(
            .get, "/api/v1/audit/archive", right: .readAudit,
            "How far the audit trail is archived in an object store, and what keeps it from going on.",
            answers: [Route.Answer(200, "The archive; with no remote set only `state`.", archiveSchema)]
        ) { (_) async throws(Problem) in .json(try await archive.status().json) }
    ]
}

private let archiveSchema = Schema.object([
    .required("state", .choice(AuditArchiveStatus.State.allCases.map(\.rawValue))),
    .optional("remote", .string()), .optional("prefix", .string()),
    .optional("position", .integer("The last record that the store has.")),
    .optional("newest", .integer("The last record of the trail.")), .optional("behind", .integer("Records between the two.")),
    .optional("segments", .integer("Objects that the store has said yes to.")),
    .optional("missing", .integer("Records that retention removed while the archive was off.")),
    .optional("retention_waits", .boolean()), .optional("last_key", .string()), .optional("archived_ms", .integer()),
    .optional("next_key", .string("The segment that is being written, or is to be tried again.")),
    .optional("error", archiveErrorSchema),
])

let archiveErrorSchema = Schema.object([
    .required("code", .string("The store's plugin's own, or object-store-….")), .required("text", .string()),
    .required("since_ms", .integer()), .required("next_ms", .integer("The next attempt; a change of the settings or of the plugins brings it on.")),
    .required("attempts", .integer("Failures since the last success.")),
])
