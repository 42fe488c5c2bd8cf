import CLibSSH2
import Glibc

/// libssh2 as it is on this machine.
enum SSHLibrary {
    /// Once per process, before the first session; never taken back, because the image stays mapped.
    static let isReady = libssh2_init(0) == 0
    static var version: String { libssh2_version(0).map { String(cString: $0) } ?? "?" }
    /// From 1.11 on. Before, RSA keys sign with SHA-1 only, which OpenSSH refuses since 8.8.
    static var signsRSAWithSHA2: Bool { libssh2_version(0x01_0B_00) != nil }
}

/// One SSH connection: over a socket of its own, or through a channel of another session (a jump host). On one thread.
///
/// libssh2 never blocks here: each call is repeated until it is done, and between two tries the thread waits for the socket,
/// for the deadline or for the watch.
final class SSHSession {
    let session: OpaquePointer
    let name: String
    let watch: Watch
    private let socket: Int32
    /// The session and channel that carry this one.
    private let carrier: (session: SSHSession, channel: OpaquePointer)?
    /// What keyboard-interactive questions are answered with.
    var password: [UInt8] = []
    private(set) var isDead = false

    /// - Parameter hostKeyMethods: the kinds of host keys to ask for, the best first; `nil` leaves it to the library.
    init(to host: String, _ port: Int, _ watch: Watch, hostKeyMethods: String? = nil) throws(Failure) {
        session = try Self.make()
        do throws(Failure) {
            socket = try Socket.connect(host, port, watch, seconds: Limits.connectSeconds)
        } catch {
            libssh2_session_free(session)
            throw error
        }
        carrier = nil
        name = "\(host):\(port)"
        self.watch = watch
        try begin(hostKeyMethods)
    }

    init(to host: String, _ port: Int, through outer: SSHSession, hostKeyMethods: String? = nil) throws(Failure) {
        let channel = try outer.tunnel(to: host, port)
        session = try Self.make()
        socket = outer.socket
        carrier = (outer, channel)
        name = "\(host):\(port)"
        watch = outer.watch
        libssh2_session_callback_set(
            session, LIBSSH2_CALLBACK_RECV, unsafeBitCast(receiveThroughCarrier as Receive, to: UnsafeMutableRawPointer.self))
        libssh2_session_callback_set(
            session, LIBSSH2_CALLBACK_SEND, unsafeBitCast(sendThroughCarrier as Send, to: UnsafeMutableRawPointer.self))
        try begin(hostKeyMethods)
    }

    private static func make() throws(Failure) -> OpaquePointer {
        guard SSHLibrary.isReady, let session = libssh2_session_init_ex(nil, nil, nil, nil) else {
            throw Failure("ssh-library", "libssh2 cannot be used")
        }
        return session
    }

    private func begin(_ hostKeyMethods: String?) throws(Failure) {
        // Callbacks find their way back; they run inside calls of this object only.
        libssh2_session_abstract(session)?.pointee = Unmanaged.passUnretained(self).toOpaque()
        libssh2_session_set_blocking(session, 0)
        if let hostKeyMethods, libssh2_session_method_pref(session, LIBSSH2_METHOD_HOSTKEY, hostKeyMethods) != 0 {
            throw failure("ssh-handshake", "this libssh2 knows none of \(hostKeyMethods)")
        }
        let status = try repeated("handshake", seconds: Limits.handshakeSeconds) { libssh2_session_handshake(session, socket) }
        guard status == 0 else { throw failure("ssh-handshake", "no SSH connection to \(name)") }
    }

    deinit {
        // Without a farewell where the connection is gone; the socket's end says enough.
        if !isDead, !watch.isCancelled {
            libssh2_session_disconnect_ex(session, SSH_DISCONNECT_BY_APPLICATION, "", "")
        }
        libssh2_session_free(session)
        if let carrier {
            libssh2_channel_free(carrier.channel)
        } else {
            close(socket)
        }
    }

    // MARK: Waiting

    /// Calls until the answer is another one than "again".
    func repeated(_ what: String, seconds: Double, _ call: () -> Int32) throws(Failure) -> Int32 {
        let deadline = Deadline(seconds: seconds)
        while true {
            let status = call()
            guard status == LIBSSH2_ERROR_EAGAIN else { return status }
            try waitForSocket(until: deadline, what)
        }
    }

