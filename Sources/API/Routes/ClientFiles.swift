import JSON
import Kernel
import Web

/// `/api/v1/clients/{id}/files`: what is in a client's file system, and changes of it, as structured requests.
public func clientFileRoutes(_ transfers: Transfers, _ clients: Clients, scope: @escaping ClientScope) -> [Route] {
    let scoped = ScopedClients(clients: clients, scope: scope)
    let path = Route.Parameter.query("path", .string("On the client; absolute.", length: 1...4_096))
    let made = Route.Answer(204, "Done, and on the client's disk.")
    return [
        Route(
            .get, "/api/v1/clients/{id}/files", right: .readFiles, "What is in a directory of a client, in the order of the names.",
            query: [path, Reading.limit, Reading.cursor],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(ClientFiles.schema))], auditedRead: "file.list"
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .readFiles)
            let answer = try await transfers.look(
                .list(path: try ClientFiles.path(request), after: request.query["cursor"] ?? "", limit: Reading.limit(request)), on: id)
            return .json(
                .page(answer.entries.map { .object($0.json) }, next: answer.hasMore ? answer.entries.last?.name : nil))
        },
        Route(
            .get, "/api/v1/clients/{id}/files/status", right: .readFiles, "One file, directory or link of a client.",
            query: [path, .query("follow", .boolean("Of what a link leads to (default), or of the link."))],
            answers: [Route.Answer(200, "The entry.", ClientFiles.schema)], auditedRead: "file.status"
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .readFiles)
            let answer = try await transfers.look(
                .status(path: try ClientFiles.path(request), follows: request.query.bool("follow") ?? true), on: id)
            guard let entry = answer.entries.first else { throw .notFound("the client knows of no such file") }
            return .json(.object(entry.json))
        },
        Route(
            .post, "/api/v1/clients/{id}/files/directories", right: .writeFiles, "Makes a directory on a client.",
            body: .json(
                .object([
                    .required("path", .string(length: 1...4_096)),
                    .optional("parents", .boolean("Those above too; one that is there is no error.")),
                    .optional("mode", .integer("Permission bits; default 0755.", in: 0...4_095)),
                ])), answers: [made]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .writeFiles)
            try await transfers.change(
                .makeDirectory(
                    path: request.json["path"]?.string ?? "", parents: request.json["parents"]?.bool ?? false,
                    mode: UInt16(clamping: request.json["mode"]?.integer ?? 0o755)), on: id, by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/clients/{id}/files/rename", right: .writeFiles,
            "Gives a file, link or directory of a client another name, in the same file system.",
            body: .json(
                .object([
                    .required("path", .string(length: 1...4_096)), .required("target", .string(length: 1...4_096)),
                    .optional("replace", .boolean("A file that is there is replaced; default: refused.")),
                ])), answers: [made]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .writeFiles)
            try await transfers.change(
                .rename(
                    path: request.json["path"]?.string ?? "", target: request.json["target"]?.string ?? "",
                    replaces: request.json["replace"]?.bool ?? false), on: id, by: request.principal)
            return .empty
        },
        Route(
            .delete, "/api/v1/clients/{id}/files", right: .writeFiles,
            "Removes a file, a link or an empty directory of a client; a whole directory with recursive.",
            query: [path, .query("recursive", .boolean())], answers: [made]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .writeFiles)
            try await transfers.change(
                .remove(path: try ClientFiles.path(request), recursive: request.query.bool("recursive") ?? false), on: id,
                by: request.principal)
            return .empty
        },
    ]
}

enum ClientFiles {
    static let schema = Schema.object([
        .required("name", .string()), .required("kind", .choice(FileEntry.Kind.allCases.map(\.rawValue))),
        .required("size", .integer()), .required("mode", .integer("Permission bits.")), .required("modified_ns", .integer()),
        .required("owner", .integer()), .required("group", .integer()), .optional("target", .string("Where a link leads.")),
    ])

    static func path(_ request: Request) throws(Problem) -> String {
        guard let path = request.query["path"] else { throw .invalid("the query names no path") }
        return path
    }
}
