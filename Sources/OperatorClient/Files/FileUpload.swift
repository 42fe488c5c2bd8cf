import JSON
import Reactor

/// Brings a source into the store: begins a file, sends its bytes, goes on after an interruption where they are durable,
/// and compares the hash in the end.
final class FileUpload {
    private let session: Session
    private let core: Core
    private let source: any UploadSource
    private let progress: ProgressLine
    private var isInterrupted = false
    /// What to do about an upload, by its id, that did not come to its end.
    var advice: (_ id: String) -> String = { "'cmctl files upload --resume \($0) PATH' goes on with it." }
    /// Without a byte more durable in between.
    private static let attempts = 8

    init(_ session: Session, core: Core, _ source: any UploadSource, progress: ProgressLine) {
        self.session = session
        self.core = core
        self.source = source
        self.progress = progress
    }

    /// A new file.
    /// - Parameter form: `file` or `tree`.
    func create(name: String, form: String, keepSeconds: Int64?) async throws(OperatorError) -> JSONValue {
        var description: JSONObject = ["name": .string(name), "form": .string(form)]
        if let size = source.size { description["size"] = .integer(Int64(clamping: size)) }
        if let keepSeconds { description["keep_s"] = .integer(keepSeconds) }
        let begun = try await core.post("/api/v1/files", .object(description))
        guard let id = begun["id"]?.string else { throw OperatorError(.remoteFailure, "the core gave the new file no id") }
        return try await send(id, from: 0)
    }

    /// One that was interrupted earlier.
    func resume(_ id: String) async throws(OperatorError) -> JSONValue {
        let file = try await core.get("/api/v1/files/\(APIRequest.encoded(id))")
        guard file["state"]?.string == "unfinished", let offset = file["offset"]?.integer else {
            throw .usage("file \(id) is whole: there is nothing to go on with")
        }
        if let size = file["size"]?.integer, let ours = source.size, UInt64(size) != ours {
            throw .usage("file \(id) was announced with \(size) bytes, and this one has \(ours): it is another file")
        }
        return try await send(id, from: UInt64(offset))
    }

    private func send(_ id: String, from start: UInt64) async throws(OperatorError) -> JSONValue {
        session.interrupts.handler = { [self] in
            isInterrupted = true
            core.transport.interrupt()
        }
        defer { session.interrupts.handler = nil }
        var offset = start
        var failures = 0
        while true {
            let lost: OperatorError
            do throws(OperatorError) {
                let response = try await sendOnce(id, from: offset)
                guard Self.mayGoOn(response) else {
                    guard (200..<300).contains(response.status) else {
                        throw core.failure(response, of: APIRequest("PATCH", "/api/v1/files/\(id)"))
                    }
                    return try checked((try? JSONValue(parsing: response.body)) ?? .null)
                }
                lost = core.failure(response, of: APIRequest("PATCH", "/api/v1/files/\(id)"))
            } catch {
                guard error.status == .unreachable, !isInterrupted else {
                    throw isInterrupted ? interrupted(id) : error
                }
                lost = error
            }
            failures += 1
            guard failures < Self.attempts else { throw gone(id, lost) }
            await session.pause(UInt64(100) << UInt64(min(failures, 5)))
            guard let file = try await look(id, &failures, lost) else { continue }
            if file["state"]?.string == "whole" { return try checked(file) }
            let durable = UInt64(clamping: file["offset"]?.integer ?? 0)
            if durable > offset { failures = 0 }
            offset = durable
        }
    }

    /// `nil`: the core is away still.
    private func look(_ id: String, _ failures: inout Int, _ lost: OperatorError) async throws(OperatorError) -> JSONValue? {
        do throws(OperatorError) {
            return try await core.get("/api/v1/files/\(APIRequest.encoded(id))")
        } catch {
            guard error.status == .unreachable, !isInterrupted else { throw isInterrupted ? interrupted(id) : error }
            return nil
        }
    }

    private func sendOnce(_ id: String, from offset: UInt64) async throws(OperatorError) -> APIResponse {
        try source.seek(to: offset)
        var request = APIRequest("PATCH", "/api/v1/files/\(APIRequest.encoded(id))")
        request.headers = [
            (name: "upload-offset", value: String(offset)), (name: "content-type", value: "application/octet-stream"),
        ]
        if source.size == nil { request.query = [(name: "complete", value: "true")] }
        var sent = offset
        return try await core.transport.upload(request, length: source.size.map { $0 - min(offset, $0) }) { () throws(OperatorError) in
            progress.moved(to: sent, total: source.size)
            let piece = try source.next()
            sent += UInt64(piece?.count ?? 0)
            return piece
        }
    }

    /// Refusals that are over once the state of things is known: the offset, a session that has run out, a busy core.
    private static func mayGoOn(_ response: APIResponse) -> Bool {
        switch response.status {
        case 401, 429, 502, 503, 504: return true
        case 409:
            let code = (try? JSONValue(parsing: response.body))?["code"]?.string
            return code == "offset-mismatch" || code == "file-taken-over"
        default: return false
        }
    }

    private func checked(_ file: JSONValue) throws(OperatorError) -> JSONValue {
        let digest = source.digest.hex
        guard file["sha256"]?.string == digest else {
            throw OperatorError(
                .remoteFailure, "the core has the SHA-256 \(file["sha256"]?.string ?? "none"), and what was read has \(digest)",
                advice: "It changed while it was sent; remove the stored file and send it again.")
        }
        return file
    }

    private func interrupted(_ id: String) -> OperatorError {
        OperatorError(.remoteFailure, "interrupted", advice: advice(id))
    }

    private func gone(_ id: String, _ lost: OperatorError) -> OperatorError {
        OperatorError(.unreachable, "lost the core while sending: \(lost.what)", advice: advice(id))
    }
}
