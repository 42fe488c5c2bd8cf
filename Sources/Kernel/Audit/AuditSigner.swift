import Crypto

/// A signed statement about the chain: "record `sequence` has this hash, hence all before it are as they were".
public struct AuditCheckpoint: Sendable, Equatable {
    public var sequence: UInt64
    public var milliseconds: UInt64
    public var hash: SHA256.Digest
    /// Fingerprint of the signing key.
    public var key: String
    /// ECDSA P-256 over `message`.
    public var signature: [UInt8]

    /// `cm-audit-checkpoint-1`, then sequence and milliseconds (8 bytes each, big-endian), then the hash (32 bytes).
    static func message(_ sequence: UInt64, _ milliseconds: UInt64, _ hash: SHA256.Digest) -> [UInt8] {
        var message = Array("cm-audit-checkpoint-1".utf8)
        withUnsafeBytes(of: sequence.bigEndian) { message += $0 }
        withUnsafeBytes(of: milliseconds.bigEndian) { message += $0 }
        return message + hash.bytes
    }

    func isSigned(by key: P256.PublicKey) -> Bool {
        key.fingerprint == self.key
            && key.isValid(signature: signature, for: Self.message(sequence, milliseconds, hash))
    }
}

/// Holds the key of the audit trail: `D/keys/audit.pem`, and its public half beside it for who verifies.
struct AuditSigner: Sendable {
    static let publicName = "audit-public.pem"
    private let key: P256.PrivateKey

    /// Reads the key, or makes one.
    init(directory: String, safe: KeySafe) throws(Problem) {
        let keys = KeyDirectory(path: directory + "/keys", safe: safe)
        try keys.prepare()
        if let found = try keys.key("audit") {
            key = found
        } else {
            do { key = try P256.PrivateKey.generate() } catch {
                throw Problem(500, "audit-key", "the audit key could not be made: \(error)")
            }
            try keys.write(key, "audit")
        }
        let text = Self.pem(key.publicKey)
        if try keys.text(Self.publicName) != text { try keys.write(text, Self.publicName, isPublic: true) }
    }

    static func pem(_ key: P256.PublicKey) -> String {
        var lines = ["-----BEGIN PUBLIC KEY-----"]
        var rest = Substring(Base64.encode(key.spki))
        while !rest.isEmpty {
            lines.append(String(rest.prefix(64)))
            rest = rest.dropFirst(64)
        }
        return (lines + ["-----END PUBLIC KEY-----", ""]).joined(separator: "\n")
    }

    var publicKey: P256.PublicKey { key.publicKey }

    func sign(_ head: AuditHead) throws(StoreError) -> AuditCheckpoint {
        let message = AuditCheckpoint.message(head.sequence, head.milliseconds, head.hash)
        do {
            return AuditCheckpoint(
                sequence: head.sequence, milliseconds: head.milliseconds, hash: head.hash,
                key: key.publicKey.fingerprint, signature: try key.sign(message))
        } catch {
            throw .refused(Problem(500, "audit-key", "an audit checkpoint could not be signed: \(error)"))
        }
    }
}
