/// Signed requests to one bucket: addressing, signing, trying again, and errors in the store's own words.
struct S3Client: Sendable {
    let remote: Remote
    let signer: Signer
    let web: WebClient
    let address: Address
    let now: @Sendable () -> UInt64

    struct Call {
        var method: String
        /// With the remote's prefix; `nil`: the bucket.
        var key: String?
        var query: [(name: String, value: String)] = []
        /// Names in lower case; all of them are signed.
        var headers: [(name: String, value: String)] = []
        var body: [UInt8]?
        /// Of `body`, where the caller has it.
        var sha256: [UInt8]?
        /// `body` is an object's content, which may be signed in chunks.
        var isPayload = false
        var answerLimit = 8 << 20
    }

    private var host: String { remote.style == .virtual ? "\(remote.bucket).\(address.authority)" : address.authority }

    private func path(_ key: String?) -> String {
        let bucket = remote.style == .virtual ? "" : "/" + remote.bucket
        guard let key else { return bucket.isEmpty ? "/" : bucket }
        return bucket + "/" + Text.encoded(key, keepingSlashes: true)
    }

    /// Tries as often as the remote says; a refusal is thrown.
    func send(_ call: Call, _ cancellation: Cancellation) throws(CloudError) -> WebResponse {
        try Retry(attempts: remote.attempts).run(cancellation) { (_) throws(CloudError) in
            try once(call, cancellation, sink: nil)
        }
    }

    /// One attempt; a refusal is thrown.
    func once(_ call: Call, _ cancellation: Cancellation, sink: WebSink?) throws(CloudError) -> WebResponse {
        let response = try web.perform(request(call), cancellation, sink: sink)
        guard response.isSuccess else { throw Self.refusal(response, call, remote) }
        return response
    }

    private func request(_ call: Call) -> WebRequest {
        let time = Timestamp(milliseconds: now()).basic
        var subject = Signer.Subject(method: call.method, host: host, path: path(call.key), query: call.query, headers: call.headers)
        let hash: String
        let isChunked = call.isPayload && remote.payload == .streaming && call.body?.isEmpty == false
        if let body = call.body, call.isPayload, isChunked {
            subject.headers += [
                (name: "content-encoding", value: "aws-chunked"), (name: "x-amz-decoded-content-length", value: String(body.count)),
            ]
            hash = Signer.streaming
        } else if call.isPayload, remote.payload == .unsigned, address.isSecure {
            hash = Signer.unsigned
        } else if let body = call.body {
            hash = Text.hex(call.sha256 ?? Digest.of(body, .sha256))
        } else {
            hash = Signer.emptyHash
        }
        let (added, signature) = signer.sign(subject, payload: hash, at: time)
        var request = WebRequest(method: call.method, url: "\(address.scheme)://\(host)\(subject.path)")
        if !call.query.isEmpty { request.url += "?" + Signer.canonical(call.query) }
        request.headers = subject.headers + added
        if let body = call.body {
            request.body = isChunked ? ChunkedBody(body, signer, seed: signature, at: time) : MemoryBody(body)
        } else if call.method == "PUT" || call.method == "POST" {
            request.body = MemoryBody([])
        }
        request.answerLimit = call.answerLimit
        return request
    }

    /// A URL that works by itself for a while.
    func presigned(_ method: String, _ key: String, seconds: Int) -> String {
        let subject = Signer.Subject(method: method, host: host, path: path(key))
        let query = signer.presign(subject, seconds: seconds, at: Timestamp(milliseconds: now()).basic)
        return "\(address.scheme)://\(host)\(subject.path)?\(query)"
    }

    /// As `x-amz-copy-source` names an object.
    func source(_ key: String) -> String { "/\(remote.bucket)/\(Text.encoded(key, keepingSlashes: true))" }

    // MARK: Refusals

    /// A refusal that came with status 200: copying and completing answer so when they fail late.
    static func lateRefusal(_ response: WebResponse, _ call: Call, _ remote: Remote) -> CloudError? {
        guard let root = try? XMLReader.read(response.body), root.name == "Error" else { return nil }
        var late = response
        late.status = root.text("Code") == "SlowDown" ? 503 : 500
        return refusal(late, call, remote)
    }

    static func refusal(_ response: WebResponse, _ call: Call, _ remote: Remote) -> CloudError {
        var fault = StoreFault(status: response.status)
        fault.requestID = cut(response.headers["x-amz-request-id"] ?? response.headers["x-request-id"] ?? "")
        if let root = try? XMLReader.read(response.body, limit: 256 << 10), root.name == "Error" {
            fault.code = cut(root.text("Code") ?? "")
            fault.message = cut(root.text("Message") ?? "")
            if let id = root.text("RequestId"), !id.isEmpty { fault.requestID = cut(id) }
        }
        let kind: CloudError.Kind
        switch (response.status, fault.code) {
        case (_, "BadDigest"), (_, "XAmzContentSHA256Mismatch"), (_, "XAmzContentChecksumMismatch"): kind = .checksum
        case (_, "RequestTimeout"), (_, "SlowDown"), (429, _), (500, _), (502, _), (503, _), (504, _): kind = .busy
        case (401, _), (403, _), (_, "ExpiredToken"), (_, "InvalidToken"): kind = .denied
        case (404, _): kind = .notFound
        case (409, _), (412, _): kind = .conflict
        case (416, _): kind = .range
        case (405, _), (501, _): kind = .unsupported
        default: kind = .refused
        }
        let what = call.key.map { "\(call.method) \"\($0.dropFirst(remote.prefix.count))\"" } ?? "\(call.method) of the bucket"
        return CloudError(
            kind, "\(what) on remote \"\(remote.name)\"", store: fault, retryAfter: response.headers["retry-after"].flatMap { UInt64($0) })
    }

    /// What a store says goes into answers and logs: no control characters, and not without end.
    static func cut(_ text: String) -> String {
        String(decoding: text.utf8.prefix(300).map { $0 < 0x20 || $0 == 0x7F ? 0x20 : $0 }, as: UTF8.self)
    }

    /// - Parameter other: what some stores call it (`rclone serve s3` leaves "Result" out once).
    static func xml(_ response: WebResponse, _ root: String, or other: String? = nil) throws(CloudError) -> XMLElement {
        let element: XMLElement
        do throws(XMLReader.Fault) {
            element = try XMLReader.read(response.body)
        } catch {
            throw CloudError(.answer, "the store's answer is no XML: \(error.text)")
        }
        guard element.name == root || element.name == other else { throw CloudError(.answer, "the store answered <\(cut(element.name))> and not <\(root)>") }
        return element
    }
}
