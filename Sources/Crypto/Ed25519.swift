import COpenSSL

/// Ed25519 signatures (RFC 8032).
public enum Ed25519 {
    public struct PrivateKey: Sendable {
        let handle: KeyHandle
        public let publicKey: PublicKey

        /// - Parameter seed: 32 bytes.
        public init(seed: [UInt8]) throws(CryptoError) {
            guard seed.count == 32 else { throw .malformed("an Ed25519 seed has 32 bytes") }
            guard let key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, seed, 32) else {
                throw .fromLibrary("reading an Ed25519 key")
            }
            try self.init(KeyHandle(owning: key))
        }

        /// Unencrypted PKCS #8.
        public init(pem: String) throws(CryptoError) { try self.init(KeyHandle.privateKey(pem: pem)) }

        private init(_ handle: KeyHandle) throws(CryptoError) {
            guard EVP_PKEY_get_id(handle.pointer) == EVP_PKEY_ED25519 else {
                throw .malformed("not an Ed25519 private key")
            }
            self.handle = handle
            publicKey = try PublicKey(raw: handle.rawPublicKey())
        }

        public static func generate() throws(CryptoError) -> PrivateKey { try PrivateKey(seed: Random.bytes(32)) }

        public func pem() throws(CryptoError) -> String { try handle.privatePEM() }

        /// 64 bytes.
        public func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8] { try handle.sign(message, digest: nil) }
    }

    public struct PublicKey: Sendable, Hashable {
        let handle: KeyHandle
        /// 32 bytes.
        public let raw: [UInt8]

        public init(raw: [UInt8]) throws(CryptoError) {
            guard raw.count == 32, let key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, raw, 32) else {
                ERR_clear_error()
                throw .malformed("an Ed25519 public key has 32 bytes")
            }
            handle = KeyHandle(owning: key)
            self.raw = raw
        }

        /// `PUBLIC KEY`, or the key inside a `CERTIFICATE`.
        public init(pem: String) throws(CryptoError) { try self.init(KeyHandle.publicKey(pem: pem)) }

        init(_ handle: KeyHandle) throws(CryptoError) {
            guard EVP_PKEY_get_id(handle.pointer) == EVP_PKEY_ED25519 else {
                throw .malformed("not an Ed25519 public key")
            }
            self.handle = handle
            raw = try handle.rawPublicKey()
        }

        public func isValid(signature: [UInt8], for message: [UInt8]) -> Bool {
            signature.count == 64 && handle.isValid(signature: signature, for: message, digest: nil)
        }

        public static func == (a: PublicKey, b: PublicKey) -> Bool { a.raw == b.raw }
        public func hash(into hasher: inout Hasher) { hasher.combine(raw) }
    }
}
