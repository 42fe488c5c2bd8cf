import CLibSSH2
import Glibc

/// What a command on the host came to.
struct CommandResult: Sendable {
    var status: Int32
    var output: [UInt8]
    var errors: [UInt8]

    /// Lines "name=value" of its output; the last of each name.
    var values: [String: String] {
        var values: [String: String] = [:]
        for line in String(decoding: output, as: UTF8.self).split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            values[String(line[..<equals])] = String(line[line.index(after: equals)...])
        }
        return values
    }

    /// The end of what it complained about, on one line.
    var complaint: String {
        let lines = String(decoding: errors, as: UTF8.self).split(whereSeparator: \.isNewline).suffix(4)
        let text = lines.joined(separator: "; ").unicodeScalars.map { $0.value < 0x20 ? " " : Character($0) }
        return String(text.suffix(600))
    }
}

/// Where a command's input comes from: pieces until an empty one.
typealias Input = () throws(Failure) -> [UInt8]

/// How a program in front of the command (sudo) gets its password: by its prompt, never by the command line.
struct PasswordPrompt {
    var prompt: String
    var password: [UInt8]
    /// What the command itself says first, so that its input is not taken for the password.
    var begin: String
}

extension SSHSession {
    /// Runs a command. `seconds` is for all of it, or without any progress for one that is given input.
    func run(
        _ command: String, prompt: PasswordPrompt? = nil, seconds: Double = Limits.commandSeconds, input: Input? = nil
    ) throws(Failure) -> CommandResult {
        let channel = try openChannel()
        defer { libssh2_channel_free(channel) }
        let started = try repeated("a command", seconds: seconds) {
            libssh2_channel_process_startup(channel, "exec", 4, command, UInt32(command.utf8.count))
        }
        guard started == 0 else { throw failure("ssh-command", "\(name) does not run commands") }
        var exchange = Exchange(input: input, prompt: prompt)
        var deadline = Deadline(seconds: seconds)
        while true {
            let moved = try exchange.turn(self, channel)
            if libssh2_channel_eof(channel) == 1 { break }
            if moved {
                if input != nil { deadline = Deadline(seconds: seconds) }
            } else {
                try waitForSocket(until: deadline, "a command")
            }
        }
        _ = try repeated("a command", seconds: seconds) { libssh2_channel_close(channel) }
        _ = try repeated("a command", seconds: seconds) { libssh2_channel_wait_closed(channel) }
        var signal: UnsafeMutablePointer<CChar>?
        libssh2_channel_get_exit_signal(channel, &signal, nil, nil, nil, nil, nil)
        let wasKilled = signal != nil
        if let signal { libssh2_free(session, signal) }
        let status = wasKilled ? 255 : libssh2_channel_get_exit_status(channel)
        if let failure = exchange.failure { throw failure }
        return CommandResult(status: status, output: exchange.output, errors: exchange.errors)
    }

    private func openChannel() throws(Failure) -> OpaquePointer {
        let deadline = Deadline(seconds: Limits.commandSeconds)
        while true {
            let kind = "session"
            if let channel = libssh2_channel_open_ex(session, kind, UInt32(kind.utf8.count), 2 << 20, 32_768, nil, 0) {
                return channel
            }
            guard libssh2_session_last_errno(session) == LIBSSH2_ERROR_EAGAIN else {
                throw failure("ssh-command", "\(name) opens no channel")
            }
            try waitForSocket(until: deadline, "a channel")
        }
    }
}

/// What goes back and forth while a command runs.
private struct Exchange {
    private let input: Input?
    private let prompt: PasswordPrompt?
    private(set) var output: [UInt8] = []
    private(set) var errors: [UInt8] = []
    private(set) var failure: Failure?

    /// What goes to the command next.
    private var waiting: ArraySlice<UInt8> = []
    /// The command itself reads now; before, a program in front of it may.
    private var hasBegun: Bool
    private var hasEnded = false
    private var answered = 0

    init(input: Input?, prompt: PasswordPrompt?) {
        self.input = input
        self.prompt = prompt
        hasBegun = prompt == nil
    }

    /// One look at everything; whether anything moved.
    mutating func turn(_ session: SSHSession, _ channel: OpaquePointer) throws(Failure) -> Bool {
        var moved = false
        while let piece = try read(session, channel, 0) {
            moved = true
            output += piece.prefix(max(0, Limits.outputBytes - output.count))
        }
        while let piece = try read(session, channel, SSH_EXTENDED_DATA_STDERR) {
            moved = true
            errors += piece.prefix(max(0, Limits.outputBytes - errors.count))
        }
        lookForPrompt()
        if failure != nil, !hasEnded {
            waiting = []
            return try end(session, channel) || moved
        }
        if waiting.isEmpty, hasBegun, !hasEnded {
            waiting = try (input?() ?? [])[...]
            if waiting.isEmpty { return try end(session, channel) || moved }
        }
        if !waiting.isEmpty {
            let sent = waiting.withUnsafeBytes {
                libssh2_channel_write_ex(channel, 0, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
            }
            if sent > 0 {
                waiting = waiting.dropFirst(Int(sent))
                moved = true
            } else if sent != LIBSSH2_ERROR_EAGAIN {
                // A command that reads no more says by its status why.
                guard libssh2_channel_eof(channel) == 1 || sent == LIBSSH2_ERROR_CHANNEL_CLOSED || sent == LIBSSH2_ERROR_CHANNEL_EOF_SENT
                else { throw session.failure("ssh-broken", "the connection to \(session.name) broke") }
                waiting = []
                hasEnded = true
            }
        }
        return moved
    }

    private mutating func end(_ session: SSHSession, _ channel: OpaquePointer) throws(Failure) -> Bool {
        let status = libssh2_channel_send_eof(channel)
        guard status != LIBSSH2_ERROR_EAGAIN else { return false }
        hasEnded = true
        return true
    }

    private func read(_ session: SSHSession, _ channel: OpaquePointer, _ stream: Int32) throws(Failure) -> [UInt8]? {
        var piece = [UInt8](repeating: 0, count: 16_384)
        let got = piece.withUnsafeMutableBytes {
            libssh2_channel_read_ex(channel, stream, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
        }
        if got > 0 { return Array(piece[..<Int(got)]) }
        guard got == 0 || got == LIBSSH2_ERROR_EAGAIN else {
            throw session.failure("ssh-broken", "the connection to \(session.name) broke")
        }
        return nil
    }

    private mutating func lookForPrompt() {
        guard let prompt, !hasBegun, failure == nil else { return }
        if let range = Self.find(Array(prompt.begin.utf8), in: errors) {
            errors.removeSubrange(0..<range.upperBound)
            hasBegun = true
            return
        }
        guard let range = Self.find(Array(prompt.prompt.utf8), in: errors) else { return }
        errors.removeSubrange(0..<range.upperBound)
        if prompt.password.isEmpty {
            failure = Failure("sudo-password-needed", "sudo asks for a password: give `sudo_password`")
        } else if answered > 0 {
            failure = Failure("sudo-password-refused", "sudo refuses the password")
        } else {
            answered += 1
            waiting = (prompt.password + [0x0A])[...]
        }
    }

    private static func find(_ part: [UInt8], in bytes: [UInt8]) -> Range<Int>? {
        guard bytes.count >= part.count else { return nil }
        for start in 0...(bytes.count - part.count) where bytes[start] == part[0] && bytes[start..<start + part.count].elementsEqual(part) {
            return start..<start + part.count
        }
        return nil
    }
}
