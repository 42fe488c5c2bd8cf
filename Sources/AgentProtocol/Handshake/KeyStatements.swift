import Crypto
import JSON

/// The core's old identity key says that a new one takes over. Agents that pin the old key accept the new one until the
/// time in the statement, and pin it from then on.
public struct RotationStatement: Sendable, Equatable {
    public let oldKey: [UInt8]
    public let newKey: [UInt8]
    /// Unix seconds.
    public let acceptedUntil: UInt64
    public let signature: [UInt8]

    public init(
        from old: P256.PrivateKey, to new: P256.PublicKey, acceptedUntil: UInt64
    ) throws(CryptoError) {
        oldKey = old.publicKey.spki
        newKey = new.spki
        self.acceptedUntil = acceptedUntil
        signature = try old.sign(Self.signed(oldKey, newKey, acceptedUntil))
    }

    public var oldFingerprint: String { Hex.encode(SHA256.hash(oldKey)) }

    /// Whether it leads to `current` at this time. The caller knows whether it trusts `oldFingerprint`.
    public func isValid(for current: [UInt8], unixSeconds: UInt64) -> Bool {
        guard newKey == current, unixSeconds <= acceptedUntil, let key = try? P256.PublicKey(spki: oldKey) else {
            return false
        }
        return key.isValid(signature: signature, for: Self.signed(oldKey, newKey, acceptedUntil))
    }

    static func signed(_ oldKey: [UInt8], _ newKey: [UInt8], _ until: UInt64) -> [UInt8] {
        var text = SignedText("client-manager.v1 core rotation")
        text.counted(oldKey)
        text.counted(newKey)
        text.number(until)
        return text.bytes
    }

    // MARK: JSON

    public func write(to writer: inout JSONWriter) {
        writer.object {
            $0.field("old", Base64.encodeURL(oldKey))
            $0.field("new", Base64.encodeURL(newKey))
            $0.field("until", acceptedUntil)
            $0.field("signature", Base64.encodeURL(signature))
        }
    }

    /// As one JSON text, for a file beside the keys.
    public var text: [UInt8] {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.finish()
    }

    public init(text: [UInt8]) throws(JSONError) {
        self = try JSONReader.read(text) { reader throws(JSONError) in try RotationStatement(&reader) }
    }

    init(_ reader: inout JSONReader) throws(JSONError) {
        var oldKey: [UInt8] = []
        var newKey: [UInt8] = []
        var until: UInt64 = 0
        var signature: [UInt8] = []
        try reader.object { key, reader throws(JSONError) in
            if key.is("old") {
                oldKey = try reader.bytes(count: 91)
            } else if key.is("new") {
                newKey = try reader.bytes(count: 91)
            } else if key.is("until") {
                until = UInt64(try reader.integer(in: 0...Int(Int32.max) * 4))
            } else if key.is("signature") {
                signature = try reader.bytes(atMost: 80)
            }
        }
        self.oldKey = oldKey
        self.newKey = newKey
        acceptedUntil = until
        self.signature = signature
    }
}

/// An agent's old key says that a new one takes over the same client id.
public struct SuccessionStatement: Sendable, Equatable {
    public let client: ClientID
    public let oldKey: [UInt8]
    public let newKey: [UInt8]
    public let signature: [UInt8]

    public init(client: ClientID, from old: P256.PrivateKey, to new: P256.PublicKey) throws(CryptoError) {
        self.client = client
        oldKey = old.publicKey.spki
        newKey = new.spki
        signature = try old.sign(Self.signed(client, oldKey, newKey))
    }

    /// Whether it leads from the key that the registry holds for the client to the one that signed the handshake.
    public func isValid(client: ClientID, registeredKey: [UInt8], presentedKey: [UInt8]) -> Bool {
        guard self.client == client, oldKey == registeredKey, newKey == presentedKey,
            let key = try? P256.PublicKey(spki: registeredKey)
        else { return false }
        return key.isValid(signature: signature, for: Self.signed(client, oldKey, newKey))
    }

