/// What one side of a synchronisation has, by key below its prefix or directory.
struct SyncTree: Sendable {
    var objects: [String: ObjectInfo] = [:]
    /// Links, devices and pipes of a client, and what they are: never copied, replaced or removed, and nothing goes through them.
    var obstacles: [String: String] = [:]
    /// Keys that end with a slash and have content all the same.
    var folders: [String: Int64] = [:]
    /// Directories of a client.
    var directories: Set<String> = []
    /// What a filter leaves out.
    var others: [String] = []

    var count: Int { objects.count + obstacles.count + folders.count + directories.count + others.count }

    /// What is above a key: "a" and "a/b" of "a/b/c".
    static func above(_ key: String) -> [String] {
        let bytes = Array(key.utf8)
        return bytes.indices.filter { bytes[$0] == UInt8(ascii: "/") }.map { String(decoding: bytes[..<$0], as: UTF8.self) }
    }

    /// Directories that held something of `removed` and hold nothing when it is gone, deepest first.
    /// - Parameter coming: keys that stand there afterwards.
    func emptied(_ removed: Set<String>, coming: some Sequence<String>) -> [String] {
        var occupied: Set<String> = []
        func occupy(_ key: String) { occupied.formUnion(Self.above(key)) }
        for key in objects.keys where !removed.contains(key) { occupy(key) }
        for key in obstacles.keys { occupy(key) }
        for key in others { occupy(key) }
        for key in coming { occupy(key) }
        let candidates = removed.reduce(into: Set<String>()) { $0.formUnion(Self.above($1)) }
        for directory in directories where !candidates.contains(directory) { occupy(directory) }
        return candidates.subtracting(occupied).sorted { ($0.utf8.count, $0) > ($1.utf8.count, $1) }
    }
}

/// One side of a synchronisation. Calls block; each may be called from any thread.
protocol SyncSide: Sendable {
    /// - Parameter isTarget: what is not there yet is empty.
    func tree(_ filter: Filter, isTarget: Bool, _ cancellation: Cancellation) throws(CloudError) -> SyncTree
    /// Why there can be nothing under this key; `nil`: there can.
    func fault(of key: String) -> String?
    /// Of the content: told, or computed where it is.
    func hash(_ object: ObjectInfo, _ algorithm: Digest.Algorithm, _ cancellation: Cancellation) throws(CloudError) -> String
    /// By key below the prefix; what could not be removed is named the same way.
    func remove(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) -> [BatchFault]
    /// Directories that are empty now.
    func removeDirectories(_ keys: [String], _ cancellation: Cancellation) throws(CloudError)
}

/// A tree in a remote.
struct RemoteSide: SyncSide {
    let store: any ObjectStore
    let prefix: String

    func tree(_ filter: Filter, isTarget: Bool, _ cancellation: Cancellation) throws(CloudError) -> SyncTree {
        var tree = SyncTree()
        var cursor: String?
        repeat {
            let page = try Retry(attempts: 3).run(cancellation) { (_) throws(CloudError) in
                try store.list(prefix: prefix, delimiter: false, cursor: cursor, limit: 1_000, cancellation)
            }
            for object in page.objects where object.key.hasPrefix(prefix) {
                let key = String(decoding: object.key.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
                guard !key.isEmpty, filter.takes(key) else { continue }
                if !key.hasSuffix("/") { tree.objects[key] = object } else if object.size > 0 { tree.folders[key] = object.size }
            }
            guard tree.count <= SyncRun.mostObjects else { throw SyncRun.tooLarge }
            cursor = page.next
            if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
        } while cursor != nil
        return tree
    }

    func fault(of key: String) -> String? {
        do throws(CloudError) {
            try Keys.check(prefix + key)
            return nil
        } catch { return error.detail }
    }

    func hash(_ object: ObjectInfo, _ algorithm: Digest.Algorithm, _ cancellation: Cancellation) throws(CloudError) -> String {
        if let told = algorithm == .md5 ? object.md5 : object.sha256 { return told }
        let sink = HashingSink(algorithm)
        _ = try store.read(object.key, range: nil, into: sink, cancellation)
        return Text.hex(sink.finish())
    }

    func remove(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) -> [BatchFault] {
        try store.remove(keys.map { prefix + $0 }, cancellation).map { fault in
            BatchFault(key: String(decoding: fault.key.utf8.dropFirst(prefix.utf8.count), as: UTF8.self), code: fault.code, message: fault.message)
        }
    }

    func removeDirectories(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) {}
}
