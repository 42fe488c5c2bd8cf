import AgentProtocol
import Crypto
import Reactor
import System

/// The hash of a file's content, for who compares it with what he has. Blocks as long as reading takes.
enum FileHashing {
    /// A file that is larger than can be read in this time is not hashed.
    private static let longestMilliseconds: UInt64 = 600_000
    private static let pieceBytes = 256 << 10

    static func answer(_ path: String, _ algorithm: FileHash, _ roots: FileRoots) throws(FileFailure) -> FileAnswer {
        try roots.about(path) {
            let file = try roots.file(path)
            let status = try file.status(subject: path)
            let hash =
                switch algorithm {
                case .sha256: try sha256(file, path)
                case .md5: try md5(file, path)
                }
            let after = try file.status(subject: path)
            guard after.size == status.size, after.modifiedNanoseconds == status.modifiedNanoseconds else {
                throw FileFailure("file-changed", "\(path) was changed while it was read")
            }
            return FileAnswer(entries: [FileEntry(path, status)], hash: hash)
        }
    }

    private static func sha256(_ file: borrowing Descriptor, _ path: String) throws -> String {
        var hash = SHA256()
        try pieces(of: file, path) { hash.update($0) }
        return hash.digest.hex
    }

    private static func md5(_ file: borrowing Descriptor, _ path: String) throws -> String {
        var hash = MD5()
        try pieces(of: file, path) { hash.update($0) }
        return Hex.encode(hash.digest)
    }

    private static func pieces(of file: borrowing Descriptor, _ path: String, _ body: (RawSpan) -> Void) throws {
        let end = monotonicNanoseconds() + longestMilliseconds * 1_000_000
        var offset: UInt64 = 0
        while true {
            let piece = try file.bytes(at: offset, count: pieceBytes)
            guard !piece.isEmpty else { return }
            body(piece.span.bytes)
            offset += UInt64(piece.count)
            guard monotonicNanoseconds() < end else {
                throw FileFailure("hash-timeout", "\(path) cannot be read in \(longestMilliseconds / 60_000) minutes")
            }
        }
    }
}
