import CLibSSH2
import Glibc

extension SSHSession {
    /// Proves who we are by what there is: agent, key, password, in this order.
    func logIn(as user: String, _ credentials: Credentials, agentSocket: String?) throws(Failure) {
        let methods = try allowedMethods(user)
        guard let methods else { return }  // The host asks for nothing.
        var refused: [String] = []
        if credentials.usesAgent, methods.contains("publickey") {
            guard let agentSocket else {
                throw Failure("ssh-agent-unavailable", "no agent socket is set: `agent_socket` of the plugin's configuration")
            }
            if try logIn(as: user, agent: try AgentSocket(path: agentSocket, watch)) { return }
            refused.append("the agent's keys")
        }
        if !credentials.privateKey.isEmpty, methods.contains("publickey") {
            try PrivateKey.check(credentials.privateKey)
            if try logIn(as: user, key: Array(PrivateKey.block(credentials.privateKey).utf8), credentials.passphrase) { return }
            refused.append("the key")
        }
        if !credentials.password.isEmpty, methods.contains("password") {
            let status = try credentials.password.withText { (text, count) throws(Failure) in
                try repeated("log-in", seconds: Limits.loginSeconds) {
                    libssh2_userauth_password_ex(session, user, UInt32(user.utf8.count), text, UInt32(count), nil)
                }
            }
            if status == 0 { return }
            try stillThere(status)
            refused.append("the password")
        } else if !credentials.password.isEmpty, methods.contains("keyboard-interactive") {
            password = credentials.password
            defer { password = [] }
            let status = try repeated("log-in", seconds: Limits.loginSeconds) {
                libssh2_userauth_keyboard_interactive_ex(session, user, UInt32(user.utf8.count), answerQuestions)
            }
            if status == 0 { return }
            try stillThere(status)
            refused.append("the password")
        }
        throw Failure(
            "ssh-login-refused",
            refused.isEmpty
                ? "\(user)@\(name) takes \(methods.sorted().joined(separator: ", ")), and nothing of that was given"
                : "\(user)@\(name) refuses \(refused.joined(separator: " and ")) (it takes \(methods.sorted().joined(separator: ", ")))")
    }

    /// `nil`: nothing is asked for.
    private func allowedMethods(_ user: String) throws(Failure) -> Set<String>? {
        let deadline = Deadline(seconds: Limits.loginSeconds)
        while true {
            if let list = libssh2_userauth_list(session, user, UInt32(user.utf8.count)) {
                return Set(String(cString: list).split(separator: ",").map(String.init))
            }
            if libssh2_userauth_authenticated(session) == 1 { return nil }
            guard libssh2_session_last_errno(session) == LIBSSH2_ERROR_EAGAIN else {
                throw failure("ssh-login-refused", "\(user)@\(name) cannot log in")
            }
            try waitForSocket(until: deadline, "log-in")
        }
    }

    private func logIn(as user: String, key: [UInt8], _ passphrase: [UInt8]) throws(Failure) -> Bool {
        let status = try key.withText { (key, keyCount) throws(Failure) in
            try passphrase.withText { (passphrase, _) throws(Failure) in
                try repeated("log-in", seconds: Limits.loginSeconds) {
                    libssh2_userauth_publickey_frommemory(session, user, user.utf8.count, nil, 0, key, keyCount, passphrase)
                }
            }
        }
        if status == 0 { return true }
        if [LIBSSH2_ERROR_AUTHENTICATION_FAILED, LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED].contains(status) { return false }
        let gone = [LIBSSH2_ERROR_SOCKET_SEND, LIBSSH2_ERROR_SOCKET_RECV, LIBSSH2_ERROR_SOCKET_DISCONNECT, LIBSSH2_ERROR_SOCKET_TIMEOUT]
        guard !gone.contains(status) else { throw failure("ssh-login-refused", "\(name) broke the log-in off") }
        throw failure(
            "ssh-key-invalid",
            passphrase.isEmpty ? "the private key cannot be read (is it encrypted?)" : "the private key cannot be read with this passphrase")
    }

