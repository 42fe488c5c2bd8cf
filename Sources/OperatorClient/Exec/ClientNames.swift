import JSON

/// What people call clients, for lines of output.
enum ClientNames {
    /// By id: the display name, else the host name; where two clients have the same, the end of the id tells them apart.
    static func short(_ clients: [JSONValue]) -> [String: String] {
        var names: [String: String] = [:]
        var uses: [String: Int] = [:]
        for client in clients {
            let candidates = [client["name"]?.string, client["hostname"]?.string]
            guard let id = client["id"]?.string, let name = candidates.compactMap({ $0 }).first(where: { !$0.isEmpty }) else {
                continue
            }
            names[id] = name
            uses[name, default: 0] += 1
        }
        for (id, name) in names where uses[name, default: 0] > 1 { names[id] = name + "/" + id.suffix(6) }
        return names
    }
}