    static func signed(_ client: ClientID, _ oldKey: [UInt8], _ newKey: [UInt8]) -> [UInt8] {
        var text = SignedText("client-manager.v1 agent succession")
        text.fixed(client.bytes)
        text.counted(oldKey)
        text.counted(newKey)
        return text.bytes
    }

    public var text: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("client", client.description)
            $0.field("old", Base64.encodeURL(oldKey))
            $0.field("new", Base64.encodeURL(newKey))
            $0.field("signature", Base64.encodeURL(signature))
        }
        return writer.finish()
    }

    public init(text: [UInt8]) throws(JSONError) {
        self = try JSONReader.read(text, limits: JSONLimits(depth: 4, bytes: 4_096)) { reader throws(JSONError) in
            var client: ClientID?
            var oldKey: [UInt8] = []
            var newKey: [UInt8] = []
            var signature: [UInt8] = []
            try reader.object { key, reader throws(JSONError) in
                if key.is("client") {
                    client = try reader.identifier()
                } else if key.is("old") {
                    oldKey = try reader.bytes(count: 91)
                } else if key.is("new") {
                    newKey = try reader.bytes(count: 91)
                } else if key.is("signature") {
                    signature = try reader.bytes(atMost: 80)
                }
            }
            guard let client else { throw reader.fail("a succession statement names its client") }
            return SuccessionStatement(client: client, oldKey: oldKey, newKey: newKey, signature: signature)
        }
    }

    private init(client: ClientID, oldKey: [UInt8], newKey: [UInt8], signature: [UInt8]) {
        self.client = client
        self.oldKey = oldKey
        self.newKey = newKey
        self.signature = signature
    }
}

/// What a signature covers: a purpose, then fields that cannot run into each other.
struct SignedText {
    private(set) var bytes: [UInt8]

    /// The purpose ends in a zero byte, so that none is the beginning of another.
    init(_ purpose: StaticString) {
        bytes = Array(purpose.description.utf8)
        bytes.append(0)
    }

    mutating func fixed(_ field: [UInt8]) { bytes += field }

    /// A u16 count, little-endian, and the field.
    mutating func counted(_ field: [UInt8]) {
        bytes.append(UInt8(truncatingIfNeeded: field.count))
        bytes.append(UInt8(truncatingIfNeeded: field.count >> 8))
        bytes += field
    }

    /// u64, little-endian.
    mutating func number(_ value: UInt64) {
        for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
}

extension JSONReader {
    /// Base64url of exactly `count` bytes.
    mutating func bytes(count: Int) throws(JSONError) -> [UInt8] {
        let bytes = try bytes(atMost: count)
        guard bytes.count == count else { throw fail("\(bytes.count) bytes in base64url; expected \(count)") }
        return bytes
    }

    mutating func bytes(atMost limit: Int) throws(JSONError) -> [UInt8] {
        guard let bytes = Base64.decodeURL(try string()) else { throw fail("expected base64url without padding") }
        guard bytes.count <= limit else { throw fail("\(bytes.count) bytes; at most \(limit) are allowed") }
        return bytes
    }

    mutating func identifier<Kind>() throws(JSONError) -> Identifier<Kind> {
        guard let identifier = Identifier<Kind>(try string()) else { throw fail("expected an identifier of 26 characters") }
        return identifier
    }

    mutating func text(atMost limit: Int) throws(JSONError) -> String {
        let text = try string()
        guard text.utf8.count <= limit else { throw fail("\(text.utf8.count) bytes of text; at most \(limit) are allowed") }
        return text
    }

    /// A short list of short texts.
    mutating func texts(atMost count: Int, bytes: Int) throws(JSONError) -> [String] {
        var list: [String] = []
        try array { reader throws(JSONError) in
            guard list.count < count else { throw reader.fail("more than \(count) entries") }
            list.append(try reader.text(atMost: bytes))
        }
        return list
    }
}
