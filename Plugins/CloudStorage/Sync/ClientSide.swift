import PluginKit

/// A directory of a client with what is in it. The core asks in the job's name, and the client's own policy says where.
struct ClientSide: SyncSide {
    let cloud: Cloud
    let attempt: JobAttempt
    let client: String
    let path: String

    private static let depth = 64
    /// How long a client that is away, or has too much to do, is waited for.
    private static let patienceMilliseconds: UInt64 = 600_000
    private static let passing: Set<String> = ["client-offline", "client-busy", "client-timeout", "agent-busy"]
    /// Of what an agent writes beside its target.
    private static let unfinishedPrefix = ".cm-transfer-"

    func path(of key: String) -> String { path.hasSuffix("/") ? path + key : path + "/" + key }

    // MARK: What is there

    func tree(_ filter: Filter, isTarget: Bool, _ cancellation: Cancellation) throws(CloudError) -> SyncTree {
        var tree = SyncTree()
        let root: Files.Entry
        do throws(CloudError) {
            root = try ask(cancellation) { (files, done) throws(PluginError) in try files.clientStatus(client, path, as: .job(attempt), done: done) }
        } catch where isTarget && error.code == "path-not-found" { return tree }
        guard root.kind == "directory" else { throw .invalid("\(path) on client \(client) is no directory") }
        var waiting = [""]
        while let directory = waiting.popLast() {
            guard directory.utf8.count(where: { $0 == UInt8(ascii: "/") }) < Self.depth else {
                throw .invalid("more than \(Self.depth) directories inside each other: \(directory.prefix(256))")
            }
            try entries(of: directory, cancellation) { (entry) throws(CloudError) in
                let key = directory.isEmpty ? entry.name : directory + "/" + entry.name
                if entry.kind == "directory" { waiting.append(key) }
                Self.sort(entry, key, path(of: key), filter, into: &tree)
                guard tree.count <= SyncRun.mostObjects else { throw SyncRun.tooLarge }
            }
        }
        return tree
    }

    private func entries(
        of directory: String, _ cancellation: Cancellation, _ body: (Files.Entry) throws(CloudError) -> Void
    ) throws(CloudError) {
        let place = directory.isEmpty ? path : path(of: directory)
        var after: String? = ""
        while let last = after {
            let page: (entries: [Files.Entry], next: String?) = try ask(cancellation) { (files, done) throws(PluginError) in
                try files.clientList(client, place, after: last, as: .job(attempt), done: done)
            }
            for entry in page.entries { try body(entry) }
            // The core sees to it that it goes on.
            after = page.next
        }
    }

    private static func sort(_ entry: Files.Entry, _ key: String, _ path: String, _ filter: Filter, into tree: inout SyncTree) {
        switch entry.kind {
        case "directory": tree.directories.insert(key)
        case "file" where filter.takes(key) && !entry.name.hasPrefix(unfinishedPrefix):
            var info = ObjectInfo(key: path)
            info.size = Int64(clamping: entry.size)
            info.modifiedMilliseconds = UInt64(clamping: entry.modifiedNanoseconds / 1_000_000)
            tree.objects[key] = info
        case "file": tree.others.append(key)
        case "link": tree.obstacles[key] = "a symbolic link"
        default: tree.obstacles[key] = "neither a file nor a directory"
        }
    }

    /// Only what stays below the directory, and is a file's name on every system, is written there.
    func fault(of key: String) -> String? {
        guard !key.hasPrefix("/"), !key.hasSuffix("/") else { return "a path below a directory neither begins nor ends with a slash" }
        guard !key.utf8.contains(0), path(of: key).utf8.count <= 4_096 else { return "a path has at most 4,096 bytes, none of them zero" }
        for part in key.split(separator: "/", omittingEmptySubsequences: false) {
            if part.isEmpty || part == "." || part == ".." { return "\"\", \".\" and \"..\" are no names of files" }
            if part.utf8.count > 255 { return "a name has at most 255 bytes" }
            if part.hasPrefix(Self.unfinishedPrefix) { return "names that begin with \(Self.unfinishedPrefix) are the agent's own" }
        }
        return nil
    }

    func hash(_ object: ObjectInfo, _ algorithm: Digest.Algorithm, _ cancellation: Cancellation) throws(CloudError) -> String {
        let answer: (hash: String, entry: Files.Entry) = try ask(cancellation) { (files, done) throws(PluginError) in
            try files.clientHash(client, object.key, algorithm == .md5 ? .md5 : .sha256, as: .job(attempt), done: done)
        }
        return answer.hash
    }

    // MARK: Removing

    func remove(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) -> [BatchFault] {
        var faults: [BatchFault] = []
        for key in keys {
            do throws(CloudError) {
                try remove(key, cancellation)
            } catch {
                // Gone already is gone.
                if error.code == "path-not-found" { continue }
                guard !error.isPassing, error.kind != .cancelled else { throw error }
                faults.append(BatchFault(key: key, code: error.code, message: error.detail))
            }
        }
        return faults
    }

    func removeDirectories(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) {
        for key in keys {
            do throws(CloudError) {
                try remove(key, cancellation)
            } catch where ["path-not-found", "directory-not-empty"].contains(error.code) {
                // Somebody else has put something there meanwhile, or removed it.
            }
        }
    }

    private func remove(_ key: String, _ cancellation: Cancellation) throws(CloudError) {
        if let fault = fault(of: key) { throw .invalid(fault) }
        let _: Bool = try ask(cancellation) { (files, done) throws(PluginError) in
            try files.clientRemove(client, path(of: key), as: .job(attempt)) { done($0.map { true }) }
        }
    }

    // MARK: Asking

    /// Waits for the answer; a client that is away for a while is waited for.
    private func ask<Value: Sendable>(
        _ cancellation: Cancellation,
        _ begin: (Files, @escaping (Result<Value, PluginError>) -> Void) throws(PluginError) -> Void
    ) throws(CloudError) -> Value {
        let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
        let end = monotonicMilliseconds() + Self.patienceMilliseconds
        while true {
            do throws(CloudError) {
                return try once(files, cancellation, begin)
            } catch where error.isPassing && monotonicMilliseconds() < end {
                attempt.progress(0, "waiting for client \(client): \(error.detail)")
                cancellation.pause(milliseconds: 1_000)
            }
        }
    }

    private func once<Value: Sendable>(
        _ files: Files, _ cancellation: Cancellation,
        _ begin: (Files, @escaping (Result<Value, PluginError>) -> Void) throws(PluginError) -> Void
    ) throws(CloudError) -> Value {
        if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
        let answer = Monitor<Result<Value, PluginError>?>(nil)
        do throws(PluginError) {
            try begin(files) { result in answer.update { $0 = result } }
        } catch { throw Self.failure(error) }
        while true {
            if let result = answer.wait(milliseconds: 250, { $0 }) {
                do throws(PluginError) { return try result.get() } catch { throw Self.failure(error) }
            }
            if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
        }
    }

    private static func failure(_ error: PluginError) -> CloudError {
        let kind: CloudError.Kind =
            if passing.contains(error.code) || error.status == .busy { .unreachable } else if error.status == .notFound { .notFound } else { .denied }
        var failure = CloudError(kind, error.text)
        failure.core = (error.code, Int(error.httpStatus))
        return failure
    }
}
