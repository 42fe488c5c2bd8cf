import COpenSSL

/// X25519 key agreement (RFC 7748).
public enum X25519 {
    public struct PrivateKey: Sendable {
        let handle: KeyHandle
        /// 32 bytes, to send to the other side.
        public let publicKey: [UInt8]

        /// - Parameter raw: 32 bytes.
        public init(raw: [UInt8]) throws(CryptoError) {
            guard raw.count == 32, let key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nil, raw, 32) else {
                ERR_clear_error()
                throw .malformed("an X25519 private key has 32 bytes")
            }
            handle = KeyHandle(owning: key)
            publicKey = try handle.rawPublicKey()
        }

        public static func generate() throws(CryptoError) -> PrivateKey { try PrivateKey(raw: Random.bytes(32)) }

        /// 32 bytes that both sides share; never used as a key directly, only through `HKDF`. A peer that sends a point
        /// of small order (which would make the secret zero) is an error (RFC 7748 §6.1).
        public func sharedSecret(with peer: [UInt8]) throws(CryptoError) -> [UInt8] {
            guard peer.count == 32, let other = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nil, peer, 32) else {
                ERR_clear_error()
                throw .malformed("an X25519 public key has 32 bytes")
            }
            defer { EVP_PKEY_free(other) }
            guard let context = EVP_PKEY_CTX_new(handle.pointer, nil) else { throw .fromLibrary("allocating") }
            defer { EVP_PKEY_CTX_free(context) }
            var secret = [UInt8](repeating: 0, count: 32)
            var count = 32
            guard EVP_PKEY_derive_init(context) == 1, EVP_PKEY_derive_set_peer(context, other) == 1,
                EVP_PKEY_derive(context, &secret, &count) == 1, count == 32
            else { throw .fromLibrary("agreeing on a key") }
            guard secret.contains(where: { $0 != 0 }) else { throw .notAuthentic }
            return secret
        }
    }
}
