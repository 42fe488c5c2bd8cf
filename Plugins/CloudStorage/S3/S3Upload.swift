/// One upload in parts. Its caller's thread reads the source and hands parts to the pool; a part that fails is sent again by itself.
final class S3Upload: Sendable {
    struct Part: Sendable {
        let size: Int64
        let etag: String
        var md5: [UInt8]?
        var sha256: String?
    }
    private struct Progress {
        var running = 0
        var parts: [Int: Part] = [:]
        var failure: CloudError?
        /// Memory of parts that are up, for those that come: pages are not asked of the system anew for each part.
        var spares: [[UInt8]] = []
    }

    private let store: S3Store
    let key: String
    private let options: ObjectOptions
    let upload: PartialUpload
    private let cancellation: Cancellation
    private let progress = Monitor(Progress())

    init(_ store: S3Store, _ key: String, _ options: ObjectOptions, _ upload: PartialUpload, _ cancellation: Cancellation) {
        self.store = store
        self.key = key
        self.options = options
        self.upload = upload
        self.cancellation = cancellation
    }

    /// - Parameter isTagged: the tags of parts will be the MD5s of what we send; those of parts that a store copies by itself need not be.
    static func begin(
        _ store: S3Store, _ key: String, _ options: ObjectOptions, partBytes: Int, isTagged: Bool = true, _ cancellation: Cancellation
    ) throws(CloudError) -> S3Upload {
        var call = S3Client.Call(method: "POST", key: try store.full(key), query: [(name: "uploads", value: "")])
        call.headers = try store.headers(options, parts: isTagged ? Int64(partBytes) : nil)
        if store.remote.check == .sha256 { call.headers.append((name: "x-amz-checksum-algorithm", value: "SHA256")) }
        let root = try S3Client.xml(try store.client.send(call, cancellation), "InitiateMultipartUploadResult", or: "InitiateMultipartUpload")
        guard let id = root.text("UploadId"), (1...1_024).contains(id.utf8.count) else { throw CloudError(.answer, "the store gave the upload no id") }
        return S3Upload(store, key, options, PartialUpload(id: id, partBytes: partBytes), cancellation)
    }

    /// Parts that the store has, by number. A store that keeps every version of a part (SeaweedFS) names some twice: where they
    /// differ, nobody knows which one it would take, so there is none.
    func present() throws(CloudError) -> [Int: Part] {
        var parts: [Int: Part] = [:]
        var doubtful: Set<Int> = []
        var marker = "0"
        for _ in 0..<100 {
            let query = [(name: "uploadId", value: upload.id), (name: "part-number-marker", value: marker), (name: "max-parts", value: "1000")]
            let root = try S3Client.xml(
                try store.client.send(S3Client.Call(method: "GET", key: try store.full(key), query: query), cancellation), "ListPartsResult")
            for item in root.all("Part") {
                guard let number = item.text("PartNumber").flatMap({ Int($0) }), let size = item.text("Size").flatMap({ Int64($0) }) else { continue }
                let etag = (item.text("ETag") ?? "").filter { $0 != "\"" }
                if let other = parts[number], other.size != size || other.etag != etag { doubtful.insert(number) }
                parts[number] = Part(size: size, etag: etag, md5: S3Store.isMD5(etag) ? Text.bytes(hex: etag) : nil, sha256: item.text("ChecksumSHA256"))
            }
            guard root.text("IsTruncated") == "true", let next = root.text("NextPartNumberMarker"), next != marker else {
                return parts.filter { !doubtful.contains($0.key) }
            }
            marker = next
        }
        throw CloudError(.answer, "the store's list of parts does not end")
    }

