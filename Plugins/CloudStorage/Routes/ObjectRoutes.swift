import JSON
import PluginKit

/// What is in a remote: lists, content, names, tags. A key stands in the query, because it may hold anything.
struct ObjectRoutes {
    let cloud: Cloud
    let remotes: Remotes
    let dispatch: Dispatch
    private static let base = "/api/v1/cloud/remotes/{remote}"

    func add() throws(PluginError) {
        try addLooking()
        try addNames()
        try addTags()
        try addPresign()
    }

    private func key(_ request: Request) throws(CloudError) -> String {
        guard let key = request.query("key"), !key.isEmpty else { throw .invalid("\"key\" is missing in the query") }
        try Keys.check(key)
        return key
    }

    private func addLooking() throws(PluginError) {
        let (cloud, remotes) = (cloud, remotes)
        try dispatch.add(
            Route(.get, Self.base + "/objects", right: "cloud.use", summary: "Objects of a remote, in the order of their keys.", operation: Operations.list),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .read)
            let prefix = request.query("prefix") ?? ""
            let isDeep = request.query("recursive") == "true"
            let limit = try number(request, "limit", 1_000, 1...1_000)
            let cursor = request.query("cursor")
            let store = try remotes.open(remote.name)
            return { (flow) throws(CloudError) in
                let page = try store.list(prefix: prefix, delimiter: !isDeep, cursor: cursor, limit: limit, flow.cancellation)
                let items = page.prefixes.map { ($0, JSONValue.object(["key": .string($0), "folder": true])) } + page.objects.map { ($0.key, $0.json) }
                let ordered = items.sorted { $0.0.utf8.lexicographicallyPrecedes($1.0.utf8) }.map(\.1)
                flow.request.respond(json: ["items": .array(ordered), "next": page.next.map { .string($0) } ?? .null] as JSONObject)
            }
        }
        try dispatch.add(
            Route(.get, Self.base + "/stat", right: "cloud.use", summary: "What the store says of an object.", operation: Operations.key), in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .read)
            let key = try key(request)
            let store = try remotes.open(remote.name)
            return { (flow) throws(CloudError) in flow.request.respond(json: try store.look(key, flow.cancellation).json) }
        }
    }

    private func number(_ request: Request, _ name: String, _ normal: Int, _ range: ClosedRange<Int>) throws(CloudError) -> Int {
        guard let text = request.query(name) else { return normal }
        guard let number = Int(text), range.contains(number) else {
            throw .invalid("\"\(name)\" must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    // MARK: Names

    private func addNames() throws(PluginError) {
        let (cloud, remotes) = (cloud, remotes)
        let uploads = JobUploads(cloud, remotes)
        try dispatch.add(
            Route(.delete, Self.base + "/object", right: "cloud.use", summary: "Removes an object; one that is not there is gone as well.", operation: Operations.key),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            let key = try key(request)
            let store = try remotes.open(remote.name)
            try cloud.record("cloud.delete", as: .request(request), "\(remote.name)/\(key)")
            return { (flow) throws(CloudError) in
                try store.remove(key, flow.cancellation)
                flow.request.respond(204)
            }
        }
        try dispatch.add(
            Route(.post, Self.base + "/delete", right: "cloud.use", summary: "Removes up to 1,000 objects; says which could not be.", operation: Operations.removeMany),
            in: cloud.calls
        ) { request, body throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            let json = try Body.object(body, ["keys"])
            guard let keys = json["keys"]?.array?.compactMap(\.string), (1...1_000).contains(keys.count), keys.count == json["keys"]?.array?.count else {
                throw CloudError.invalid("\"keys\" must be 1 to 1,000 texts")
            }
            for key in keys { try Keys.check(key) }
            let store = try remotes.open(remote.name)
            try cloud.record(
                "cloud.delete", as: .request(request), remote.name,
                detail: ["count": .integer(Int64(keys.count)), "keys": .array(keys.prefix(100).map { .string(String($0.prefix(100))) })])
            return { (flow) throws(CloudError) in
                let faults = try store.remove(keys, flow.cancellation)
                let failed = faults.map { JSONValue.object(["key": .string($0.key), "code": .string($0.code), "message": .string($0.message)]) }
                flow.request.respond(json: ["removed": .integer(Int64(keys.count - faults.count)), "failed": .array(failed)] as JSONObject)
            }
        }
        try dispatch.add(
            Route(
                .post, Self.base + "/copy", right: "cloud.use",
                summary: "Copies an object inside its store; onto itself, with other metadata.", operation: Operations.copy), in: cloud.streams
        ) { request, body throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            _ = try Access.remote(request, remotes, .read)
            let json = try Body.object(body, ["from", "to", "content_type", "metadata"])
            let (from, to) = (try Body.text(json, "from"), try Body.text(json, "to"))
            let metadata = try Keys.pairs(json["metadata"], "metadata")
            try Keys.metadata(metadata)
            let isNew = json["metadata"] != nil || json["content_type"] != nil
            let options = isNew ? ObjectOptions(contentType: try Header.contentType(try Remote.text(json, "content_type")), metadata: metadata) : nil
            guard from != to || isNew else { throw CloudError.invalid("a copy onto itself needs new metadata") }
            let store = try remotes.open(remote.name)
            try cloud.record("cloud.copy", as: .request(request), "\(remote.name)/\(to)", detail: ["from": .string(from)])
            return { (flow) throws(CloudError) in
                try uploads.watched(remote.name, to, flow.cancellation) { (began) throws(CloudError) in
                    try store.copy(from, to, options, began: began, flow.cancellation)
                }
                flow.request.respond(json: try store.look(to, flow.cancellation).json)
            }
        }
        try dispatch.add(
            Route(.post, Self.base + "/move", right: "cloud.use", summary: "Renames an object inside its store.", operation: Operations.move), in: cloud.streams
        ) { request, body throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            let json = try Body.object(body, ["from", "to"])
            let (from, to) = (try Body.text(json, "from"), try Body.text(json, "to"))
            let store = try remotes.open(remote.name)
            try cloud.record("cloud.move", as: .request(request), "\(remote.name)/\(to)", detail: ["from": .string(from)])
            return { (flow) throws(CloudError) in
                try uploads.watched(remote.name, to, flow.cancellation) { (began) throws(CloudError) in
                    try store.move(from, to, began: began, flow.cancellation)
                }
                flow.request.respond(204)
            }
        }
        try dispatch.add(
            Route(.post, Self.base + "/folders", right: "cloud.use", summary: "Makes a folder: a collection, or an empty object whose key ends with a slash.", operation: Operations.folder),
            in: cloud.calls
        ) { request, body throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            let key = try Body.text(try Body.object(body, ["key"]), "key")
            let store = try remotes.open(remote.name)
            try cloud.record("cloud.folder", as: .request(request), "\(remote.name)/\(key)")
            return { (flow) throws(CloudError) in
                try store.makeFolder(key, flow.cancellation)
                flow.request.respond(201, json: ["key": .string(key)] as JSONObject)
            }
        }
    }

    // MARK: Tags and URLs

    private func addTags() throws(PluginError) {
        let (cloud, remotes) = (cloud, remotes)
        try dispatch.add(
            Route(.get, Self.base + "/tags", right: "cloud.use", summary: "Tags of an object.", operation: Operations.key), in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .read)
            let key = try key(request)
            let store = try remotes.open(remote.name)
            return { (flow) throws(CloudError) in
                let tags = try store.tags(key, flow.cancellation)
                flow.request.respond(json: ["tags": .object(JSONObject(tags.map { ($0.name, .string($0.value)) }))] as JSONObject)
            }
        }
        try dispatch.add(
            Route(.put, Self.base + "/tags", right: "cloud.use", summary: "Sets the tags of an object; none removes them.", operation: Operations.setTags),
            in: cloud.calls
        ) { request, body throws(CloudError) in
            let remote = try Access.remote(request, remotes, .write)
            let key = try key(request)
            let tags = try Keys.pairs(try Body.object(body, ["tags"])["tags"], "tags")
            try Keys.tags(tags)
            let store = try remotes.open(remote.name)
            try cloud.record("cloud.tag", as: .request(request), "\(remote.name)/\(key)")
            return { (flow) throws(CloudError) in
                try store.setTags(key, tags, flow.cancellation)
                flow.request.respond(204)
            }
        }
    }

    private func addPresign() throws(PluginError) {
        let (cloud, remotes) = (cloud, remotes)
        try dispatch.add(
            Route(
                .post, Self.base + "/presign", right: "cloud.use",
                summary: "A URL with which whoever has it reads (GET) or writes (PUT) one object for a while.", operation: Operations.presign), in: cloud.calls
        ) { request, body throws(CloudError) in
            let json = try Body.object(body, ["key", "method", "expires_s"])
            let method = try Remote.text(json, "method") ?? "GET"
            guard method == "GET" || method == "PUT" else { throw CloudError.invalid("\"method\" is \"GET\" or \"PUT\"") }
            let remote = try Access.remote(request, remotes, method == "GET" ? .read : .write)
            let key = try Body.text(json, "key")
            let seconds = try Remote.number(json, "expires_s", 3_600, 1...604_800)
            let url = try remotes.open(remote.name).presign(key, method: method, seconds: seconds)
            try cloud.record(
                "cloud.presign", as: .request(request), "\(remote.name)/\(key)",
                detail: ["method": .string(method), "expires_s": .integer(Int64(seconds))])
            return { (flow) throws(CloudError) in
                flow.request.respond(
                    201, headers: [("content-type", "application/json"), ("cache-control", "no-store")],
                    body: JSONValue.object(["url": .string(url), "method": .string(method), "expires_s": .integer(Int64(seconds))]).serialized())
            }
        }
    }
}

enum Header {
    static func contentType(_ text: String?) throws(CloudError) -> String? {
        guard let text else { return nil }
        guard (1...256).contains(text.utf8.count), text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else {
            throw .invalid("a content type is 1 to 256 printable ASCII characters")
        }
        return text
    }
}
