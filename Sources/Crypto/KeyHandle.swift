import COpenSSL

/// Owns one EVP_PKEY.
///
/// Unchecked because the pointer is opaque to the compiler. The invariant: nothing changes the key after `init`, and
/// OpenSSL allows any number of threads to read, sign and verify with an unchanging EVP_PKEY.
final class KeyHandle: @unchecked Sendable {
    let pointer: OpaquePointer

    /// Takes over one reference.
    init(owning pointer: OpaquePointer) { self.pointer = pointer }
    deinit { EVP_PKEY_free(pointer) }

    /// DER of the SubjectPublicKeyInfo.
    func subjectPublicKeyInfo() throws(CryptoError) -> [UInt8] {
        var buffer: UnsafeMutablePointer<UInt8>?
        let count = i2d_PUBKEY(pointer, &buffer)
        guard count > 0, let buffer else { throw .fromLibrary("encoding the public key") }
        defer { CRYPTO_free(buffer, "", 0) }
        return Array(UnsafeBufferPointer(start: buffer, count: Int(count)))
    }

    /// Unencrypted PKCS #8 (RFC 5958) in PEM.
    func privatePEM() throws(CryptoError) -> String {
        guard let bio = BIO_new(BIO_s_mem()) else { throw .fromLibrary("allocating") }
        defer { BIO_free(bio) }
        guard PEM_write_bio_PKCS8PrivateKey(bio, pointer, nil, nil, 0, nil, nil) == 1 else {
            throw .fromLibrary("encoding the private key")
        }
        return String(decoding: contents(of: bio), as: UTF8.self)
    }

    static func publicKey(spki: [UInt8]) throws(CryptoError) -> KeyHandle {
        let key: OpaquePointer? = spki.withUnsafeBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return d2i_PUBKEY(nil, &cursor, buffer.count)
        }
        guard let key else {
            ERR_clear_error()
            throw .malformed("not a SubjectPublicKeyInfo (DER)")
        }
        let handle = KeyHandle(owning: key)
        // One key has one encoding, so that its fingerprint is its identity: no trailing bytes, no other point forms.
        guard try handle.subjectPublicKeyInfo() == spki else {
            throw .malformed("the SubjectPublicKeyInfo is not in its canonical form")
        }
        return handle
    }

    /// The public key of a PEM text: `PUBLIC KEY`, or the one inside a `CERTIFICATE`.
    static func publicKey(pem: String) throws(CryptoError) -> KeyHandle {
        if pem.split(separator: "\n").contains(where: { $0.hasPrefix("-----BEGIN CERTIFICATE-----") }) {
            return try Certificate(pem: pem).publicKeyHandle()
        }
        let key = withReadOnlyBIO(Array(pem.utf8)) { PEM_read_bio_PUBKEY($0, nil, nil, nil) }
        guard let key else {
            ERR_clear_error()
            throw .malformed("not a PEM text with a PUBLIC KEY or CERTIFICATE")
        }
        return KeyHandle(owning: key)
    }

    static func privateKey(pem: String) throws(CryptoError) -> KeyHandle {
        // The callback answers "no password": without it OpenSSL asks the terminal.
        let key = withReadOnlyBIO(Array(pem.utf8)) { PEM_read_bio_PrivateKey($0, nil, { _, _, _, _ in 0 }, nil) }
        guard let key else {
            ERR_clear_error()
            throw .malformed("not a PEM text with an unencrypted PRIVATE KEY")
        }
        return KeyHandle(owning: key)
    }

    /// The named curve, for elliptic keys.
    var curve: String? {
        var name = [CChar](repeating: 0, count: 64)
        guard EVP_PKEY_get_group_name(pointer, &name, name.count, nil) == 1 else {
            ERR_clear_error()
            return nil
        }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The raw form of keys that have one (Ed25519, X25519): 32 bytes.
    func rawPublicKey() throws(CryptoError) -> [UInt8] {
        var count = 32
        var bytes = [UInt8](repeating: 0, count: 32)
        guard EVP_PKEY_get_raw_public_key(pointer, &bytes, &count) == 1, count == 32 else {
            throw .fromLibrary("reading the public key")
        }
        return bytes
    }

    func rawPrivateKey() throws(CryptoError) -> [UInt8] {
        var count = 32
        var bytes = [UInt8](repeating: 0, count: 32)
        guard EVP_PKEY_get_raw_private_key(pointer, &bytes, &count) == 1, count == 32 else {
            throw .fromLibrary("reading the private key")
        }
        return bytes
    }

    /// - Parameter digest: `nil` for algorithms that hash by themselves (Ed25519).
    func sign(_ message: [UInt8], digest: OpaquePointer?) throws(CryptoError) -> [UInt8] {
        guard let context = EVP_MD_CTX_new() else { throw .fromLibrary("allocating") }
        defer { EVP_MD_CTX_free(context) }
        var count = 0
        guard EVP_DigestSignInit(context, nil, digest, nil, pointer) == 1,
            EVP_DigestSign(context, nil, &count, message, message.count) == 1
        else { throw .fromLibrary("signing") }
        var signature = [UInt8](repeating: 0, count: count)
        guard EVP_DigestSign(context, &signature, &count, message, message.count) == 1 else {
            throw .fromLibrary("signing")
        }
        signature.removeLast(signature.count - count)
        return signature
    }

    func isValid(signature: [UInt8], for message: [UInt8], digest: OpaquePointer?) -> Bool {
        guard let context = EVP_MD_CTX_new() else { return false }
        defer { EVP_MD_CTX_free(context) }
        if EVP_DigestVerifyInit(context, nil, digest, nil, pointer) == 1,
            EVP_DigestVerify(context, signature, signature.count, message, message.count) == 1
        {
            return true
        }
        ERR_clear_error()
        return false
    }
}

func contents(of bio: OpaquePointer) -> [UInt8] {
    var start: UnsafePointer<UInt8>?
    let count = cm_bio_memory(bio, &start)
    return Array(UnsafeBufferPointer(start: start, count: max(0, count)))
}

/// Lets OpenSSL read from bytes that live as long as the call.
func withReadOnlyBIO<Result>(_ bytes: [UInt8], _ body: (OpaquePointer) -> Result?) -> Result? {
    bytes.withUnsafeBytes { buffer in
        guard buffer.count <= 1 << 24, let bio = BIO_new_mem_buf(buffer.baseAddress, Int32(buffer.count)) else {
            return nil
        }
        defer { BIO_free(bio) }
        return body(bio)
    }
}
