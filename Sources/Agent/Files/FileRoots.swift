import AgentProtocol
import Glibc
import System

/// Paths as the wire has them.
enum FilePath {
    /// Absolute, no `.` or `..`, no NUL.
    static func isPlain(_ path: String) -> Bool {
        path.utf8.first == UInt8(ascii: "/") && !path.utf8.contains(0) && parts(path).allSatisfy { $0 != "." && $0 != ".." }
    }

    static func parts(_ path: String) -> [Substring] { path.split(separator: "/", omittingEmptySubsequences: true) }

    /// `path` is `root` or lies below it, by its parts.
    static func isInside(_ path: String, _ root: String) -> Bool {
        let (path, root) = (parts(path), parts(root))
        return path.count >= root.count && path[..<root.count].elementsEqual(root)
    }
}

/// Where files of this machine may be touched. Looked up anew for each work, so that a change of the policy counts at once.
///
/// Everything is opened beneath one of the roots by the kernel (`openat2`), so neither `..` nor a link nor a race leads
/// out. Below `/`, which is the root unless the policy names others, `/proc`, `/sys` and the agent's own data are left out:
/// where a directory really is, is asked of the kernel after it was opened.
struct FileRoots: Sendable {
    let policyPath: String
    /// The agent's own data, as the kernel names it.
    let dataDirectory: String

    init(dataDirectory: String) {
        policyPath = dataDirectory + "/policy.json"
        // A root that is no directory would be found out at the first use.
        self.dataDirectory = (try? PlaceDirectory(Descriptor.open(dataDirectory, O_RDONLY | O_DIRECTORY)).path()) ?? dataDirectory
    }

    private var forbidden: [String] { ["/proc", "/sys", dataDirectory] }

    /// A place for one name: its directory, open, and the name in it.
    struct Place: ~Copyable, Sendable {
        let directory: PlaceDirectory
        let name: String
    }

    /// - Parameter makesParents: missing directories above the name are made, mode 0755.
    func place(_ path: String, writes: Bool, makesParents: Bool = false) throws(FileFailure) -> Place {
        let root = try root(of: path, writes: writes)
        let parts = root.parts
        guard let name = parts.last else {
            throw FileFailure("path-not-allowed", "\(path) is a root itself; name something in it")
        }
        let above = parts.dropLast().joined(separator: "/")
        do throws(SystemError) {
            let directory: Descriptor
            do throws(SystemError) { directory = try root.root.open(above, O_RDONLY | O_DIRECTORY) } catch {
                guard makesParents, error.code == ENOENT else { throw error }
                directory = try make(parts.dropLast().map(String.init), in: root.root)
            }
            let place = Place(directory: PlaceDirectory(directory), name: String(name))
            guard let real = try place.directory.path() else { throw SystemError("open", path, code: ENOENT) }
            let full = real == "/" ? "/" + name : real + "/" + name
            guard isAllowed(real), isAllowed(full) else { throw SystemError("open", path, code: EXDEV) }
            return place
        } catch { throw failure(error, path) }
    }

    /// A directory of its own.
    func directory(_ path: String, writes: Bool = false) throws(FileFailure) -> PlaceDirectory {
        PlaceDirectory(try open(path, O_RDONLY | O_DIRECTORY, writes: writes))
    }

    /// A regular file to read. Looked at before it is opened: opening a device or a FIFO may do things or wait.
    func file(_ path: String) throws(FileFailure) -> Descriptor {
        let found = try open(path, pathOnly)
        do throws(SystemError) {
            let kind = try found.status(subject: path).kind
            if kind == .directory { throw SystemError("open", path, code: EISDIR) }
            if kind != .file { throw SystemError("open", path, code: EMEDIUMTYPE) }
            return try Descriptor.open("/proc/self/fd/\(found.number)", O_RDONLY)
        } catch { throw failure(error, path) }
    }

    /// What is there, links followed as far as the root allows it.
    func open(_ path: String, _ flags: Int32, writes: Bool = false) throws(FileFailure) -> Descriptor {
        let root = try root(of: path, writes: writes)
        do throws(SystemError) {
            let descriptor = try root.root.open(root.parts.joined(separator: "/"), flags)
            let real = try Files.readLink("/proc/self/fd/\(descriptor.number)")
            guard isAllowed(real) else { throw SystemError("open", path, code: EXDEV) }
            return descriptor
        } catch { throw failure(error, path) }
    }

