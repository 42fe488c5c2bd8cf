import JSON
import Kernel
import Web

extension Right {
    /// Files of the store that one has made, and, with the right on every client, everybody's.
    public static let readFiles: Right = "file.read"
    public static let writeFiles: Right = "file.write"
}

/// `/api/v1/files`: the managed store. Uploads and downloads are streams; see Docs/files.md.
public func fileRoutes(_ files: FileStore) -> [Route] {
    [
        Route(
            .get, "/api/v1/files", right: .readFiles,
            "Files of the store, newest first: one's own, and everybody's with the right on all clients.",
            query: [
                Reading.limit, Reading.cursor,
                .query("state", .choice(["whole", "unfinished"], "Only those in this state.")),
                .query("name", .string("Only those of this name.", length: 1...255)),
                .query("form", .choice(StoredFileForm.allCases.map(\.rawValue), "Only those of this form.")),
            ],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(FileWriting.schema))]
        ) { (request) async throws(Problem) in
            var query = FileQuery()
            query.limit = Reading.limit(request)
            if let cursor = request.query["cursor"] {
                guard let id = FileID(cursor) else { throw .invalid("this is no cursor of this list") }
                query.before = id
            }
            query.isWhole = request.query["state"].map { $0 == "whole" }
            query.name = request.query["name"]
            query.form = request.query["form"].flatMap { StoredFileForm(rawValue: $0) }
            let page = try await files.list(query, for: request.principal, .readFiles)
            return .json(
                .page(page.map(FileWriting.json), next: page.count == query.limit ? page.last?.id.description : nil))
        },
        Route(
            .post, "/api/v1/files", right: .writeFiles,
            "Begins a file whose bytes follow with PATCH, in as many requests as it takes.", body: .json(FileReading.schema),
            answers: [Route.Answer(201, "Durable, without a byte yet.", FileWriting.schema)]
        ) { (request) async throws(Problem) in
            let writer = try await files.begin(FileReading.newFile(request.json), by: request.principal)
            await writer.suspend()
            let file = try await files.get(writer.id)
            return FileWriting.positioned(.created(FileWriting.json(file), at: "/api/v1/files/\(file.id)"), file)
        },
        Route(
            .get, "/api/v1/files/{file}", right: .readFiles,
            "One file. Of an unfinished one, Upload-Offset (also with HEAD) says where it goes on.",
            answers: [Route.Answer(200, "The file.", FileWriting.schema)]
        ) { (request) async throws(Problem) in
            let file = try await files.get(try FileReading.id(request), for: request.principal, .readFiles)
            return FileWriting.positioned(.json(FileWriting.json(file)), file)
        },
        Route(
            .delete, "/api/v1/files/{file}", right: .writeFiles,
            "Removes a file, also one that is still being written.", answers: [Route.Answer(204, "Gone.")]
        ) { (request) async throws(Problem) in
            let file = try await files.get(try FileReading.id(request), for: request.principal, .writeFiles)
            try await files.remove(file.id, by: request.principal)
            return .empty
        },
        downloadRoute(files),
    ] + uploadRoutes(files)
}

enum FileReading {
    static let keep = Schema.integer("Seconds until it is removed by itself; 0: never; default: file_retention_days.", in: 0...3_200_000_000)
    static let schema = Schema.object([
        .required("name", .string("What people call it; no path.", length: 1...255)),
        .optional("size", .integer("Bytes that will follow: space is reserved, and the file is whole with the last of them.")),
        .optional("form", .choice(StoredFileForm.allCases.map(\.rawValue), "file, or tree for a POSIX pax archive of one.")),
        .optional("keep_s", keep),
    ])

    /// - Parameter json: checked against `schema`.
    static func newFile(_ json: JSONValue) -> NewFile {
        var new = NewFile(name: json["name"]?.string ?? "")
        new.size = json["size"]?.integer.map { UInt64($0) }
        new.form = json["form"]?.string.flatMap { StoredFileForm(rawValue: $0) } ?? .file
        new.keepMilliseconds = json["keep_s"]?.integer.map { UInt64($0) * 1_000 }
        return new
    }

    static func id(_ request: Request) throws(Problem) -> FileID {
        guard let id = FileID(request["file"]) else {
            throw .invalid("'\(request["file"].prefix(64))' is no file id (26 characters, the first 0 to 7)")
        }
        return id
    }
}

/// Files as JSON.
enum FileWriting {
    static func json(_ file: StoredFile) -> JSONValue {
        var object: JSONObject = [
            "id": .string(file.id.description), "name": .string(file.name), "form": .string(file.form.rawValue),
            "state": .string(file.isWhole ? "whole" : "unfinished"),
            "size": .milliseconds(file.size), "offset": .milliseconds(file.durable),
            "owner": ["kind": .string(file.ownerKind.rawValue), "id": .string(file.owner)],
            "source": .string(file.source), "created_ms": .milliseconds(file.createdAt),
            "expires_ms": .milliseconds(file.expiresAt),
        ]
        if let digest = file.digest { object["sha256"] = .string(digest.hex) }
        if let finished = file.finishedAt { object["finished_ms"] = .milliseconds(finished) }
        return .object(object)
    }

    /// What whoever goes on with an upload asks for, also without a body.
    static func positioned(_ response: consuming Response, _ file: StoredFile) -> Response {
        var response = response.with("upload-offset", String(file.durable))
        if let size = file.size { response.headers.set("upload-length", String(size)) }
        if let digest = file.digest { response.headers.set("repr-digest", DigestText.field(digest)) }
        return response
    }

    static let schema = Schema.object([
        .required("id", .string()), .required("name", .string()),
        .required("form", .choice(StoredFileForm.allCases.map(\.rawValue))),
        .required("state", .choice(["whole", "unfinished"])),
        .required("size", .any("Bytes; null: not announced.")),
        .required("offset", .integer("Bytes that are on the disk for good.")),
        .required("owner", .any("Who made it.")), .required("source", .string("Where it came from.")),
        .required("created_ms", .integer()), .optional("finished_ms", .integer()),
        .required("expires_ms", .any("When it is removed by itself; null: never.")),
        .optional("sha256", .string("Of a whole file.")),
    ])
}
