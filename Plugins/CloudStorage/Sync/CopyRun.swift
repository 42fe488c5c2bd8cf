import JSON
import PluginKit

/// One object or stored file on its way to another place: remote to remote, the core's store to a remote, or back.
struct CopyRun: Sendable {
    enum Place: Sendable {
        case object(remote: String, key: String)
        /// Of the core's store: its id, or for a new one its name.
        case file(String)
        case client(String, path: String)

        var text: String {
            switch self {
            case .object(let remote, let key): "\(remote)/\(key)"
            case .file(let name): "file \(name)"
            case .client(let id, let path): "client \(id) \(path)"
            }
        }
    }

    let cloud: Cloud
    let remotes: Remotes
    /// Between a client and a remote.
    enum Way: String, CaseIterable {
        /// By way of the core's store.
        case relay
        /// The client speaks to the store itself, by a presigned URL.
        case direct
        /// Direct where client and store can do that, else relayed.
        case auto
    }

    let from: Place
    let to: Place
    let way: Way
    /// A direct copy is read once more from the store, and its hash compared with what the client has read or written.
    let comparesHash: Bool

    /// What stands against going past the core, and not against the copy.
    private static let obstacles: Set<String> = [
        "url-not-allowed", "url-unsupported", "url-untrusted", "url-unusable", "url-invalid", "cloud-unsupported",
    ]
    /// How long a presigned URL is good for.
    private static let urlSeconds = 43_200

    init(_ cloud: Cloud, _ remotes: Remotes, _ json: JSONObject) throws(CloudError) {
        self.cloud = cloud
        self.remotes = remotes
        from = try Self.place(json, "from")
        to = try Self.place(json, "to")
        guard from.isObject || to.isObject else { throw .invalid("one of \"from\" and \"to\" is in a remote") }
        way = try Self.choice(json, "way") ?? .relay
        comparesHash = try Self.choice(json, "verify") ?? Verify.hash == .hash
        guard from.isClient || to.isClient || json["way"] == nil && json["verify"] == nil else {
            throw .invalid("\"way\" and \"verify\" are for copies from or to a client")
        }
    }

    private enum Verify: String, CaseIterable { case hash, size }

