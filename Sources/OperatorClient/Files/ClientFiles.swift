import JSON

/// A client's file system as the API shows it.
struct ClientFiles {
    let core: Core
    let client: String

    private var base: String { "/api/v1/clients/\(APIRequest.encoded(client))/files" }

    /// `nil`: there is no such thing.
    func status(_ path: String, follow: Bool = true) async throws(OperatorError) -> JSONValue? {
        var request = APIRequest("GET", base + "/status")
        request.query = [(name: "path", value: path), (name: "follow", value: follow ? "true" : "false")]
        let response = try await core.transport.send(request)
        if response.status == 404, (try? JSONValue(parsing: response.body))?["code"]?.string == "path-not-found" { return nil }
        guard (200..<300).contains(response.status) else { throw core.failure(response, of: request) }
        return try? JSONValue(parsing: response.body)
    }

    func isDirectory(_ path: String) async throws(OperatorError) -> Bool {
        try await status(path)?["kind"]?.string == "directory"
    }

    func list(_ path: String, limit: Int = 1_000_000) async throws(OperatorError) -> [JSONValue] {
        var request = APIRequest("GET", base)
        request.query = [(name: "path", value: path), (name: "limit", value: "1000")]
        return try await core.list(request, limit: limit).items
    }

    func makeDirectory(_ path: String, parents: Bool, mode: Int64?) async throws(OperatorError) {
        var body: JSONObject = ["path": .string(path), "parents": .bool(parents)]
        if let mode { body["mode"] = .integer(mode) }
        _ = try await core.post(base + "/directories", .object(body))
    }

    func rename(_ path: String, to target: String, replace: Bool) async throws(OperatorError) {
        _ = try await core.post(
            base + "/rename", ["path": .string(path), "target": .string(target), "replace": .bool(replace)])
    }

    func remove(_ path: String, recursive: Bool) async throws(OperatorError) {
        var request = APIRequest("DELETE", base)
        request.query = [(name: "path", value: path), (name: "recursive", value: recursive ? "true" : "false")]
        _ = try await core.call(request)
    }

    /// The paths that a pattern finds, in order; a path without signs is itself.
    /// - Throws: usage when a pattern finds nothing.
    func expand(_ path: String) async throws(OperatorError) -> [String] {
        let parts = path.split(separator: "/").map { GlobPattern(String($0)) }
        guard parts.contains(where: { !$0.isLiteral }) else { return [path] }
        let words = path.split(separator: "/").map(String.init)
        var found = ["/"]
        for (index, (pattern, word)) in zip(parts, words).enumerated() {
            var next: [String] = []
            for directory in found {
                guard !pattern.isLiteral else {
                    next.append(RemotePath.joined(directory, word))
                    continue
                }
                for entry in try await list(directory) {
                    guard let name = entry["name"]?.string, pattern.matches(name) else { continue }
                    let kind = entry["kind"]?.string
                    if index < parts.count - 1, kind != "directory", kind != "link" { continue }
                    next.append(RemotePath.joined(directory, name))
                }
            }
            found = next
        }
        // What stands behind the last sign need not be there.
        if parts.last?.isLiteral == true {
            var there: [String] = []
            for path in found {
                if try await status(path, follow: false) != nil { there.append(path) }
            }
            found = there
        }
        guard !found.isEmpty else { throw OperatorError(.remoteFailure, "nothing on \(client) matches \(path)") }
        return found
    }
}

extension Invocation {
    /// The id of the one client that a selector finds.
    func oneClient(_ text: String) async throws(OperatorError) -> String {
        var request = APIRequest("GET", "/api/v1/clients")
        request.query = [(name: "selector", value: text), (name: "limit", value: "2")]
        let (found, hasMore) = try await core.list(request, limit: 2)
        guard let id = found.first?["id"]?.string, found.count == 1, !hasMore else {
            throw .usage(
                found.isEmpty ? "no client is found by '\(text)'" : "'\(text)' finds several clients",
                advice: "Give an id or a selector that finds one: 'cmctl clients list SELECTOR' shows them.")
        }
        return id
    }

    func clientFiles(_ remote: RemotePath) async throws(OperatorError) -> ClientFiles {
        ClientFiles(core: try core, client: try await oneClient(remote.selector))
    }
}
