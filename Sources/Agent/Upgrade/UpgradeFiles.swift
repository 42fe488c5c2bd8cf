import AgentProtocol
import Crypto
import Glibc
import JSON
import Program
import Synchronization
import System

/// Where an upgrade stands on the disk: its journal in `A/upgrade`, and two files beside the program, on its file system,
/// so that a rename puts one in the place of the other. Everything blocks.
struct UpgradeFiles: Sendable {
    /// `A/upgrade`.
    let directory: String

    init(dataDirectory: String) { directory = dataDirectory + "/upgrade" }

    private var journal: String { directory + "/journal.json" }

    static func staged(_ program: String) -> String { program + ".staged" }
    static func previous(_ program: String) -> String { program + ".previous" }

    // MARK: Journal

    /// `nil`: no upgrade is known. A journal that cannot be read is set aside, because an agent has to start.
    func load() throws(SystemError) -> UpgradeStateMachine? {
        guard let bytes = try Files.readIfPresent(journal, limit: 64 << 10) else { return nil }
        guard let value = try? JSONValue(parsing: bytes), let machine = UpgradeStateMachine(value) else {
            try Files.rename(journal, to: journal + ".damaged")
            return nil
        }
        return machine
    }

    /// Durable when it returns.
    func save(_ machine: UpgradeStateMachine) throws(SystemError) {
        try Files.makeDirectories(directory)
        try AtomicFile.write(machine.json.serialized(), to: journal)
    }

    func forget() throws(SystemError) {
        try Files.remove(journal)
        if Files.exists(directory) { try Files.syncDirectory(directory) }
    }

    /// Held by a watcher while a new program is on trial.
    func watcherLock() throws(SystemError) -> DirectoryLock {
        try Files.makeDirectories(directory)
        return try DirectoryLock(directory: directory, name: "watch")
    }

    func isWatched() throws(SystemError) -> Bool { try DirectoryLock.isHeld(directory: directory, name: "watch") }

    // MARK: Programs

    func discardStaged(_ program: String) throws(SystemError) { try Files.remove(Self.staged(program)) }

    /// The staged file takes the program's name; the old one keeps another. At no moment is there no program.
    func swap(_ program: String) throws(SystemError) {
        try keepPrevious(program)
        killPoint("agent.upgrade.kept")
        try Files.rename(Self.staged(program), to: program)
        killPoint("agent.upgrade.swapped")
        try Files.syncDirectory(Files.parent(of: program) ?? "/")
    }

    private func keepPrevious(_ program: String) throws(SystemError) {
        let fresh = Self.previous(program) + ".new"
        try Files.remove(fresh)
        // A second name costs no space; where the file system or its owner has none to give, it is copied.
        if link(program, fresh) != 0 {
            try AtomicFile.write(
                try Files.read(program, limit: Int(ReleaseManifest.maximumSize)), to: fresh,
                mode: try Files.status(program).mode)
        }
        try Files.rename(fresh, to: Self.previous(program))
        // Renaming one name of a file to another of the same file does nothing.
        try Files.remove(fresh)
        try Files.syncDirectory(Files.parent(of: program) ?? "/")
    }

    /// The old file takes the program's name again.
    func restorePrevious(_ program: String) throws(SystemError) {
        try Files.rename(Self.previous(program), to: program)
        try Files.syncDirectory(Files.parent(of: program) ?? "/")
    }

    /// Hexadecimal SHA-256 of a program.
    static func hash(_ path: String) throws(SystemError) -> String {
        let file = try Descriptor.open(path, O_RDONLY)
        var digest = SHA256()
        var offset: UInt64 = 0
        while true {
            var failure: SystemError?
            let piece = [UInt8](unsafeUninitializedCapacity: 256 << 10) { buffer, count in
                var span = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
                do throws(SystemError) { try file.read(at: offset, into: &span, subject: path) } catch { failure = error }
                count = span.finalize(for: UnsafeMutableRawBufferPointer(buffer))
            }
            if let failure { throw failure }
            guard !piece.isEmpty else { return digest.digest.hex }
            digest.update(piece.span.bytes)
            offset += UInt64(piece.count)
        }
    }
}

