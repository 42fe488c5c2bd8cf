import COpenSSL
import Crypto
import Glibc
import Synchronization

/// Settings of TLS for many connections: a server's certificate, or a client's trust.
///
/// Replacing the certificate goes through a mutex; OpenSSL's context itself is safe to share once it is set up.
public final class TLSContext: Sendable {
    let role: WebSocketRole
    let trust: TLSTrust
    private let clientAuthorities: String?
    private let current: Mutex<Handle>
    private let tickets = Mutex<[TLSTicketKey]>([])

    /// `@unchecked Sendable`: an owner of one SSL_CTX, which OpenSSL locks itself.
    private final class Handle: @unchecked Sendable {
        let pointer: OpaquePointer
        init(_ pointer: OpaquePointer) { self.pointer = pointer }
        deinit { SSL_CTX_free(pointer) }
    }

    /// How long a ticket is good: the most that TLS 1.3 allows (RFC 8446 §4.6.1).
    public static let ticketSeconds = 7 * 86_400

    /// A server's side. `chain` and `key` in PEM, the chain beginning with the server's own certificate. With
    /// `clientAuthorities` clients are asked for a certificate and may do without; one that they show must be good.
    /// Such a server makes no tickets.
    public static func server(
        chain: String, key: String, clientAuthorities: String? = nil
    ) throws(TransportError) -> TLSContext {
        let context = try serverContext(chain: chain, key: key, clientAuthorities: clientAuthorities)
        let made = TLSContext(.server, .handshakeInside, clientAuthorities, context)
        made.allowTickets(context)
        return made
    }

    /// A client's side; `chain` and `key` (PEM) are shown to servers that ask for a certificate.
    public static func client(
        _ trust: TLSTrust, chain: String? = nil, key: String? = nil
    ) throws(TransportError) -> TLSContext {
        guard let context = SSL_CTX_new(TLS_client_method()), cm_tls_harden(context) == 1 else {
            throw failure("setting up TLS")
        }
        let made = TLSContext(.client, trust, nil, context)
        if let chain, let key { try use(chain: chain, key: key, in: context) }
        switch trust {
        case .systemRoots:
            guard SSL_CTX_set_default_verify_paths(context) == 1 else {
                throw failure("reading the system's certificate authorities")
            }
        case .authorities(let pem):
            try add(pem, to: SSL_CTX_get_cert_store(context))
        case .pins(let pins):
            guard !pins.isEmpty, pins.allSatisfy({ $0.utf8.count == 64 && Hex.decode($0) != nil }) else {
                throw TransportError(.invalid, "a pin is the hex SHA-256 of a public key: 64 digits")
            }
            // The callback's argument is this object, which the context cannot outlive: sessions hold both.
            SSL_CTX_set_cert_verify_callback(context, verifyPins, Unmanaged.passUnretained(made).toOpaque())
        case .handshakeInside:
            SSL_CTX_set_cert_verify_callback(context, { _, _ in 1 }, nil)
            cm_tls_collect_tickets(context, collectTicket)
        }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        let protocols = Self.protocols
        SSL_CTX_set_alpn_protos(context, protocols, UInt32(protocols.count))
        return made
    }

    private init(_ role: WebSocketRole, _ trust: TLSTrust, _ clientAuthorities: String?, _ context: OpaquePointer) {
        self.role = role
        self.trust = trust
        self.clientAuthorities = clientAuthorities
        current = Mutex(Handle(context))
    }

    /// Serves new connections with another certificate from now on; present ones stay as they are. If it throws, the
    /// old one stays in use.
    public func reload(chain: String, key: String) throws(TransportError) {
        let next = Handle(try Self.serverContext(chain: chain, key: key, clientAuthorities: clientAuthorities))
        allowTickets(next.pointer)
        current.withLock { $0 = next }
    }

    /// Session tickets are sealed with the first of these keys and opened with any, from now on. Without a key no ticket
    /// is made or taken.
    public func use(ticketKeys: [TLSTicketKey]) { tickets.withLock { $0 = ticketKeys } }

    var ticketKeys: [TLSTicketKey] { tickets.withLock { $0 } }

    /// The callback's argument is this object, which the context cannot outlive: sessions hold both.
    private func allowTickets(_ context: OpaquePointer) {
        guard clientAuthorities == nil else { return }
        cm_tls_use_tickets(context, chooseTicketKey, Unmanaged.passUnretained(self).toOpaque(), Self.ticketSeconds)
    }

    /// A new session; the caller owns it.
    func makeSession() -> OpaquePointer? { SSL_new(current.withLock { $0 }.pointer) }

    /// ALPN's list of one: http/1.1 (RFC 7301 §6).
    private static let protocols: [UInt8] = [8] + Array("http/1.1".utf8)

    private static func serverContext(
        chain: String, key: String, clientAuthorities: String?
    ) throws(TransportError) -> OpaquePointer {
        guard let context = SSL_CTX_new(TLS_server_method()), cm_tls_harden(context) == 1 else {
            throw failure("setting up TLS")
        }
        do throws(TransportError) {
            try use(chain: chain, key: key, in: context)
            if let clientAuthorities {
                try add(clientAuthorities, to: SSL_CTX_get_cert_store(context))
                SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
            }
        } catch {
            SSL_CTX_free(context)
            throw error
        }
        SSL_CTX_set_alpn_select_cb(context, selectProtocol, nil)
        return context
    }

