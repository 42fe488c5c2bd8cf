/// Uploads of jobs, which outlive the core: an attempt goes on with the parts that an earlier one has sent.
extension S3Store {
    func write(
        _ key: String, _ source: any SeekableSource, from mark: PartsMark?, _ ledger: any UploadLedger, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored {
        if let mark {
            switch try standing(key, mark, cancellation) {
            case .there(let parts):
                ledger.note("the upload goes on after \(mark.bytes) bytes")
                source.seek(mark.bytes)
                return try S3Upload(self, key, ObjectOptions(), mark.upload, cancellation).run(source, from: mark.bytes, nil, seen: parts, ledger)
            case .gone:
                if let stored = try completed(key, source, mark, cancellation) {
                    ledger.note("the upload had come to its end already")
                    return stored
                }
                ledger.note("the store has forgotten the upload; it begins anew")
            case .other:
                try abandon(key, mark.upload, cancellation)
                ledger.note("the parts in the store are not those that were sent; the upload begins anew")
            }
            source.seek(0)
        }
        let size = try partBytes(for: source.length)
        guard let length = source.length, length > Int64(size) else {
            return try write(key, source, ObjectOptions(), resume: nil, began: { (_) throws(CloudError) in }, cancellation)
        }
        try ledger.willBegin(try openUploads(key, cancellation))
        let upload = try S3Upload.begin(self, key, ObjectOptions(), partBytes: size, cancellation)
        do throws(CloudError) {
            try ledger.keep(PartsMark(upload: upload.upload))
        } catch {
            // What nobody knows of is not left behind.
            try? abandon(key, upload.upload, .soon())
            throw error
        }
        return try upload.run(source, from: 0, nil, ledger)
    }

    private enum Standing {
        case there([Int: S3Upload.Part])
        /// The store knows nothing of it: completed, aborted, or swept by a rule of the bucket.
        case gone
        /// Its parts are not those that the mark stands for.
        case other
    }

    private func standing(_ key: String, _ mark: PartsMark, _ cancellation: Cancellation) throws(CloudError) -> Standing {
        let parts: [Int: S3Upload.Part]
        do throws(CloudError) {
            parts = try S3Upload(self, key, ObjectOptions(), mark.upload, cancellation).present()
        } catch where error.kind == .notFound {
            return .gone
        }
        return mark.holds(parts) ? .there(parts) : .other
    }

    /// The object of an upload whose end was not written down: it is there, with the tag that the source has in such parts.
    private func completed(
        _ key: String, _ source: any SeekableSource, _ mark: PartsMark, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored? {
        let info: ObjectInfo
        do throws(CloudError) {
            info = try look(key, cancellation)
        } catch where error.kind == .notFound {
            return nil
        }
        let size = Int64(mark.upload.partBytes)
        guard let length = source.length, length > 0, info.size == length, info.etag.hasSuffix("-\((length + size - 1) / size)") else { return nil }
        source.seek(0)
        let whole = Digest(.sha256)
        var digests: [UInt8] = []
        var goesOn = true
        try budget.take(mark.upload.partBytes, cancellation)
        defer { budget.give(mark.upload.partBytes) }
        while goesOn {
            if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
            var part: [UInt8] = []
            goesOn = try source.read(mark.upload.partBytes, into: &part)
            guard !part.isEmpty else { break }
            whole.update(part)
            digests += Digest.of(part, .md5)
        }
        let count = digests.count / 16
        guard info.etag == "\(Text.hex(Digest.of(digests, .md5)))-\(count)" else { return nil }
        return Stored(size: length, etag: info.etag, sha256: Text.hex(whole.finish()), proof: .md5, parts: count)
    }

    func openUploads(_ key: String, _ cancellation: Cancellation) throws(CloudError) -> OpenUploads? {
        let name = try full(key)
        var call = S3Client.Call(method: "GET")
        call.query = [(name: "uploads", value: ""), (name: "prefix", value: name), (name: "max-uploads", value: "1000")]
        let response: WebResponse
        do throws(CloudError) {
            response = try client.send(call, cancellation)
        } catch where !error.isPassing && error.kind != .cancelled {
            // Not every store has it, and not everybody may see it.
            return nil
        }
        guard let root = try? S3Client.xml(response, "ListMultipartUploadsResult"), root.text("IsTruncated") != "true",
            let now = response.headers["date"].flatMap({ Timestamp.milliseconds(http: $0) })
        else { return nil }
        var open = OpenUploads(now: now)
        for item in root.all("Upload") where item.text("Key") == name {
            guard let id = item.text("UploadId"), let begun = item.text("Initiated").flatMap({ Timestamp.milliseconds(extended: $0) }) else { return nil }
            open.begun[id] = begun
        }
        return open
    }
}
