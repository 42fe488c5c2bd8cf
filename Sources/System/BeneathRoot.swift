import CLinux
import Glibc

/// File access that cannot leave one directory: the kernel (`openat2`, Linux 5.6) refuses absolute paths, `..` above
/// the root and links that lead out, at the moment of the opening, so nobody can swap a directory in between.
///
/// Paths are relative to the root. Refusals: `EXDEV` for a way out, `ELOOP` for a link where links are forbidden,
/// `ENOSYS` on older kernels. All calls block.
public struct BeneathRoot: ~Copyable, Sendable {
    private let root: Descriptor
    public let path: String
    /// False: no symbolic link is followed at all.
    public let followsLinks: Bool

    public init(_ path: String, followsLinks: Bool = true) throws(SystemError) {
        root = try Descriptor.open(path, pathOnly | O_DIRECTORY)
        self.path = path
        self.followsLinks = followsLinks
    }

    /// A directory that is open already: what is beneath it, wherever it is moved to.
    public init(_ directory: consuming Descriptor, path: String, followsLinks: Bool) {
        root = directory
        self.path = path
        self.followsLinks = followsLinks
    }

    /// Of the root itself: to sync it, or to ask where it is.
    public var number: Int32 { root.number }

    /// `open` beneath the root. `mode` counts with `O_CREAT`.
    public func open(_ path: String, _ flags: Int32, mode: mode_t = 0o600) throws(SystemError) -> Descriptor {
        guard !path.utf8.contains(0) else { throw SystemError("openat2", path, code: EINVAL) }
        // Below `/` there is no way out, and links with absolute targets are as good as any.
        let how: Int32 = !followsLinks ? 1 : self.path == "/" ? 2 : 0
        let number = cm_open_beneath(root.number, path.isEmpty ? "." : path, flags, mode, how)
        guard number >= 0 else { throw SystemError("openat2", path, code: -number) }
        return Descriptor(owning: number)
    }

    /// Of the file that `path` leads to.
    public func status(_ path: String) throws(SystemError) -> FileStatus {
        try open(path, pathOnly).status(subject: path)
    }

    public func makeDirectory(_ path: String, mode: mode_t = 0o755) throws(SystemError) {
        let place = try place(of: path)
        if mkdirat(place.directory.number, place.name, mode) != 0 { throw .last("mkdirat", path) }
    }

    /// Removes a file, a link (not what it leads to) or, with `directory`, an empty directory.
    public func remove(_ path: String, directory: Bool = false) throws(SystemError) {
        let place = try place(of: path)
        if unlinkat(place.directory.number, place.name, directory ? AT_REMOVEDIR : 0) != 0 { throw .last("unlinkat", path) }
    }

    public func rename(_ from: String, to target: String) throws(SystemError) {
        let source = try place(of: from)
        let destination = try place(of: target)
        if renameat(source.directory.number, source.name, destination.directory.number, destination.name) != 0 { throw .last("renameat", from) }
    }

    /// fsync of the directory that holds `path`.
    public func syncParent(of path: String) throws(SystemError) {
        let split = try Self.split(path)
        let directory = try open(split.parent, O_RDONLY | O_DIRECTORY)
        try directory.sync(subject: path)
    }

    private struct Place: ~Copyable {
        let directory: Descriptor
        let name: String
    }

    private func place(of path: String) throws(SystemError) -> Place {
        let split = try Self.split(path)
        return Place(directory: try open(split.parent, pathOnly | O_DIRECTORY), name: split.name)
    }

    /// The last part is used with `*at` calls, which follow nothing there; `.` and `..` have no place in it.
    private static func split(_ path: String) throws(SystemError) -> (parent: String, name: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: true)
        guard let name = parts.last, name != ".", name != "..", !path.utf8.contains(0),
            path.utf8.first != UInt8(ascii: "/")
        else { throw SystemError("open beneath", path, code: EINVAL) }
        return (parts.dropLast().joined(separator: "/"), String(name))
    }
}

/// `O_PATH` is behind `_GNU_SOURCE`: names a file without opening it.
private let pathOnly: Int32 = 0o10000000
