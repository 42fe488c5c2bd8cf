import JSON

/// Rules for keys and what goes with objects, the same for every store.
enum Keys {
    static func check(_ key: String) throws(CloudError) {
        guard (1...900).contains(key.utf8.count) else { throw .invalid("a key has 1 to 900 bytes") }
        try checkPrefix(key)
        guard !key.hasPrefix("/") else { throw .invalid("a key does not begin with a slash") }
    }

    /// What lies between slashes must not be a step: a store that has files behind its objects would take it.
    static func checkPrefix(_ prefix: String) throws(CloudError) {
        guard prefix.utf8.count <= 900, !prefix.utf8.contains(0) else { throw .invalid("a prefix has at most 900 bytes, none of them zero") }
        for part in prefix.split(separator: "/", omittingEmptySubsequences: false) where part == "." || part == ".." {
            throw .invalid("\".\" and \"..\" are no part of a key")
        }
    }

    /// A JSON object of texts, in the order of its names.
    static func pairs(_ value: JSONValue?, _ what: String) throws(CloudError) -> [(name: String, value: String)] {
        guard let value, !value.isNull else { return [] }
        guard let object = value.object else { throw .invalid("\"\(what)\" must be an object of texts") }
        var pairs: [(name: String, value: String)] = []
        for member in object {
            guard let text = member.value.string else { throw .invalid("\"\(what)\" must be an object of texts") }
            pairs.append((name: what == "metadata" ? member.key.lowercased() : member.key, value: text))
        }
        return pairs.sorted { $0.name < $1.name }
    }

    static func metadata(_ pairs: [(name: String, value: String)]) throws(CloudError) {
        guard pairs.reduce(0, { $0 + $1.name.utf8.count + $1.value.utf8.count }) <= 2_048 else { throw .invalid("metadata has at most 2 KiB") }
        for (name, value) in pairs {
            let isName = (1...128).contains(name.utf8.count) && !name.hasPrefix("cm-")
                && name.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D }
            guard isName, value.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else {
                throw .invalid("metadata: names are of a-z, 0-9 and - (not cm-…), values printable ASCII; \"\(name.prefix(32))\" is not so")
            }
        }
    }

    static func tags(_ pairs: [(name: String, value: String)]) throws(CloudError) {
        guard pairs.count <= 10, pairs.allSatisfy({ (1...128).contains($0.name.utf8.count) && $0.value.utf8.count <= 256 }) else {
            throw .invalid("an object has at most 10 tags, names of 1 to 128 and values of at most 256 bytes")
        }
    }
}
