import Crypto
import Glibc
import JSON
import System

/// Fetches a stored tree and unpacks it as it comes, beneath one directory and nowhere else: links are never followed, what
/// leads out is left out and said. After an interruption it goes on where it was.
struct TreeDownload {
    private let session: Session
    private let content: ContentFetch

    init(_ session: Session, core: Core, progress: ProgressLine) {
        self.session = session
        content = ContentFetch(session, core: core, progress: progress)
    }

    /// - Parameter path: the directory that becomes the tree; made if it is missing, else added to.
    func fetch(_ file: JSONValue, to path: String) async throws(OperatorError) {
        let wanted = try ContentFetch.Content(file)
        let unpacker = try TreeUnpacker(path)
        var hash = SHA256()
        try await content.run(wanted) { piece throws(OperatorError) in
            hash.update(piece.span.bytes)
            try unpacker.take(piece)
        }
        guard hash.digest.hex == wanted.sha256 else {
            throw OperatorError(.remoteFailure, "the core sent bytes with another SHA-256 than \(wanted.sha256): do not use what is in \(path)")
        }
        try unpacker.finish()
        for name in unpacker.skipped { session.console.complain("left out: " + Table.printable(name)) }
    }
}

/// Makes files out of an archive's bytes.
final class TreeUnpacker {
    private let path: String
    private let root: BeneathRoot
    private var machine = PaxReaderStateMachine()
    private var current: OpenFile?
    /// Modes and times of directories are set last, or nothing could be written into some of them.
    private var directories: [(path: String, entry: PaxEntry)] = []
    private(set) var skipped: [String] = []

    private final class OpenFile {
        let descriptor: Descriptor
        let entry: PaxEntry
        let name: String
        var offset: UInt64 = 0
        init(_ descriptor: consuming Descriptor, _ entry: PaxEntry, _ name: String) {
            self.descriptor = descriptor
            self.entry = entry
            self.name = name
        }
    }

    init(_ path: String) throws(OperatorError) {
        self.path = path
        do throws(SystemError) {
            try Files.makeDirectories(path, mode: 0o755)
            root = try BeneathRoot(path, followsLinks: false)
        } catch {
            throw .usage("\(path) cannot be written: \(error.reason)")
        }
    }

    func take(_ bytes: [UInt8]) throws(OperatorError) {
        var offset = 0
        while true {
            let step: PaxReaderStateMachine.Step
            do throws(PaxReaderStateMachine.Fault) { step = try machine.next(bytes.span, &offset) } catch {
                throw OperatorError(.remoteFailure, "what came is no archive: \(error)")
            }
            switch step {
            case .entry(let entry): try attempt(entry.path) { () throws(SystemError) in try begin(entry) }
            case .data(let range):
                guard let file = current else { continue }
                try attempt(file.name) { () throws(SystemError) in
                    try file.descriptor.write(bytes.span.bytes.extracting(range), at: file.offset, subject: file.name)
                    file.offset += UInt64(range.count)
                    if file.offset == file.entry.size { try place(file) }
                }
            case .more, .end: return
            }
        }
    }

    private func begin(_ entry: PaxEntry) throws(SystemError) {
        current = nil
        guard let parts = entry.parts, entry.targetIsBelow, entry.kind != .hardLink, entry.kind != .other else {
            return skipped.append(entry.path)
        }
        let name = parts.joined(separator: "/")
        switch entry.kind {
        case .directory:
            if !parts.isEmpty { try makeDirectory(name) }
            directories.append((name.isEmpty ? "." : name, entry))
        case .symbolicLink:
            guard let last = parts.last else { return skipped.append(entry.path) }
            let parent = PlaceDirectory(try root.open(parts.dropLast().joined(separator: "/"), O_RDONLY | O_DIRECTORY))
            try parent.remove(String(last))
            try parent.makeLink(String(last), to: entry.target)
        default:
            guard let last = parts.last else { return skipped.append(entry.path) }
            let temporary = (parts.dropLast().map(String.init) + [".\(last.prefix(200)).cm-part"]).joined(separator: "/")
            let file = OpenFile(
                try root.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600), entry, temporary)
            if entry.size == 0 { try place(file) } else { current = file }
        }
    }

    private func makeDirectory(_ name: String) throws(SystemError) {
        do throws(SystemError) { try root.makeDirectory(name, mode: 0o755) } catch {
            guard error.alreadyExists, try root.status(name).kind == .directory else { throw error }
        }
    }

    private func place(_ file: OpenFile) throws(SystemError) {
        try Self.dress(file.descriptor, file.entry)
        let parts = file.entry.parts ?? []
        try root.rename(file.name, to: parts.joined(separator: "/"))
        current = nil
    }

    private static func dress(_ file: borrowing Descriptor, _ entry: PaxEntry) throws(SystemError) {
        try file.setMode(mode_t(entry.mode & 0o777))
        try file.setModified(nanoseconds: entry.modifiedNanoseconds)
    }

    /// The last piece has come.
    func finish() throws(OperatorError) {
        guard machine.isComplete else { throw OperatorError(.remoteFailure, "the archive ends before its end") }
        try attempt(path) { () throws(SystemError) in
            for (name, entry) in directories.reversed() {
                let directory = try root.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                try Self.dress(directory, entry)
            }
        }
    }

    private func attempt(_ name: String, _ body: () throws(SystemError) -> Void) throws(OperatorError) {
        do throws(SystemError) { try body() } catch {
            throw OperatorError(.remoteFailure, "\(RemotePath.joined(path, name)) cannot be written: \(error.reason)")
        }
    }
}
