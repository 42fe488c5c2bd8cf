/// A WebDAV collection (RFC 4918) as a store: keys are paths below it, folders are keys with a slash at their end.
struct WebDAVStore: ObjectStore {
    let remote: Remote
    let credentials: Credentials
    let web: WebClient
    let address: Address
    /// A name that nobody else uses, for content that is not whole yet.
    let random: @Sendable () -> String

    // MARK: Requests

    private var base: String { address.path + "/" }

    private func path(_ key: String) -> String { base + Text.encoded(remote.prefix + key, keepingSlashes: true) }
    private func url(_ path: String) -> String { "\(address.scheme)://\(address.authority)\(path)" }

    private func request(_ method: String, _ key: String, _ headers: [(name: String, value: String)] = [], _ body: (any WebBody)? = nil) -> WebRequest {
        var request = WebRequest(method: method, url: url(path(key)), headers: headers, body: body)
        if let token = credentials.token {
            request.headers.append((name: "authorization", value: (credentials.user == "oauth" ? "OAuth " : "Bearer ") + token))
        } else {
            request.headers.append((name: "authorization", value: "Basic " + Text.base64(Array("\(credentials.user):\(credentials.password)".utf8))))
        }
        request.answerLimit = 64 << 20
        return request
    }

    private func once(_ request: WebRequest, _ key: String, _ cancellation: Cancellation, sink: WebSink? = nil) throws(CloudError) -> WebResponse {
        let response = try web.perform(request, cancellation, sink: sink)
        guard response.isSuccess else { throw refusal(response, request.method, key) }
        return response
    }

    private func send(_ request: WebRequest, _ key: String, _ cancellation: Cancellation) throws(CloudError) -> WebResponse {
        try Retry(attempts: remote.attempts).run(cancellation) { (_) throws(CloudError) in
            guard request.body?.rewind() ?? true else { throw CloudError(.dropped, "what was sent cannot be sent again") }
            return try once(request, key, cancellation)
        }
    }

    private func refusal(_ response: WebResponse, _ method: String, _ key: String) -> CloudError {
        var fault = StoreFault(status: response.status)
        fault.requestID = S3Client.cut(response.headers["x-request-id"] ?? response.headers["x-yandex-disk-request-id"] ?? "")
        if let root = try? XMLReader.read(response.body, limit: 256 << 10), root.name == "error" {
            fault.code = S3Client.cut(root.text("exception") ?? root.children.first?.name ?? "")
            fault.message = S3Client.cut(root.text("message") ?? "")
        }
        let kind: CloudError.Kind
        switch response.status {
        case 401, 403: kind = .denied
        case 404: kind = .notFound
        case 409, 412, 423: kind = .conflict
        case 416: kind = .range
        case 405, 501: kind = .unsupported
        case 429, 500, 502, 503, 504: kind = .busy
        default: kind = .refused
        }
        return CloudError(
            kind, "\(method) \"\(key)\" on remote \"\(remote.name)\"", store: fault,
            retryAfter: response.headers["retry-after"].flatMap { UInt64($0) })
    }

    // MARK: Looking

    private static let wanted = """
        <?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:" xmlns:oc="http://owncloud.org/ns"><prop><getcontentlength/>\
        <getlastmodified/><getetag/><getcontenttype/><resourcetype/><oc:checksums/></prop></propfind>
        """

