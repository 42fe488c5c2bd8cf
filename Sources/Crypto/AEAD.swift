import COpenSSL

/// Authenticated encryption with associated data: a 32-byte key, a 12-byte nonce that must never repeat under the same
/// key, a 16-byte tag behind the text.
public struct AEAD: Sendable {
    public enum Cipher: String, Sendable {
        /// NIST SP 800-38D.
        case aes256GCM = "aes-256-gcm"
        /// RFC 8439.
        case chaCha20Poly1305 = "chacha20-poly1305"
    }

    public static let keyBytes = 32
    public static let nonceBytes = 12
    public static let tagBytes = 16

    public let cipher: Cipher
    private let key: [UInt8]

    public init(_ cipher: Cipher, key: [UInt8]) throws(CryptoError) {
        guard key.count == Self.keyBytes else { throw .malformed("the key has 32 bytes") }
        self.cipher = cipher
        self.key = key
    }

    /// The sealed text: as long as `plain` and 16 bytes more.
    public func seal(
        _ plain: [UInt8], nonce: [UInt8], associatedData: [UInt8] = []
    ) throws(CryptoError) -> [UInt8] {
        var sealed: [UInt8] = []
        sealed.reserveCapacity(plain.count + Self.tagBytes)
        try seal(plain.span.bytes, nonce: nonce, associatedData: associatedData, appendingTo: &sealed)
        return sealed
    }

    /// Appends the sealed text to `output`. At most 1 GiB at once.
    public func seal(
        _ plain: RawSpan, nonce: [UInt8], associatedData: [UInt8], appendingTo output: inout [UInt8]
    ) throws(CryptoError) {
        guard nonce.count == Self.nonceBytes else { throw .malformed("the nonce has 12 bytes") }
        guard plain.byteCount <= 1 << 30 else { throw .malformed("too long to seal at once") }
        guard let context = EVP_CIPHER_CTX_new() else { throw .fromLibrary("allocating") }
        defer { EVP_CIPHER_CTX_free(context) }
        let start = output.count
        let plainCount = plain.byteCount
        output.append(contentsOf: repeatElement(0, count: plainCount + Self.tagBytes))
        let sealed = plain.withUnsafeBytes { input in
            output.withUnsafeMutableBufferPointer { buffer -> Bool in
                guard let base = buffer.baseAddress else { return false }
                let target = base + start
                var count: Int32 = 0
                return EVP_EncryptInit_ex2(context, implementation, key, nonce, nil) == 1
                    && authenticate(associatedData, EVP_EncryptUpdate, context)
                    && EVP_EncryptUpdate(
                        context, target, &count, input.bindMemory(to: UInt8.self).baseAddress, Int32(plainCount)) == 1
                    && EVP_EncryptFinal_ex(context, target + plainCount, &count) == 1
                    && EVP_CIPHER_CTX_ctrl(
                        context, EVP_CTRL_AEAD_GET_TAG, Int32(Self.tagBytes), target + plainCount) == 1
            }
        }
        guard sealed else {
            output.removeLast(output.count - start)
            throw .fromLibrary("sealing")
        }
    }

    /// The plain text, or `notAuthentic` when anything at all does not fit: key, nonce, associated data, one bit.
    public func open(
        _ sealed: [UInt8], nonce: [UInt8], associatedData: [UInt8] = []
    ) throws(CryptoError) -> [UInt8] {
        var plain: [UInt8] = []
        try open(sealed.span.bytes, nonce: nonce, associatedData: associatedData, appendingTo: &plain)
        return plain
    }

    /// Appends the plain text to `output`; nothing is appended unless the tag is right.
    public func open(
        _ sealed: RawSpan, nonce: [UInt8], associatedData: [UInt8], appendingTo output: inout [UInt8]
    ) throws(CryptoError) {
        guard nonce.count == Self.nonceBytes else { throw .malformed("the nonce has 12 bytes") }
        let plainCount = sealed.byteCount - Self.tagBytes
        guard plainCount >= 0, plainCount <= 1 << 30 else { throw .notAuthentic }
        guard let context = EVP_CIPHER_CTX_new() else { throw .fromLibrary("allocating") }
        defer { EVP_CIPHER_CTX_free(context) }
        let start = output.count
        // One byte more, so that there is an address even for an empty text.
        output.append(contentsOf: repeatElement(0, count: plainCount + 1))
        let opened = sealed.withUnsafeBytes { input in
            output.withUnsafeMutableBufferPointer { buffer -> Bool in
                guard let base = buffer.baseAddress, let source = input.bindMemory(to: UInt8.self).baseAddress else {
                    return false
                }
                let target = base + start
                var count: Int32 = 0
                return EVP_DecryptInit_ex2(context, implementation, key, nonce, nil) == 1
                    && authenticate(associatedData, EVP_DecryptUpdate, context)
                    && EVP_DecryptUpdate(context, target, &count, source, Int32(plainCount)) == 1
                    && EVP_CIPHER_CTX_ctrl(
                        context, EVP_CTRL_AEAD_SET_TAG, Int32(Self.tagBytes),
                        UnsafeMutableRawPointer(mutating: source + plainCount)) == 1
                    && EVP_DecryptFinal_ex(context, target + plainCount, &count) == 1
            }
        }
        output.removeLast(opened ? 1 : plainCount + 1)
        guard opened else {
            ERR_clear_error()
            throw .notAuthentic
        }
    }

    private var implementation: OpaquePointer? {
        switch cipher {
        case .aes256GCM: EVP_aes_256_gcm()
        case .chaCha20Poly1305: EVP_chacha20_poly1305()
        }
    }

    private typealias Update = (
        OpaquePointer?, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<Int32>?, UnsafePointer<UInt8>?, Int32
    ) -> Int32

    private func authenticate(_ data: [UInt8], _ update: Update, _ context: OpaquePointer) -> Bool {
        guard !data.isEmpty else { return true }
        var count: Int32 = 0
        return data.withUnsafeBufferPointer { update(context, nil, &count, $0.baseAddress, Int32($0.count)) } == 1
    }
}
