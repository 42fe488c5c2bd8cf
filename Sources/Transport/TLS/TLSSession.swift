import COpenSSL

/// Whom a client's connection is with. Immutable; a class, so that a server's connections hold no place for it.
final class TLSPeer {
    /// The name that is asked for and checked.
    let name: String
    /// Host and port: what tickets go by.
    let authority: String
    let resumption: TLSResumption?

    init(name: String, authority: String, resumption: TLSResumption?) {
        self.name = name
        self.authority = authority
        self.resumption = resumption
    }
}

/// One connection's TLS: OpenSSL's state and what could not be sent of its output. Confined to the loop; owner of the
/// SSL object.
final class TLSSession {
    enum Outcome: Equatable {
        case done(Int)
        /// Nothing more until more ciphertext arrives.
        case wantsMore
        /// The peer said that it sends no more (close_notify).
        case peerEnded
        case failed(String)
        /// The peer's certificate was refused by our rules.
        case untrusted(String)
    }

    private let ssl: OpaquePointer
    /// The context whose address OpenSSL's callbacks may use.
    private let context: TLSContext
    private let window: TLSWindow
    /// Ciphertext that the kernel did not take.
    var pending = ByteQueue()
    private var hasFailed = false
    private let peer: TLSPeer?

    init(_ context: TLSContext, window: TLSWindow, peer: TLSPeer?) throws(TransportError) {
        guard let ssl = context.makeSession() else { throw TLSContext.failure("starting TLS") }
        self.ssl = ssl
        self.context = context
        self.window = window
        self.peer = peer
        // One reference serves both directions (SSL_set_bio takes it).
        BIO_up_ref(window.bio)
        SSL_set_bio(ssl, window.bio, window.bio)
        if context.role == .server {
            SSL_set_accept_state(ssl)
        } else {
            SSL_set_connect_state(ssl)
            try expect(peer?.name ?? "")
            if let resumption = peer?.resumption, case .handshakeInside = context.trust {
                cm_tls_set_note(ssl, Unmanaged.passUnretained(self).toOpaque())
                resumption.offer(on: ssl, to: peer?.authority ?? "")
            }
        }
    }

    /// A ticket of the server; it is taken over if this says true.
    func keep(_ ticket: OpaquePointer) -> Bool {
        guard let peer, let resumption = peer.resumption else { return false }
        resumption.keep(ticket, of: peer.authority)
        return true
    }

    /// Has a server send a session ticket before its next bytes. Nothing happens before TLS 1.3, and without keys.
    func issueTicket() {
        guard context.role == .server, !hasFailed, !context.ticketKeys.isEmpty else { return }
        ERR_clear_error()
        _ = SSL_new_session_ticket(ssl)
        ERR_clear_error()
    }

    /// Certificates and signatures were spared by a ticket.
    var isResumed: Bool { SSL_session_reused(ssl) == 1 }

    deinit {
        // OpenSSL forgets the ticket of a connection that ended without close_notify, as that of a crashed server does;
        // TLS since 1.1 allows its use (RFC 4346 §7.2.1). After a fatal alert it is gone already.
        if context.role == .client { SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN) }
        SSL_free(ssl)
    }

    private func expect(_ name: String) throws(TransportError) {
        let isAddress = IPAddress(name) != nil
        // RFC 6066 §3: no literal addresses in the name extension.
        if !isAddress { _ = cm_tls_set_server_name(ssl, name) }
        switch context.trust {
        case .pins, .handshakeInside: return
        case .systemRoots, .authorities: break
        }
        let status =
            isAddress ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) : SSL_set1_host(ssl, name)
        guard status == 1 else { throw TransportError(.invalid, "'\(name)' cannot be checked as a server's name") }
    }

    /// One step of the handshake; `done(1)` when it is complete. The window's input must be set.
    func handshakeStep() -> Outcome { step { SSL_do_handshake($0) } }

    /// OpenSSL holds bytes of the peer, decrypted or not.
    var hasPending: Bool { SSL_has_pending(ssl) == 1 }

    /// Decrypts into `buffer`; `done(n)` with n bytes.
    func read(into buffer: UnsafeMutableRawPointer, capacity: Int) -> Outcome {
        step { SSL_read($0, buffer, Int32(clamping: capacity)) }
    }

    /// Encrypts at most `TLSWindow.encryptStep` bytes into the window.
    func write(_ bytes: UnsafeRawBufferPointer) -> Outcome {
        let count = min(bytes.count, TLSWindow.encryptStep)
        return step { SSL_write($0, bytes.baseAddress, Int32(count)) }
    }

    private func step(_ call: (OpaquePointer) -> Int32) -> Outcome {
        ERR_clear_error()
        let result = call(ssl)
        if result > 0 { return .done(Int(result)) }
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .wantsMore
        case SSL_ERROR_ZERO_RETURN: return .peerEnded
        default:
            hasFailed = true
            let verdict = SSL_get_verify_result(ssl)
            if context.role == .client, verdict != Int(X509_V_OK), SSL_is_init_finished(ssl) == 0 {
                let reason = X509_verify_cert_error_string(verdict).map { String(cString: $0) } ?? "error \(verdict)"
                _ = TLSContext.lastError()
                if case .pins = context.trust {
                    return .untrusted("no key in the server's certificate chain matches the pin")
                }
                return .untrusted("the server's certificate: \(reason)")
            }
            return .failed("TLS: \(TLSContext.lastError())")
        }
    }

    /// Puts close_notify into the window, if TLS is still whole.
    func end() {
        guard !hasFailed, SSL_is_init_finished(ssl) == 1 else { return }
        ERR_clear_error()
        _ = SSL_shutdown(ssl)
        ERR_clear_error()
    }

    /// RFC 5705 keying material of this connection. nil in TLS 1.2 without the extended master secret (RFC 7627): there
    /// two connections can share it.
    func exportKeyingMaterial(label: String, context: [UInt8]?, count: Int) -> [UInt8]? {
        guard SSL_is_init_finished(ssl) == 1 else { return nil }
        guard cm_tls_is_13(ssl) == 1 || cm_tls_has_extended_master_secret(ssl) == 1 else { return nil }
        var material = [UInt8](repeating: 0, count: count)
        let status = SSL_export_keying_material(
            ssl, &material, count, label, label.utf8.count, context ?? [], context?.count ?? 0,
            context == nil ? 0 : 1)
        return status == 1 ? material : nil
    }

    /// The certificate that the peer showed and that was checked, in DER.
    func peerCertificate() -> [UInt8]? {
        guard let certificate = SSL_get1_peer_certificate(ssl) else { return nil }
        defer { X509_free(certificate) }
        var buffer: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509(certificate, &buffer)
        guard count > 0, let buffer else { return nil }
        defer { CRYPTO_free(buffer, "TLSSession.swift", 0) }
        return Array(UnsafeBufferPointer(start: buffer, count: Int(count)))
    }

    /// `TLSv1.3` or `TLSv1.2`.
    var version: String { SSL_get_version(ssl).map { String(cString: $0) } ?? "TLS" }
}
