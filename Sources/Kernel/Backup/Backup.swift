import Crypto
import Glibc
import JSON
import Reactor
import System

/// A copy of a data directory, taken while the core runs or not: `client-manager backup` and `restore`.
///
/// The database goes first, as of one moment; files that it speaks of are synced before it mentions them, so what is
/// copied afterwards holds at least that. `backup.json` is written last: without it a backup is not complete. It holds
/// the core's private keys and must be kept like them.
public enum Backup {
    static let manifestName = "backup.json"
    static let format = "client-manager-backup-1"
    private static let database = "core.sqlite3"

    public struct Summary: Sendable, Equatable {
        public var files: Int
        public var bytes: UInt64
    }

    /// - Parameter destination: a directory that does not exist yet, or is empty.
    public static func make(dataDirectory source: String, to destination: String) throws(Problem) -> Summary {
        guard Files.exists(source + "/" + database) else { throw .notFound("there is no database in \(source)") }
        do {
            try claim(destination)
            var entries = [try copyDatabase(source, destination)]
            var names: [String] = []
            try collect(source, "", depth: 0, into: &names)
            for name in names {
                // Output that retention removed since the listing is no loss.
                guard let entry = try BackupFile.copy(name, from: source, to: destination) else { continue }
                entries.append(entry)
            }
            let manifest: JSONValue = [
                "format": .string(format), "created_ms": .integer(Int64(clamping: unixMilliseconds())),
                "files": .array(entries.map(\.json)),
            ]
            try AtomicFile.write(manifest.serialized(), to: destination + "/" + manifestName, mode: 0o600)
            return Summary(files: entries.count, bytes: entries.reduce(0) { $0 + $1.bytes })
        } catch let problem as Problem {
            throw problem
        } catch {
            throw failure("the backup failed: \(error)", error)
        }
    }

    /// Puts a backup into a data directory that does not exist yet, or is empty, and verifies its audit trail.
    public static func restore(from source: String, dataDirectory destination: String) throws(Problem) -> Summary {
        do {
            let text = try Files.read(source + "/" + manifestName, limit: 1 << 30)
            let manifest = try JSONValue(parsing: text, limits: JSONLimits(bytes: 1 << 30))
            guard manifest["format"]?.string == format, let list = manifest["files"]?.array else {
                throw Problem.invalid("\(source)/\(manifestName) is no manifest of a backup")
            }
            let entries = try list.map { (value) throws(Problem) in try BackupFile(value) }
            try claim(destination)
            for entry in entries {
                guard let copied = try BackupFile.copy(entry.name, from: source, to: destination), copied == entry else {
                    throw Problem(
                        409, "backup-damaged", "\(source)/\(entry.name) is missing or was changed since the backup")
                }
            }
            let report = try AuditVerification.verify(dataDirectory: destination)
            if let fault = report.fault {
                throw Problem(409, "backup-damaged", "the audit trail of the backup is broken: \(fault.reason)")
            }
            return Summary(files: entries.count, bytes: entries.reduce(0) { $0 + $1.bytes })
        } catch let problem as Problem {
            throw problem
        } catch let error as JSONError {
            throw .invalid("\(source)/\(manifestName) is not JSON: \(error)")
        } catch {
            throw failure("the restore failed: \(error)", error)
        }
    }

    private static func claim(_ directory: String) throws {
        try Files.makeDirectories(directory)
        guard try Files.list(directory, limit: 16).isEmpty else {
            throw Problem.conflict("not-empty", "\(directory) is not empty: name a directory that does not exist yet")
        }
    }

    private static func copyDatabase(_ source: String, _ destination: String) throws -> BackupFile {
        let target = destination + "/" + database
        do throws(StoreError) {
            let connection = try Connection(path: source + "/" + database, mode: .checkpointer, options: StoreOptions())
            defer { connection.close() }
            try connection.copy(to: target)
        } catch {
            throw error.problem
        }
        try Files.changeMode(target, 0o600)
        return try BackupFile.syncAndHash(database, in: destination)
    }

    /// Everything but the database, locks and what belongs to the running process. Links are not followed.
    private static func collect(_ root: String, _ prefix: String, depth: Int, into names: inout [String]) throws {
        guard depth < 16 else { throw Problem.invalid("\(root)/\(prefix) is nested too deep") }
        for name in try Files.list(root + "/" + prefix, limit: 10_000_000).sorted() {
            if depth == 0, ["lock", "run"].contains(name) || name.hasPrefix(database) { continue }
            let path = prefix.isEmpty ? name : prefix + "/" + name
            guard let status = try? Files.status(root + "/" + path, followLinks: false) else { continue }
            switch status.kind {
            case .file: names.append(path)
            case .directory: try collect(root, path, depth: depth + 1, into: &names)
            case .symbolicLink, .other: continue
            }
        }
    }

