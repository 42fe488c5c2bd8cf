import JSON
import PluginKit

/// Uploads in parts that have begun and not ended, durable: whoever comes back with the same key goes on.
struct Uploads: Sendable {
    struct Record: Sendable {
        var remote: String
        var key: String
        var upload: PartialUpload
        var length: Int64?
        var startedAt: UInt64
        var owner: String

        var json: JSONObject {
            var json: JSONObject = [
                "remote": .string(remote), "key": .string(key), "part_bytes": .integer(Int64(upload.partBytes)),
                "started_ms": .integer(Int64(clamping: startedAt)), "by": .string(owner),
            ]
            if let length { json["size"] = .integer(length) }
            return json
        }
    }

    private let cloud: Cloud
    init(_ cloud: Cloud) { self.cloud = cloud }

    /// Keys of the store are shorter than those of objects may be.
    private static func name(_ remote: String, _ key: String) -> String {
        "upload/\(remote)/\(Text.hex(Digest.of(Array(key.utf8), .sha256)))"
    }

    func find(_ remote: String, _ key: String) throws(CloudError) -> Record? {
        try CloudError.kept { () throws(PluginError) in try cloud.store.get(Self.name(remote, key)) }.flatMap(Self.record)
    }

    func keep(_ record: Record) throws(CloudError) {
        var json = record.json
        json["id"] = .string(record.upload.id)
        let bytes = JSONValue.object(json).serialized()
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.transaction { (transaction) throws(PluginError) in try transaction.put(Self.name(record.remote, record.key), bytes) }
        }
    }

    func forget(_ remote: String, _ key: String) throws(CloudError) {
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.transaction { (transaction) throws(PluginError) in try transaction.remove(Self.name(remote, key)) }
        }
    }

    /// At most 1,000 of a remote, or of all.
    func all(of remote: String? = nil) throws(CloudError) -> [Record] {
        let page = try CloudError.kept { () throws(PluginError) in try cloud.store.list(prefix: "upload/" + (remote.map { $0 + "/" } ?? "")) }
        var records: [Record] = []
        for name in page.items {
            if let record = try CloudError.kept({ () throws(PluginError) in try cloud.store.get(name) }).flatMap(Self.record) { records.append(record) }
        }
        return records
    }

    private static func record(_ bytes: [UInt8]) -> Record? {
        guard let json = try? JSONValue(parsing: bytes), let remote = json["remote"]?.string, let key = json["key"]?.string,
            let id = json["id"]?.string, let part = json["part_bytes"]?.integer, part > 0
        else { return nil }
        return Record(
            remote: remote, key: key, upload: PartialUpload(id: id, partBytes: Int(part)), length: json["size"]?.integer,
            startedAt: UInt64(clamping: json["started_ms"]?.integer ?? 0), owner: json["by"]?.string ?? "")
    }
}
