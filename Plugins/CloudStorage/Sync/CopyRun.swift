import JSON
import PluginKit

/// One object or stored file on its way to another place: remote to remote, the core's store to a remote, or back.
struct CopyRun: Sendable {
    enum Place: Sendable {
        case object(remote: String, key: String)
        /// Of the core's store: its id, or for a new one its name.
        case file(String)

        var text: String {
            switch self {
            case .object(let remote, let key): "\(remote)/\(key)"
            case .file(let name): "file \(name)"
            }
        }
    }

    let cloud: Cloud
    let remotes: Remotes
    let from: Place
    let to: Place

    init(_ cloud: Cloud, _ remotes: Remotes, _ json: JSONObject) throws(CloudError) {
        self.cloud = cloud
        self.remotes = remotes
        from = try Self.place(json, "from")
        to = try Self.place(json, "to")
        if case .file = from, case .file = to { throw .invalid("one of \"from\" and \"to\" is in a remote") }
    }

    private static func place(_ json: JSONObject, _ name: String) throws(CloudError) -> Place {
        if let file = json[name]?["file"] {
            guard let text = file.string, (1...255).contains(text.utf8.count), json[name]?.object?.count == 1 else {
                throw .invalid("\"\(name)\" is {\"file\": …} or {\"remote\": …, \"key\": …}")
            }
            return .file(text)
        }
        let object = try JobRoutes.object(json, name)
        return .object(remote: object.remote, key: object.key)
    }

    /// What the job's result says.
    func run(_ attempt: JobAttempt, _ cancellation: Cancellation) throws(CloudError) -> JSONObject {
        switch (from, to) {
        case (.object(let source, let sourceKey), .object(let target, let key)):
            let size = try Mover(cloud: cloud).move(try remotes.open(source), sourceKey, try remotes.open(target), key, cancellation)
            return ["size": .integer(size)]
        case (.file(let id), .object(let target, let key)):
            let store = try remotes.open(target)
            let reader = try CloudError.kept { () throws(PluginError) in try cloud.host.files().open(id, as: .job(attempt)) }
            defer { reader.close() }
            var begun: PartialUpload?
            do throws(CloudError) {
                let source = Watched(FileSource(reader), attempt)
                return try store.write(key, source, ObjectOptions(), resume: nil, began: { (upload) throws(CloudError) in begun = upload }, cancellation).json
            } catch {
                if let begun { try? store.abandon(key, begun, .soon()) }
                throw error
            }
        case (.object(let source, let key), .file(let name)):
            let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
            let sink = FileSink(files, as: .job(attempt), name: name)
            do throws(CloudError) {
                let proof = try remotes.open(source).read(key, range: nil, into: sink, cancellation)
                return ["file": try sink.finish(), "verified": .string(proof.rawValue)]
            } catch {
                sink.discard()
                throw error
            }
        case (.file, .file): throw .invalid("one of \"from\" and \"to\" is in a remote")
        }
    }
}

/// Tells a job how far its source has been read.
private final class Watched: ByteSource {
    private let source: any ByteSource
    private let attempt: JobAttempt
    private var done: Int64 = 0
    private var toldAt: UInt64 = 0

    init(_ source: any ByteSource, _ attempt: JobAttempt) {
        self.source = source
        self.attempt = attempt
    }

    var length: Int64? { source.length }

    func read(_ limit: Int, into buffer: inout [UInt8]) throws(CloudError) -> Bool {
        let before = buffer.count
        let goesOn = try source.read(limit, into: &buffer)
        done += Int64(buffer.count - before)
        if let length, length > 0, monotonicMilliseconds() - toldAt > 500 {
            toldAt = monotonicMilliseconds()
            attempt.progress(UInt32(min(1_000, done * 1_000 / length)), "\(done) of \(length) bytes")
        }
        return goesOn
    }
}
