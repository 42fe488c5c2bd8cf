import CLinux
import Glibc

/// What `stat` says about a file.
public struct FileStatus: Sendable, Equatable {
    public enum Kind: Sendable { case file, directory, symbolicLink, other }
    public let kind: Kind
    public let size: UInt64
    /// Permission bits (07777).
    public let mode: mode_t
    public let owner: uid_t
    public let group: gid_t
    public let device: UInt64
    public let inode: UInt64
    public let modifiedNanoseconds: Int64

    init(_ status: stat) {
        kind =
            switch status.st_mode & S_IFMT {
            case S_IFREG: .file
            case S_IFDIR: .directory
            case S_IFLNK: .symbolicLink
            default: .other
            }
        size = UInt64(clamping: status.st_size)
        mode = status.st_mode & 0o7777
        owner = status.st_uid
        group = status.st_gid
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        modifiedNanoseconds = Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    }
}

/// Small POSIX file operations with typed errors. All of them block: on a loop only for small files of our own
/// directories, everything else through `BlockingPool`.
public enum Files {
    /// The whole file. More than `limit` bytes is the error `EFBIG`, so that a grown or wrong file costs nothing.
    public static func read(_ path: String, limit: Int) throws(SystemError) -> [UInt8] {
        let file = try Descriptor.open(path, O_RDONLY)
        let expected = Int(clamping: try file.status(subject: path).size)
        guard expected <= limit else { throw SystemError("read", path, code: EFBIG) }
        var bytes: [UInt8] = []
        // Files of /proc and /sys say 0 and have content, hence one byte more than expected and a loop.
        var room = max(expected + 1, 512)
        while true {
            var failure: SystemError?
            let before = bytes.count
            bytes.append(addingCapacity: room) { (output: inout OutputSpan<UInt8>) in
                output.withUnsafeMutableBufferPointer { buffer, initialized in
                    while initialized < buffer.count, let start = buffer.baseAddress {
                        let count = pread(
                            file.number, start + initialized, buffer.count - initialized, off_t(before + initialized))
                        if count > 0 {
                            initialized += count
                        } else if count == 0 {
                            return
                        } else if errno != EINTR {
                            failure = .last("pread", path)
                            return
                        }
                    }
                }
            }
            if let failure { throw failure }
            guard bytes.count <= limit else { throw SystemError("read", path, code: EFBIG) }
            if bytes.count - before < room { return bytes }
            room = min(bytes.count, limit - bytes.count + 1)
        }
    }

    /// `nil` when there is no such file; other failures throw.
    public static func readIfPresent(_ path: String, limit: Int) throws(SystemError) -> [UInt8]? {
        do { return try read(path, limit: limit) } catch {
            if error.isMissing { return nil }
            throw error
        }
    }

    public static func status(_ path: String, followLinks: Bool = true) throws(SystemError) -> FileStatus {
        var status = stat()
        guard (followLinks ? stat(path, &status) : lstat(path, &status)) == 0 else { throw .last("stat", path) }
        return FileStatus(status)
    }