    /// One level after the other, each by its open parent, so that nothing is made where nothing may be touched.
    private func make(_ parts: [String], in root: borrowing BeneathRoot) throws(SystemError) -> Descriptor {
        var here = try root.open("", O_RDONLY | O_DIRECTORY)
        for (index, part) in parts.enumerated() {
            let path = parts[...index].joined(separator: "/")
            do throws(SystemError) { here = try root.open(path, O_RDONLY | O_DIRECTORY) } catch {
                guard error.code == ENOENT else { throw error }
                let parent = PlaceDirectory(here)
                guard let real = try parent.path(), isAllowed(real) else { throw SystemError("mkdir", path, code: EXDEV) }
                do throws(SystemError) { try parent.makeDirectory(part, mode: 0o755) } catch { if !error.alreadyExists { throw error } }
                try parent.sync()
                here = try root.open(path, O_RDONLY | O_DIRECTORY)
            }
        }
        return here
    }

    private struct Root: ~Copyable {
        let root: BeneathRoot
        /// Of the path, below it.
        let parts: [Substring]
    }

    private func root(of path: String, writes: Bool) throws(FileFailure) -> Root {
        let policy = LocalPolicy.load(policyPath)
        if let refusal = policy.refusalOfFiles(writes: writes) { throw FileFailure("agent-policy", refusal) }
        guard FilePath.isPlain(path) else {
            throw FileFailure("path-not-allowed", "\(path.prefix(256)) is not an absolute path without '.' and '..'")
        }
        guard isAllowed(path) else {
            throw FileFailure("path-not-allowed", "\(path) is in /proc, /sys or the agent's own data, which are never touched")
        }
        let roots = policy.fileRoots ?? ["/"]
        guard let root = roots.filter({ FilePath.isInside(path, $0) }).max(by: { FilePath.parts($0).count < FilePath.parts($1).count })
        else { throw FileFailure("path-not-allowed", "\(path) is in none of the directories that this client allows") }
        do throws(SystemError) {
            let parts = FilePath.parts(path).dropFirst(FilePath.parts(root).count)
            return Root(root: try BeneathRoot(root), parts: Array(parts))
        } catch { throw failure(error, root) }
    }

    /// `real` is where the kernel says that something is.
    func isAllowed(_ real: String) -> Bool { !forbidden.contains { FilePath.isInside(real, $0) } }

    /// Both kinds of failures in one place, told about `path`.
    func about<Result: ~Copyable>(_ path: String, _ body: () throws -> Result) throws(FileFailure) -> Result {
        do { return try body() } catch let failure as FileFailure { throw failure } catch let error as SystemError {
            throw failure(error, path)
        } catch { throw FileFailure("file-failed", "\(path): \(error)") }
    }

    func failure(_ error: SystemError, _ path: String) -> FileFailure {
        switch error.code {
        case ENOENT, ENOTDIR: FileFailure("path-not-found", "\(path): \(error.reason)")
        case EACCES, EPERM, EROFS: FileFailure("path-denied", "\(path): the agent's user may not: \(error.reason)")
        case EXDEV, ELOOP:
            FileFailure("path-not-allowed", "\(path) leads out of what this client allows (a link, /proc, /sys or the agent's own data)")
        case ENOSPC, EDQUOT: FileFailure("disk-full", "\(path): \(error.reason)")
        case EISDIR: FileFailure("path-is-directory", "\(path) is a directory")
        case EMEDIUMTYPE: FileFailure("path-not-a-file", "\(path) is no regular file")
        case EEXIST: FileFailure("path-exists", "\(path) is there already")
        case ENOTEMPTY: FileFailure("directory-not-empty", "\(path) is not empty")
        default: FileFailure("file-failed", "\(path): \(error)")
        }
    }
}

/// `O_PATH` is behind `_GNU_SOURCE`: names a file without opening it.
let pathOnly: Int32 = 0o10000000
