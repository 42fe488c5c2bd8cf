import JSON
import Kernel
import Web

/// `/api/v1/commands/archive`: how the copy of the commands' output in an object store stands. The settings `output_archive_…` turn it
/// on and off.
public func outputArchiveRoutes(_ archive: OutputArchive) -> [Route] {
    [
        Route(
            .get, "/api/v1/commands/archive", right: .readSettings,
            "How far the output of commands is archived in an object store, and what keeps it from going on.",
            answers: [Route.Answer(200, "The archive; with no remote set only `state`.", statusSchema)]
        ) { (_) async throws(Problem) in .json(try await archive.status().json) }
    ]
}

private let statusSchema = Schema.object([
    .required("state", .choice(AuditArchiveStatus.State.allCases.map(\.rawValue))),
    .optional("remote", .string()), .optional("prefix", .string()),
    .optional("behind", .integer("Targets that were not looked at.")),
    .optional("open", .integer("Targets that had not ended when their turn came; they are looked at again.")),
    .optional("objects", .integer("Objects that the store has said yes to.")),
    .optional("bytes", .integer("Bytes in them.")),
    .optional("missing", .integer("Targets whose output was removed before it was copied, in part or whole.")),
    .optional("dropped_bytes", .integer("Bytes of output files that the disk limit removed before everything in them was copied.")),
    .optional("retention_waits", .boolean()), .optional("last_key", .string()), .optional("archived_ms", .integer()),
    .optional("error", archiveErrorSchema),
])
