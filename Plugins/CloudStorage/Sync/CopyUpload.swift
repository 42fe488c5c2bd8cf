import JSON
import PluginKit

/// A stored file on its way into a remote. An attempt after an interruption goes on behind the last part that came to its end.
struct CopyUpload {
    let cloud: Cloud
    let uploads: JobUploads
    let attempt: JobAttempt
    let file: String
    let remote: String
    let key: String
    /// Where the work's progress begins.
    let permille: Int64

    func run(_ cancellation: Cancellation) throws(CloudError) -> JSONObject {
        let (attempt, file) = (attempt, file)
        let store = try uploads.remotes.open(remote)
        let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
        let about = try CloudError.kept { () throws(PluginError) in try files.get(file, as: .job(attempt)) }
        let reader = try CloudError.kept { () throws(PluginError) in try files.open(file, as: .job(attempt)) }
        defer { reader.close() }
        let size = Int64(clamping: reader.size)
        let hash = about["sha256"]?.string ?? ""
        let source: JSONObject = ["file": .string(file), "size": .integer(size), "sha256": .string(hash)]
        let mark = former(source)
        // One that was begun, and whose name nobody heard.
        if mark == nil { try uploads.giveUp(attempt.id, cancellation) }
        let ledger = Ledger(self, source, mark?.upload)
        var stored = try store.write(key, Watched(FileSource(reader), attempt, from: permille), from: mark, ledger, cancellation)
        guard stored.size == size else { throw CloudError(.checksum, "\"\(key)\" has \(stored.size) bytes, and the file \(size)") }
        // What went up in an earlier attempt was not read again: the core's own hash of the file stands for the whole.
        if stored.sha256.isEmpty { stored.sha256 = hash }
        guard stored.sha256 == hash || hash.isEmpty else { throw CloudError(.checksum, "the file hashes to \(stored.sha256), and the core says \(hash)") }
        return stored.json
    }

    /// Where an earlier attempt came to, if it was with the same content. A stored file never changes, but it may be another one:
    /// what came from a client is fetched again when it is gone.
    private func former(_ source: JSONObject) -> PartsMark? {
        guard let checkpoint = try? JSONValue(parsing: attempt.checkpoint), let mark = checkpoint["upload"].flatMap({ PartsMark($0) }) else { return nil }
        guard ["file", "size", "sha256"].allSatisfy({ checkpoint[$0] == source[$0] }) else {
            attempt.log("the source is another one than before; the upload begins anew")
            return nil
        }
        return mark
    }
}

private final class Ledger: UploadLedger {
    private let work: CopyUpload
    private let source: JSONObject
    private var known: PartialUpload?

    init(_ work: CopyUpload, _ source: JSONObject, _ known: PartialUpload?) {
        self.work = work
        self.source = source
        self.known = known
    }

    func willBegin(_ others: OpenUploads?) throws(CloudError) { try work.uploads.willBegin(work.attempt.id, work.remote, work.key, others) }

    func keep(_ mark: PartsMark) throws(CloudError) {
        let (attempt, checkpoint) = (work.attempt, source.merged(["upload": .object(mark.json)]))
        guard known == mark.upload else {
            try work.uploads.keep(attempt, checkpoint, work.remote, work.key, mark.upload)
            known = mark.upload
            return
        }
        try CloudError.kept { () throws(PluginError) in try attempt.keep(JSONValue.object(checkpoint).serialized()) }
    }

    func note(_ text: String) { work.attempt.log(text) }
}

/// Tells a job how far its source has been read.
private final class Watched: SeekableSource {
    private let source: any SeekableSource
    private let attempt: JobAttempt
    private var done: Int64 = 0
    private var toldAt: UInt64 = 0
    private let first: Int64

    init(_ source: any SeekableSource, _ attempt: JobAttempt, from permille: Int64) {
        self.source = source
        self.attempt = attempt
        first = permille
    }

    var length: Int64? { source.length }

    func seek(_ offset: Int64) {
        source.seek(offset)
        done = offset
    }

    func read(_ limit: Int, into buffer: inout [UInt8]) throws(CloudError) -> Bool {
        let before = buffer.count
        let goesOn = try source.read(limit, into: &buffer)
        done += Int64(buffer.count - before)
        if let length, length > 0, monotonicMilliseconds() - toldAt > 500 {
            toldAt = monotonicMilliseconds()
            attempt.progress(UInt32(clamping: first + min(done, length) * (1_000 - first) / length), "\(done) of \(length) bytes to the store")
        }
        return goesOn
    }
}
