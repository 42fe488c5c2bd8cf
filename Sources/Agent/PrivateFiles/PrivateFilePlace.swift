import Crypto
import Glibc
import System

/// Why the agent did not do what was asked about a private file.
struct PrivateFileRefusal: Error, Sendable, Equatable {
    var code: String
    var message: String

    init(_ code: String, _ message: String) {
        self.code = code
        self.message = message
    }

    static func noPlace(_ message: String) -> PrivateFileRefusal { PrivateFileRefusal("private-file-no-place", message) }

    init(_ error: SystemError) {
        code = error.isOutOfSpace ? "private-file-no-space" : "private-file-failed"
        message = "\(error)"
    }
}

/// Runs what may fail at the system, and says so as a refusal.
private func system<Result: ~Copyable>(
    _ body: () throws(SystemError) -> Result
) throws(PrivateFileRefusal) -> Result {
    do throws(SystemError) { return try body() } catch { throw PrivateFileRefusal(error) }
}

/// The directory below which the private files of one agent stand: on a file system that lives in memory, its own and
/// nobody else's. Blocks.
final class PrivateFilePlace: Sendable {
    let path: String
    private let lock: DirectoryLock

    private static let lockName = ".lock"
    static let indexName = ".index"

    /// Where private files go when the machine's owner has named no place, best first.
    static func defaults() -> [String] {
        let user = geteuid()
        // Of the unit that `cm-agent install` writes.
        if let directory = getenv("RUNTIME_DIRECTORY").map({ String(cString: $0) }), directory.hasPrefix("/"), !directory.contains(":") {
            return [directory]
        }
        if user == 0 { return ["/run/client-manager-agent", "/dev/shm/client-manager-agent"] }
        var places: [String] = []
        if let runtime = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }), runtime.hasPrefix("/") {
            places.append(runtime + "/client-manager-agent")
        }
        return places + ["/run/user/\(user)/client-manager-agent", "/dev/shm/client-manager-agent-\(user)"]
    }

    /// The first of `paths` that will do, made if it is missing.
    static func make(_ paths: [String]) throws(PrivateFileRefusal) -> PrivateFilePlace {
        var refusal = PrivateFileRefusal.noPlace("no place for private files is known")
        for path in paths {
            do throws(PrivateFileRefusal) { return try PrivateFilePlace(path) } catch {
                // A place that another agent has is no reason to look on: the owner of the machine is to decide.
                if error.code == "private-file-place-taken" { throw error }
                refusal = error
            }
        }
        throw refusal
    }

    init(_ path: String) throws(PrivateFileRefusal) {
        guard path.hasPrefix("/"), path.utf8.count <= 256, !path.utf8.contains(0), let parent = Files.parent(of: path) else {
            throw .noPlace("\(path) is no absolute path of at most 256 bytes")
        }
        let above = try Self.place { () throws(SystemError) in try Files.status(parent) }
        guard above.owner == 0 || above.owner == geteuid(), above.mode & 0o022 == 0 || above.mode & 0o1000 != 0 else {
            throw .noPlace("others may replace what is in \(parent), so no private file is placed below it")
        }
        try Self.requireMemory(parent)
        // Programs of other users find their file by its name; nobody but the agent lists the names.
        let mode: mode_t = geteuid() == 0 ? 0o711 : 0o700
        try Self.place { () throws(SystemError) in
            if mkdir(path, mode) == 0 { return try Files.changeMode(path, mode) }
            if errno != EEXIST { throw SystemError.last("mkdir", path) }
        }
        let status = try Self.place { () throws(SystemError) in try Files.status(path, followLinks: false) }
        guard status.kind == .directory, status.owner == geteuid(), status.mode & 0o022 == 0 else {
            throw .noPlace("\(path) is no directory that belongs to the agent's user alone")
        }
        try Self.requireMemory(path)
        let names = try Self.place { () throws(SystemError) in try Files.list(path) }
        guard names.isEmpty || names.contains(Self.lockName) else {
            throw .noPlace("\(path) holds what is not this agent's; private files need a directory of their own")
        }
        do throws(SystemError) { lock = try DirectoryLock(directory: path, name: Self.lockName) } catch {
            guard error.wouldBlock else { throw .noPlace("\(error)") }
            throw PrivateFileRefusal(
                "private-file-place-taken",
                "another agent of this machine keeps its private files in \(path); name another directory in policy.json")
        }
        self.path = path
    }

    private static func place<Result>(
        _ body: () throws(SystemError) -> Result
    ) throws(PrivateFileRefusal) -> Result {
        do throws(SystemError) { return try body() } catch { throw .noPlace("\(error)") }
    }

    private static func requireMemory(_ path: String) throws(PrivateFileRefusal) {
        guard try place({ () throws(SystemError) in try Files.isInMemory(path) }) else {
            throw .noPlace("\(path) is not on a file system in memory (tmpfs), and a private file is never placed on a disk")
        }
    }

    func path(of name: String) -> String { path + "/" + name }

    /// Replaces a file as a whole: nobody sees half of it, or sees it with a wrong owner or mode.
    func write(_ content: [UInt8], to name: String, owner: uid_t, group: gid_t, mode: mode_t) throws(PrivateFileRefusal) {
        let fresh = path + "/.new-" + name
        do throws(PrivateFileRefusal) {
            try system { () throws(SystemError) in try Files.remove(fresh) }
            let file = try system { () throws(SystemError) in
                try Descriptor.open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
            }
            try system { () throws(SystemError) in try file.write(content.span.bytes, subject: fresh) }
            if fchown(file.number, owner, group) != 0 {
                guard errno != EPERM else {
                    throw PrivateFileRefusal(
                        "private-file-owner", "the agent is not root and cannot give a file to user \(owner), group \(group)")
                }
                throw PrivateFileRefusal(.last("fchown", fresh))
            }
            if fchmod(file.number, mode) != 0 { throw PrivateFileRefusal(.last("fchmod", fresh)) }
            killPoint("agent.private-file.rename.before")
            try system { () throws(SystemError) in try Files.rename(fresh, to: path(of: name)) }
            killPoint("agent.private-file.rename.after")
        } catch {
            unlink(fresh)
            throw error
        }
    }

    /// What is there now; `nil`: no such file, or none that an agent would have put there.
    func look(_ name: String) -> (bytes: UInt64, sha256: String, owner: uid_t, group: gid_t, mode: mode_t)? {
        do throws(SystemError) {
            let status = try Files.status(path(of: name), followLinks: false)
            guard status.kind == .file else { return nil }
            let content = try Files.read(path(of: name), limit: 1 << 20)
            return (UInt64(content.count), SHA256.digest(content).hex, status.owner, status.group, status.mode)
        } catch { return nil }
    }

    func remove(_ name: String) throws(PrivateFileRefusal) {
        try system { () throws(SystemError) in try Files.remove(path(of: name)) }
    }

    /// What a crash may have left: half a file, and files that stand in no index.
    func sweep(except names: Set<String>) throws(PrivateFileRefusal) {
        try system { () throws(SystemError) in
            for name in try Files.list(path) where name != Self.lockName && name != Self.indexName && !names.contains(name) {
                try Files.removeTree(path + "/" + name)
            }
        }
    }

    func readIndex() throws(PrivateFileRefusal) -> [UInt8]? {
        try system { () throws(SystemError) in try Files.readIfPresent(path(of: Self.indexName), limit: 1 << 20) }
    }

    func writeIndex(_ bytes: [UInt8]) throws(PrivateFileRefusal) {
        try system { () throws(SystemError) in try AtomicFile.write(bytes, to: path(of: Self.indexName)) }
    }

    /// Everything, and the directory itself; what cannot be removed now is swept by the next agent that comes here.
    func clear() { try? system { () throws(SystemError) in try Files.removeTree(path) } }
}
