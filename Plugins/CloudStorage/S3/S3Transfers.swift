/// Content on its way into a bucket and out of it.
extension S3Store {
    func read(_ key: String, range: ByteRange?, into sink: any ByteSink, _ cancellation: Cancellation) throws(CloudError) -> ReadProof {
        let name = try full(key)
        return try Download(key, range, sink).run(attempts: remote.attempts, cancellation) { (download) throws(CloudError) in
            var call = S3Client.Call(method: "GET", key: name, headers: download.headers)
            if remote.check == .sha256 { call.headers.append((name: "x-amz-checksum-mode", value: "ENABLED")) }
            _ = try client.once(call, cancellation, sink: download.sink { Self.info(key, $0) })
        }
    }

    /// A small object in one request; a larger one in parts, several at a time.
    func write(
        _ key: String, _ source: any ByteSource, _ options: ObjectOptions, resume: (upload: PartialUpload, offset: Int64)?,
        began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored {
        if let resume { return try S3Upload(self, key, options, resume.upload, cancellation).run(source, from: resume.offset, nil) }
        let size = try partBytes(for: source.length)
        try budget.take(size, cancellation)
        var first: [UInt8] = []
        var isHeld = true
        defer { if isHeld { budget.give(size) } }
        let goesOn = try source.read(size, into: &first)
        if !goesOn, first.count < size || source.length == Int64(first.count) {
            return try put(key, first, options, cancellation)
        }
        let upload = try S3Upload.begin(self, key, options, partBytes: size, cancellation)
        try tell(began, upload)
        isHeld = false
        return try upload.run(source, from: 0, (first, goesOn))
    }

    /// What nobody knows of is not left behind.
    private func tell(_ began: (PartialUpload) throws(CloudError) -> Void, _ upload: S3Upload) throws(CloudError) {
        do throws(CloudError) {
            try began(upload.upload)
        } catch {
            try? abandon(upload.key, upload.upload, .soon())
            throw error
        }
    }

    /// 10,000 parts are the most that S3 takes.
    func partBytes(for length: Int64?) throws(CloudError) -> Int {
        guard let length else { return remote.partBytes }
        var size = remote.partBytes
        while Int64(size) * 10_000 < length, size < 64 << 20 { size *= 2 }
        guard Int64(size) * 10_000 >= length else { throw .invalid("an object has at most \(Int64(size) * 10_000) bytes here") }
        return size
    }

    func put(_ key: String, _ bytes: [UInt8], _ options: ObjectOptions, _ cancellation: Cancellation) throws(CloudError) -> Stored {
        let (md5, sha256) = (Digest.of(bytes, .md5), Digest.of(bytes, .sha256))
        var call = S3Client.Call(method: "PUT", key: try full(key), body: bytes, sha256: sha256, isPayload: true)
        call.headers = try headers(options, parts: nil) + sums(md5, sha256)
        let response = try client.send(call, cancellation)
        var proof = try judge(response, md5, sha256, key)
        if proof == nil {
            let info = try look(key, cancellation)
            guard info.size == Int64(bytes.count) else {
                throw CloudError(.checksum, "\"\(key)\" has \(info.size) bytes in the store, and not the \(bytes.count) that were sent")
            }
            proof = .size
        }
        return Stored(size: Int64(bytes.count), etag: response.etag ?? "", sha256: Text.hex(sha256), proof: proof ?? .size)
    }

    /// What the store is to compare with.
    func sums(_ md5: [UInt8], _ sha256: [UInt8]) -> [(name: String, value: String)] {
        var headers = [(name: "content-md5", value: Text.base64(md5))]
        if remote.check == .sha256 { headers = [(name: "x-amz-checksum-sha256", value: Text.base64(sha256))] }
        return headers
    }

    /// What the store says that it has, against what was sent. `nil`: it says nothing that can be compared.
    func judge(_ response: WebResponse, _ md5: [UInt8], _ sha256: [UInt8], _ what: String) throws(CloudError) -> Proof? {
        if let sum = response.headers["x-amz-checksum-sha256"], !sum.isEmpty {
            guard sum == Text.base64(sha256) else {
                throw CloudError(.checksum, "the store says that \"\(what)\" hashes to \(S3Client.cut(sum)), and what was sent hashes to \(Text.base64(sha256))")
            }
            return .sha256
        }
        let encryption = response.headers["x-amz-server-side-encryption"]
        guard encryption != "aws:kms", response.headers["x-amz-server-side-encryption-customer-algorithm"] == nil,
            let etag = response.etag, Self.isMD5(etag)
        else { return nil }
        guard etag == Text.hex(md5) else {
            throw CloudError(.checksum, "the store says that \"\(what)\" hashes to \(etag), and what was sent hashes to \(Text.hex(md5))")
        }
        return .md5
    }

    // MARK: In parts

    func uploaded(_ key: String, _ upload: PartialUpload, _ cancellation: Cancellation) throws(CloudError) -> Int64? {
        do throws(CloudError) {
            let parts = try S3Upload(self, key, ObjectOptions(), upload, cancellation).present()
            var count = 0
            while let part = parts[count + 1], part.size == Int64(upload.partBytes) { count += 1 }
            return Int64(count) * Int64(upload.partBytes)
        } catch where error.kind == .notFound {
            return nil
        }
    }

    func abandon(_ key: String, _ upload: PartialUpload, _ cancellation: Cancellation) throws(CloudError) {
        do throws(CloudError) {
            _ = try client.send(S3Client.Call(method: "DELETE", key: try full(key), query: [(name: "uploadId", value: upload.id)]), cancellation)
        } catch where error.kind == .notFound {
            return
        }
    }

    /// Each part is copied inside the store.
    func copyInParts(
        _ info: ObjectInfo, _ to: String, _ options: ObjectOptions?, began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) {
        let kept = options ?? ObjectOptions(contentType: info.contentType.isEmpty ? nil : info.contentType, metadata: info.metadata)
        // At least 5 MiB each, at most 10,000, and not larger than one copy may be.
        let size = max(5 << 20, (info.size + 9_999) / 10_000, min(remote.copyLimit, 512 << 20))
        let upload = try S3Upload.begin(self, to, kept, partBytes: Int(size), isTagged: false, cancellation)
        try tell(began, upload)
        let source = client.source(try full(info.key))
        try upload.copyParts(of: info, source)
        let copy = try look(to, cancellation)
        guard copy.size == info.size else { throw CloudError(.checksum, "the copy \"\(to)\" has \(copy.size) bytes, not \(info.size)") }
    }
}

/// Memory for parts, over all uploads: whoever has no part yet waits.
final class Budget: Sendable {
    private let left: Monitor<Int>

    init(_ bytes: Int) { left = Monitor(bytes) }

    func take(_ bytes: Int, _ cancellation: Cancellation) throws(CloudError) {
        while !cancellation.isCancelled {
            let isTaken: Bool? = left.wait(milliseconds: 250) { left in
                guard left >= bytes else { return nil }
                left -= bytes
                return true
            }
            if isTaken == true { return }
        }
        throw CloudError(.cancelled, "the work was called off")
    }

    func give(_ bytes: Int) { left.update { $0 += bytes } }
}
