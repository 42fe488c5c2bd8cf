import COpenSSL

/// ECDSA over NIST P-256 with SHA-256 (FIPS 186-4): the algorithm of every identity in the fleet.
public enum P256 {
    public struct PrivateKey: Sendable {
        let handle: KeyHandle
        public let publicKey: PublicKey

        private init(_ handle: KeyHandle) throws(CryptoError) {
            guard handle.curve == "prime256v1" else { throw .malformed("not a P-256 private key") }
            self.handle = handle
            publicKey = try PublicKey(spki: handle.subjectPublicKeyInfo())
        }

        public static func generate() throws(CryptoError) -> PrivateKey {
            guard let key = cm_p256_generate() else { throw .fromLibrary("making a P-256 key") }
            return try PrivateKey(KeyHandle(owning: key))
        }

        /// PKCS #8 or SEC 1, unencrypted.
        public init(pem: String) throws(CryptoError) { try self.init(KeyHandle.privateKey(pem: pem)) }

        /// Unencrypted PKCS #8. The text is the secret itself.
        public func pem() throws(CryptoError) -> String { try handle.privatePEM() }

        /// ECDSA-Sig-Value in DER, 70 to 72 bytes as a rule.
        public func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8] {
            try handle.sign(message, digest: EVP_sha256())
        }

        /// The two numbers as 32 bytes each, as in JWTs (RFC 7518 §3.4).
        public func signFixed(_ message: [UInt8]) throws(CryptoError) -> [UInt8] {
            guard let fixed = P256.fixedSignature(der: try sign(message)) else { throw .fromLibrary("signing") }
            return fixed
        }
    }

    public struct PublicKey: Sendable, Hashable {
        let handle: KeyHandle
        /// SubjectPublicKeyInfo in DER: 91 bytes with the uncompressed point, the only form accepted.
        public let spki: [UInt8]
        /// Lower-case hexadecimal SHA-256 of `spki`.
        public let fingerprint: String

        public init(spki: [UInt8]) throws(CryptoError) {
            guard spki.count == 91 else { throw .malformed("a P-256 SubjectPublicKeyInfo has 91 bytes") }
            // The encoding of such a key is this prefix and the point, nothing else: one key, one fingerprint.
            guard spki.starts(with: Self.prefix) else {
                throw .malformed("not a SubjectPublicKeyInfo of a P-256 key with an uncompressed point (DER)")
            }
            let key = spki.withUnsafeBufferPointer { bytes in bytes.baseAddress.flatMap { cm_p256_public($0 + 26) } }
            guard let key else {
                ERR_clear_error()
                throw .malformed("the point of the P-256 key is not on the curve")
            }
            handle = KeyHandle(owning: key)
            self.spki = spki
            fingerprint = Hex.encode(SHA256.hash(spki))
        }

        /// RFC 5480: SEQUENCE { { ecPublicKey, prime256v1 }, BIT STRING 04 x y }, up to x.
        private static let prefix: [UInt8] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48,
            0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
        ]

        /// `PUBLIC KEY`, or the key inside a `CERTIFICATE`.
        public init(pem: String) throws(CryptoError) { try self.init(KeyHandle.publicKey(pem: pem)) }

        /// From the affine coordinates, 32 bytes each, as in a JWK (RFC 7518 §6.2).
        public init(x: [UInt8], y: [UInt8]) throws(CryptoError) {
            guard x.count == 32, y.count == 32 else { throw .malformed("P-256 coordinates have 32 bytes each") }
            try self.init(spki: Self.prefix + x + y)
        }

        init(_ handle: KeyHandle) throws(CryptoError) {
            guard handle.curve == "prime256v1" else { throw .malformed("not a P-256 public key") }
            self.handle = handle
            spki = try handle.subjectPublicKeyInfo()
            fingerprint = Hex.encode(SHA256.hash(spki))
        }

        /// - Parameter signature: ECDSA-Sig-Value in DER.
        public func isValid(signature: [UInt8], for message: [UInt8]) -> Bool {
            signature.count <= 80 && handle.isValid(signature: signature, for: message, digest: EVP_sha256())
        }

        /// - Parameter signature: exactly 64 bytes.
        public func isValid(fixedSignature signature: [UInt8], for message: [UInt8]) -> Bool {
            guard let der = P256.derSignature(fixed: signature) else { return false }
            return handle.isValid(signature: der, for: message, digest: EVP_sha256())
        }

        public static func == (a: PublicKey, b: PublicKey) -> Bool { a.spki == b.spki }
        public func hash(into hasher: inout Hasher) { hasher.combine(spki) }
    }

    private static func fixedSignature(der: [UInt8]) -> [UInt8]? {
        let parsed: OpaquePointer? = der.withUnsafeBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return d2i_ECDSA_SIG(nil, &cursor, buffer.count)
        }
        guard let parsed else { return nil }
        defer { ECDSA_SIG_free(parsed) }
        var fixed = [UInt8](repeating: 0, count: 64)
        let written = fixed.withUnsafeMutableBufferPointer { buffer -> Bool in
            guard let base = buffer.baseAddress else { return false }
            return BN_bn2binpad(ECDSA_SIG_get0_r(parsed), base, 32) == 32
                && BN_bn2binpad(ECDSA_SIG_get0_s(parsed), base + 32, 32) == 32
        }
        return written ? fixed : nil
    }

    private static func derSignature(fixed: [UInt8]) -> [UInt8]? {
        guard fixed.count == 64, let signature = ECDSA_SIG_new() else { return nil }
        defer { ECDSA_SIG_free(signature) }
        let r = fixed.withUnsafeBufferPointer { BN_bin2bn($0.baseAddress, 32, nil) }
        let s = fixed.withUnsafeBufferPointer { BN_bin2bn($0.baseAddress.map { $0 + 32 }, 32, nil) }
        guard let r, let s, ECDSA_SIG_set0(signature, r, s) == 1 else {
            BN_free(r)
            BN_free(s)
            return nil
        }
        var buffer: UnsafeMutablePointer<UInt8>?
        let count = i2d_ECDSA_SIG(signature, &buffer)
        guard count > 0, let buffer else { return nil }
        defer { CRYPTO_free(buffer, "", 0) }
        return Array(UnsafeBufferPointer(start: buffer, count: Int(count)))
    }
}