    private static func choice<Choice: RawRepresentable & CaseIterable>(
        _ json: JSONObject, _ name: String
    ) throws(CloudError) -> Choice? where Choice.RawValue == String {
        guard let value = json[name] else { return nil }
        guard let choice = value.string.flatMap({ Choice(rawValue: $0) }) else {
            throw .invalid("\"\(name)\" is one of \(Choice.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return choice
    }

    private static func place(_ json: JSONObject, _ name: String) throws(CloudError) -> Place {
        if let file = json[name]?["file"] {
            guard let text = file.string, (1...255).contains(text.utf8.count), json[name]?.object?.count == 1 else {
                throw .invalid("\"\(name)\" is {\"file\": …} or {\"remote\": …, \"key\": …}")
            }
            return .file(text)
        }
        if let (client, path) = try SyncPlace.client(json, name) { return .client(client, path: path) }
        let object = try JobRoutes.object(json, name)
        return .object(remote: object.remote, key: object.key)
    }

    /// What the job's result says.
    func run(_ attempt: JobAttempt, _ cancellation: Cancellation) throws(CloudError) -> JSONObject {
        switch (from, to) {
        case (.object(let source, let sourceKey), .object(let target, let key)):
            let mover = Mover(cloud: cloud, uploads: JobUploads(cloud, remotes), job: attempt.id)
            let size = try mover.move(try remotes.open(source), sourceKey, try remotes.open(target), key, cancellation)
            return ["size": .integer(size)]
        case (.file(let id), .object(let target, let key)):
            return try upload(id, target, key, from: 0, attempt, cancellation)
        case (.object(let source, let key), .file(let name)):
            let (file, proof) = try download(source, key, name, attempt, cancellation)
            return ["file": file, "verified": .string(proof.rawValue)]
        case (.client(let client, let path), .object(let target, let key)):
            let hop = ClientHop(cloud: cloud, attempt: attempt, cancellation: cancellation, ledger: AttemptLedger(attempt: attempt), isAlone: true)
            if let result = try direct(hop, "pull", client, path, target, key, cancellation) { return result }
            let file = try hop.pull(client, path)
            do throws(CloudError) {
                let result = try upload(file, target, key, from: 500, attempt, cancellation)
                hop.remove(file)
                return result.merged(["way": "relay"])
            } catch {
                // A later attempt, also one that somebody asks for when the job is dead, goes on with the file.
                if error.kind == .cancelled, attempt.isUnwanted(cloud) { hop.remove(file) }
                throw error
            }
        case (.object(let source, let key), .client(let client, let path)):
            let hop = ClientHop(cloud: cloud, attempt: attempt, cancellation: cancellation, ledger: AttemptLedger(attempt: attempt), isAlone: true)
            if let result = try direct(hop, "push", client, path, source, key, cancellation) { return result }
            var file = hop.keptFile
            if file == nil {
                let name = key.split(separator: "/").last.map(String.init) ?? "object"
                file = try download(source, key, String(decoding: name.utf8.prefix(200), as: UTF8.self), attempt, cancellation).file["id"]?.string
                if let file { try hop.keep(file: file) }
            }
            guard let file else { throw CloudError(.internal, "the core gave the file no id") }
            try hop.push(file, client, path)
            let size = try? cloud.host.files().get(file, as: .job(attempt))["size"]
            hop.remove(file)
            return ["size": size ?? .null, "way": "relay"]
        default: throw .invalid("one of \"from\" and \"to\" is in a remote")
        }
    }

    /// `nil`: it goes by way of the core.
    private func direct(
        _ hop: ClientHop, _ direction: String, _ client: String, _ path: String, _ remote: String, _ key: String,
        _ cancellation: Cancellation
    ) throws(CloudError) -> JSONObject? {
        guard way != .relay, !hop.isRelayed else { return nil }
        let store = try remotes.open(remote)
        let ended: JSONValue
        do throws(CloudError) {
            let size = direction == "push" ? try store.look(key, cancellation).size : nil
            ended = try hop.direct(direction, client, path, size: size, seconds: Self.urlSeconds) { () throws(CloudError) in
                try store.presign(key, method: direction == "push" ? "GET" : "PUT", seconds: Self.urlSeconds)
            }
        } catch where way == .auto && Self.obstacles.contains(error.code) { return nil }
        let (size, hash) = (ended["bytes"]?.integer ?? 0, ended["sha256"]?.string ?? "")
        let there = try store.look(key, cancellation).size
        guard there == size else { throw CloudError(.checksum, "\"\(key)\" has \(there) bytes in the store, and \(size) moved") }
        if comparesHash {
            let sink = HashingSink()
            _ = try store.read(key, range: nil, into: sink, cancellation)
            let found = Text.hex(sink.finish())
            guard found == hash else {
                throw CloudError(.checksum, "\"\(key)\" hashes to \(found) in the store, and what moved hashes to \(hash)")
            }
        }
        return ["size": .integer(size), "sha256": .string(hash), "verified": comparesHash ? "sha256" : "size", "way": "direct"]
    }

    private func upload(
        _ file: String, _ target: String, _ key: String, from permille: Int64, _ attempt: JobAttempt, _ cancellation: Cancellation
    ) throws(CloudError) -> JSONObject {
        let uploads = JobUploads(cloud, remotes)
        do throws(CloudError) {
            let json = try CopyUpload(cloud: cloud, uploads: uploads, attempt: attempt, file: file, remote: target, key: key, permille: permille).run(cancellation)
            // Should that fail, the record is seen to when the job is over.
            try? uploads.forget(attempt.id)
            return json
        } catch {
            // What may go well later, and what is only interrupted, goes on with the parts that are there.
            let goesOn = error.isPassing || error.kind == .cancelled && !attempt.isUnwanted(cloud)
            if !goesOn { uploads.abandon(attempt.id, .soon()) }
            throw error
        }
    }

    private func download(
        _ source: String, _ key: String, _ name: String, _ attempt: JobAttempt, _ cancellation: Cancellation
    ) throws(CloudError) -> (file: JSONValue, proof: ReadProof) {
        try CopyDownload(cloud: cloud, attempt: attempt, store: try remotes.open(source), key: key, name: name).run(cancellation)
    }
}

extension CopyRun.Place {
    var isClient: Bool {
        if case .client = self { true } else { false }
    }

    var isObject: Bool {
        if case .object = self { true } else { false }
    }
}