    /// Where a symbolic link points.
    public static func readLink(_ path: String) throws(SystemError) -> String {
        try withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4_096) { (buffer) throws(SystemError) in
            guard let start = buffer.baseAddress else { throw SystemError("readlink", path, code: ENOMEM) }
            let count = readlink(path, start, buffer.count)
            guard count >= 0 else { throw .last("readlink", path) }
            return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    public static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Makes `path` and what is missing above it; an existing directory is left as it is. The names of new ones are
    /// durable when this returns: what is synced inside them would be lost with them.
    public static func makeDirectories(_ path: String, mode: mode_t = 0o700) throws(SystemError) {
        if mkdir(path, mode) == 0 { return try syncNames(parent(of: path) ?? ".") }
        if errno == ENOENT, let parent = parent(of: path) {
            try makeDirectories(parent, mode: mode)
            if mkdir(path, mode) == 0 { return try syncNames(parent) }
        }
        let failure = SystemError.last("mkdir", path)
        var status = stat()
        guard failure.alreadyExists, stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { throw failure }
    }

    /// File systems that live in memory, such as control groups, have nothing to sync and say so (`EINVAL`).
    private static func syncNames(_ directory: String) throws(SystemError) {
        do throws(SystemError) { try syncDirectory(directory) } catch { if error.code != EINVAL { throw error } }
    }

    /// Makes one directory that must not exist yet.
    public static func makeDirectory(_ path: String, mode: mode_t = 0o700) throws(SystemError) {
        if mkdir(path, mode) != 0 { throw .last("mkdir", path) }
    }

    /// Puts a directory's entries on the disk: needed after each create, rename and unlink that must last.
    public static func syncDirectory(_ path: String) throws(SystemError) {
        let directory = try Descriptor.open(path, O_RDONLY | O_DIRECTORY)
        try directory.sync(subject: path)
    }

    public static func rename(_ from: String, to target: String) throws(SystemError) {
        if Glibc.rename(from, target) != 0 { throw .last("rename", "\(from) to \(target)") }
    }

    /// Removes one file; a missing one is no error.
    public static func remove(_ path: String) throws(SystemError) {
        if unlink(path) != 0, errno != ENOENT { throw .last("unlink", path) }
    }

    public static func changeMode(_ path: String, _ mode: mode_t) throws(SystemError) {
        if chmod(path, mode) != 0 { throw .last("chmod", path) }
    }

    /// Names in a directory without `.` and `..`, unsorted. More than `limit` is the error `EOVERFLOW`.
    public static func list(_ path: String, limit: Int = 1 << 20) throws(SystemError) -> [String] {
        guard let stream = opendir(path) else { throw .last("opendir", path) }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw .last("readdir", path) }
                return names
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name == "." || name == ".." { continue }
            guard names.count < limit else { throw SystemError("readdir", path, code: EOVERFLOW) }
            names.append(name)
        }
    }

    /// Removes a directory of our own with everything in it; links are removed, never followed. A missing one is no
    /// error. Directories deeper than 64 are refused (`ELOOP`).
    public static func removeTree(_ path: String, depth: Int = 64) throws(SystemError) {
        if unlink(path) == 0 { return }
        if errno == ENOENT { return }
        guard errno == EISDIR || errno == EPERM else { throw .last("unlink", path) }
        guard depth > 0 else { throw SystemError("removeTree", path, code: ELOOP) }
        for name in try list(path) { try removeTree(path + "/" + name, depth: depth - 1) }
        if rmdir(path) != 0, errno != ENOENT { throw .last("rmdir", path) }
    }

    /// Bytes that an unprivileged process may still write to the file system of `path`.
    public static func freeSpace(_ path: String) throws(SystemError) -> UInt64 {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { throw .last("statvfs", path) }
        return UInt64(status.f_bavail) &* UInt64(status.f_frsize)
    }

    /// Whether the file system of `path` lives in memory and nowhere else (tmpfs, ramfs; what swaps is another matter).
    public static func isInMemory(_ path: String) throws(SystemError) -> Bool {
        let answer = cm_in_memory(path)
        guard answer >= 0 else { throw SystemError("statfs", path, code: -answer) }
        return answer > 0
    }

    /// The directory that holds `path`: `/a` for `/a/b`, `.` for `b`, `nil` for `/`.
    public static func parent(of path: String) -> String? {
        let trimmed = path.utf8.count > 1 && path.utf8.last == UInt8(ascii: "/") ? String(path.dropLast()) : path
        guard trimmed != "/" else { return nil }
        guard let slash = trimmed.utf8.lastIndex(of: UInt8(ascii: "/")) else { return trimmed.isEmpty ? nil : "." }
        return slash == trimmed.startIndex ? "/" : String(trimmed[..<slash])
    }
}