    /// What PROPFIND tells of a resource (depth 0), or of a collection and its members (depth 1).
    private func properties(_ key: String, depth: Int, _ cancellation: Cancellation) throws(CloudError) -> [ObjectInfo] {
        let headers = [(name: "depth", value: String(depth)), (name: "content-type", value: "application/xml")]
        let response = try send(request("PROPFIND", key, headers, MemoryBody(Array(Self.wanted.utf8))), key, cancellation)
        let root = try S3Client.xml(response, "multistatus")
        var found: [ObjectInfo] = []
        for item in root.all("response") {
            guard let href = item.text("href") else { throw CloudError(.answer, "the store's list has an entry without an address") }
            guard var name = self.key(href) else { continue }
            let set = item.all("propstat").first { $0.text("status")?.split(separator: " ").dropFirst().first == "200" }
            guard let properties = set?.first("prop") else { continue }
            let isFolder = properties.first("resourcetype")?.first("collection") != nil
            if isFolder, !name.hasSuffix("/"), !name.isEmpty { name += "/" }
            var info = ObjectInfo(key: name, size: properties.text("getcontentlength").flatMap { Int64($0) } ?? 0)
            info.isFolder = isFolder
            info.modifiedMilliseconds = properties.text("getlastmodified").flatMap { Timestamp.milliseconds(http: $0) } ?? 0
            info.etag = (properties.text("getetag") ?? "").filter { $0 != "\"" }
            info.contentType = properties.text("getcontenttype") ?? ""
            if remote.check == .md5, S3Store.isMD5(info.etag) { info.md5 = info.etag }
            for sum in (properties.first("checksums")?.anywhere("checksum")?.text ?? "").split(separator: " ") {
                if sum.hasPrefix("MD5:") { info.md5 = sum.dropFirst(4).lowercased() }
                if sum.hasPrefix("SHA256:") { info.sha256 = sum.dropFirst(7).lowercased() }
            }
            found.append(info)
        }
        return found
    }

    /// The key behind an address; `nil` where it lies elsewhere.
    private func key(_ href: String) -> String? {
        var path = Substring(href)
        if path.hasPrefix("http://") || path.hasPrefix("https://") {
            path = path.drop { $0 != ":" }.dropFirst(3).drop { $0 != "/" }
        }
        let plain = Text.decoded(String(path))
        let root = Text.decoded(base) + remote.prefix
        if plain + "/" == root { return "" }
        guard plain.hasPrefix(root) else { return nil }
        return String(decoding: plain.utf8.dropFirst(root.utf8.count), as: UTF8.self)
    }

    func look(_ key: String, _ cancellation: Cancellation) throws(CloudError) -> ObjectInfo {
        try Keys.check(key)
        guard let info = try properties(key, depth: 0, cancellation).first else { throw CloudError(.answer, "the store says nothing of \"\(key)\"") }
        return info
    }

    func list(prefix: String, delimiter: Bool, cursor: String?, limit: Int, _ cancellation: Cancellation) throws(CloudError) -> Listing {
        try Keys.checkPrefix(prefix)
        var walk = WebDAVWalk(after: cursor.map { Text.decoded($0) } ?? "", limit: limit, isDeep: !delimiter)
        let folder = prefix.lastIndex(of: "/").map { String(prefix[...$0]) } ?? ""
        do throws(CloudError) {
            try walk.visit(folder, prefix: prefix, depth: 0) { (folder) throws(CloudError) in
                try properties(folder, depth: 1, cancellation).filter { $0.key != folder }
            }
        } catch where error.kind == .notFound && cursor == nil && !folder.isEmpty {
            // As in a store of objects: nothing has that prefix.
            return Listing()
        }
        return walk.listing
    }

    // MARK: Content

    func read(_ key: String, range: ByteRange?, into sink: any ByteSink, _ cancellation: Cancellation) throws(CloudError) -> ReadProof {
        try Keys.check(key)
        return try Download(key, range, sink).run(attempts: remote.attempts, cancellation) { (download) throws(CloudError) in
            let taker = download.sink { response in
                var info = ObjectInfo(key: key, size: response.length ?? 0)
                info.modifiedMilliseconds = response.headers["last-modified"].flatMap { Timestamp.milliseconds(http: $0) } ?? 0
                info.etag = response.etag ?? ""
                info.contentType = response.headers["content-type"] ?? ""
                if remote.check == .md5, S3Store.isMD5(info.etag) { info.md5 = info.etag }
                return info
            }
            _ = try once(request("GET", key, download.headers), key, cancellation, sink: taker)
        }
    }

