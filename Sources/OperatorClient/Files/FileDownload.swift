import Crypto
import Glibc
import JSON
import System

/// Fetches a stored file to a local path: written beside it, compared by hash, synced, renamed over it when whole. What an
/// earlier run left is gone on with.
struct FileDownload {
    private let content: ContentFetch

    init(_ session: Session, core: Core, progress: ProgressLine) {
        content = ContentFetch(session, core: core, progress: progress)
    }

    /// - Parameters:
    ///   - file: as the core shows it.
    ///   - resumes: what lies beside `path` from an earlier run is gone on with instead of being dropped.
    func fetch(
        _ file: JSONValue, to path: String, mode: mode_t = 0o644, modifiedNanoseconds: Int64? = nil, resumes: Bool
    ) async throws(OperatorError) {
        let wanted = try ContentFetch.Content(file)
        let output = try LocalPart(Self.part(of: path, wanted.id), keeping: resumes)
        try await content.run(wanted, from: output.offset, advice: "The same command with --resume goes on.") { piece throws(OperatorError) in
            try output.append(piece)
        }
        guard output.digest == wanted.sha256 else {
            output.remove()
            throw OperatorError(.remoteFailure, "the core sent bytes with another SHA-256 than \(wanted.sha256): nothing was written to \(path)")
        }
        try output.place(at: path, mode: mode, modifiedNanoseconds: modifiedNanoseconds)
    }

    /// `.NAME.ID.part` beside the target: the same for the same file, so that a later run finds it.
    static func part(of path: String, _ id: String) -> String {
        let directory = Files.parent(of: path) ?? "."
        let name = path.split(separator: "/").last.map(String.init) ?? "file"
        return "\(directory == "/" ? "" : directory)/.\(name.suffix(200)).\(id).part"
    }
}

/// The local file that grows.
final class LocalPart {
    private let path: String
    private let file: Descriptor
    private var hash = SHA256()
    private(set) var offset: UInt64 = 0
    var digest: String { hash.digest.hex }

    init(_ path: String, keeping: Bool) throws(OperatorError) {
        self.path = path
        do throws(SystemError) {
            file = try Descriptor.open(path, O_RDWR | O_CREAT | O_NOFOLLOW | (keeping ? 0 : O_TRUNC))
            let size = try file.status(subject: path).size
            while offset < size {
                let count = Int(min(size - offset, UInt64(uploadPiece)))
                guard let piece = try? readPiece(file, at: offset, count: count, path) else { throw SystemError("read", path, code: EIO) }
                hash.update(piece.span.bytes)
                offset += UInt64(count)
            }
        } catch {
            throw .usage("\(path) cannot be written: \(error.reason)")
        }
    }

    func append(_ bytes: [UInt8]) throws(OperatorError) {
        do throws(SystemError) {
            try file.write(bytes.span.bytes, at: offset, subject: path)
        } catch {
            // What does not fit must not keep the disk full.
            if error.isOutOfSpace { remove() }
            throw OperatorError(.remoteFailure, "\(path) cannot be written: \(error.reason)")
        }
        hash.update(bytes.span.bytes)
        offset += UInt64(bytes.count)
    }

    func remove() { try? Files.remove(path) }

    func place(at target: String, mode: mode_t, modifiedNanoseconds: Int64?) throws(OperatorError) {
        do throws(SystemError) {
            try file.setMode(mode)
            if let modifiedNanoseconds { try file.setModified(nanoseconds: modifiedNanoseconds) }
            try file.sync(subject: path)
            try Files.rename(path, to: target)
            try Files.syncDirectory(Files.parent(of: target) ?? ".")
        } catch {
            throw OperatorError(.remoteFailure, "\(target) cannot be put in its place: \(error.reason)")
        }
    }
}
