import JSON
import PluginKit

/// Content of objects, streamed both ways with bounded memory; and uploads that were broken off.
struct ContentRoutes {
    let cloud: Cloud
    let remotes: Remotes
    let uploads: Uploads
    let dispatch: Dispatch
    private static let base = "/api/v1/cloud/remotes/{remote}"

    private func key(_ request: Request) throws(CloudError) -> String {
        guard let key = request.query("key"), !key.isEmpty else { throw .invalid("\"key\" is missing in the query") }
        try Keys.check(key)
        return key
    }

    func add() throws(PluginError) {
        let (cloud, remotes) = (cloud, remotes)
        var read = Route(
            .get, Self.base + "/object", right: "cloud.use",
            summary: "An object, or with Range a part of it. Its last bytes come only when its hash is right.", operation: Operations.read)
        read.timeoutSeconds = 3_600
        try dispatch.add(read, in: cloud.streams) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .read)
            let key = try key(request)
            let range = try request.header("range").map { (text) throws(CloudError) in
                guard let range = ByteRange(header: text) else { throw CloudError.invalid("Range is \"bytes=FIRST-LAST\", \"bytes=FIRST-\" or \"bytes=-COUNT\"") }
                return range
            }
            let store = try remotes.open(remote.name)
            try cloud.record("cloud.read", as: .request(request), "\(remote.name)/\(key)")
            return { (flow) throws(CloudError) in
                _ = try store.read(key, range: range, into: ResponseSink(flow), flow.cancellation)
                flow.request.end()
            }
        }
        var write = Route(
            .put, Self.base + "/object", right: "cloud.use",
            summary: "Writes an object; a large one goes up in parts, several at a time. With `offset` it goes on with an upload that was broken off.",
            operation: Operations.write)
        write.streamsBody = true
        write.bodyLimit = 640 << 30
        write.timeoutSeconds = 3_600
        try dispatch.add(write, in: cloud.streams) { [self] request, _ throws(CloudError) in try beginWrite(request) }
        try addUploads()
    }

    private func beginWrite(_ request: Request) throws(CloudError) -> Dispatch.Work {
        let remote = try Access.remote(request, remotes, .write)
        let key = try key(request)
        guard !key.hasSuffix("/") else { throw .invalid("an object's key does not end with a slash") }
        var options = ObjectOptions(contentType: try Header.contentType(request.header("content-type")))
        options.metadata = try Keys.pairs(try Self.json(request.header("x-cloud-metadata")), "metadata")
        options.tags = try Keys.pairs(try Self.json(request.header("x-cloud-tags")), "tags")
        try Keys.metadata(options.metadata)
        try Keys.tags(options.tags)
        let offset = try request.query("offset").map { (text) throws(CloudError) in
            guard let offset = Int64(text), offset >= 0 else { throw CloudError.invalid("\"offset\" is a whole number of bytes") }
            return offset
        }
        let store = try remotes.open(remote.name)
        try cloud.record("cloud.write", as: .request(request), "\(remote.name)/\(key)", detail: offset.map { ["offset": .integer($0)] } ?? [:])
        let (uploads, actor, now, wanted) = (uploads, request.actor, cloud.executor.now, options)
        let name = remote.name
        return { (flow) throws(CloudError) in
            let source = RequestSource(flow)
            var resume: (upload: PartialUpload, offset: Int64)?
            let former = try uploads.find(name, key)
            if let offset, offset > 0 {
                guard let former, let there = try store.uploaded(key, former.upload, flow.cancellation) else {
                    throw CloudError(.conflict, "there is no upload of \"\(key)\" to go on with")
                }
                guard offset == there else { throw CloudError(.conflict, "the upload of \"\(key)\" goes on at \(there), not at \(offset)") }
                resume = (former.upload, offset)
            } else if let former {
                try store.abandon(key, former.upload, flow.cancellation)
                try uploads.forget(name, key)
            }
            var hasBegun = resume != nil
            let stored = try store.write(key, source, wanted, resume: resume, began: { (upload) throws(CloudError) in
                hasBegun = true
                try uploads.keep(Uploads.Record(remote: name, key: key, upload: upload, length: source.length, startedAt: now, owner: actor))
            }, flow.cancellation)
            if hasBegun { try uploads.forget(name, key) }
            flow.request.respond(201, json: stored.json)
        }
    }

    private static func json(_ text: String?) throws(CloudError) -> JSONValue? {
        guard let text else { return nil }
        guard let json = try? JSONValue(parsing: text, limits: JSONLimits(depth: 2, bytes: 16 << 10)) else {
            throw .invalid("metadata and tags are JSON objects of texts")
        }
        return json
    }

    private func addUploads() throws(PluginError) {
        let (cloud, remotes, uploads) = (cloud, remotes, uploads)
        try dispatch.add(
            Route(.get, Self.base + "/uploads", right: "cloud.use", summary: "Uploads in parts that have begun and not ended.", operation: Operations.uploads),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .read)
            let items = try uploads.all(of: remote.name).map { JSONValue.object($0.json) }
            return { (flow) throws(CloudError) in flow.request.respond(json: ["items": .array(items), "next": .null] as JSONObject) }
        }
        try dispatch.add(
            Route(.get, Self.base + "/upload", right: "cloud.use", summary: "Where the upload of an object goes on: `offset` bytes are in the store.", operation: Operations.key),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            let key = try key(request)
            guard let record = try uploads.find(remote.name, key) else { throw CloudError(.notFound, "no upload of \"\(key)\" has begun") }
            let store = try remotes.open(remote.name)
            return { (flow) throws(CloudError) in
                guard let offset = try store.uploaded(key, record.upload, flow.cancellation) else {
                    try uploads.forget(remote.name, key)
                    throw CloudError(.notFound, "the store has forgotten the upload of \"\(key)\"")
                }
                var json = record.json
                json["offset"] = .integer(offset)
                flow.request.respond(json: json)
            }
        }
        try dispatch.add(
            Route(.delete, Self.base + "/upload", right: "cloud.use", summary: "Gives an upload up: its parts are removed.", operation: Operations.key),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            let key = try key(request)
            guard let record = try uploads.find(remote.name, key) else { throw CloudError(.notFound, "no upload of \"\(key)\" has begun") }
            let store = try remotes.open(remote.name)
            try cloud.record("cloud.upload-delete", as: .request(request), "\(remote.name)/\(key)")
            return { (flow) throws(CloudError) in
                try store.abandon(key, record.upload, flow.cancellation)
                try uploads.forget(remote.name, key)
                flow.request.respond(204)
            }
        }
    }

    /// Uploads that nobody went on with for long are given up. On a worker.
    func sweep() {
        let oldest = cloud.executor.now - min(cloud.executor.now, cloud.settings.keepUploadsHours * 3_600_000)
        for record in (try? uploads.all()) ?? [] where record.startedAt < oldest {
            do throws(CloudError) {
                try remotes.open(record.remote).abandon(record.key, record.upload, cloud.stopping)
                try uploads.forget(record.remote, record.key)
            } catch {
                if error.kind == .notFound { try? uploads.forget(record.remote, record.key) }
                cloud.host.log.warning("upload.sweep-failed", ["remote": .string(record.remote), "reason": .string(error.detail)])
            }
        }
    }
}