    func waitForSocket(until deadline: Deadline, _ what: String) throws(Failure) {
        guard !deadline.isOver else {
            isDead = true
            throw Failure("ssh-timeout", "\(name): \(what) took too long")
        }
        var directions = libssh2_session_block_directions(session)
        if let carrier { directions |= libssh2_session_block_directions(carrier.session.session) }
        var events = POLLIN
        if directions & LIBSSH2_SESSION_BLOCK_OUTBOUND != 0 { events |= POLLOUT }
        // What a carrier has read already makes its socket ready no more: so it is looked at from time to time.
        try watch.wait(socket, events, until: deadline, atMost: carrier == nil ? .max : 50)
    }

    /// What the library says went wrong.
    func failure(_ code: String, _ text: String) -> Failure {
        var message: UnsafeMutablePointer<CChar>?
        let number = libssh2_session_last_error(session, &message, nil, 0)
        if [LIBSSH2_ERROR_SOCKET_DISCONNECT, LIBSSH2_ERROR_SOCKET_SEND, LIBSSH2_ERROR_SOCKET_RECV].contains(number) { isDead = true }
        let detail = message.map { String(cString: $0) } ?? ""
        return Failure(code, detail.isEmpty ? text : "\(text): \(detail)")
    }

    // MARK: Jump hosts

    private func tunnel(to host: String, _ port: Int) throws(Failure) -> OpaquePointer {
        let deadline = Deadline(seconds: Limits.connectSeconds)
        while true {
            if let channel = libssh2_channel_direct_tcpip_ex(session, host, Int32(port), "127.0.0.1", 0) { return channel }
            guard libssh2_session_last_errno(session) == LIBSSH2_ERROR_EAGAIN else {
                throw failure("ssh-jump", "the jump host \(name) does not connect to \(host) port \(port)")
            }
            try waitForSocket(until: deadline, "the connection to \(host) port \(port)")
        }
    }

    fileprivate func receive(_ buffer: UnsafeMutableRawPointer?, _ count: Int) -> Int {
        guard let carrier else { return -Int(EINVAL) }
        let got = libssh2_channel_read_ex(carrier.channel, 0, buffer?.assumingMemoryBound(to: CChar.self), count)
        if got == LIBSSH2_ERROR_EAGAIN { return -Int(EAGAIN) }
        if got == 0, libssh2_channel_eof(carrier.channel) == 0 { return -Int(EAGAIN) }
        return got < 0 ? -Int(ECONNRESET) : Int(got)
    }

    fileprivate func send(_ buffer: UnsafeRawPointer?, _ count: Int) -> Int {
        guard let carrier else { return -Int(EINVAL) }
        let sent = libssh2_channel_write_ex(carrier.channel, 0, buffer?.assumingMemoryBound(to: CChar.self), count)
        if sent == LIBSSH2_ERROR_EAGAIN { return -Int(EAGAIN) }
        return sent < 0 ? -Int(ECONNRESET) : Int(sent)
    }
}

private typealias Abstract = UnsafeMutablePointer<UnsafeMutableRawPointer?>?
private typealias Receive = @convention(c) (Int32, UnsafeMutableRawPointer?, Int, Int32, Abstract) -> Int
private typealias Send = @convention(c) (Int32, UnsafeRawPointer?, Int, Int32, Abstract) -> Int

/// The session whose callback this is; the library calls only while one of its methods runs.
func sshSession(_ abstract: UnsafeMutablePointer<UnsafeMutableRawPointer?>?) -> SSHSession? {
    abstract?.pointee.map { Unmanaged<SSHSession>.fromOpaque($0).takeUnretainedValue() }
}

private func receiveThroughCarrier(
    _ socket: Int32, _ buffer: UnsafeMutableRawPointer?, _ count: Int, _ flags: Int32, _ abstract: Abstract
) -> Int {
    sshSession(abstract)?.receive(buffer, count) ?? -Int(EINVAL)
}

private func sendThroughCarrier(
    _ socket: Int32, _ buffer: UnsafeRawPointer?, _ count: Int, _ flags: Int32, _ abstract: Abstract
) -> Int {
    sshSession(abstract)?.send(buffer, count) ?? -Int(EINVAL)
}

/// Bounds of every wait on a host.
enum Limits {
    static let connectSeconds = 15.0
    static let handshakeSeconds = 20.0
    static let loginSeconds = 30.0
    /// Of one command; and without any progress of one that is given input.
    static let commandSeconds = 60.0
    static let outputBytes = 256 << 10
}
