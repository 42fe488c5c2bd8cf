import COpenSSL
import Glibc

/// A name in a certificate's subject alternative names.
public enum CertificateName: Sendable, Hashable {
    /// Letters, digits, `-`, `_`, `.`; `*` may stand for the first label.
    case dns(String)
    /// IPv4 or IPv6 in text form.
    case address(String)

    /// An address if it reads as one, else a DNS name; `nil` for neither.
    public init?(_ text: String) {
        if isAddress(text) {
            self = .address(text)
        } else if isDNSName(text) {
            self = .dns(text)
        } else {
            return nil
        }
    }

    /// OpenSSL's configuration syntax; commas cannot occur in a valid name.
    fileprivate func configuration() throws(CryptoError) -> String {
        switch self {
        case .dns(let name):
            guard isDNSName(name) else { throw .malformed("\"\(name)\" is not a DNS name") }
            return "DNS:\(name)"
        case .address(let text):
            guard isAddress(text) else { throw .malformed("\"\(text)\" is not an IP address") }
            return "IP:\(text)"
        }
    }
}

private func isAddress(_ text: String) -> Bool {
    var space = in6_addr()
    return inet_pton(AF_INET, text, &space) == 1 || inet_pton(AF_INET6, text, &space) == 1
}

private func isDNSName(_ name: String) -> Bool {
    guard (1...253).contains(name.utf8.count) else { return false }
    let labels = name.split(separator: ".", omittingEmptySubsequences: false)
    return labels.enumerated().allSatisfy { index, label in
        if index == 0, labels.count > 1, label == "*" { return true }
        return (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
            && label.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D
                    || $0 == 0x5F
            }
    }
}

/// Unix seconds, both ends inclusive.
public struct CertificateValidity: Sendable, Equatable {
    public var notBefore: Int64
    public var notAfter: Int64
    public init(notBefore: Int64, notAfter: Int64) {
        self.notBefore = notBefore
        self.notAfter = notAfter
    }
}

extension Certificate {
    /// A certificate authority that signs itself: the certificate that holds the core's identity key.
    public static func authority(
        key: P256.PrivateKey, commonName: String, validity: CertificateValidity
    ) throws(CryptoError) -> Certificate {
        let certificate = try unsigned(
            publicKey: key.publicKey, commonName: commonName, issuer: nil, validity: validity)
        try certificate.add(NID_basic_constraints, "critical,CA:TRUE,pathlen:0", issuer: certificate)
        try certificate.add(NID_key_usage, "critical,keyCertSign,cRLSign", issuer: certificate)
        try certificate.add(NID_subject_key_identifier, "hash", issuer: certificate)
        try certificate.sign(with: key)
        return certificate
    }

    /// A server certificate under `authority`.
    public static func server(
        publicKey: P256.PublicKey, commonName: String, names: [CertificateName], validity: CertificateValidity,
        authority: Certificate, authorityKey: P256.PrivateKey
    ) throws(CryptoError) -> Certificate {
        guard !names.isEmpty, names.count <= 100 else { throw .malformed("a server certificate needs 1 to 100 names") }
        let certificate = try unsigned(
            publicKey: publicKey, commonName: commonName, issuer: authority, validity: validity)
        try certificate.add(NID_basic_constraints, "critical,CA:FALSE", issuer: authority)
        try certificate.add(NID_key_usage, "critical,digitalSignature", issuer: authority)
        try certificate.add(NID_ext_key_usage, "serverAuth", issuer: authority)
        try certificate.add(NID_subject_key_identifier, "hash", issuer: authority)
        try certificate.add(NID_authority_key_identifier, "keyid", issuer: authority)
        var list: [String] = []
        for name in names { list.append(try name.configuration()) }
        try certificate.add(NID_subject_alt_name, list.joined(separator: ","), issuer: authority)
        try certificate.sign(with: authorityKey)
        return certificate
    }

    public func pem() throws(CryptoError) -> String {
        guard let bio = BIO_new(BIO_s_mem()) else { throw .fromLibrary("allocating") }
        defer { BIO_free(bio) }
        guard PEM_write_bio_X509(bio, pointer) == 1 else { throw .fromLibrary("encoding the certificate") }
        return String(decoding: contents(of: bio), as: UTF8.self)
    }

