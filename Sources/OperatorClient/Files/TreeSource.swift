import Crypto
import Glibc
import System

/// A local tree as one pax archive: directories before what is in them, names in order, links as links. Made while it is
/// read; after an interruption it is made again from the start, and its hash tells whether the tree has changed meanwhile.
final class TreeSource: UploadSource {
    let size: UInt64? = nil
    private let root: String
    private var hash = SHA256()
    private var offset: UInt64 = 0
    /// Directories that are begun: path below the root and names that are left, the next one last.
    private var stack: [(path: String, names: [String])] = []
    private var ready: [UInt8] = []
    private var open: OpenFile?
    private var hasBegun = false
    private var hasEnded = false
    /// What was left out: sockets, pipes, devices.
    private(set) var skipped: [String] = []
    /// Files and their bytes, for the progress.
    private(set) var files = 0

    private final class OpenFile {
        let descriptor: Descriptor
        let path: String
        var left: UInt64
        let padding: Int
        var position: UInt64 = 0
        init(_ descriptor: consuming Descriptor, _ path: String, _ size: UInt64) {
            self.descriptor = descriptor
            self.path = path
            left = size
            padding = PaxWriting.padding(after: size)
        }
    }

    init(_ root: String) throws(OperatorError) {
        self.root = root
        guard let status = try? Files.status(root), status.kind == .directory else {
            throw .usage("\(root) is no directory that can be read")
        }
    }

    var digest: SHA256.Digest { hash.digest }

    func seek(to target: UInt64) throws(OperatorError) {
        guard target != offset else { return }
        hash = SHA256()
        (offset, hasBegun, hasEnded, stack, ready, open, files) = (0, false, false, [], [], nil, 0)
        skipped = []
        while offset < target {
            guard let piece = try make(atMost: Int(min(target - offset, UInt64(uploadPiece)))) else {
                throw OperatorError(.remoteFailure, "\(root) has become smaller while it was sent")
            }
            take(piece)
        }
    }

    func next() throws(OperatorError) -> [UInt8]? {
        guard let piece = try make(atMost: uploadPiece) else { return nil }
        take(piece)
        return piece
    }

    private func take(_ piece: [UInt8]) {
        hash.update(piece.span.bytes)
        offset += UInt64(piece.count)
    }

    // MARK: Making

    private func make(atMost limit: Int) throws(OperatorError) -> [UInt8]? {
        while ready.count < limit, !hasEnded {
            if let file = open { try read(file) } else { try step() }
        }
        guard !ready.isEmpty else { return nil }
        if ready.count <= limit {
            defer { ready = [] }
            return ready
        }
        let piece = Array(ready[..<limit])
        ready.removeFirst(limit)
        return piece
    }

    private func read(_ file: OpenFile) throws(OperatorError) {
        let count = Int(min(file.left, UInt64(uploadPiece)))
        let piece = try readPiece(file.descriptor, at: file.position, count: count, file.path)
        ready += piece
        file.position += UInt64(count)
        file.left -= UInt64(count)
        guard file.left == 0 else { return }
        ready.append(contentsOf: repeatElement(0, count: file.padding))
        open = nil
    }

    private func step() throws(OperatorError) {
        guard hasBegun else {
            hasBegun = true
            return try enter("")
        }
        while let last = stack.indices.last {
            guard let name = stack[last].names.popLast() else {
                stack.removeLast()
                continue
            }
            return try add(stack[last].path.isEmpty ? name : stack[last].path + "/" + name)
        }
        hasEnded = true
        ready += PaxWriting.end
    }

    /// A directory: its own member, and its names for later.
    private func enter(_ path: String) throws(OperatorError) {
        let place = path.isEmpty ? root : root + "/" + path
        do throws(SystemError) {
            let status = try Files.status(place)
            let names = try Files.list(place).sorted(by: >)
            guard stack.count < 256 else { throw SystemError("opendir", place, code: ELOOP) }
            header(PaxEntry(
                path: path.isEmpty ? "." : path, kind: .directory, mode: UInt16(status.mode), modifiedNanoseconds: status.modifiedNanoseconds))
            stack.append((path, names))
        } catch {
            throw .usage("\(place) cannot be read: \(error.reason)")
        }
    }

    private func add(_ path: String) throws(OperatorError) {
        let place = root + "/" + path
        do throws(SystemError) {
            let status = try Files.status(place, followLinks: false)
            var entry = PaxEntry(path: path, kind: .file, mode: UInt16(status.mode), modifiedNanoseconds: status.modifiedNanoseconds)
            switch status.kind {
            case .symbolicLink:
                entry.kind = .symbolicLink
                entry.target = try Files.readLink(place)
                header(entry)
            case .file:
                let file = try Descriptor.open(place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
                let opened = try file.status(subject: place)
                guard opened.kind == .file else { return skipped.append(place) }
                entry.size = opened.size
                files += 1
                header(entry)
                if opened.size > 0 { open = OpenFile(file, place, opened.size) }
            case .other: skipped.append(place)
            case .directory: break
            }
            guard status.kind == .directory else { return }
        } catch {
            throw .usage("\(place) cannot be read: \(error.reason)")
        }
        try enter(path)
    }

    private func header(_ entry: PaxEntry) { PaxWriting.header(of: entry, to: &ready) }
}
