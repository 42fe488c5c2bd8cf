import JSON

/// `cmctl cloud put`: a local file, or standard input, into a remote. What was broken off goes on where the store has it.
extension Invocation {
    func cloudPut() async throws(OperatorError) -> Outcome {
        let remote = "/api/v1/cloud/remotes/\(APIRequest.encoded(operand("REMOTE") ?? ""))"
        let key = operand("KEY") ?? ""
        let path = operand("PATH") ?? ""
        let source: any UploadSource = path == "-" ? StandardInputSource() : try LocalFileSource(path)
        let core = try core
        let offset = flags.has("resume") ? try await uploaded(remote, key, source.size) : 0
        if offset > 0 { try source.seek(to: offset) }
        var request = APIRequest("PUT", remote + "/object")
        request.query = [(name: "key", value: key)]
        if offset > 0 { request.query.append((name: "offset", value: String(offset))) }
        request.headers = [(name: "content-type", value: flags.value("type") ?? "application/octet-stream")]
        if let metadata = flags.value("metadata") {
            request.headers.append((name: "x-cloud-metadata", value: "\(try data(metadata))"))
        }
        let progress = ProgressLine(console, key, total: source.size)
        var sent = offset
        let response: APIResponse
        do throws(OperatorError) {
            response = try await core.transport.upload(request, length: source.size.map { $0 - min(offset, $0) }) { () throws(OperatorError) in
                progress.moved(to: sent, total: source.size)
                let piece = try source.next()
                sent += UInt64(piece?.count ?? 0)
                return piece
            }
        } catch {
            progress.clear()
            throw error
        }
        progress.clear()
        guard (200..<300).contains(response.status), let stored = try? JSONValue(parsing: response.body) else {
            throw core.failure(response, of: request)
        }
        if let seen = stored["sha256"]?.string, !seen.isEmpty, seen != source.digest.hex {
            throw OperatorError(.remoteFailure, "what is in the store has another SHA-256 than what was read: it changed while it was sent")
        }
        session.showRecord(stored)
        return .success
    }

    /// Bytes that the store has of an upload that was broken off; none where there is no such upload, or not of this file.
    private func uploaded(_ remote: String, _ key: String, _ size: UInt64?) async throws(OperatorError) -> UInt64 {
        var request = APIRequest("GET", remote + "/upload")
        request.query = [(name: "key", value: key)]
        let core = try core
        let response = try await core.transport.send(request)
        if response.status == 404 { return 0 }
        guard response.status == 200, let upload = try? JSONValue(parsing: response.body) else { throw core.failure(response, of: request) }
        if let announced = upload["size"]?.integer, let size, UInt64(clamping: announced) != size {
            throw .usage("the upload of \(key) was announced with \(announced) bytes, and this file has \(size): it is another file")
        }
        return UInt64(clamping: upload["offset"]?.integer ?? 0)
    }
}
