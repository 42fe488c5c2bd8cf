/// A machine at the other end of an SSH connection: runs scripts there, as the user who logged in or as root.
final class RemoteHost {
    let session: SSHSession
    let user: String
    private var isRoot = false
    private let sudoPassword: [UInt8]
    /// Random, so that nothing on the host can be taken for it by chance.
    private let mark: String

    init(_ session: SSHSession, user: String, sudoPassword: [UInt8], mark: String) {
        self.session = session
        self.user = user
        self.sudoPassword = sudoPassword
        self.mark = mark
    }

    /// As the user who logged in.
    func run(_ script: String) throws(Failure) -> CommandResult { try session.run(Self.shell(script)) }

    /// As root: by sudo where somebody else logged in. The password goes to sudo's prompt, through the encrypted connection.
    func root(
        _ script: String, seconds: Double = Limits.commandSeconds, input: Input? = nil
    ) throws(Failure) -> CommandResult {
        if isRoot { return try session.run(Self.shell(script), seconds: seconds, input: input ?? Self.nothing) }
        let prompt = PasswordPrompt(prompt: "password-\(mark):", password: sudoPassword, begin: "begin-\(mark)\n")
        let command = "sudo -S -p " + Shell.quoted(prompt.prompt) + " " + Self.shell("echo begin-\(mark) >&2\n" + script)
        return try session.run(command, prompt: prompt, seconds: seconds, input: input ?? Self.nothing)
    }

    /// As root, and it has to work.
    @discardableResult
    func must(
        _ code: String, _ what: String, _ script: String, seconds: Double = Limits.commandSeconds, input: Input? = nil
    ) throws(Failure) -> CommandResult {
        let result = try root(script, seconds: seconds, input: input)
        guard result.status == 0 else {
            let complaint = result.complaint
            throw Failure(code, "\(what) failed on \(session.name) (status \(result.status))" + (complaint.isEmpty ? "" : ": \(complaint)"))
        }
        return result
    }

    /// Finds out whether root's rights are there; before anything is changed.
    func becomeRoot(isRoot: Bool, hasSudo: Bool) throws(Failure) {
        self.isRoot = isRoot
        guard !isRoot else { return }
        guard hasSudo else {
            throw Failure("sudo-missing", "\(user) is not root on \(session.name), and there is no sudo: log in as root, or install sudo")
        }
        let result = try root("id -u")
        guard result.status == 0, String(decoding: result.output, as: UTF8.self) == "0\n" else {
            throw Failure("sudo-refused", "\(user) may not become root by sudo on \(session.name): \(result.complaint)")
        }
    }

    private static func shell(_ script: String) -> String { "/bin/sh -c " + Shell.quoted(script) }
    private static func nothing() throws(Failure) -> [UInt8] { [] }
}

/// Bytes as a command's input, in one piece.
func once(_ bytes: [UInt8]) -> Input {
    var rest = bytes
    return { () throws(Failure) in
        defer { rest = [] }
        return rest
    }
}
