/// A bucket, or a part of one, behind a remote.
struct S3Store: ObjectStore {
    let client: S3Client
    /// Threads for parts that go up beside each other.
    let parts: Pool
    let budget: Budget
    var remote: Remote { client.remote }

    private static let ownPrefix = "x-amz-meta-cm-"

    /// The key in the bucket. A key stays as it is written, so a step up or down would be part of its name; stores that lay
    /// objects out as files see a path in it, so there is none.
    func full(_ key: String) throws(CloudError) -> String {
        try Keys.check(key)
        return remote.prefix + key
    }

    private func own(_ key: String) -> String { String(decoding: key.utf8.dropFirst(remote.prefix.utf8.count), as: UTF8.self) }

    // MARK: Looking

    func list(prefix: String, delimiter: Bool, cursor: String?, limit: Int, _ cancellation: Cancellation) throws(CloudError) -> Listing {
        try Keys.checkPrefix(prefix)
        var call = S3Client.Call(method: "GET")
        call.query = [
            (name: "list-type", value: "2"), (name: "max-keys", value: String(limit)), (name: "prefix", value: remote.prefix + prefix),
        ]
        if delimiter { call.query.append((name: "delimiter", value: "/")) }
        if let cursor { call.query.append((name: "continuation-token", value: cursor)) }
        call.answerLimit = 16 << 20
        let root = try S3Client.xml(try client.send(call, cancellation), "ListBucketResult")
        var listing = Listing()
        for item in root.all("Contents") {
            guard let key = item.text("Key"), let size = item.text("Size").flatMap({ Int64($0) }), key.hasPrefix(remote.prefix) else {
                throw CloudError(.answer, "the store's list has an entry without key or size, or one that was not asked for")
            }
            var info = ObjectInfo(key: own(key), size: size)
            info.modifiedMilliseconds = item.text("LastModified").flatMap { Timestamp.milliseconds(extended: $0) } ?? 0
            info.etag = (item.text("ETag") ?? "").filter { $0 != "\"" }
            if Self.isMD5(info.etag) { info.md5 = info.etag }
            listing.objects.append(info)
        }
        for item in root.all("CommonPrefixes") {
            guard let name = item.text("Prefix"), name.hasPrefix(remote.prefix) else { continue }
            listing.prefixes.append(own(name))
        }
        if root.text("IsTruncated") == "true" {
            guard let next = root.text("NextContinuationToken"), !next.isEmpty, next != cursor else {
                throw CloudError(.answer, "the store's list goes on, but it does not say where")
            }
            listing.next = next
        }
        return listing
    }

    func look(_ key: String, _ cancellation: Cancellation) throws(CloudError) -> ObjectInfo {
        var call = S3Client.Call(method: "HEAD", key: try full(key))
        if remote.check == .sha256 { call.headers.append((name: "x-amz-checksum-mode", value: "ENABLED")) }
        return Self.info(key, try client.send(call, cancellation))
    }

