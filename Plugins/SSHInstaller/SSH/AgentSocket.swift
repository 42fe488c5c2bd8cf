import Glibc

/// The client's side of an SSH agent (draft-miller-ssh-agent): its keys, and signatures by them. All waits are bounded.
final class AgentSocket {
    struct Identity {
        var blob: [UInt8]
        var comment: String
    }

    private static let answerLimit = 256 << 10
    private let descriptor: Int32
    private let watch: Watch

    init(path: String, _ watch: Watch) throws(Failure) {
        descriptor = try Socket.connect(path: path)
        self.watch = watch
    }

    deinit { close(descriptor) }

    func identities() throws(Failure) -> [Identity] {
        let answer = try ask([11])
        guard answer.first == 12 else { throw broken }
        var reader = WireReader(Array(answer.dropFirst()))
        var found: [Identity] = []
        for _ in 0..<min(try reader.number(), 64) {
            found.append(Identity(blob: try reader.string(), comment: String(decoding: try reader.string(), as: UTF8.self)))
        }
        return found
    }

    /// The signature alone, without its type: as the library wants it.
    func sign(_ data: [UInt8], with identity: Identity) throws(Failure) -> [UInt8] {
        let answer = try ask([13] + Wire.string(identity.blob) + Wire.string(data) + Wire.number(0))
        guard answer.first == 14 else { throw Failure("ssh-agent-unavailable", "the SSH agent does not sign with \(identity.comment.prefix(60))") }
        var outer = WireReader(Array(answer.dropFirst()))
        var inner = WireReader(try outer.string())
        _ = try inner.string()
        return try inner.string()
    }

    private var broken: Failure { Failure("ssh-agent-unavailable", "the SSH agent gave no sensible answer") }

    private func ask(_ message: [UInt8]) throws(Failure) -> [UInt8] {
        let deadline = Deadline(seconds: Limits.loginSeconds)
        var rest = Wire.string(message)[...]
        while !rest.isEmpty {
            let sent = Array(rest).withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if sent > 0 {
                rest = rest.dropFirst(sent)
            } else {
                guard errno == EAGAIN, !deadline.isOver else { throw broken }
                try watch.wait(descriptor, POLLOUT, until: deadline)
            }
        }
        var header = WireReader(try receive(4, deadline))
        let count = try header.number()
        guard (1...Self.answerLimit).contains(count) else { throw broken }
        return try receive(count, deadline)
    }

    private func receive(_ count: Int, _ deadline: Deadline) throws(Failure) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            var piece = [UInt8](repeating: 0, count: count - bytes.count)
            let got = recv(descriptor, &piece, piece.count, 0)
            if got > 0 {
                bytes += piece[..<got]
            } else {
                guard got < 0, errno == EAGAIN, !deadline.isOver else { throw broken }
                try watch.wait(descriptor, POLLIN, until: deadline)
            }
        }
        return bytes
    }
}
