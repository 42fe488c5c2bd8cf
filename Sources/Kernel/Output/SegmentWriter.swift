import AgentProtocol
import Glibc
import System

/// The segment files of a data directory: `output/<16 hexadecimal digits>.segment`, numbered from 1, only ever appended to.
struct SegmentDirectory: Sendable {
    let path: String

    func file(_ segment: UInt64) -> String {
        let digits = String(segment, radix: 16)
        return path + "/" + String(repeating: "0", count: 16 - digits.utf8.count) + digits + ".segment"
    }

    static func number(of name: String) -> UInt64? {
        let suffix = ".segment"
        guard name.utf8.count == 16 + suffix.utf8.count, name.hasSuffix(suffix) else { return nil }
        return UInt64(name.prefix(16), radix: 16)
    }

    func segments() throws(SystemError) -> [UInt64] {
        try Files.list(path).compactMap(Self.number(of:)).sorted()
    }
}

/// Appends to the newest segment. Confined to the one thread of the output store's writer pool.
struct SegmentWriter: ~Copyable {
    static let segmentBytes: UInt64 = 64 << 20

    private let directory: SegmentDirectory
    private var file: Descriptor?
    private(set) var segment: UInt64
    private var position: UInt64 = 0
    private var isDirty = false
    /// Set by a failed sync and never cleared: after one the kernel may count pages as clean that never came to the disk,
    /// so a second sync that succeeds would prove nothing. What was appended since the last good one is not trusted.
    private(set) var failure: SystemError?
    /// Flushes a file; a test puts a failing disk here.
    private let flush: @Sendable (borrowing Descriptor, _ path: String) throws(SystemError) -> Void

    /// - Parameter last: the highest segment number in use; a new file is begun, so that what a crash left at the end of
    ///   the last one is never continued.
    init(
        _ directory: SegmentDirectory, after last: UInt64,
        flush: @escaping @Sendable (borrowing Descriptor, _ path: String) throws(SystemError) -> Void
    ) {
        self.directory = directory
        self.flush = flush
        segment = last
    }

    /// Appends all of `bytes`. After an error nothing is recorded and the same bytes can be tried again.
    mutating func append(_ bytes: [UInt8]) throws(SystemError) -> OutputExtents.Extent {
        if let failure { throw failure }
        if file == nil || position >= Self.segmentBytes { try rotate() }
        try file?.write(bytes.span.bytes, at: position, subject: directory.file(segment))
        isDirty = true
        let extent = OutputExtents.Extent(segment: segment, position: position, length: UInt64(bytes.count))
        position += UInt64(bytes.count)
        return extent
    }

    /// Everything that was appended is on the disk when this returns.
    mutating func sync() throws(SystemError) {
        if let failure { throw failure }
        guard isDirty else { return }
        do throws(SystemError) {
            switch file {
            case .some(let file): try flush(file, directory.file(segment))
            case .none: break
            }
        } catch {
            failure = error
            throw error
        }
        isDirty = false
    }

    private mutating func rotate() throws(SystemError) {
        try sync()
        let next = segment + 1
        let opened = try Descriptor.open(directory.file(next), O_RDWR | O_CREAT | O_EXCL)
        try Files.syncDirectory(directory.path)
        file = consume opened
        segment = next
        position = 0
    }
}
