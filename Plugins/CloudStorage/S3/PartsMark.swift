import JSON

/// How far an upload in parts has come: the parts from the first one on that are up without a gap. Of constant size, whatever
/// their number: a chain of hashes over number, size and tag of each stands for them, and the store lists them when they are
/// wanted. A list with another part in it, or with one of another content, has another chain.
struct PartsMark: Sendable, Equatable {
    let upload: PartialUpload
    private(set) var parts = 0
    private(set) var chain = ""

    init(upload: PartialUpload) { self.upload = upload }

    var bytes: Int64 { Int64(parts) * Int64(upload.partBytes) }

    mutating func add(_ part: S3Upload.Part) {
        parts += 1
        chain = Text.hex(Digest.of(Array("\(chain)\n\(parts) \(part.size) \(part.etag)".utf8), .sha256))
    }

    /// Whether the store's list begins with these parts.
    func holds(_ list: [Int: S3Upload.Part]) -> Bool {
        var seen = PartsMark(upload: upload)
        while seen.parts < parts {
            guard let part = list[seen.parts + 1], part.size == Int64(upload.partBytes) else { return false }
            seen.add(part)
        }
        return seen == self
    }

    var json: JSONObject {
        ["id": .string(upload.id), "part_bytes": .integer(Int64(upload.partBytes)), "parts": .integer(Int64(parts)), "chain": .string(chain)]
    }

    init?(_ json: JSONValue) {
        guard let id = json["id"]?.string, !id.isEmpty, let size = json["part_bytes"]?.integer, (1...1 << 32).contains(size),
            let parts = json["parts"]?.integer, (0...10_000).contains(parts), let chain = json["chain"]?.string
        else { return nil }
        self.init(upload: PartialUpload(id: id, partBytes: Int(size)))
        self.parts = Int(parts)
        self.chain = chain
    }
}
