import JSON
import Kernel
import Web

/// The three ways in: `PUT` and `POST` of a new file by its name, and `PATCH` (or `PUT` with Content-Range) of an unfinished
/// one by its id.
func uploadRoutes(_ files: FileStore) -> [Route] {
    let answers = [
        Route.Answer(200, "The file, whole or, with Upload-Offset, as far as it is there.", FileWriting.schema),
        Route.Answer(201, "The new file, whole.", FileWriting.schema),
    ]
    let create = [
        Route.Parameter.query("form", .choice(StoredFileForm.allCases.map(\.rawValue), "tree: the bytes are a POSIX pax archive.")),
        .query("size", .integer("Bytes that will follow, where Content-Length does not say it.")),
        .query("keep_s", FileReading.keep),
        .query("sha256", .string("What the file must have; as Repr-Digest or Content-Digest do.", length: 64...64)),
    ]
    let summary = "Stores a new file of this name in one request; with Content-Range, goes on with the unfinished file of this id."
    let append = Route(
        .patch, "/api/v1/files/{file}", right: .writeFiles,
        "Goes on with an unfinished file at Upload-Offset (or Content-Range), which must be its durable offset.",
        query: [
            .query("complete", .boolean("true: it is whole afterwards; needed where no size was announced.")),
            .query("sha256", .string("What the whole file must have; as Repr-Digest does.", length: 64...64)),
        ],
        body: .stream(limit: FileUpload.bodyLimit), answers: answers
    ) { (request) async throws(Problem) in
        let position = try UploadPosition(request)
        guard let position else {
            throw .invalid("say with the field Upload-Offset or Content-Range where the bytes belong")
        }
        return try await FileUpload.append(request, files, position)
    }
    func store(isPut: Bool) -> Route {
        Route(
            isPut ? .put : .post, "/api/v1/files/{file}", right: .writeFiles, summary, query: create,
            body: .stream(limit: FileUpload.bodyLimit), answers: answers
        ) { (request) async throws(Problem) in
            if let position = try UploadPosition(request) { return try await FileUpload.append(request, files, position) }
            return try await FileUpload.create(request, files)
        }
    }
    return [store(isPut: true), store(isPut: false), append]
}

private enum FileUpload {
    /// The store has its own limits, and says them better.
    static let bodyLimit = 1 << 50

    static func create(_ request: Request, _ files: FileStore) async throws(Problem) -> Response {
        var new = NewFile(name: request["file"])
        new.form = request.query["form"].flatMap { StoredFileForm(rawValue: $0) } ?? .file
        new.size = (request.query.integer("size") ?? request.headers["content-length"].flatMap { Int64($0) }).map { UInt64($0) }
        new.keepMilliseconds = request.query.integer("keep_s").map { UInt64($0) * 1_000 }
        let digest = try expected(request, isWholeBody: true)
        let writer = try await files.begin(new, by: request.principal)
        try await take(request, writer)
        let file = try await seal(writer, digest)
        return FileWriting.positioned(.created(FileWriting.json(file), at: "/api/v1/files/\(file.id)"), file)
    }

    static func append(_ request: Request, _ files: FileStore, _ position: UploadPosition) async throws(Problem) -> Response {
        let digest = try expected(request, isWholeBody: false)
        let file = try await files.get(try FileReading.id(request), for: request.principal, .writeFiles)
        if let total = position.total, let size = file.size, total != size {
            throw .invalid("file \(file.id) was announced with \(size) bytes, and Content-Range says \(total)")
        }
        let writer = try await files.resume(file.id)
        guard writer.offset == position.start else {
            let offset = await writer.suspend()
            throw .conflict("offset-mismatch", "file \(file.id) goes on at byte \(offset), not at \(position.start)")
        }
        try await take(request, writer)
        let isComplete = writer.size.map { $0 == writer.offset } ?? false
            || position.total.map { $0 == writer.offset } ?? false || request.query.bool("complete") == true
        guard isComplete else {
            await writer.suspend()
            let file = try await files.get(writer.id)
            return FileWriting.positioned(.json(FileWriting.json(file)), file)
        }
        let whole = try await seal(writer, digest)
        return FileWriting.positioned(.json(FileWriting.json(whole)), whole)
    }

    /// From the connection into the file. While the disk works the next bytes gather, up to a bound; then the sender waits.
    private static func take(_ request: Request, _ writer: FileWriter) async throws(Problem) {
        do throws(Problem) {
            guard let body = request.stream else { return }
            while let piece = try await body.next() { try await writer.append(piece) }
        } catch {
            // What has come is kept: the sender goes on where it is durable.
            await writer.suspend()
            throw error
        }
    }

    private static func seal(_ writer: FileWriter, _ digest: FileDigest?) async throws(Problem) -> StoredFile {
        do throws(Problem) { return try await writer.seal(expecting: digest) } catch {
            await writer.suspend()
            throw error
        }
    }

    private static func expected(_ request: Request, isWholeBody: Bool) throws(Problem) -> FileDigest? {
        if let text = request.query["sha256"] { return try DigestText.digest(hexadecimal: text) }
        for name in isWholeBody ? ["repr-digest", "content-digest"] : ["repr-digest"] {
            guard let field = request.headers[name] else { continue }
            if let digest = try DigestText.digest(field: field) { return digest }
        }
        return nil
    }
}

/// Where the bytes of a request belong in their file.
struct UploadPosition: Equatable {
    var start: UInt64
    /// Of the whole file, where the request says so.
    var total: UInt64?

    /// `nil` when the request does not say where.
    init?(_ request: Request) throws(Problem) {
        if let text = request.headers["content-range"] {
            self = try UploadPosition(contentRange: text)
        } else if let text = request.headers["upload-offset"] {
            guard let start = UInt64(text) else { throw .invalid("Upload-Offset must be a number of bytes") }
            self = UploadPosition(start: start, total: nil)
        } else {
            return nil
        }
    }

    init(start: UInt64, total: UInt64?) {
        self.start = start
        self.total = total
    }

    /// `bytes FIRST-LAST/TOTAL` or `bytes FIRST-LAST/*`. The end is where the body ends; only its form is checked.
    init(contentRange text: String) throws(Problem) {
        let refusal = Problem.invalid("Content-Range must be \"bytes FIRST-LAST/TOTAL\", TOTAL a number or *")
        guard text.lowercased().hasPrefix("bytes ") else { throw refusal }
        let parts = text.dropFirst(6).split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 else { throw refusal }
        let range = parts[0].split(separator: "-", omittingEmptySubsequences: false)
        guard range.count == 2, let first = UInt64(range[0]), let last = UInt64(range[1]), first <= last else { throw refusal }
        start = first
        if parts[1] == "*" {
            total = nil
        } else {
            guard let number = UInt64(parts[1]), last < number else { throw refusal }
            total = number
        }
    }
}