    static func isMD5(_ etag: String) -> Bool {
        etag.utf8.count == 32 && etag.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    static func info(_ key: String, _ response: WebResponse) -> ObjectInfo {
        var info = ObjectInfo(key: key, size: response.length ?? 0)
        info.modifiedMilliseconds = response.headers["last-modified"].flatMap { Timestamp.milliseconds(http: $0) } ?? 0
        info.etag = response.etag ?? ""
        info.contentType = response.headers["content-type"] ?? ""
        // With keys of a service for them the tag is no hash of the content.
        let isPlain = response.headers["x-amz-server-side-encryption"] != "aws:kms"
            && response.headers["x-amz-server-side-encryption-customer-algorithm"] == nil
        if isPlain, isMD5(info.etag) { info.md5 = info.etag }
        if isPlain { info.partBytes = response.headers[ownPrefix + "part-bytes"].flatMap { Int64($0) } }
        if let sum = response.headers["x-amz-checksum-sha256"], sum.utf8.count == 44 { info.sha256 = Text.bytes(base64: sum).map { Text.hex($0) } }
        for (name, value) in response.headers.sorted(by: { $0.key < $1.key })
        where name.hasPrefix("x-amz-meta-") && !name.hasPrefix(ownPrefix) {
            info.metadata.append((name: String(name.dropFirst("x-amz-meta-".count)), value: value))
        }
        return info
    }

    func tags(_ key: String, _ cancellation: Cancellation) throws(CloudError) -> [(name: String, value: String)] {
        let call = S3Client.Call(method: "GET", key: try full(key), query: [(name: "tagging", value: "")])
        let root = try S3Client.xml(try client.send(call, cancellation), "Tagging")
        return (root.first("TagSet")?.all("Tag") ?? []).map { (name: $0.text("Key") ?? "", value: $0.text("Value") ?? "") }
    }

    func setTags(_ key: String, _ tags: [(name: String, value: String)], _ cancellation: Cancellation) throws(CloudError) {
        guard !tags.isEmpty else {
            _ = try client.send(S3Client.Call(method: "DELETE", key: try full(key), query: [(name: "tagging", value: "")]), cancellation)
            return
        }
        let set = tags.map { "<Tag><Key>\(XMLReader.escaped($0.name))</Key><Value>\(XMLReader.escaped($0.value))</Value></Tag>" }.joined()
        var call = S3Client.Call(method: "PUT", key: try full(key), query: [(name: "tagging", value: "")])
        call.body = Array("<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>\(set)</TagSet></Tagging>".utf8)
        call.headers = [(name: "content-md5", value: Text.base64(Digest.of(call.body ?? [], .md5)))]
        _ = try client.send(call, cancellation)
    }

    func presign(_ key: String, method: String, seconds: Int) throws(CloudError) -> String {
        client.presigned(method, try full(key), seconds: seconds)
    }

    // MARK: Removing

    func remove(_ key: String, _ cancellation: Cancellation) throws(CloudError) {
        _ = try client.send(S3Client.Call(method: "DELETE", key: try full(key)), cancellation)
    }

    /// At most 1,000.
    func remove(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) -> [BatchFault] {
        var objects = ""
        for key in keys { objects += "<Object><Key>\(XMLReader.escaped(try full(key)))</Key></Object>" }
        var call = S3Client.Call(method: "POST", query: [(name: "delete", value: "")])
        call.body = Array("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\(objects)</Delete>".utf8)
        call.headers = [(name: "content-md5", value: Text.base64(Digest.of(call.body ?? [], .md5)))]
        let root = try S3Client.xml(try client.send(call, cancellation), "DeleteResult")
        var faults = root.all("Error").map {
            BatchFault(key: own($0.text("Key") ?? ""), code: S3Client.cut($0.text("Code") ?? ""), message: S3Client.cut($0.text("Message") ?? ""))
        }
        // Each key has to be named: a store that leaves one out has not said that it is gone.
        let named = Set(root.all("Deleted").compactMap { $0.text("Key").map { own($0) } } + faults.map(\.key))
        for key in keys where !named.contains(key) { faults.append(BatchFault(key: key, code: "", message: "the store did not say what became of it")) }
        return faults
    }

    func makeFolder(_ key: String, _ cancellation: Cancellation) throws(CloudError) {
        guard key.hasSuffix("/") else { throw .invalid("a folder's key ends with a slash") }
        _ = try put(key, [], ObjectOptions(), cancellation)
    }

    // MARK: Copying

    func copy(
        _ from: String, _ to: String, _ options: ObjectOptions?, began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) {
        let info = try look(from, cancellation)
        if info.size > remote.copyLimit { return try copyInParts(info, to, options, began: began, cancellation) }
        var call = S3Client.Call(method: "PUT", key: try full(to))
        call.headers = [(name: "x-amz-copy-source", value: client.source(try full(from)))]
        if !info.etag.isEmpty { call.headers.append((name: "x-amz-copy-source-if-match", value: "\"\(info.etag)\"")) }
        if let options {
            call.headers += try headers(options, parts: info.partBytes)
            call.headers.append((name: "x-amz-metadata-directive", value: "REPLACE"))
        }
        let attempt = call
        try Retry(attempts: remote.attempts).run(cancellation) { (_) throws(CloudError) in
            let response = try client.once(attempt, cancellation, sink: nil)
            if let late = S3Client.lateRefusal(response, attempt, remote) { throw late }
            let tag = try S3Client.xml(response, "CopyObjectResult").text("ETag")?.filter { $0 != "\"" } ?? ""
            if let md5 = info.md5, Self.isMD5(tag), tag != md5 {
                throw CloudError(.checksum, "the copy \"\(to)\" has another hash than \"\(from)\": \(tag), not \(md5)")
            }
        }
    }

    func move(
        _ from: String, _ to: String, began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) {
        guard from != to else { throw .invalid("an object cannot be moved onto itself") }
        try copy(from, to, nil, began: began, cancellation)
        let (source, copy) = (try look(from, cancellation), try look(to, cancellation))
        guard source.size == copy.size else { throw CloudError(.checksum, "the copy \"\(to)\" has another size than \"\(from)\"; nothing was removed") }
        try remove(from, cancellation)
    }

    /// Headers for what goes with an object.
    func headers(_ options: ObjectOptions, parts: Int64?) throws(CloudError) -> [(name: String, value: String)] {
        var headers: [(name: String, value: String)] = []
        if let type = options.contentType { headers.append((name: "content-type", value: type)) }
        for (name, value) in options.metadata { headers.append((name: "x-amz-meta-" + name, value: value)) }
        if let parts { headers.append((name: Self.ownPrefix + "part-bytes", value: String(parts))) }
        if !options.tags.isEmpty { headers.append((name: "x-amz-tagging", value: Signer.canonical(options.tags))) }
        return headers
    }
}
