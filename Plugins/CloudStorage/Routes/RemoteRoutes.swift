import JSON
import PluginKit

/// `/api/v1/cloud/remotes`: named places and who may use them.
struct RemoteRoutes {
    let cloud: Cloud
    let remotes: Remotes
    let dispatch: Dispatch
    private static let base = "/api/v1/cloud/remotes"

    func add() throws(PluginError) {
        let (cloud, remotes) = (cloud, remotes)
        try dispatch.add(
            Route(.get, Self.base, right: "cloud.use", summary: "Remotes that you may read.", operation: Operations.remotes), in: cloud.calls
        ) { request, _ throws(CloudError) in
            let items = try remotes.all().filter { request.may($0.readRight) || request.may("cloud.manage") }.map { JSONValue.object($0.json) }
            return { (flow) throws(CloudError) in flow.request.respond(json: ["items": .array(items), "next": .null] as JSONObject) }
        }
        try dispatch.add(
            Route(.post, Self.base, right: "cloud.manage", summary: "Makes a remote.", operation: Operations.makeRemote), in: cloud.calls
        ) { request, body throws(CloudError) in
            let json = try Body.object(body, Remote.members.union(Credentials.members))
            let remote = try Remote(json, name: json["name"]?.string ?? "")
            let credentials = try Credentials(json)
            try save(remote, credentials, request, isNew: true)
            return { (flow) throws(CloudError) in flow.request.respond(201, json: remote.json) }
        }
        try dispatch.add(
            Route(.get, Self.base + "/{remote}", right: "cloud.use", summary: "One remote, without its credentials.", operation: Operations.remote),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .look)
            return { (flow) throws(CloudError) in flow.request.respond(json: remote.json) }
        }
        try dispatch.add(
            Route(
                .put, Self.base + "/{remote}", right: "cloud.manage",
                summary: "Replaces a remote; without credentials it keeps those that it has, as long as it goes to the same place.",
                operation: Operations.makeRemote), in: cloud.calls
        ) { request, body throws(CloudError) in
            let name = request.parameter("remote") ?? ""
            guard try remotes.find(name) != nil else { throw CloudError(.notFound, "there is no remote \"\(name.prefix(64))\"") }
            let json = try Body.object(body, Remote.members.union(Credentials.members))
            if let other = json["name"]?.string, other != name { throw CloudError.invalid("a remote cannot be renamed") }
            let remote = try Remote(json, name: name)
            let hasCredentials = Credentials.members.contains { json[$0] != nil }
            try save(remote, hasCredentials ? try Credentials(json) : nil, request, isNew: false)
            return { (flow) throws(CloudError) in flow.request.respond(json: remote.json) }
        }
        try dispatch.add(
            Route(.delete, Self.base + "/{remote}", right: "cloud.manage", summary: "Forgets a remote and its credentials; what is in the store stays."),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .manage)
            try cloud.record("cloud.remote-delete", as: .request(request), remote.name)
            try remotes.remove(remote.name)
            return { (flow) throws(CloudError) in flow.request.respond(204) }
        }
        try dispatch.add(
            Route(.post, Self.base + "/{remote}/test", right: "cloud.use", summary: "Asks the store for a list of one: address, trust, credentials and bucket."),
            in: cloud.calls
        ) { request, _ throws(CloudError) in
            let remote = try Access.remote(request, remotes, .look)
            try cloud.record("cloud.remote-test", as: .request(request), remote.name)
            let store = try remotes.open(remote.name)
            return { (flow) throws(CloudError) in
                let begin = monotonicMilliseconds()
                _ = try store.list(prefix: "", delimiter: true, cursor: nil, limit: 1, flow.cancellation)
                flow.request.respond(json: ["ok": true, "milliseconds": .integer(Int64(monotonicMilliseconds() - begin))] as JSONObject)
            }
        }
    }

    private func save(_ remote: Remote, _ credentials: Credentials?, _ request: Request, isNew: Bool) throws(CloudError) {
        // The record says what was set, and not with what secret.
        try cloud.record(
            "cloud.remote-write", as: .request(request), remote.name,
            detail: [
                "kind": .string(remote.kind.rawValue), "endpoint": .string(remote.endpoint), "bucket": .string(remote.bucket),
                "prefix": .string(remote.prefix), "area": .string(remote.area), "credentials": .bool(credentials != nil),
            ])
        try remotes.save(remote, credentials, isNew: isNew)
    }
}

/// Who may do what with which remote. What somebody may not read is not there for him.
enum Access {
    enum Wish { case look, read, write, manage }

    static func remote(_ request: Request, _ remotes: Remotes, _ wish: Wish, named name: String? = nil) throws(CloudError) -> Remote {
        let name = name ?? request.parameter("remote") ?? ""
        let isManager = request.may("cloud.manage")
        guard let remote = try remotes.find(name), isManager || request.may(remote.readRight) || request.may(remote.writeRight) else {
            throw CloudError(.notFound, "there is no remote \"\(name.prefix(64))\"")
        }
        switch wish {
        case .look: break
        case .manage: guard isManager else { throw forbidden("cloud.manage") }
        case .read: guard request.may(remote.readRight) else { throw forbidden(remote.readRight) }
        case .write:
            guard request.may(remote.writeRight) else { throw forbidden(remote.writeRight) }
            guard !remote.isReadOnly else { throw CloudError(.readOnly, "remote \"\(name)\" is read-only") }
        }
        return remote
    }

    static func forbidden(_ right: String) -> CloudError {
        var error = CloudError(.denied, "this needs the right \"\(right)\"")
        error.core = ("forbidden", 403)
        return error
    }
}

enum Body {
    static func object(_ body: RawSpan, _ members: Set<String>) throws(CloudError) -> JSONObject {
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: [UInt8](body), limits: JSONLimits(depth: 8, bytes: 1 << 20))
        } catch {
            throw .invalid("the body is not JSON: \(error)")
        }
        guard let object = json.object else { throw .invalid("the body must be a JSON object") }
        for member in object where !members.contains(member.key) {
            throw .invalid("\"\(member.key.prefix(64))\" is not known; known are \(members.sorted().joined(separator: ", "))")
        }
        return object
    }

    static func text(_ json: JSONObject, _ name: String) throws(CloudError) -> String {
        guard let text = try Remote.text(json, name, limit: 1_024), !text.isEmpty else { throw .invalid("\"\(name)\" must be a text") }
        return text
    }
}
