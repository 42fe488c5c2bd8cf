import JSON
import PluginKit

/// Where a tree is: below a prefix of a remote, or below a directory of a client.
enum SyncPlace: Sendable {
    case remote(String, prefix: String)
    case client(String, path: String)

    init(_ json: JSONObject, _ name: String) throws(CloudError) {
        if let (client, path) = try Self.client(json, name) {
            self = .client(client, path: path)
            return
        }
        let object = try JobRoutes.part(json, name, ["remote", "prefix"])
        let prefix = try Remote.text(object, "prefix", limit: 900) ?? ""
        try Keys.checkPrefix(prefix)
        guard prefix.isEmpty || prefix.hasSuffix("/"), !prefix.hasPrefix("/") else { throw .invalid("\"prefix\" is a folder: it ends with a slash") }
        self = .remote(try Body.text(object, "remote"), prefix: prefix)
    }

    /// `{"client": ID, "path": "/…"}`; `nil`: it is no client's.
    static func client(_ json: JSONObject, _ name: String) throws(CloudError) -> (id: String, path: String)? {
        guard let client = json[name]?["client"] else { return nil }
        guard let id = client.string, id.utf8.count == 26, let path = json[name]?["path"]?.string, path.hasPrefix("/"), path.utf8.count <= 4_096,
            json[name]?.object?.count == 2
        else { throw .invalid("\"\(name)\" is {\"client\": ID, \"path\": \"/…\"}") }
        return (id, path)
    }

    var text: String {
        switch self {
        case .remote(let remote, let prefix): "\(remote)/\(prefix)"
        case .client(let id, let path): "client \(id) \(path)"
        }
    }

    var isClient: Bool {
        if case .client = self { true } else { false }
    }

    /// Whether one of both trees lies in the other, as far as their names say.
    func overlaps(_ other: SyncPlace) -> Bool {
        guard case .remote(let one, let prefix) = self, case .remote(let two, let further) = other else { return false }
        return one == two && (prefix.hasPrefix(further) || further.hasPrefix(prefix))
    }

    func side(_ cloud: Cloud, _ remotes: Remotes, _ attempt: JobAttempt) throws(CloudError) -> any SyncSide {
        switch self {
        case .remote(let remote, let prefix): RemoteSide(store: try remotes.open(remote), prefix: prefix)
        case .client(let id, let path): ClientSide(cloud: cloud, attempt: attempt, client: id, path: path)
        }
    }
}
