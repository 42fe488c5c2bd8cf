import Program
import System

/// The few files that `cmctl` reads and keeps. Tests put a dictionary here.
public struct LocalFiles {
    /// A small file; `nil` when it cannot be read.
    public var read: (_ path: String) -> [UInt8]?
    /// Replaces a file as a whole, mode 0600, in a directory of mode 0700.
    public var write: (_ path: String, _ content: [UInt8]) throws(OperatorError) -> Void
    public var remove: (_ path: String) -> Void
    /// Takes the lock of a directory until the result is dropped; `nil` while another process has it.
    public var lock: (_ directory: String) -> (any Sendable)?

    public init(
        read: @escaping (String) -> [UInt8]?, write: @escaping (String, [UInt8]) throws(OperatorError) -> Void,
        remove: @escaping (String) -> Void, lock: @escaping (String) -> (any Sendable)?
    ) {
        self.read = read
        self.write = write
        self.remove = remove
        self.lock = lock
    }

    public static func real() -> LocalFiles {
        LocalFiles(
            read: { try? readSmallFile($0, limit: 1 << 20) },
            write: { (path, content) throws(OperatorError) in
                do throws(SystemError) {
                    if let directory = Files.parent(of: path) { try Files.makeDirectories(directory) }
                    try AtomicFile.write(content, to: path, mode: 0o600)
                } catch {
                    throw OperatorError(.remoteFailure, "cannot write \(path): \(error)")
                }
            }, remove: { try? Files.remove($0) }, lock: { try? DirectoryLock(directory: $0, name: "cmctl.lock") })
    }
}
