/// One page of a walk through collections in the order of keys, as a store of objects lists them.
struct WebDAVWalk {
    private let after: String
    private let limit: Int
    private let isDeep: Bool
    private static let deepest = 64
    private(set) var listing = Listing()
    private var last = ""

    init(after: String, limit: Int, isDeep: Bool) {
        self.after = after
        self.limit = limit
        self.isDeep = isDeep
    }

    private var count: Int { listing.objects.count + listing.prefixes.count }

    /// - Parameter members: what is in a collection, folders with a slash at their end.
    mutating func visit(
        _ folder: String, prefix: String, depth: Int, _ members: (String) throws(CloudError) -> [ObjectInfo]
    ) throws(CloudError) {
        guard depth < Self.deepest else { throw CloudError(.answer, "folders lie more than \(Self.deepest) deep") }
        for member in try members(folder).sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
            guard listing.next == nil else { return }
            guard member.key.hasPrefix(prefix), member.key.hasPrefix(folder) else { continue }
            // Content that is not whole yet is not there yet.
            let name = member.key.dropFirst(folder.count)
            guard !name.hasPrefix(".cm-part-") else { continue }
            let isPast = member.key.utf8.lexicographicallyPrecedes(after.utf8) || member.key == after
            if member.isFolder, isDeep {
                // A folder lies before all that is in it: it may hold what comes after although it does not itself.
                guard !isPast || after.hasPrefix(member.key) else { continue }
                try visit(member.key, prefix: prefix, depth: depth + 1, members)
                continue
            }
            guard !isPast else { continue }
            guard count < limit else {
                listing.next = Text.encoded(last)
                return
            }
            last = member.key
            if member.isFolder { listing.prefixes.append(member.key) } else { listing.objects.append(member) }
        }
    }
}
