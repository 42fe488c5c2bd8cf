import Glibc
import System

/// A whole file, open for reading. Any number of readers may be open, each may be asked from anywhere and by several tasks
/// at once; a file that is removed meanwhile stays readable until its last reader is let go.
public final class FileReader: Sendable {
    /// Most bytes of one `read`.
    public static let readBytes = 1 << 20

    public let file: StoredFile
    public var size: UInt64 { file.durable }
    private let descriptor: Descriptor
    private let pool: BlockingPool

    init(_ file: StoredFile, _ descriptor: consuming Descriptor, _ pool: BlockingPool) {
        self.file = file
        self.descriptor = descriptor
        self.pool = pool
    }

    /// Bytes from `offset` on, at most `count` and `readBytes`; empty at the end.
    /// - Throws: 500 `file-damaged` when the file is shorter than it should be, 503 `files-busy`.
    public func read(at offset: UInt64, count: Int) async throws(Problem) -> [UInt8] {
        guard offset < size else { return [] }
        let wanted = Int(min(UInt64(min(max(count, 0), Self.readBytes)), size - offset))
        do {
            return try await pool.run { [self] () throws(SystemError) in
                var failure: SystemError?
                let bytes = [UInt8](unsafeUninitializedCapacity: wanted) { buffer, initialized in
                    var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
                    do throws(SystemError) {
                        initialized = try descriptor.read(at: offset, into: &output)
                    } catch {
                        failure = error
                    }
                    _ = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
                }
                if let failure { throw failure }
                guard bytes.count == wanted else { throw SystemError("pread", code: EIO) }
                return bytes
            }
        } catch {
            throw FileStore.problem(error, "file \(file.id) cannot be read")
        }
    }
}
