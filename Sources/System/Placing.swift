import CLinux
import Glibc

/// A directory that is held open, and what happens to names in it. Whatever is renamed or linked above it meanwhile, the
/// names stay in the directory that was looked up. All calls block; nothing follows a link in the last place.
public struct PlaceDirectory: ~Copyable, Sendable {
    private let directory: Descriptor

    public init(_ directory: consuming Descriptor) { self.directory = directory }

    public var number: Int32 { directory.number }

    /// Where the kernel says it is now; `nil` when it was removed.
    public func path() throws(SystemError) -> String? {
        let path = try Files.readLink("/proc/self/fd/\(directory.number)")
        return path.hasSuffix(" (deleted)") ? nil : path
    }

    public func open(_ name: String, _ flags: Int32, mode: mode_t = 0o600) throws(SystemError) -> Descriptor {
        while true {
            let number = openat(directory.number, name, flags | O_CLOEXEC | O_NOFOLLOW, mode)
            if number >= 0 { return Descriptor(owning: number) }
            if errno != EINTR { throw .last("openat", name) }
        }
    }

    /// The same directory once more.
    public func again() throws(SystemError) -> PlaceDirectory { PlaceDirectory(try open(".", O_RDONLY | O_DIRECTORY)) }

    /// `nil`: there is no such name. Of a link itself.
    public func status(_ name: String) throws(SystemError) -> FileStatus? {
        var status = stat()
        if fstatat(directory.number, name, &status, AT_SYMLINK_NOFOLLOW) == 0 { return FileStatus(status) }
        let failure = SystemError.last("fstatat", name)
        if failure.isMissing { return nil }
        throw failure
    }

    public func readLink(_ name: String) throws(SystemError) -> String {
        try withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4_096) { (buffer) throws(SystemError) in
            guard let start = buffer.baseAddress else { throw SystemError("readlinkat", name, code: ENOMEM) }
            let count = readlinkat(directory.number, name, start, buffer.count)
            guard count >= 0 else { throw .last("readlinkat", name) }
            return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    public func makeDirectory(_ name: String, mode: mode_t) throws(SystemError) {
        if mkdirat(directory.number, name, mode) != 0 { throw .last("mkdirat", name) }
    }

    public func makeLink(_ name: String, to target: String) throws(SystemError) {
        if symlinkat(target, directory.number, name) != 0 { throw .last("symlinkat", name) }
    }

    /// A missing one is no error.
    public func remove(_ name: String, directory isDirectory: Bool = false) throws(SystemError) {
        if unlinkat(directory.number, name, isDirectory ? AT_REMOVEDIR : 0) != 0, errno != ENOENT { throw .last("unlinkat", name) }
    }

    /// - Parameter replaces: false: a name that is there is the error `EEXIST`, and it stays.
    public func rename(_ name: String, to target: String, replaces: Bool = true) throws(SystemError) {
        try Self.rename(directory.number, name, directory.number, target, replaces)
    }

    /// Into another directory of the same file system.
    public func rename(
        _ name: String, in other: borrowing PlaceDirectory, to target: String, replaces: Bool = true
    ) throws(SystemError) {
        try Self.rename(directory.number, name, other.directory.number, target, replaces)
    }

    private static func rename(
        _ from: Int32, _ name: String, _ to: Int32, _ target: String, _ replaces: Bool
    ) throws(SystemError) {
        guard !replaces else {
            if renameat(from, name, to, target) != 0 { throw .last("renameat", target) }
            return
        }
        let status = cm_rename_new(from, name, to, target)
        if status == 0 { return }
        guard status == -EINVAL || status == -ENOSYS else { throw SystemError("renameat2", target, code: -status) }
        // This file system cannot; a second name cannot replace either, but only files have one.
        if linkat(from, name, to, target, 0) != 0 { throw .last("linkat", target) }
        if unlinkat(from, name, 0) != 0 { throw .last("unlinkat", name) }
    }

    /// Another name in another directory for a file, not for what a link leads to.
    public func link(_ name: String, in other: borrowing PlaceDirectory, as target: String) throws(SystemError) {
        if linkat(directory.number, name, other.directory.number, target, 0) != 0 { throw .last("linkat", target) }
    }

    /// Puts everything that was written to the file system on the disk.
    public func syncFileSystem() throws(SystemError) { try directory.syncFileSystem() }

    public func sync() throws(SystemError) {
        if fsync(directory.number) != 0 { throw .last("fsync") }
    }

    /// Names without `.` and `..`, sorted by their bytes. More than `limit` is the error `EOVERFLOW`.
    public func names(limit: Int) throws(SystemError) -> [String] {
        let copy = openat(directory.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0 else { throw .last("openat", ".") }
        guard let stream = fdopendir(copy) else {
            let failure = SystemError.last("fdopendir")
            close(copy)
            throw failure
        }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw .last("readdir") }
                return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name == "." || name == ".." { continue }
            guard names.count < limit else { throw SystemError("readdir", code: EOVERFLOW) }
            names.append(name)
        }
    }

    /// Bytes that an unprivileged process may still write here.
    public func freeSpace() throws(SystemError) -> UInt64 { try directory.freeSpace() }
}

extension Descriptor {
    public func freeSpace() throws(SystemError) -> UInt64 {
        var status = statvfs()
        guard fstatvfs(number, &status) == 0 else { throw .last("fstatvfs") }
        return UInt64(status.f_bavail) &* UInt64(status.f_frsize)
    }

    public func setMode(_ mode: mode_t) throws(SystemError) {
        if fchmod(number, mode) != 0 { throw .last("fchmod") }
    }

    /// Only the superuser can give files away; others keep theirs.
    public func tryOwner(_ owner: uid_t, _ group: gid_t) { _ = fchown(number, owner, group) }

    public func setModified(nanoseconds: Int64) throws(SystemError) {
        let (seconds, rest) = (nanoseconds >= 0 ? nanoseconds / 1_000_000_000 : (nanoseconds - 999_999_999) / 1_000_000_000, 1_000_000_000 as Int64)
        let time = timespec(tv_sec: Int(seconds), tv_nsec: Int(nanoseconds - seconds * rest))
        let times = [time, time]
        if futimens(number, times) != 0 { throw .last("futimens") }
    }

    /// Puts everything that was written to this file system on the disk (`syncfs`).
    public func syncFileSystem() throws(SystemError) {
        let status = cm_sync_file_system(number)
        if status < 0 { throw SystemError("syncfs", code: -status) }
    }
}
