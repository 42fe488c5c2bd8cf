import JSON
import PluginKit

/// Uploads in parts that belong to jobs and calls. A job's checkpoint says how far one has come; a record of the plugin's says that
/// there is one, so that it is given up when its job ends in a moment in which no attempt runs: cancelled, dead, or gone. A job that
/// moves several objects has a record for each, under its id and a name. A call has one as long as it runs: what a core that died
/// leaves is given up after the next start.
struct JobUploads: Sendable {
    let cloud: Cloud
    let remotes: Remotes
    private let isSweeping = Monitor(false)

    init(_ cloud: Cloud, _ remotes: Remotes) {
        self.cloud = cloud
        self.remotes = remotes
    }

    private static let prefix = "copy/"
    /// So long may a store take to begin an upload; what begins later is somebody else's.
    private static let beginMilliseconds: UInt64 = 120_000
    private static func name(_ job: String) -> String { prefix + job }

    /// An upload of that job is about to begin. Should nobody hear its name, it is the one that came after this.
    func willBegin(_ job: String, _ remote: String, _ key: String, _ others: OpenUploads?) throws(CloudError) {
        guard let others, others.begun.count <= 100 else { return }
        let record: JSONObject = [
            "remote": .string(remote), "key": .string(key), "at_ms": .integer(Int64(clamping: cloud.executor.now)),
            "others": .array(others.begun.keys.map { .string($0) }), "after_ms": .integer(Int64(clamping: others.now)),
        ]
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.transaction { (transaction) throws(PluginError) in try transaction.put(Self.name(job), JSONValue.object(record).serialized()) }
        }
    }

    /// Checkpoint and record are one commit.
    func keep(_ attempt: JobAttempt, _ checkpoint: JSONObject, _ remote: String, _ key: String, _ upload: PartialUpload) throws(CloudError) {
        let record = record(remote, key, upload)
        try CloudError.kept { () throws(PluginError) in
            let transaction = try cloud.store.begin()
            do throws(PluginError) {
                try transaction.put(Self.name(attempt.id), JSONValue.object(record).serialized())
            } catch {
                transaction.discard()
                throw error
            }
            try attempt.keep(JSONValue.object(checkpoint).serialized(), with: transaction)
        }
    }

    /// One of the objects of a job, which begins anew after an interruption.
    static func part(of job: String, _ key: String) -> String { job + "/" + Text.hex(Digest.of(Array(key.utf8), .sha256)) }

    private static let calls = "call/"

    /// Runs what may upload in parts, for a call of somebody.
    func watched<Value>(
        _ remote: String, _ key: String, _ cancellation: Cancellation,
        _ work: ((PartialUpload) throws(CloudError) -> Void) throws(CloudError) -> Value
    ) throws(CloudError) -> Value {
        let name = Self.calls + cloud.random()
        cloud.uploads.update { _ = $0.insert(name) }
        // What could not be given up now is seen to by `sweep`.
        defer { cloud.uploads.update { _ = $0.remove(name) } }
        return try watched(name, remote, key, cancellation, work)
    }

    /// The same under a name, for a part of a job. Nobody goes on with such an upload: what fails is given up at once.
    func watched<Value>(
        _ name: String, _ remote: String, _ key: String, _ cancellation: Cancellation,
        _ work: ((PartialUpload) throws(CloudError) -> Void) throws(CloudError) -> Value
    ) throws(CloudError) -> Value {
        var hasBegun = false
        do throws(CloudError) {
            let value = try work { (upload) throws(CloudError) in
                try began(name, remote, key, upload, cancellation)
                hasBegun = true
            }
            // Should that fail, the record is seen to when the work is over.
            if hasBegun { try? forget(name) }
            return value
        } catch {
            if hasBegun { abandon(name, .soon()) }
            throw error
        }
    }

    /// An upload that cannot be gone on with. What an earlier attempt began in its place goes first.
    private func began(_ job: String, _ remote: String, _ key: String, _ upload: PartialUpload, _ cancellation: Cancellation) throws(CloudError) {
        try giveUp(job, cancellation)
        let record = record(remote, key, upload)
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.transaction { (transaction) throws(PluginError) in try transaction.put(Self.name(job), JSONValue.object(record).serialized()) }
        }
    }

    private func record(_ remote: String, _ key: String, _ upload: PartialUpload) -> JSONObject {
        [
            "remote": .string(remote), "key": .string(key), "id": .string(upload.id), "part_bytes": .integer(Int64(upload.partBytes)),
            "at_ms": .integer(Int64(clamping: cloud.executor.now)),
        ]
    }

    /// The upload has become an object.
    func forget(_ job: String) throws(CloudError) {
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.transaction { (transaction) throws(PluginError) in try transaction.remove(Self.name(job)) }
        }
    }

    /// Nothing of it is to stay at the store. What cannot be done now is done by `sweep`.
    func abandon(_ job: String, _ cancellation: Cancellation) {
        do throws(CloudError) {
            try giveUp(job, cancellation)
        } catch {
            cloud.host.log.warning("copy.upload-left", ["job": .string(job), "reason": .string(error.detail)])
        }
    }

    /// The same for who has to know that it went well.
    func giveUp(_ job: String, _ cancellation: Cancellation) throws(CloudError) {
        let bytes = try CloudError.kept { () throws(PluginError) in try cloud.store.get(Self.name(job)) }
        guard let bytes else { return }
        try abandon(job, (try? JSONValue(parsing: bytes)) ?? .null, cancellation)
    }

    private func abandon(_ job: String, _ record: JSONValue, _ cancellation: Cancellation) throws(CloudError) {
        guard let remote = record["remote"]?.string, let key = record["key"]?.string else { return try forget(job) }
        let id = record["id"]?.string
        let store: any ObjectStore
        do throws(CloudError) {
            store = try remotes.open(remote)
        } catch where error.kind == .notFound {
            // Whoever removed the remote has taken the means to do it.
            cloud.host.log.warning("copy.upload-left", ["job": .string(job), "remote": .string(remote), "key": .string(key), "upload": .string(id ?? "")])
            return try forget(job)
        }
        let ids: [String]
        if let id { ids = [id] } else { ids = try nameless(store, key, record, cancellation) }
        for id in ids {
            try store.abandon(key, PartialUpload(id: id, partBytes: 0), cancellation)
        }
        try forget(job)
    }

    /// Uploads of the key that began soon after one of ours was about to, and that none of our records names.
    private func nameless(_ store: any ObjectStore, _ key: String, _ record: JSONValue, _ cancellation: Cancellation) throws(CloudError) -> [String] {
        guard let open = try store.openUploads(key, cancellation), let after = record["after_ms"]?.integer else { return [] }
        var known = Set((record["others"]?.array ?? []).compactMap(\.string))
        for prefix in [Self.prefix, "upload/"] {
            let page = try CloudError.kept { () throws(PluginError) in try cloud.store.list(prefix: prefix) }
            for name in page.items {
                let bytes = try CloudError.kept { () throws(PluginError) in try cloud.store.get(name) }
                if let id = bytes.flatMap({ try? JSONValue(parsing: $0) })?["id"]?.string { known.insert(id) }
            }
        }
        return Self.nameless(open, known, after: UInt64(clamping: after))
    }

    /// A store's times may be whole seconds.
    static func nameless(_ open: OpenUploads, _ known: Set<String>, after: UInt64) -> [String] {
        open.begun.filter { !known.contains($0.key) && $0.value + 1_000 >= after && $0.value <= after + beginMilliseconds }.map(\.key)
    }

    /// Regularly, on a worker: uploads whose jobs are over. One at a time, and a store that does not answer is asked once in each.
    func sweep() {
        guard isSweeping.update({ isSweeping in
            defer { isSweeping = true }
            return !isSweeping
        }) else { return }
        defer { isSweeping.update { $0 = false } }
        var away: Set<String> = []
        let oldest = cloud.executor.now - min(cloud.executor.now, cloud.settings.keepUploadsHours * 3_600_000)
        var after = ""
        repeat {
            guard let page = try? cloud.store.list(prefix: Self.prefix, after: after), let last = page.items.last else { return }
            for name in page.items {
                if cloud.stopping.isCancelled { return }
                guard let bytes = try? cloud.store.get(name) else { continue }
                let (job, record) = (String(name.dropFirst(Self.prefix.count)), (try? JSONValue(parsing: bytes)) ?? .null)
                let remote = record["remote"]?.string ?? ""
                guard !away.contains(remote), isOver(job) else { continue }
                do throws(CloudError) {
                    try abandon(job, record, .soon())
                } catch {
                    cloud.host.log.warning("copy.upload-left", ["job": .string(job), "reason": .string(error.detail)])
                    away.insert(remote)
                    // A store that refuses for so long is not asked for ever.
                    if UInt64(clamping: record["at_ms"]?.integer ?? 0) < oldest { try? forget(job) }
                }
            }
            after = last
        } while true
    }

    private func isOver(_ name: String) -> Bool {
        if name.hasPrefix(Self.calls) { return !cloud.uploads.update { $0.contains(name) } }
        return Self.isOver(String(name.prefix { $0 != "/" }), cloud)
    }

    static func isOver(_ job: String, _ cloud: Cloud) -> Bool {
        do throws(PluginError) {
            let state = try cloud.host.jobs().get(job)["state"]?.string
            return state == "succeeded" || state == "cancelled" || state == "dead"
        } catch { return error.status == .notFound }
    }
}

extension JobAttempt {
    /// Somebody wants the job to end. An attempt is also asked to end when its time is over or its plugin goes: then another one
    /// goes on with what this one leaves.
    func isUnwanted(_ cloud: Cloud) -> Bool { (try? cloud.host.jobs().get(id))?["cancel_requested"]?.bool == true }
}
