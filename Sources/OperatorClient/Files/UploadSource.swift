import Crypto
import Glibc
import System

/// Bytes on their way to the core, from the start or, after an interruption, from where the core has them for good. Their
/// SHA-256 is taken as they are read. Reading blocks: the local disk is the pace.
protocol UploadSource: AnyObject {
    /// `nil`: not known before the end.
    var size: UInt64? { get }
    /// Of everything from the first byte on; right once `next` has given `nil`.
    var digest: SHA256.Digest { get }
    /// The next `next` begins at this byte.
    func seek(to offset: UInt64) throws(OperatorError)
    /// The next piece, `nil` after the last.
    func next() throws(OperatorError) -> [UInt8]?
}

/// Bytes of one read.
let uploadPiece = 256 << 10

/// Exactly `count` bytes of a file.
func readPiece(
    _ file: borrowing Descriptor, at offset: UInt64, count: Int, _ path: String
) throws(OperatorError) -> [UInt8] {
    var failure: SystemError?
    let piece = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
        var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
        do throws(SystemError) { initialized = try file.read(at: offset, into: &output, subject: path) } catch { failure = error }
        _ = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
    }
    guard failure == nil, piece.count == count else {
        throw OperatorError(.remoteFailure, "\(path) \(failure.map { "cannot be read: \($0.reason)" } ?? "became shorter while it was read")")
    }
    return piece
}

/// One local file, as long as it was when it was opened.
final class LocalFileSource: UploadSource {
    let size: UInt64?
    private let length: UInt64
    private let path: String
    private let file: Descriptor
    private var hash = SHA256()
    private var offset: UInt64 = 0

    init(_ path: String) throws(OperatorError) {
        self.path = path
        do throws(SystemError) {
            file = try Descriptor.open(path, O_RDONLY)
            let status = try file.status(subject: path)
            guard status.kind == .file else { throw SystemError("read", path, code: status.kind == .directory ? EISDIR : EINVAL) }
            length = status.size
            size = status.size
        } catch {
            throw .usage("\(path) cannot be read: \(error.reason)")
        }
    }

    var digest: SHA256.Digest { hash.digest }

    func seek(to target: UInt64) throws(OperatorError) {
        if target < offset {
            hash = SHA256()
            offset = 0
        }
        // What the core has already is read again for the hash alone.
        while offset < target {
            guard try read(atMost: target - offset) != nil else {
                throw OperatorError(.usage, "\(path) has \(length) bytes, and the core has \(target) of it: it is another file")
            }
        }
    }

    func next() throws(OperatorError) -> [UInt8]? { try read(atMost: UInt64(uploadPiece)) }

    private func read(atMost limit: UInt64) throws(OperatorError) -> [UInt8]? {
        guard offset < length else { return nil }
        let count = Int(min(limit, UInt64(uploadPiece), length - offset))
        let piece = try readPiece(file, at: offset, count: count, path)
        hash.update(piece.span.bytes)
        offset += UInt64(count)
        return piece
    }
}

/// Standard input: it comes once.
final class StandardInputSource: UploadSource {
    let size: UInt64? = nil
    private var hash = SHA256()
    private var offset: UInt64 = 0
    var digest: SHA256.Digest { hash.digest }

    func seek(to target: UInt64) throws(OperatorError) {
        guard target == offset else {
            throw OperatorError(.unreachable, "the connection broke, and standard input cannot be read again")
        }
    }

    func next() throws(OperatorError) -> [UInt8]? {
        var count = 0
        let piece = [UInt8](unsafeUninitializedCapacity: uploadPiece) { buffer, initialized in
            repeat { count = Glibc.read(STDIN_FILENO, buffer.baseAddress, buffer.count) } while count < 0 && errno == EINTR
            initialized = max(0, count)
        }
        guard count >= 0 else { throw .usage("standard input cannot be read: \(SystemError.last("read").reason)") }
        guard count > 0 else { return nil }
        hash.update(piece.span.bytes)
        offset += UInt64(count)
        return piece
    }
}