    private func logIn(as user: String, agent: AgentSocket) throws(Failure) -> Bool {
        for identity in try agent.identities() {
            guard let type = try? PrivateKey.type(of: identity.blob), (try? PrivateKey.check(type: type)) != nil else { continue }
            let signer = Signer(agent, identity)
            var context: UnsafeMutableRawPointer? = Unmanaged.passUnretained(signer).toOpaque()
            let status = try withUnsafeMutablePointer(to: &context) { (context) throws(Failure) in
                try repeated("log-in", seconds: Limits.loginSeconds) {
                    libssh2_userauth_publickey(session, user, identity.blob, identity.blob.count, signWithAgent, context)
                }
            }
            withExtendedLifetime(signer) {}
            if status == 0 { return true }
            try stillThere(status)
        }
        return false
    }

    /// Refused, or is the connection gone?
    private func stillThere(_ status: Int32) throws(Failure) {
        guard [LIBSSH2_ERROR_AUTHENTICATION_FAILED, LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED, LIBSSH2_ERROR_METHOD_NOT_SUPPORTED].contains(status)
        else { throw failure("ssh-login-refused", "\(name) broke the log-in off") }
    }
}

private final class Signer {
    let agent: AgentSocket
    let identity: AgentSocket.Identity

    init(_ agent: AgentSocket, _ identity: AgentSocket.Identity) {
        self.agent = agent
        self.identity = identity
    }
}

/// The signature's memory is the library's to free, which it does with `free`.
private func signWithAgent(
    _ session: OpaquePointer?, _ signature: UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>?,
    _ size: UnsafeMutablePointer<Int>?, _ data: UnsafePointer<UInt8>?, _ count: Int,
    _ abstract: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> Int32 {
    guard let context = abstract?.pointee else { return -1 }
    let signer = Unmanaged<Signer>.fromOpaque(context).takeUnretainedValue()
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    guard let made = try? signer.agent.sign(bytes, with: signer.identity), let room = malloc(made.count) else { return -1 }
    made.withUnsafeBytes { if let base = $0.baseAddress { _ = memcpy(room, base, $0.count) } }
    signature?.pointee = room.assumingMemoryBound(to: UInt8.self)
    size?.pointee = made.count
    return 0
}

/// Every question that is not to be seen while it is answered gets the password; others get nothing.
private func answerQuestions(
    _ name: UnsafePointer<CChar>?, _ nameCount: Int32, _ instruction: UnsafePointer<CChar>?, _ instructionCount: Int32,
    _ count: Int32, _ prompts: UnsafePointer<LIBSSH2_USERAUTH_KBDINT_PROMPT>?,
    _ responses: UnsafeMutablePointer<LIBSSH2_USERAUTH_KBDINT_RESPONSE>?,
    _ abstract: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) {
    guard let session = sshSession(abstract), let prompts, let responses else { return }
    for index in 0..<Int(count) where prompts[index].echo == 0 {
        guard let room = malloc(max(session.password.count, 1)) else { return }
        session.password.withUnsafeBytes { if let base = $0.baseAddress { _ = memcpy(room, base, $0.count) } }
        responses[index].text = room.assumingMemoryBound(to: CChar.self)
        responses[index].length = UInt32(session.password.count)
    }
}

extension [UInt8] {
    /// As a C text, ended by NUL; the copy is overwritten afterwards.
    func withText<Result>(
        _ body: (UnsafePointer<CChar>?, Int) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let room = UnsafeMutableBufferPointer<CChar>.allocate(capacity: count + 1)
        defer {
            room.update(repeating: 0)
            room.deallocate()
        }
        for index in indices { room.initializeElement(at: index, to: CChar(bitPattern: self[index])) }
        room.initializeElement(at: count, to: 0)
        return try body(UnsafePointer(room.baseAddress), count)
    }
}