    /// Beside the target first, then renamed over it: nobody sees half of it, and what was there stays when it fails.
    func write(
        _ key: String, _ source: any ByteSource, _ options: ObjectOptions, resume: (upload: PartialUpload, offset: Int64)?,
        began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored {
        try Keys.check(key)
        guard options.metadata.isEmpty, options.tags.isEmpty else { throw CloudError(.unsupported, "a WebDAV store keeps neither metadata nor tags") }
        guard resume == nil else { throw CloudError(.unsupported, "a WebDAV store cannot go on with an upload") }
        try makeParents(key, cancellation)
        let folder = key.lastIndex(of: "/").map { String(key[...$0]) } ?? ""
        let part = folder + ".cm-part-" + random()
        let headers = options.contentType.map { [(name: "content-type", value: $0)] } ?? []
        let body = try SourceBody(source)
        do throws(CloudError) {
            if body.isWhole {
                _ = try send(request("PUT", part, headers, body), key, cancellation)
            } else {
                do throws(CloudError) {
                    _ = try once(request("PUT", part, headers, body), key, cancellation)
                } catch {
                    throw body.failure ?? error
                }
            }
            let (md5, sha256) = body.sums()
            let proof = try judge(part, key, size: body.size, md5, sha256, cancellation)
            try transfer("MOVE", part, key, cancellation)
            let etag = (try? look(key, cancellation).etag) ?? ""
            return Stored(size: body.size, etag: etag, sha256: Text.hex(sha256), proof: proof)
        } catch {
            sweep(part)
            throw error
        }
    }

    /// A WebDAV server takes a file in one request: what was interrupted begins anew.
    func write(
        _ key: String, _ source: any SeekableSource, from mark: PartsMark?, _ ledger: any UploadLedger, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored {
        try write(key, source, ObjectOptions(), resume: nil, began: { (_) throws(CloudError) in }, cancellation)
    }

    /// Also after a cancellation nothing of ours is left behind. A server may still be writing down what came when it hears of the
    /// removal, and keep it: so it is asked again, at growing intervals, until there has been nothing for more than a second.
    private func sweep(_ part: String) {
        let own = Cancellation.soon()
        var (absent, failures) = (0, 0)
        while !own.isCancelled {
            do throws(CloudError) {
                _ = try once(request("DELETE", part), part, own)
                (absent, failures) = (0, 0)
            } catch {
                if error.kind == .notFound { absent += 1 } else { failures += 1 }
            }
            guard absent < 4, failures < 3 else { return }
            own.pause(milliseconds: 100 << UInt64(absent))
        }
    }

    private func judge(
        _ part: String, _ key: String, size: Int64, _ md5: [UInt8], _ sha256: [UInt8], _ cancellation: Cancellation
    ) throws(CloudError) -> Proof {
        let info = try look(part, cancellation)
        guard info.size == size else { throw CloudError(.checksum, "\"\(key)\" has \(info.size) bytes in the store, and not the \(size) that were sent") }
        if let seen = info.sha256 {
            guard seen == Text.hex(sha256) else { throw CloudError(.checksum, "the store says that \"\(key)\" hashes to \(seen), and what was sent hashes to \(Text.hex(sha256))") }
            return .sha256
        }
        if let seen = info.md5 {
            guard seen == Text.hex(md5) else { throw CloudError(.checksum, "the store says that \"\(key)\" hashes to \(seen), and what was sent hashes to \(Text.hex(md5))") }
            return .md5
        }
        guard remote.check == .sha256 else {
            guard remote.check == .size else { throw CloudError(.checksum, "the store tells no MD5 of \"\(key)\"; use \"check\": \"size\" or \"sha256\"") }
            return .size
        }
        let reader = HashingSink()
        _ = try read(part, range: nil, into: reader, cancellation)
        guard reader.finish() == sha256 else { throw CloudError(.checksum, "\"\(key)\" came back from the store with another content than was sent") }
        return .sha256
    }

    // MARK: Names

    func copy(
        _ from: String, _ to: String, _ options: ObjectOptions?, began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) {
        guard options == nil else { throw CloudError(.unsupported, "a WebDAV store keeps no metadata") }
        try Keys.check(from)
        try Keys.check(to)
        try makeParents(to, cancellation)
        try transfer("COPY", from, to, cancellation)
    }

    func move(
        _ from: String, _ to: String, began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) {
        guard from != to else { throw .invalid("an object cannot be moved onto itself") }
        try Keys.check(from)
        try Keys.check(to)
        try makeParents(to, cancellation)
        try transfer("MOVE", from, to, cancellation)
    }

    private func transfer(_ method: String, _ from: String, _ to: String, _ cancellation: Cancellation) throws(CloudError) {
        let headers = [(name: "destination", value: url(path(to))), (name: "overwrite", value: "T")]
        do throws(CloudError) {
            _ = try send(request(method, from, headers), from, cancellation)
        } catch where error.kind == .notFound && method == "MOVE" {
            // An attempt whose answer was lost may have gone well.
            guard (try? look(to, cancellation)) != nil else { throw error }
        }
    }

    func remove(_ key: String, _ cancellation: Cancellation) throws(CloudError) {
        do throws(CloudError) {
            let info = try look(key, cancellation)
            if info.isFolder {
                // DELETE takes a collection with all that is in it.
                guard key.hasSuffix("/") else { throw CloudError(.conflict, "\"\(key)\" is a folder; to remove it, when it is empty, end its key with a slash") }
                guard try properties(key, depth: 1, cancellation).allSatisfy({ $0.key == key }) else { throw CloudError(.conflict, "the folder \"\(key)\" is not empty") }
            }
            _ = try send(request("DELETE", key), key, cancellation)
        } catch where error.kind == .notFound {
            return  // As in a store of objects: what is not there is gone.
        }
    }

    func remove(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) -> [BatchFault] {
        var faults: [BatchFault] = []
        for key in keys {
            do throws(CloudError) {
                try remove(key, cancellation)
            } catch {
                if error.kind == .cancelled { throw error }
                faults.append(BatchFault(key: key, code: error.kind.rawValue, message: error.detail))
            }
        }
        return faults
    }

    func makeFolder(_ key: String, _ cancellation: Cancellation) throws(CloudError) {
        guard key.hasSuffix("/") else { throw .invalid("a folder's key ends with a slash") }
        try Keys.check(key)
        try makeParents(key + "x", cancellation)
    }

    /// Collections above a key. Several copies make the same ones at the same time, and a server may then say that there is none
    /// above although there is one in a moment.
    private func makeParents(_ key: String, _ cancellation: Cancellation) throws(CloudError) {
        var turn = 0
        while true {
            do throws(CloudError) {
                return try makeParentsOnce(key, cancellation)
            } catch where error.kind == .conflict && turn < 4 && !cancellation.isCancelled {
                turn += 1
                cancellation.pause(milliseconds: 100 * UInt64(turn))
            }
        }
    }

    /// From the outermost; those that are there stay.
    private func makeParentsOnce(_ key: String, _ cancellation: Cancellation) throws(CloudError) {
        let full = remote.prefix + key
        let parts = full.split(separator: "/", omittingEmptySubsequences: false).dropLast()
        guard !parts.isEmpty else { return }
        let inside = WebDAVStore(remote: remote.withoutPrefix, credentials: credentials, web: web, address: address, random: random)
        let folders = (1...parts.count).map { parts.prefix($0).joined(separator: "/") + "/" }
        var missing: [String] = []
        for folder in folders.reversed() {
            if (try? inside.look(folder, cancellation)) != nil { break }
            missing.append(folder)
        }
        for folder in missing.reversed() {
            do throws(CloudError) {
                _ = try inside.send(inside.request("MKCOL", folder), folder, cancellation)
            } catch where error.store?.status == 405 {
                continue  // Somebody else made it meanwhile.
            }
        }
    }

    // MARK: What WebDAV has not

    private func missing(_ what: String) -> CloudError { CloudError(.unsupported, "a WebDAV store has no \(what)") }

    func tags(_ key: String, _: Cancellation) throws(CloudError) -> [(name: String, value: String)] { throw missing("tags") }
    func setTags(_ key: String, _: [(name: String, value: String)], _: Cancellation) throws(CloudError) { throw missing("tags") }
    func presign(_ key: String, method: String, seconds: Int) throws(CloudError) -> String { throw missing("presigned URLs") }
    func uploaded(_ key: String, _: PartialUpload, _: Cancellation) throws(CloudError) -> Int64? { nil }
    func abandon(_ key: String, _: PartialUpload, _: Cancellation) throws(CloudError) {}
    func openUploads(_ key: String, _: Cancellation) throws(CloudError) -> OpenUploads? { nil }
}
