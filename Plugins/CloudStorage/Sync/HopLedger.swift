import JSON
import PluginKit

/// Durable word of what lies between a client and the core's store: the transfer, the file.
protocol HopLedger: Sendable {
    /// Whose it is: no other ledger has it.
    var label: String { get }
    /// What an earlier attempt began or has done already.
    var state: JSONValue { get }
    func keep(_ state: JSONObject) throws(CloudError)
}

/// A job's checkpoint, where all that it does is one hop.
struct AttemptLedger: HopLedger {
    let attempt: JobAttempt

    var label: String { "copy-\(attempt.id)" }

    var state: JSONValue { (try? JSONValue(parsing: attempt.checkpoint)) ?? .null }

    func keep(_ state: JSONObject) throws(CloudError) {
        let bytes = JSONValue.object(state).serialized()
        try CloudError.kept { () throws(PluginError) in try attempt.keep(bytes) }
    }
}

/// A record of the plugin's, for one version of one of the files of a synchronisation. It stands from the beginning of its way until
/// nothing of it lies in the core's store any more, so that an attempt after an interruption goes on with it, and what nobody goes on
/// with is taken away.
struct FileLedger: HopLedger {
    let cloud: Cloud
    private let name: String
    /// What it is called in the core's store: so it is found there, should nobody have heard its id.
    let fileName: String
    var label: String { fileName }

    private static let prefix = "hop/"
    private static func prefix(of job: String) -> String { prefix + job + "/" }

    /// What an earlier attempt began with another version of the file has a record of its own, and goes at the end of the job.
    init(_ cloud: Cloud, job: String, key: String, version: String) {
        self.cloud = cloud
        let hash = Text.hex(Digest.of(Array("\(version)\0\(key)".utf8), .sha256))
        name = Self.prefix(of: job) + hash
        fileName = "sync-\(job)-\(hash.prefix(32))"
    }

    var state: JSONValue {
        guard let bytes = try? cloud.store.get(name) else { return .null }
        return (try? JSONValue(parsing: bytes)) ?? .null
    }

    func keep(_ state: JSONObject) throws(CloudError) {
        let bytes = JSONValue.object(state.merged(["name": .string(fileName)])).serialized()
        let (store, name) = (cloud.store, name)
        try CloudError.kept { () throws(PluginError) in
            try store.transaction { (transaction) throws(PluginError) in try transaction.put(name, bytes) }
        }
    }

    /// A file is about to begin.
    func willBegin() throws(CloudError) { try keep([:]) }

    /// Nothing of it is left, or is to be.
    /// - Parameter hasEnded: its transfers are over.
    func drop(as actor: Actor, hasEnded: Bool = false) throws(CloudError) { try Self.drop(cloud, name, as: actor, hasEnded: hasEnded) }

    /// All that an attempt has left, when none comes after it.
    static func dropAll(_ cloud: Cloud, of job: String, as actor: Actor) {
        try? all(cloud, prefix(of: job)) { (name) throws(CloudError) in try drop(cloud, name, as: actor) }
    }

    /// Regularly, on a worker: what jobs have left that are over.
    static func sweep(_ cloud: Cloud) {
        try? all(cloud, prefix) { (name) throws(CloudError) in
            let job = String(name.dropFirst(prefix.count).prefix { $0 != "/" })
            if JobUploads.isOver(job, cloud) { try drop(cloud, name, as: .plugin) }
        }
    }

    private static func all(_ cloud: Cloud, _ prefix: String, _ body: (String) throws(CloudError) -> Void) throws(CloudError) {
        var after = ""
        while !cloud.stopping.isCancelled {
            let (store, last) = (cloud.store, after)
            let page = try CloudError.kept { () throws(PluginError) in try store.list(prefix: prefix, after: last) }
            guard let next = page.items.last else { return }
            for name in page.items {
                do throws(CloudError) { try body(name) } catch {
                    cloud.host.log.warning("sync.file-left", ["record": .string(name), "reason": .string(error.detail)])
                }
            }
            after = next
        }
    }

    /// The transfer is called off, the file removed, and then the record.
    private static func drop(_ cloud: Cloud, _ name: String, as actor: Actor, hasEnded: Bool = false) throws(CloudError) {
        let bytes = try CloudError.kept { () throws(PluginError) in try cloud.store.get(name) }
        let state = bytes.flatMap { try? JSONValue(parsing: $0) } ?? .null
        let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
        var left = [state["file"]?.string, state["begun"]?.string].compactMap(\.self)
        if !hasEnded, let transfer = state["transfer"]?.string {
            try? files.cancelTransfer(transfer, as: actor)
            if let file = ended(files, transfer, as: actor)?["file"]?.string { left.append(file) }
        }
        if left.isEmpty, state["transfer"] == nil, let called = state["name"]?.string {
            let since = state["since_ms"]?.integer
            left = try Self.files(files, called: called, since: since, as: actor)
            // A transfer that nobody noted may still be on its way; its file is found when it has come, or none will.
            if left.isEmpty, let since, Int64(clamping: cloud.executor.now) < since + ClientHop.withinSeconds * 1_000 { return }
        }
        for file in Set(left) {
            do throws(PluginError) { try files.remove(file, as: actor) } catch where error.status == .notFound {} catch {
                throw CloudError(.internal, error.text)
            }
        }
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.transaction { (transaction) throws(PluginError) in try transaction.remove(name) }
        }
    }

    /// Newest first, so the search ends with the first that is older; without a time with the first page.
    private static func files(_ files: Files, called name: String, since: Int64?, as actor: Actor) throws(CloudError) -> [String] {
        var (found, after) = ([String](), "")
        while true {
            let last = after
            let page = try CloudError.kept { () throws(PluginError) in try files.list(after: last, limit: 1_000, as: actor) }
            let items = page["items"]?.array ?? []
            found += items.filter { $0["name"]?.string == name }.compactMap { $0["id"]?.string }
            guard let since, let next = page["next"]?.string, (items.last?["created_ms"]?.integer ?? 0) >= since else { return found }
            after = next
        }
    }

    /// How a transfer ended that ends now; `nil`: it is not there, or has not ended yet.
    private static func ended(_ files: Files, _ transfer: String, as actor: Actor) -> JSONValue? {
        let end = Monitor<JSONValue?>(nil)
        guard let watch = try? files.watch(transfer, as: actor, ended: { seen in end.update { $0 = seen } }) else { return nil }
        defer { files.unwatch(watch) }
        return end.wait(milliseconds: 5_000) { $0 }
    }
}