/// The file of a release while it comes: written, hashed and, when it is whole, checked and synced. Used by one thread at
/// a time; the lock is for the compiler.
final class StagedFile: Sendable {
    private struct State: ~Copyable {
        let file: Descriptor
        var digest = SHA256()
        var length: UInt64 = 0
    }
    private let state: Mutex<State>
    let path: String

    init(_ path: String) throws(SystemError) {
        self.path = path
        try Files.remove(path)
        let number = try Descriptor.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600).release()
        state = Mutex(State(file: Descriptor(owning: number)))
    }

    /// - Returns: the length so far.
    func append(_ bytes: [UInt8]) throws(SystemError) -> UInt64 {
        try state.withLock { (state) throws(SystemError) in
            try state.file.write(bytes.span.bytes, at: state.length, subject: path)
            state.digest.update(bytes.span.bytes)
            state.length += UInt64(bytes.count)
            return state.length
        }
    }

    /// Whole, what was signed, with the mode and owner of the program that it is to replace, and on the disk.
    func finish(_ manifest: ReleaseManifest, like program: String) throws(ReleaseRefusal) {
        let (hash, end): (String, [UInt8])
        do throws(SystemError) {
            (hash, end) = try settle(like: program)
        } catch { throw Self.refusal(error) }
        guard hash == manifest.sha256 else {
            throw ReleaseRefusal(
                "release-hash", "the file that came has the SHA-256 \(hash), the release was signed with \(manifest.sha256)")
        }
        guard ReleaseStamp.version(in: end) == manifest.version else {
            throw ReleaseRefusal("release-stamp", "the file does not carry the stamp of version \(manifest.version)")
        }
    }

    /// - Returns: the hash and the last bytes.
    private func settle(like program: String) throws(SystemError) -> (String, [UInt8]) {
        let status = try Files.status(program)
        let found = try state.withLock { (state) throws(SystemError) -> (String, [UInt8]) in
            var end = [UInt8](repeating: 0, count: ReleaseStamp.byteCount)
            let start = Int64(state.length) - Int64(end.count)
            if start >= 0 {
                _ = end.withUnsafeMutableBytes { pread(state.file.number, $0.baseAddress, $0.count, off_t(start)) }
            }
            if fchown(state.file.number, status.owner, status.group) != 0, geteuid() == 0 {
                throw SystemError.last("fchown", path)
            }
            if fchmod(state.file.number, status.mode) != 0 { throw SystemError.last("fchmod", path) }
            try state.file.sync(subject: path)
            return (state.digest.digest.hex, end)
        }
        try Files.syncDirectory(Files.parent(of: path) ?? "/")
        return found
    }

    static func refusal(_ error: SystemError) -> ReleaseRefusal {
        ReleaseRefusal(
            error.isOutOfSpace ? "agent-disk-full" : "upgrade-storage-failed", "the release could not be stored: \(error)")
    }
}

extension UpgradeStateMachine {
    init?(_ value: JSONValue) {
        guard let order = UpgradeOrder(value["order"]), let program = value["program"]?.string, program.hasPrefix("/"),
            let manifest = try? ReleaseManifest(parsing: order.release.manifest),
            let phase = value["phase"]?.string.flatMap({ Phase(rawValue: $0) })
        else { return nil }
        self.init(order, manifest, program: program)
        restore(
            Stored(
                phase: phase, code: value["code"]?.string ?? "", message: value["message"]?.string ?? "",
                startCount: Int(clamping: value["starts"]?.integer ?? 0)))
    }

    var json: JSONValue {
        let stored = stored
        return [
            "order": order.json, "program": .string(program), "phase": .string(stored.phase.rawValue),
            "code": .string(stored.code), "message": .string(stored.message), "starts": .integer(Int64(stored.startCount)),
        ]
    }
}