    private static func failure(_ text: String, _ error: any Error) -> Problem {
        if let error = error as? SystemError, error.isOutOfSpace { return Problem(507, "disk-full", text) }
        return Problem(500, "backup-failed", text)
    }
}

/// One file of a backup.
struct BackupFile: Equatable {
    /// Relative, without `.` and `..`.
    var name: String
    var bytes: UInt64
    var mode: mode_t
    var hash: SHA256.Digest

    var json: JSONValue {
        [
            "name": .string(name), "bytes": .integer(Int64(clamping: bytes)), "mode": .integer(Int64(mode)),
            "sha256": .string(hash.hex),
        ]
    }

    init(name: String, bytes: UInt64, mode: mode_t, hash: SHA256.Digest) {
        self.name = name
        self.bytes = bytes
        self.mode = mode
        self.hash = hash
    }

    /// A manifest may come from anywhere: a name must stay inside the directory.
    init(_ value: JSONValue) throws(Problem) {
        guard let name = value["name"]?.string, let bytes = value["bytes"]?.integer, bytes >= 0,
            let mode = value["mode"]?.integer, (0...0o777).contains(mode),
            let hash = value["sha256"]?.string.flatMap({ Hex.decode($0) }).flatMap({ SHA256.Digest(bytes: $0) }),
            !name.isEmpty, !name.hasPrefix("/"), !name.utf8.contains(0),
            !name.split(separator: "/", omittingEmptySubsequences: false).contains(where: { ["", ".", ".."].contains($0) })
        else { throw .invalid("the manifest of the backup has a damaged entry") }
        self.init(name: name, bytes: UInt64(bytes), mode: mode_t(mode), hash: hash)
    }

    /// `nil` when the source is not there. The copy is on the disk when this returns.
    static func copy(_ name: String, from source: String, to destination: String) throws(SystemError) -> BackupFile? {
        let from = source + "/" + name
        let target = destination + "/" + name
        let input: Descriptor
        do { input = try Descriptor.open(from, O_RDONLY | O_NOFOLLOW) } catch {
            if error.isMissing { return nil }
            throw error
        }
        let mode = try input.status(subject: from).mode & 0o777
        if let parent = Files.parent(of: target) { try Files.makeDirectories(parent) }
        let output = try Descriptor.open(target, O_WRONLY | O_CREAT | O_EXCL, mode: mode)
        var state = SHA256()
        let bytes = try eachPiece(of: input, from) { (piece) throws(SystemError) in
            state.update(piece)
            try output.write(piece.span.bytes, subject: target)
        }
        try output.sync(subject: target)
        if let parent = Files.parent(of: target) { try Files.syncDirectory(parent) }
        return BackupFile(name: name, bytes: bytes, mode: mode, hash: state.digest)
    }

    static func syncAndHash(_ name: String, in directory: String) throws(SystemError) -> BackupFile {
        let path = directory + "/" + name
        let file = try Descriptor.open(path, O_RDONLY | O_NOFOLLOW)
        try file.sync(subject: path)
        try Files.syncDirectory(directory)
        var state = SHA256()
        let bytes = try eachPiece(of: file, path) { (piece) throws(SystemError) in state.update(piece) }
        return BackupFile(
            name: name, bytes: bytes, mode: try file.status(subject: path).mode & 0o777, hash: state.digest)
    }

    private static func eachPiece(
        of file: borrowing Descriptor, _ path: String, _ body: ([UInt8]) throws(SystemError) -> Void
    ) throws(SystemError) -> UInt64 {
        var offset: UInt64 = 0
        while true {
            var piece: [UInt8] = []
            var failure: SystemError?
            piece.append(addingCapacity: 1 << 20) { (output: inout OutputSpan<UInt8>) in
                output.withUnsafeMutableBufferPointer { free, initialized in
                    guard let base = free.baseAddress else { return }
                    let count = pread(file.number, base + initialized, 1 << 20, off_t(clamping: offset))
                    if count < 0 { failure = .last("pread", path) } else { initialized += count }
                }
            }
            if let failure { throw failure }
            guard !piece.isEmpty else { return offset }
            offset += UInt64(piece.count)
            try body(piece)
        }
    }
}
