import Crypto

/// An enrollment token as text: `cmt1.SECRET.FINGERPRINT`.
///
/// SECRET is 32 random bytes in base64url without padding (43 characters). FINGERPRINT is the fingerprint of the core
/// that made it, so that a new agent knows whom it may show the secret to. The core keeps only `secretHash`.
public struct EnrollmentToken: Sendable, Equatable, CustomStringConvertible {
    public static let prefix = "cmt1"
    /// Of the whole text.
    public static let byteCount = 4 + 1 + 43 + 1 + 64

    public let secret: [UInt8]
    public let fingerprint: String

    /// `nil` unless the secret has 32 bytes and the fingerprint 64 lower-case hexadecimal digits.
    public init?(secret: [UInt8], fingerprint: String) {
        guard secret.count == 32, FingerprintText.isValid(fingerprint) else { return nil }
        self.secret = secret
        self.fingerprint = fingerprint
    }

    public static func generate(fingerprint: String) -> EnrollmentToken? {
        EnrollmentToken(secret: Random.bytes(32), fingerprint: fingerprint)
    }

    /// Exactly the form above; `nil` for anything else.
    public init?(_ text: String) {
        guard text.utf8.count == Self.byteCount else { return nil }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0] == Self.prefix, let secret = Base64.decodeURL(parts[1]) else { return nil }
        self.init(secret: secret, fingerprint: String(parts[2]))
    }

    public var text: String { "\(Self.prefix).\(Base64.encodeURL(secret)).\(fingerprint)" }

    /// SHA-256 of the secret's 32 bytes: 256 random bits need no slow hash.
    public var secretHash: [UInt8] { SHA256.hash(secret) }

    /// Without the secret, for log lines.
    public var description: String { "\(Self.prefix).….\(fingerprint)" }
}

/// Lower-case hexadecimal SHA-256 of a SubjectPublicKeyInfo in DER.
enum FingerprintText {
    static func isValid(_ text: String) -> Bool {
        text.utf8.count == 64
            && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }
}