    /// - Parameters:
    ///   - first: a part that was read already, and whether more follows. Its memory is part of the budget.
    ///   - seen: parts that the store has, where the caller has asked. Those behind `offset` are not sent again if they are the same.
    ///   - ledger: hears how many parts are up without a gap.
    func run(
        _ source: any ByteSource, from offset: Int64, _ first: (bytes: [UInt8], goesOn: Bool)?, seen: [Int: Part]? = nil,
        _ ledger: (any UploadLedger)? = nil
    ) throws(CloudError) -> Stored {
        var number = Int(offset / Int64(upload.partBytes))
        var size = offset
        var mark = PartsMark(upload: upload)
        if number > 0 {
            let known: [Int: Part]
            if let seen { known = seen } else { known = try present() }
            for index in 1...number {
                guard let part = known[index], part.size == Int64(upload.partBytes) else {
                    throw CloudError(.conflict, "part \(index) of the upload is not in the store any more; begin anew")
                }
                progress.update { $0.parts[index] = part }
                mark.add(part)
            }
        }
        let whole = Digest(.sha256)
        var next = first
        var goesOn = true
        do throws(CloudError) {
            while goesOn {
                let bytes: [UInt8]
                if let read = next {
                    (bytes, goesOn) = read
                    next = nil
                } else {
                    try store.budget.take(upload.partBytes, cancellation)
                    var room = progress.update { $0.spares.popLast() } ?? []
                    room.removeAll(keepingCapacity: true)
                    room.reserveCapacity(upload.partBytes)
                    do throws(CloudError) {
                        goesOn = try source.read(upload.partBytes, into: &room)
                    } catch {
                        store.budget.give(upload.partBytes)
                        throw error
                    }
                    bytes = room
                }
                guard !bytes.isEmpty || number == 0 else {
                    store.budget.give(upload.partBytes)
                    break
                }
                whole.update(bytes)
                size += Int64(bytes.count)
                number += 1
                if let there = seen?[number], isSame(there, bytes) {
                    progress.update { progress in
                        progress.parts[number] = there
                        progress.spares.append(bytes)
                    }
                    store.budget.give(upload.partBytes)
                } else {
                    try send(bytes, number)
                }
                if advance(&mark) { try ledger?.keep(mark) }
            }
        } catch {
            // Parts that are under way come to their end: what is there need not be sent again.
            settle()
            throw error
        }
        settle()
        if let failure = progress.update({ $0.failure }) { throw failure }
        let parts = progress.update { $0.parts }
        var stored = try complete(parts, count: number, size: size)
        if offset == 0 { stored.sha256 = Text.hex(whole.finish()) }
        return stored
    }

    /// A part of an interrupted attempt whose end nobody has written down.
    private func isSame(_ part: Part, _ bytes: [UInt8]) -> Bool {
        guard part.size == Int64(bytes.count), part.md5 == Digest.of(bytes, .md5) else { return false }
        return store.remote.check != .sha256 || part.sha256 == Text.base64(Digest.of(bytes, .sha256))
    }

    /// Takes in what has come up since; false: nothing that is next.
    private func advance(_ mark: inout PartsMark) -> Bool {
        let before = mark.parts
        while let part = progress.update({ $0.parts[mark.parts + 1] }), part.size == Int64(upload.partBytes) { mark.add(part) }
        return mark.parts > before
    }

    /// Hands a part to the pool, when there is room for it. The part's memory goes back when it is up.
    private func send(_ part: [UInt8], _ number: Int) throws(CloudError) {
        var turn: Result<Void, CloudError>?
        while turn == nil {
            turn = progress.wait(milliseconds: 250) { progress in
                if let failure = progress.failure { return .failure(failure) }
                guard progress.running < store.remote.parallel else { return nil }
                progress.running += 1
                return .success(())
            }
            if turn == nil, cancellation.isCancelled { turn = .failure(CloudError(.cancelled, "the work was called off")) }
        }
        if case .failure(let failure) = turn {
            store.budget.give(upload.partBytes)
            throw failure
        }
        let held = Monitor(part)
        let isTaken = store.parts.submit { [self] in
            let bytes = held.update { (held) in
                defer { held = [] }
                return held
            }
            let result = Self.caught { () throws(CloudError) in try put(bytes, number) }
            store.budget.give(upload.partBytes)
            progress.update { progress in
                progress.running -= 1
                progress.spares.append(bytes)
                switch result {
                case .success(let part): progress.parts[number] = part
                case .failure(let error): if progress.failure == nil { progress.failure = error }
                }
            }
        }
        guard isTaken else {
            store.budget.give(upload.partBytes)
            progress.update { $0.running -= 1 }
            throw CloudError(.busy, "too many parts wait; try again")
        }
    }

    static func caught<Value>(_ body: () throws(CloudError) -> Value) -> Result<Value, CloudError> {
        do throws(CloudError) {
            return .success(try body())
        } catch {
            return .failure(error)
        }
    }

    private func settle() {
        while progress.wait(milliseconds: 3_600_000, { $0.running == 0 ? true : nil }) == nil {}
    }

