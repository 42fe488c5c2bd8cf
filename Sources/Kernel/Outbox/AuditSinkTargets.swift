import Glibc
import JSON
import System

/// Where audit records are copied to besides the trail. Named in the configuration file only: who may write any file of
/// this machine is not for the API to say.
public enum AuditSinkTarget: Sendable, Hashable {
    /// JSON lines appended to a file, synced; a rotated file is opened anew.
    case file(String)
    /// One RFC 5424 message per record to a Unix datagram socket, usually `/dev/log`.
    case syslog(String)

    /// The key of its position in the trail.
    var name: String {
        switch self {
        case .file(let path): "file:\(path)"
        case .syslog(let path): "syslog:\(path)"
        }
    }
}

/// Writes batches; blocks. Used by one thread at a time.
protocol AuditSinkWriter: AnyObject {
    /// All of it, or an error; then the same batch comes again.
    func write(_ lines: [AuditLine]) throws(SystemError)
}

final class AuditFileSink: AuditSinkWriter {
    private let path: String
    private var file: Descriptor?

    init(_ path: String) { self.path = path }

    func write(_ lines: [AuditLine]) throws(SystemError) {
        var text: [UInt8] = []
        for line in lines {
            var writer = JSONWriter(reserving: 512)
            line.write(to: &writer)
            text += writer.finish()
            text.append(0x0A)
        }
        try append(text)
    }

    private func append(_ text: [UInt8]) throws(SystemError) {
        if try !isCurrent() { file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW) }
        do {
            try writeAndSync(text)
        } catch {
            // What part of the batch got through is written again; records have numbers, so a reader can tell.
            file = nil
            throw error
        }
    }

    private func writeAndSync(_ text: [UInt8]) throws(SystemError) {
        switch file {
        case .some(let file):
            try file.write(text.span.bytes, subject: path)
            try file.syncData(subject: path)
        case .none: throw SystemError("write", path, code: EBADF)
        }
    }

    /// False when the file was moved away or deleted since it was opened.
    private func isCurrent() throws(SystemError) -> Bool {
        switch file {
        case .some(let file):
            let opened = try file.status(subject: path)
            guard let now = try? Files.status(path, followLinks: false) else { return false }
            return now.inode == opened.inode && now.device == opened.device
        case .none: return false
        }
    }
}

final class AuditSyslogSink: AuditSinkWriter {
    /// RFC 5424 §6.2.1: facility 13 (log audit), severity 6 (informational).
    private static let priority = 13 * 8 + 6
    /// What a receiver surely takes in one message.
    static let maximumMessage = 8_192
    private let path: String
    private var socket: Int32 = -1

    init(_ path: String) { self.path = path }

    deinit { if socket >= 0 { close(socket) } }

    func write(_ lines: [AuditLine]) throws(SystemError) {
        if socket < 0 { try connect() }
        for line in lines {
            let message = Self.message(line)
            let sent = message.withUnsafeBytes { send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard sent == message.count else {
                let error = SystemError.last("send", path)
                close(socket)
                socket = -1
                throw error
            }
        }
    }

    private func connect() throws(SystemError) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw SystemError("connect", path, code: ENAMETOOLONG)
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let number = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard number >= 0 else { throw .last("socket", path) }
        // A receiver that hangs must not hang this thread for ever.
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard status == 0 else {
            let error = SystemError.last("connect", path)
            close(number)
            throw error
        }
        socket = number
    }

    /// Without clients and detail when the whole is too long for a message: number and hash find it in the trail.
    static func message(_ line: AuditLine) -> [UInt8] {
        var writer = JSONWriter(reserving: 512)
        line.write(to: &writer)
        var body = writer.finish()
        if body.count > maximumMessage - 128 {
            var short = line
            short.entry.clients = []
            short.entry.detail = "{\"left_out_bytes\":\(body.count)}"
            var writer = JSONWriter(reserving: 512)
            short.write(to: &writer)
            body = writer.finish()
        }
        return Array("<\(priority)>1 - - client-manager - audit - ".utf8) + body
    }
}
