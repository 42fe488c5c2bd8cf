import Glibc
import Synchronization
import System

/// What the managed store takes: bytes and files against their limits, and what the disk has left. Thread-safe; no I/O but
/// one `statvfs`.
final class FileSpace: Sendable {
    struct Limits: Sendable, Equatable {
        /// Of all files together, unfinished ones with what they announced.
        var totalBytes: UInt64
        var bytesPerFile: UInt64
        /// What the disk must have left, for the database and everybody else.
        var reserveBytes: UInt64
    }

    /// Files of any state.
    static let maximumFiles = 100_000

    private struct State: ~Copyable {
        var files = 0
        var total: UInt64 = 0
        /// What unfinished files are charged with.
        var unfinished: [FileID: UInt64] = [:]
    }
    private let state = Mutex(State())
    private let limits: @Sendable () -> Limits
    private let directory: String
    private let free: @Sendable (_ path: String) throws(SystemError) -> UInt64

    init(
        directory: String, limits: @escaping @Sendable () -> Limits,
        free: @escaping @Sendable (_ path: String) throws(SystemError) -> UInt64
    ) {
        self.directory = directory
        self.limits = limits
        self.free = free
    }

    var used: (files: Int, bytes: UInt64) { state.withLock { ($0.files, $0.total) } }

    /// At the start: what is there already, whatever the limits are now.
    func count(_ file: StoredFile) {
        let bytes = file.isWhole ? file.durable : max(file.size ?? 0, file.durable)
        state.withLock { state in
            state.files += 1
            state.total += bytes
            if !file.isWhole { state.unfinished[file.id] = bytes }
        }
    }

    /// A new unfinished file of `size` bytes (0: not known).
    func admit(_ id: FileID, size: UInt64) throws(Problem) {
        let limits = limits()
        try Self.check(size, limits)
        let refusal = state.withLock { state -> Problem? in
            guard state.files < Self.maximumFiles else {
                return Problem(507, "too-many-files", "the store holds \(state.files) files, which is the most: remove some")
            }
            guard Self.fits(size, state.total, limits) else { return Self.full(limits) }
            state.files += 1
            state.total += size
            state.unfinished[id] = size
            return nil
        }
        if let refusal { throw refusal }
    }

    /// An unfinished file grows to `bytes`; what it announced is paid for.
    func grow(_ id: FileID, to bytes: UInt64) throws(Problem) {
        let limits = limits()
        try Self.check(bytes, limits)
        let refusal = state.withLock { state -> Problem? in
            guard let charged = state.unfinished[id], bytes > charged else { return nil }
            guard Self.fits(bytes - charged, state.total, limits) else { return Self.full(limits) }
            state.total += bytes - charged
            state.unfinished[id] = bytes
            return nil
        }
        if let refusal { throw refusal }
    }

    /// The file is whole with `bytes`.
    func settle(_ id: FileID, bytes: UInt64) {
        state.withLock { state in
            guard let charged = state.unfinished.removeValue(forKey: id) else { return }
            state.total = state.total - charged + bytes
        }
    }

    /// The file is gone.
    func release(_ file: StoredFile) {
        state.withLock { state in
            state.files -= 1
            state.total -= state.unfinished.removeValue(forKey: file.id) ?? (file.isWhole ? file.durable : 0)
        }
    }

    /// - Parameter wanted: beyond the reserve. Blocks for a moment: on the pool's threads.
    func checkDisk(wanted: UInt64 = 0) throws(SystemError) {
        let reserve = limits().reserveBytes
        let left = try free(directory)
        guard left > reserve, left - reserve >= wanted else { throw SystemError("write", code: ENOSPC) }
    }

    private static func check(_ bytes: UInt64, _ limits: Limits) throws(Problem) {
        guard bytes <= limits.bytesPerFile else {
            throw Problem(
                413, "file-too-large",
                "a file of the store may have \(limits.bytesPerFile) bytes (setting file_size_mib)")
        }
    }

    private static func fits(_ more: UInt64, _ total: UInt64, _ limits: Limits) -> Bool {
        total <= limits.totalBytes && more <= limits.totalBytes - total
    }

    private static func full(_ limits: Limits) -> Problem {
        Problem(
            507, "file-store-full",
            "the files of the store may have \(limits.totalBytes) bytes together (setting file_store_mib): remove some")
    }
}
