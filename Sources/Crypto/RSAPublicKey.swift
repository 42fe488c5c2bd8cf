import COpenSSL

/// RSASSA-PKCS1-v1_5 with SHA-256, only to verify tokens of outside issuers (RS256, RFC 7518 §3.3).
public struct RSAPublicKey: Sendable {
    let handle: KeyHandle

    /// `PUBLIC KEY`, or the key inside a `CERTIFICATE`. At least 2,048 bits, at most 8,192.
    public init(pem: String) throws(CryptoError) { try self.init(KeyHandle.publicKey(pem: pem)) }

    /// From a JWK's modulus and exponent (big-endian, RFC 7518 §6.3).
    public init(modulus: [UInt8], exponent: [UInt8]) throws(CryptoError) {
        guard modulus.count <= 1024, exponent.count <= 8 else { throw .malformed("the RSA key is too large") }
        let key = DER.sequence(DER.unsignedInteger(modulus) + DER.unsignedInteger(exponent))
        // AlgorithmIdentifier rsaEncryption with NULL parameters (RFC 8017 §A.1).
        let algorithm: [UInt8] = [
            0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00,
        ]
        try self.init(KeyHandle.publicKey(spki: DER.sequence(algorithm + DER.element(0x03, [0] + key))))
    }

    init(_ handle: KeyHandle) throws(CryptoError) {
        guard EVP_PKEY_get_id(handle.pointer) == EVP_PKEY_RSA else { throw .malformed("not an RSA public key") }
        guard (2048...8192).contains(EVP_PKEY_get_bits(handle.pointer)) else {
            throw .malformed("an RSA key must have 2,048 to 8,192 bits")
        }
        self.handle = handle
    }

    public func isValid(signature: [UInt8], for message: [UInt8]) -> Bool {
        handle.isValid(signature: signature, for: message, digest: EVP_sha256())
    }
}

/// As much DER (X.690) as is needed to put a JWK into the form that OpenSSL reads.
enum DER {
    static func element(_ tag: UInt8, _ content: [UInt8]) -> [UInt8] {
        switch content.count {
        case 0..<0x80: [tag, UInt8(content.count)] + content
        case 0x80..<0x100: [tag, 0x81, UInt8(content.count)] + content
        default: [tag, 0x82, UInt8(truncatingIfNeeded: content.count >> 8), UInt8(truncatingIfNeeded: content.count)]
            + content
        }
    }

    static func sequence(_ content: [UInt8]) -> [UInt8] { element(0x30, content) }

    static func unsignedInteger(_ bytes: [UInt8]) -> [UInt8] {
        let digits = Array(bytes.drop { $0 == 0 })
        guard let first = digits.first else { return element(0x02, [0]) }
        return element(0x02, first >= 0x80 ? [0] + digits : digits)
    }
}
