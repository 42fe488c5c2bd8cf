import AgentProtocol
import Crypto
import JSON

/// A record with its hash: what is stored, shown, exported and sent to sinks.
public struct AuditLine: Sendable, Equatable {
    public var entry: AuditEntry
    public var hash: SHA256.Digest

    /// The columns of `SELECT * FROM audit_records`.
    init(_ row: borrowing Row) throws(StoreError) {
        entry = AuditEntry(
            sequence: row.unsigned(0), milliseconds: row.unsigned(1), actorKind: row.text(2), actor: row.text(3),
            address: row.optionalText(4), correlation: row.text(5), action: row.text(6), target: row.optionalText(7),
            clients: row.bytes(8), outcome: row.text(9), reason: row.text(10), detail: row.text(11))
        hash = SHA256.Digest(bytes: row.bytes(12)) ?? .zero
    }

    /// One JSON object without line breaks. The detail stands in it as it was hashed.
    public func write(to writer: inout JSONWriter) {
        writer.object { writer in
            writer.field("sequence", entry.sequence)
            writer.field("time_ms", entry.milliseconds)
            writer.field("actor_kind", entry.actorKind)
            writer.field("actor", entry.actor)
            writer.field("address", ifPresent: entry.address)
            writer.field("correlation", entry.correlation)
            writer.field("action", entry.action)
            writer.field("target", ifPresent: entry.target)
            if !entry.clients.isEmpty {
                writer.key("clients")
                writer.array { writer in
                    for client in entry.clientIDs { writer.value(client.description) }
                }
            }
            writer.field("outcome", entry.outcome)
            writer.field("reason", entry.reason)
            if !entry.detail.isEmpty {
                writer.key("detail")
                writer.raw(Array(entry.detail.utf8))
            }
            writer.field("hash", hash.hex)
        }
    }
}

/// One line of an exported file.
enum AuditFileLine: Sendable, Equatable {
    /// The first line: where the export begins. `anchor` is the signed checkpoint before its first record, if the
    /// trail had been cut or only a part was asked for.
    case header(publicKey: [UInt8], anchor: AuditCheckpoint?)
    case record(AuditLine)
    case checkpoint(AuditCheckpoint)

    static let format = "client-manager-audit-1"

    func text() -> [UInt8] {
        var writer = JSONWriter()
        switch self {
        case .header(let publicKey, let anchor):
            writer.object { writer in
                writer.field("format", Self.format)
                writer.field("public_key", Base64.encode(publicKey))
                if let anchor {
                    writer.key("anchor")
                    Self.write(anchor, to: &writer)
                }
            }
        case .record(let line): line.write(to: &writer)
        case .checkpoint(let checkpoint):
            writer.object { writer in
                writer.key("checkpoint")
                Self.write(checkpoint, to: &writer)
            }
        }
        return writer.finish() + [0x0A]
    }

    private static func write(_ checkpoint: AuditCheckpoint, to writer: inout JSONWriter) {
        writer.object { writer in
            writer.field("sequence", checkpoint.sequence)
            writer.field("time_ms", checkpoint.milliseconds)
            writer.field("hash", checkpoint.hash.hex)
            writer.field("key", checkpoint.key)
            writer.field("signature", Base64.encode(checkpoint.signature))
        }
    }

    struct Malformed: Error, Equatable { let reason: String }

    /// Strict: a member that is not hashed must not be there, or a reader could be told something that nobody signed.
    init(parsing text: [UInt8]) throws(Malformed) {
        let value: JSONValue
        do { value = try JSONValue(parsing: text) } catch { throw Malformed(reason: "not JSON: \(error)") }
        guard let object = value.object else { throw Malformed(reason: "not a JSON object") }
        if object["format"] != nil {
            try Self.check(object, ["format", "public_key", "anchor"])
            guard object["format"]?.string == Self.format else {
                throw Malformed(reason: "the format is not \(Self.format)")
            }
            guard let key = object["public_key"]?.string.flatMap({ Base64.decode($0) }) else {
                throw Malformed(reason: "public_key is missing or not base64")
            }
            self = .header(publicKey: key, anchor: try object["anchor"].map(Self.checkpoint))
        } else if let member = object["checkpoint"] {
            try Self.check(object, ["checkpoint"])
            self = .checkpoint(try Self.checkpoint(member))
        } else {
            self = .record(try Self.record(object))
        }
    }

    private static func checkpoint(_ value: JSONValue) throws(Malformed) -> AuditCheckpoint {
        guard let object = value.object else { throw Malformed(reason: "a checkpoint must be an object") }
        try check(object, ["sequence", "time_ms", "hash", "key", "signature"])
        guard let signature = Base64.decode(try text(object, "signature")) else {
            throw Malformed(reason: "the signature is not base64")
        }
        return AuditCheckpoint(
            sequence: try number(object, "sequence"), milliseconds: try number(object, "time_ms"),
            hash: try digest(object), key: try text(object, "key"), signature: signature)
    }

    private static func record(_ object: JSONObject) throws(Malformed) -> AuditLine {
        try check(object, [
            "sequence", "time_ms", "actor_kind", "actor", "address", "correlation", "action", "target", "clients",
            "outcome", "reason", "detail", "hash",
        ])
        var clients: [UInt8] = []
        for element in object["clients"]?.array ?? [] {
            guard let id = element.string.flatMap({ ClientID($0) }) else {
                throw Malformed(reason: "a client is not an identifier")
            }
            clients += id.bytes
        }
        let entry = AuditEntry(
            sequence: try number(object, "sequence"), milliseconds: try number(object, "time_ms"),
            actorKind: try text(object, "actor_kind"), actor: try text(object, "actor"),
            address: object["address"]?.string, correlation: try text(object, "correlation"),
            action: try text(object, "action"), target: object["target"]?.string, clients: clients,
            outcome: try text(object, "outcome"), reason: try text(object, "reason"),
            detail: object["detail"].map { String(decoding: $0.serialized(), as: UTF8.self) } ?? "")
        return AuditLine(entry: entry, hash: try digest(object))
    }

    private static func check(_ object: JSONObject, _ known: [String]) throws(Malformed) {
        for key in object.keys where !known.contains(key) { throw Malformed(reason: "unknown member \"\(key)\"") }
    }
    private static func text(_ object: JSONObject, _ key: String) throws(Malformed) -> String {
        guard let text = object[key]?.string else { throw Malformed(reason: "\(key) is missing or not text") }
        return text
    }
    private static func number(_ object: JSONObject, _ key: String) throws(Malformed) -> UInt64 {
        guard let number = object[key]?.integer, number >= 0 else {
            throw Malformed(reason: "\(key) is missing or not a number from 0 on")
        }
        return UInt64(number)
    }
    private static func digest(_ object: JSONObject) throws(Malformed) -> SHA256.Digest {
        guard let digest = Hex.decode(try text(object, "hash")).flatMap({ SHA256.Digest(bytes: $0) }) else {
            throw Malformed(reason: "hash is not 64 hexadecimal digits")
        }
        return digest
    }
}

extension AuditLine {
    init(entry: AuditEntry, hash: SHA256.Digest) {
        self.entry = entry
        self.hash = hash
    }
}