    public func der() throws(CryptoError) -> [UInt8] {
        var buffer: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509(pointer, &buffer)
        guard count > 0, let buffer else { throw .fromLibrary("encoding the certificate") }
        defer { CRYPTO_free(buffer, "", 0) }
        return Array(UnsafeBufferPointer(start: buffer, count: Int(count)))
    }

    public func validity() throws(CryptoError) -> CertificateValidity {
        var before = tm()
        var after = tm()
        guard ASN1_TIME_to_tm(X509_get0_notBefore(pointer), &before) == 1,
            ASN1_TIME_to_tm(X509_get0_notAfter(pointer), &after) == 1
        else { throw .fromLibrary("reading the certificate's validity") }
        return CertificateValidity(notBefore: Int64(timegm(&before)), notAfter: Int64(timegm(&after)))
    }

    /// Whether `authority`'s key signed this certificate; says nothing about names or time.
    public func isSigned(by authority: Certificate) -> Bool {
        guard let key = try? authority.publicKeyHandle() else { return false }
        let signed = X509_verify(pointer, key.pointer) == 1
        ERR_clear_error()
        return signed
    }

    /// Whether a server that calls itself `name` (DNS name or address) may show this certificate.
    public func names(_ name: CertificateName) -> Bool {
        switch name {
        case .dns(let text): X509_check_host(pointer, text, text.utf8.count, 0, nil) == 1
        case .address(let text): X509_check_ip_asc(pointer, text, 0) == 1
        }
    }

    private static func unsigned(
        publicKey: P256.PublicKey, commonName: String, issuer: Certificate?, validity: CertificateValidity
    ) throws(CryptoError) -> Certificate {
        guard (1...64).contains(commonName.utf8.count) else {
            throw .malformed("a common name has 1 to 64 bytes")
        }
        guard let pointer = X509_new() else { throw .fromLibrary("allocating") }
        let certificate = Certificate(owning: pointer)
        // 16 random bytes with a clear top bit: positive, unique (RFC 5280 §4.1.2.2).
        var serial = Random.bytes(16)
        serial[0] = serial[0] & 0x7F | 0x40
        let number = BN_bin2bn(serial, 16, nil)
        defer { BN_free(number) }
        guard X509_set_version(pointer, 2) == 1,
            BN_to_ASN1_INTEGER(number, X509_get_serialNumber(pointer)) != nil,
            ASN1_TIME_set(X509_getm_notBefore(pointer), time_t(validity.notBefore)) != nil,
            ASN1_TIME_set(X509_getm_notAfter(pointer), time_t(validity.notAfter)) != nil,
            X509_set_pubkey(pointer, publicKey.handle.pointer) == 1,
            let subject = X509_get_subject_name(pointer),
            X509_NAME_add_entry_by_NID(
                subject, NID_commonName, MBSTRING_UTF8, Array(commonName.utf8), Int32(commonName.utf8.count), -1, 0)
                == 1,
            X509_set_issuer_name(pointer, issuer.map { X509_get_subject_name($0.pointer) } ?? subject) == 1
        else { throw .fromLibrary("making a certificate") }
        return certificate
    }

    private func add(_ extensionID: Int32, _ value: String, issuer: Certificate) throws(CryptoError) {
        var context = X509V3_CTX()
        X509V3_set_ctx(&context, issuer.pointer, pointer, nil, nil, 0)
        guard let made = X509V3_EXT_conf_nid(nil, &context, extensionID, value) else {
            throw .fromLibrary("making a certificate extension")
        }
        defer { X509_EXTENSION_free(made) }
        guard X509_add_ext(pointer, made, -1) == 1 else { throw .fromLibrary("making a certificate extension") }
    }

    private func sign(with key: P256.PrivateKey) throws(CryptoError) {
        guard X509_sign(pointer, key.handle.pointer, EVP_sha256()) > 0 else {
            throw .fromLibrary("signing a certificate")
        }
    }
}
