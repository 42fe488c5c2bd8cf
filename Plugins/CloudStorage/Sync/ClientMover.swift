import JSON
import PluginKit

/// Brings one file of a synchronised tree between a client and a store: by way of the core's store, each hop compared by hash.
struct ClientMover: Sendable {
    let cloud: Cloud
    let mover: Mover
    let attempt: JobAttempt
    let cancellation: Cancellation

    func up(_ file: ObjectInfo, of client: String, _ store: any ObjectStore, _ key: String) throws(CloudError) -> Int64 {
        try along(file) { (ledger, hop) throws(CloudError) in
            let stored = try hop.pull(client, file.key, name: ledger.fileName)
            let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
            let reader = try CloudError.kept { () throws(PluginError) in try files.open(stored, as: .job(attempt)) }
            defer { reader.close() }
            return try mover.write(store, key, FileSource(reader), size: Int64(clamping: reader.size), ObjectOptions(), cancellation)
        }
    }

    func down(_ object: ObjectInfo, _ store: any ObjectStore, to client: String, _ path: String) throws(CloudError) -> Int64 {
        try along(object) { (ledger, hop) throws(CloudError) in
            let stored: String
            if let file = hop.keptFile { stored = file } else { stored = try fetch(object, store, ledger) }
            // Nanoseconds; what the store listed, so that the next comparison finds it the same.
            let modified = object.modifiedMilliseconds > 0 ? Int64(clamping: object.modifiedMilliseconds) * 1_000_000 : nil
            try hop.push(stored, client, path, modified: modified)
            return object.size
        }
    }

    /// What a change in between does not go on with, and what does not go well, leaves nothing; an interruption leaves its place.
    private func along(
        _ file: ObjectInfo, _ body: (FileLedger, ClientHop) throws(CloudError) -> Int64
    ) throws(CloudError) -> Int64 {
        let version = "\(file.etag):\(file.size):\(file.modifiedMilliseconds)"
        let ledger = FileLedger(cloud, job: attempt.id, key: file.key, version: version)
        let hop = ClientHop(cloud: cloud, attempt: attempt, cancellation: cancellation, ledger: ledger, isAlone: false)
        do throws(CloudError) {
            let size = try body(ledger, hop)
            drop(ledger, hasEnded: true)
            return size
        } catch {
            if !error.isPassing, error.kind != .cancelled { drop(ledger) }
            throw error
        }
    }

    /// Should that fail, the record stays and is seen to later.
    private func drop(_ ledger: FileLedger, hasEnded: Bool = false) {
        do throws(CloudError) { try ledger.drop(as: .job(attempt), hasEnded: hasEnded) } catch {
            cloud.host.log.warning("sync.file-left", ["job": .string(attempt.id), "reason": .string(error.detail)])
        }
    }

    private func fetch(_ object: ObjectInfo, _ store: any ObjectStore, _ ledger: FileLedger) throws(CloudError) -> String {
        // One that an earlier attempt began and did not come to the end with.
        if ledger.state != .null { try ledger.drop(as: .job(attempt)) }
        try ledger.willBegin()
        let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
        let sink = FileSink(files, as: .job(attempt), name: ledger.fileName) { (file, _) throws(CloudError) in
            try ledger.keep(["begun": .string(file)])
        }
        let about: JSONValue
        do throws(CloudError) {
            _ = try store.read(object.key, range: nil, into: sink, cancellation)
            about = try sink.finish()
        } catch {
            sink.discard()
            throw error
        }
        guard let file = about["id"]?.string else { throw CloudError(.internal, "the core gave the file no id") }
        try ledger.keep(["file": .string(file)])
        return file
    }
}