    private func put(_ bytes: [UInt8], _ number: Int) throws(CloudError) -> Part {
        let (md5, sha256) = (Digest.of(bytes, .md5), Digest.of(bytes, .sha256))
        var call = S3Client.Call(method: "PUT", key: try store.full(key), body: bytes, sha256: sha256, isPayload: true)
        call.query = [(name: "partNumber", value: String(number)), (name: "uploadId", value: upload.id)]
        call.headers = store.sums(md5, sha256)
        let response = try store.client.send(call, cancellation)
        _ = try store.judge(response, md5, sha256, "part \(number) of \(key)")
        guard let etag = response.etag, !etag.isEmpty else { throw CloudError(.answer, "the store gave part \(number) no tag") }
        return Part(size: Int64(bytes.count), etag: etag, md5: md5, sha256: store.remote.check == .sha256 ? Text.base64(sha256) : nil)
    }

    private func complete(_ parts: [Int: Part], count: Int, size: Int64) throws(CloudError) -> Stored {
        var list = ""
        var digests: [UInt8] = []
        for number in 1...max(count, 1) {
            guard let part = parts[number] else { throw CloudError(.internal, "part \(number) is missing") }
            let sum = part.sha256.map { "<ChecksumSHA256>\($0)</ChecksumSHA256>" } ?? ""
            list += "<Part><PartNumber>\(number)</PartNumber><ETag>\"\(XMLReader.escaped(part.etag))\"</ETag>\(sum)</Part>"
            digests += part.md5 ?? []
        }
        var call = S3Client.Call(method: "POST", key: try store.full(key), query: [(name: "uploadId", value: upload.id)])
        call.body = Array("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\(list)</CompleteMultipartUpload>".utf8)
        let request = call
        let tag = digests.count == 16 * count ? "\(Text.hex(Digest.of(digests, .md5)))-\(count)" : nil
        var etag = ""
        do throws(CloudError) {
            etag = try Retry(attempts: store.remote.attempts).run(cancellation) { (_) throws(CloudError) in
                let response = try store.client.once(request, cancellation, sink: nil)
                if let late = S3Client.lateRefusal(response, request, store.remote) { throw late }
                return try S3Client.xml(response, "CompleteMultipartUploadResult").text("ETag")?.filter { $0 != "\"" } ?? ""
            }
        } catch where error.kind == .notFound && tag != nil {
            // An attempt whose answer was lost may have gone well: then the object is there, with our tag.
            let info = try store.look(key, cancellation)
            guard info.etag == tag, info.size == size else { throw error }
            etag = info.etag
        }
        return try judge(etag, tag, count, size)
    }

    /// What the store says that the whole is, against what was sent.
    private func judge(_ etag: String, _ tag: String?, _ count: Int, _ size: Int64) throws(CloudError) -> Stored {
        let info = try store.look(key, cancellation)
        guard info.size == size else {
            throw CloudError(.checksum, "\"\(key)\" has \(info.size) bytes in the store, and not the \(size) that were sent")
        }
        var stored = Stored(size: size, etag: etag, sha256: "", proof: .size, parts: count)
        // Stores that form the tag as S3 does can be held to it.
        if let tag, etag.utf8.count == tag.utf8.count, etag.hasSuffix("-\(count)") {
            guard etag == tag else { throw CloudError(.checksum, "the store says that \"\(key)\" hashes to \(etag), and what was sent hashes to \(tag)") }
            stored.proof = .md5
        }
        return stored
    }

    /// Parts of an object of the same store, copied there. What fails leaves the upload as it is, as in `run`.
    func copyParts(of info: ObjectInfo, _ source: String) throws(CloudError) {
        let size = Int64(upload.partBytes)
        var parts: [Int: Part] = [:]
        for number in 1...Int((info.size + size - 1) / size) {
            let first = Int64(number - 1) * size
            let last = min(first + size, info.size) - 1
            var call = S3Client.Call(method: "PUT", key: try store.full(key))
            call.query = [(name: "partNumber", value: String(number)), (name: "uploadId", value: upload.id)]
            call.headers = [(name: "x-amz-copy-source", value: source), (name: "x-amz-copy-source-range", value: "bytes=\(first)-\(last)")]
            if !info.etag.isEmpty { call.headers.append((name: "x-amz-copy-source-if-match", value: "\"\(info.etag)\"")) }
            let request = call
            let etag: String = try Retry(attempts: store.remote.attempts).run(cancellation) { (_) throws(CloudError) in
                let response = try store.client.once(request, cancellation, sink: nil)
                if let late = S3Client.lateRefusal(response, request, store.remote) { throw late }
                return try S3Client.xml(response, "CopyPartResult").text("ETag")?.filter { $0 != "\"" } ?? ""
            }
            parts[number] = Part(size: last - first + 1, etag: etag, md5: S3Store.isMD5(etag) ? Text.bytes(hex: etag) : nil, sha256: nil)
        }
        _ = try complete(parts, count: parts.count, size: info.size)
    }
}
