import JSON
import System

/// The managed store of the core by itself; `cp` uses it on the way to clients.
extension Verb {
    static let files: [Verb] = [
        .list(
            "files list", "/api/v1/files", "Files of the store, newest first.",
            ["id", "name", "form", "state", "size", "owner.id:OWNER", "source", "created_ms:CREATED", "expires_ms:EXPIRES"],
            flags: [
                .query("state", "whole|unfinished", "Only those in this state."),
                .query("name", "NAME", "Only those of this name."), .query("form", "file|tree", "Only those of this form."),
            ]),
        .show("files show ID", "/api/v1/files/{ID}", "One file of the store."),
        .delete("files delete ID", "/api/v1/files/{ID}", "Removes a file of the store."),
        Verb(
            "files upload PATH",
            "Stores a local file, a tree (-r) or standard input (-); goes on by itself after an interruption.",
            flags: [
                .own("name", "NAME", "Its name in the store; that of the path by default."),
                .own("recursive", nil, "PATH is a directory; it is stored as a tree.", .toggle, letter: "r"),
                .own("keep", "TIME", "How long it is kept; 0: for ever.", .seconds),
                .own("resume", "ID", "Go on with this unfinished file."),
            ],
            calls: [
                "POST /api/v1/files", "PATCH /api/v1/files/{ID}", "POST /api/v1/files/{ID}", "PUT /api/v1/files/{ID}",
            ],
            .program { (invocation) async throws(OperatorError) in try await invocation.uploadFile() }),
        Verb(
            "files download ID [PATH]", "Fetches a stored file; - is standard output.",
            flags: [.own("resume", nil, "Go on with what an earlier run left beside PATH.", .toggle)],
            calls: ["GET /api/v1/files/{ID}/content"],
            .program { (invocation) async throws(OperatorError) in try await invocation.downloadFile() }),
    ]
}

extension Invocation {
    /// Smaller ones go in one request.
    private static let wholeBytes: UInt64 = 256 << 10

    func uploadFile() async throws(OperatorError) -> Outcome {
        let path = operand("PATH") ?? ""
        let isTree = flags.has("recursive")
        let source: any UploadSource
        if path == "-" {
            source = StandardInputSource()
        } else if isTree {
            source = try TreeSource(path)
        } else {
            source = try LocalFileSource(path)
        }
        let name = flags.value("name") ?? (path == "-" ? "stdin" : Self.lastPart(of: path))
        let keep = try flags.value("keep").map { text throws(OperatorError) in
            guard let seconds = Self.seconds(text) else { throw .usage("--keep \(text): expected a time such as 90, 15m, 2d") }
            return seconds
        }
        let core = try core
        let progress = ProgressLine(console, name, total: source.size)
        let file: JSONValue
        do throws(OperatorError) {
            let upload = FileUpload(session, core: core, source, progress: progress)
            if let id = flags.value("resume") {
                file = try await upload.resume(id)
            } else if path == "-" || source.size.map({ $0 <= Self.wholeBytes }) ?? false {
                file = try await core.storeAtOnce(source, name: name, keepSeconds: keep)
            } else {
                file = try await upload.create(name: name, form: isTree ? "tree" : "file", keepSeconds: keep)
            }
        } catch {
            progress.clear()
            throw error
        }
        progress.clear()
        if let tree = source as? TreeSource {
            for path in tree.skipped { console.complain("left out (neither file, directory nor link): " + Table.printable(path)) }
        }
        session.showRecord(file)
        return .success
    }

    func downloadFile() async throws(OperatorError) -> Outcome {
        let core = try core
        let id = operand("ID") ?? ""
        guard operand("PATH") != "-" else {
            return try await session.pass(APIRequest("GET", "/api/v1/files/\(APIRequest.encoded(id))/content"))
        }
        let file = try await core.get("/api/v1/files/\(APIRequest.encoded(id))")
        let name = file["name"]?.string ?? id
        var path = operand("PATH") ?? name
        if (try? Files.status(path).kind) == .directory { path += "/" + name }
        let progress = ProgressLine(console, name, total: file["size"]?.integer.map { UInt64(clamping: $0) })
        do throws(OperatorError) {
            try await FileDownload(session, core: core, progress: progress).fetch(file, to: path, resumes: flags.has("resume"))
        } catch {
            progress.clear()
            throw error
        }
        progress.clear()
        session.showRecord(file)
        return .success
    }

    static func lastPart(of path: String) -> String {
        let last = path.split(separator: "/").last.map(String.init) ?? ""
        return last.isEmpty || last == "." || last == ".." ? "tree" : last
    }
}

extension Core {
    /// A small file, or a stream of which nobody knows the length, in one request; compared by hash.
    func storeAtOnce(_ source: any UploadSource, name: String, keepSeconds: Int64?) async throws(OperatorError) -> JSONValue {
        // A stream is sent once and for all, a file that was sent twice would be there twice: neither is repeated.
        var request = APIRequest(source.size == nil ? "POST" : "PUT", "/api/v1/files/\(APIRequest.encoded(name))")
        request.headers = [(name: "content-type", value: "application/octet-stream")]
        if let keepSeconds { request.query.append((name: "keep_s", value: String(keepSeconds))) }
        let response = try await transport.upload(request, length: source.size) { () throws(OperatorError) in try source.next() }
        guard response.status == 201, let file = try? JSONValue(parsing: response.body) else { throw failure(response, of: request) }
        guard file["sha256"]?.string == source.digest.hex else {
            throw OperatorError(.remoteFailure, "the core has another SHA-256 than what was read: it changed while it was sent")
        }
        return file
    }
}
