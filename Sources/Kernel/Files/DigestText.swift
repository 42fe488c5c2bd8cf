import Crypto

/// What a stored file's bytes have.
public typealias FileDigest = SHA256.Digest

/// SHA-256 digests as people and HTTP write them.
public enum DigestText {
    /// 64 hexadecimal digits.
    public static func digest(hexadecimal text: String, pointer: String? = nil) throws(Problem) -> SHA256.Digest {
        guard let bytes = Hex.decode(text), let digest = SHA256.Digest(bytes: bytes) else {
            throw .invalid("\"\(text.prefix(80))\" is no SHA-256: it has 64 hexadecimal digits", pointer: pointer)
        }
        return digest
    }

    /// The SHA-256 of a `Content-Digest` or `Repr-Digest` field (RFC 9530), `sha-256=:BASE64:`; `nil` when the field has only
    /// others.
    public static func digest(field text: String) throws(Problem) -> SHA256.Digest? {
        for part in text.split(separator: ",") {
            let member = part.drop { $0 == " " || $0 == "\t" }
            guard member.lowercased().hasPrefix("sha-256=") else { continue }
            let value = member.dropFirst(8).prefix { $0 != " " && $0 != ";" }
            guard value.count >= 2, value.first == ":", value.last == ":",
                let bytes = Base64.decode(value.dropFirst().dropLast()), let digest = SHA256.Digest(bytes: bytes)
            else { throw .invalid("the digest field must be sha-256=:BASE64: with 32 bytes (RFC 9530)") }
            return digest
        }
        return nil
    }

    public static func field(_ digest: SHA256.Digest) -> String { "sha-256=:\(Base64.encode(digest.bytes)):" }
}
