import COpenSSL
import Synchronization

/// The secret of a server's session tickets. With it one can read a ticket, and so pretend to be the server of that one
/// resumed TLS connection; what connections carry stays secret (each makes fresh keys), and who the core is stands on
/// its identity key, not on this.
public struct TLSTicketKey: Sendable, Equatable {
    /// Name (16), cipher key (32), code key (32).
    public static let count = 80
    let bytes: [UInt8]

    /// `nil` unless there are `count` bytes. They are to be random.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.count else { return nil }
        self.bytes = bytes
    }

    fileprivate static let nameCount = 16
    fileprivate static let cipherKeyOffset = 16
    fileprivate static let codeKeyOffset = 48
}

/// What a client keeps of its servers to resume TLS 1.3 without certificates and signatures: the latest ticket of each.
/// It is in memory only. Give the same object to all connections of one client.
///
/// Only contexts of `TLSTrust.handshakeInside` use it: a resumed connection shows no certificate, so that whoever trusts
/// certificates would trust one that it saw long ago.
public final class TLSResumption: Sendable {
    /// As many servers as an agent may have.
    private static let maximumServers = 16

    /// `@unchecked Sendable`: an owner of one SSL_SESSION, which nothing changes and OpenSSL counts atomically.
    private final class Ticket: @unchecked Sendable {
        let server: String
        let session: OpaquePointer
        init(_ server: String, _ session: OpaquePointer) {
            self.server = server
            self.session = session
        }
        deinit { SSL_SESSION_free(session) }
    }
    private let tickets = Mutex<[Ticket]>([])

    public init() {}

    /// Whether there is a ticket of `server` (`host:port`).
    public func hasTicket(of server: String) -> Bool { tickets.withLock { $0.contains { $0.server == server } } }

    /// Takes over one reference.
    func keep(_ session: OpaquePointer, of server: String) {
        let ticket = Ticket(server, session)
        tickets.withLock { tickets in
            if let place = tickets.firstIndex(where: { $0.server == server }) {
                tickets[place] = ticket
            } else if tickets.count < Self.maximumServers {
                tickets.append(ticket)
            }
        }
    }

    /// Has a new connection try the ticket of its server. A ticket is used until a newer one replaces it: nothing is
    /// sent before the server has answered with a key of its own, so a repeated one tells and gives nothing.
    func offer(on ssl: OpaquePointer, to server: String) {
        let ticket = tickets.withLock { tickets in tickets.first { $0.server == server } }
        if let ticket { _ = SSL_set_session(ssl, ticket.session) }
    }
}

/// Gives a ticket that came to the connection's client.
let collectTicket: @convention(c) (OpaquePointer?, OpaquePointer?) -> Int32 = { ssl, session in
    guard let ssl, let session, let note = cm_tls_note(ssl) else { return 0 }
    return Unmanaged<TLSSession>.fromOpaque(note)._withUnsafeGuaranteedRef { $0.keep(session) } ? 1 : 0
}

/// OpenSSL's question for the key of a ticket that it makes or that a client shows. 0: none, a full handshake then.
let chooseTicketKey:
    @convention(c) (
        OpaquePointer?, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<UInt8>?, OpaquePointer?, OpaquePointer?,
        Int32
    ) -> Int32 = { ssl, name, iv, cipher, code, isSealing in
        // TLS 1.2 would resume with the old keys and without forward secrecy.
        guard let ssl, let name, let iv, let cipher, let code, cm_tls_is_13(ssl) == 1, let owner = cm_tls_owner(ssl)
        else { return 0 }
        let keys = Unmanaged<TLSContext>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.ticketKeys }
        let shown = UnsafeBufferPointer(start: name, count: TLSTicketKey.nameCount)
        let key = isSealing == 1 ? keys.first : keys.first { $0.bytes.starts(with: shown) }
        guard let key else { return 0 }
        return key.bytes.withUnsafeBufferPointer { bytes in
            guard let base = bytes.baseAddress else { return 0 }
            if isSealing == 1 { name.update(from: base, count: TLSTicketKey.nameCount) }
            let status = cm_tls_ticket_keys(
                cipher, code, iv, base + TLSTicketKey.cipherKeyOffset, base + TLSTicketKey.codeKeyOffset, isSealing)
            return status == 1 ? 1 : -1
        }
    }