    private static func use(chain: String, key: String, in context: OpaquePointer) throws(TransportError) {
        var isFirst = true
        try eachCertificate(chain) { (certificate) throws(TransportError) in
            let status =
                isFirst
                ? SSL_CTX_use_certificate(context, certificate) : cm_tls_add_chain_certificate(context, certificate)
            isFirst = false
            guard status == 1 else { throw failure("using the certificate chain") }
        }
        guard !isFirst else { throw TransportError(.invalid, "the certificate file holds no certificate") }
        let bytes = Array(key.utf8)
        let bio = bytes.withUnsafeBufferPointer { BIO_new_mem_buf($0.baseAddress, Int32($0.count)) }
        defer { BIO_free(bio) }
        // A password would be asked for on the terminal; an empty one makes it an error instead.
        guard let privateKey = PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in 0 }, nil) else {
            throw failure("reading the private key")
        }
        defer { EVP_PKEY_free(privateKey) }
        guard SSL_CTX_use_PrivateKey(context, privateKey) == 1, SSL_CTX_check_private_key(context) == 1 else {
            throw failure("the private key does not belong to the certificate")
        }
    }

    private static func add(_ pem: String, to store: OpaquePointer?) throws(TransportError) {
        var count = 0
        try eachCertificate(pem) { (certificate) throws(TransportError) in
            guard X509_STORE_add_cert(store, certificate) == 1 else { throw failure("adding an authority") }
            count += 1
        }
        guard count > 0 else { throw TransportError(.invalid, "the file of authorities holds no certificate") }
    }

    private static func eachCertificate(
        _ pem: String, _ body: (OpaquePointer) throws(TransportError) -> Void
    ) throws(TransportError) {
        let bytes = Array(pem.utf8)
        // OpenSSL reads from the memory that it is given, so the bytes must outlive the BIO.
        let bio = BIO_new(BIO_s_mem())
        defer { BIO_free(bio) }
        guard BIO_write(bio, bytes, Int32(clamping: bytes.count)) == Int32(bytes.count) || bytes.isEmpty else {
            throw failure("reading certificates")
        }
        while let certificate = PEM_read_bio_X509(bio, nil, nil, nil) {
            defer { X509_free(certificate) }
            try body(certificate)
        }
        ERR_clear_error()
    }

    static func failure(_ what: String) -> TransportError { TransportError(.tls, "\(what): \(lastError())") }

    /// The latest entries of OpenSSL's queue of this thread, which is empty afterwards.
    static func lastError() -> String {
        var text = ""
        while case let code = ERR_get_error(), code != 0 {
            guard text.utf8.count < 200, let reason = ERR_reason_error_string(code) else { continue }
            if !text.isEmpty { text += ", " }
            text += String(cString: reason)
        }
        return text.isEmpty ? "unknown error" : text
    }
}

private let selectProtocol:
    @convention(c) (
        OpaquePointer?, UnsafeMutablePointer<UnsafePointer<UInt8>?>?, UnsafeMutablePointer<UInt8>?,
        UnsafePointer<UInt8>?, UInt32, UnsafeMutableRawPointer?
    ) -> Int32 = { _, chosen, chosenCount, offered, offeredCount, _ in
        guard let chosen, let chosenCount, let offered else { return SSL_TLSEXT_ERR_NOACK }
        let list = UnsafeBufferPointer(start: offered, count: Int(offeredCount))
        var index = 0
        while index < list.count {
            let count = Int(list[index])
            guard index + 1 + count <= list.count else { break }
            if UnsafeBufferPointer(rebasing: list[(index + 1)..<(index + 1 + count)]).elementsEqual("http/1.1".utf8) {
                // The answer may point into the client's list.
                chosen.pointee = offered + index + 1
                chosenCount.pointee = UInt8(count)
                return SSL_TLSEXT_ERR_OK
            }
            index += 1 + count
        }
        return SSL_TLSEXT_ERR_ALERT_FATAL
    }

/// Finds a pinned key in the presented chain, then has OpenSSL prove that this certificate signed the server's own:
/// a copy of a public certificate that is merely shown beside a stranger's proves nothing.
private let verifyPins: @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?) -> Int32 = { store, argument in
    guard let store, let argument, let leaf = X509_STORE_CTX_get0_cert(store) else { return 0 }
    let context = Unmanaged<TLSContext>.fromOpaque(argument).takeUnretainedValue()
    guard case .pins(let pins) = context.trust else { return 0 }
    let presented = X509_STORE_CTX_get0_untrusted(store)
    for index in 0..<min(cm_x509_stack_count(presented), 10) {
        guard let candidate = cm_x509_stack_at(presented, index), let print = fingerprint(candidate),
            pins.contains(print)
        else { continue }
        if X509_cmp(candidate, leaf) == 0 || isSigned(leaf, by: candidate, among: presented) {
            X509_STORE_CTX_set_error(store, X509_V_OK)
            return 1
        }
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_UNTRUSTED)
    return 0
}

private func isSigned(_ leaf: OpaquePointer, by anchor: OpaquePointer, among chain: OpaquePointer?) -> Bool {
    guard let store = X509_STORE_new() else { return false }
    defer { X509_STORE_free(store) }
    guard X509_STORE_add_cert(store, anchor) == 1, let check = X509_STORE_CTX_new() else { return false }
    defer { X509_STORE_CTX_free(check) }
    guard X509_STORE_CTX_init(check, store, leaf, chain) == 1 else { return false }
    // The pinned key is the anchor even if it is not a self-signed root.
    X509_STORE_CTX_set_flags(check, UInt(X509_V_FLAG_PARTIAL_CHAIN))
    return X509_verify_cert(check) == 1
}

private func fingerprint(_ certificate: OpaquePointer) -> String? {
    var buffer: UnsafeMutablePointer<UInt8>?
    let count = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &buffer)
    guard count > 0, let buffer else { return nil }
    defer { CRYPTO_free(buffer, "TLSContext.swift", 0) }
    return Hex.encode(SHA256.hash(UnsafeBufferPointer(start: buffer, count: Int(count))))
}
