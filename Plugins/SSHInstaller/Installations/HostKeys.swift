import PluginKit

/// Keys that hosts showed at a first use: the next time they have to show the same.
struct HostKeys: Sendable {
    let store: Store

    private static func key(_ name: String) -> String { "host-key/" + name }

    func kept(_ name: String) throws(Failure) -> String? {
        do throws(PluginError) {
            return try store.get(Self.key(name)).map { String(decoding: $0, as: UTF8.self) }
        } catch { throw Failure("core", error.text) }
    }

    func keep(_ name: String, _ text: String) throws(Failure) {
        do throws(PluginError) {
            try store.transaction { (transaction) throws(PluginError) in
                // Two at once: the first one counts.
                try transaction.expect(Self.key(name), nil)
                try transaction.put(Self.key(name), Array(text.utf8))
            }
        } catch where error.status == .exists {
            guard try kept(name) == text else { throw Failure("host-key-changed", "\(name) has shown two different host keys at once: refused") }
        } catch { throw Failure("core", error.text) }
    }

    /// False: none was kept.
    func forget(_ name: String) throws(PluginError) -> Bool {
        guard try store.get(Self.key(name)) != nil else { return false }
        try store.transaction { (transaction) throws(PluginError) in try transaction.remove(Self.key(name)) }
        return true
    }

    func list(after: String) throws(PluginError) -> (items: [(name: String, key: String)], next: String?) {
        let page = try store.list(prefix: "host-key/", after: after, limit: 200)
        var items: [(name: String, key: String)] = []
        for key in page.items {
            guard let value = try store.get(key) else { continue }
            items.append((String(key.dropFirst("host-key/".count)), String(decoding: value, as: UTF8.self)))
        }
        return (items, page.next)
    }
}
