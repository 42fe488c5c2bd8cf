import COpenSSL

/// One X.509 certificate.
///
/// Unchecked because the pointer is opaque to the compiler. The invariant: nothing changes the X509 after `init`, its
/// lazily parsed extensions are made under OpenSSL's own lock.
public final class Certificate: @unchecked Sendable {
    let pointer: OpaquePointer

    init(owning pointer: OpaquePointer) { self.pointer = pointer }
    deinit { X509_free(pointer) }

    /// The first certificate of a PEM text.
    public init(pem: String) throws(CryptoError) {
        guard let certificate = withReadOnlyBIO(Array(pem.utf8), { PEM_read_bio_X509($0, nil, nil, nil) }) else {
            ERR_clear_error()
            throw .malformed("not a PEM text with a CERTIFICATE")
        }
        pointer = certificate
    }

    public init(der: [UInt8]) throws(CryptoError) {
        let certificate: OpaquePointer? = der.withUnsafeBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return d2i_X509(nil, &cursor, buffer.count)
        }
        guard let certificate else {
            ERR_clear_error()
            throw .malformed("not an X.509 certificate (DER)")
        }
        pointer = certificate
    }

    func publicKeyHandle() throws(CryptoError) -> KeyHandle {
        guard let key = X509_get_pubkey(pointer) else { throw .fromLibrary("reading the certificate's key") }
        return KeyHandle(owning: key)
    }

    /// DER of the SubjectPublicKeyInfo, whatever the algorithm.
    public func subjectPublicKeyInfo() throws(CryptoError) -> [UInt8] {
        try publicKeyHandle().subjectPublicKeyInfo()
    }

    /// Lower-case hexadecimal SHA-256 of the SubjectPublicKeyInfo: what `--pin` compares.
    public func fingerprint() throws(CryptoError) -> String { Hex.encode(SHA256.hash(try subjectPublicKeyInfo())) }
}
