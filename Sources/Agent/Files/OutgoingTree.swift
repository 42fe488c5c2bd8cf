import AgentProtocol
import Crypto
import Glibc
import JSON
import Synchronization
import System

/// A directory that goes, as one pax stream: names in the order of their bytes, a directory before what is in it. Pieces end
/// between members or inside a file's bytes, so that each end is a place from which it can be gone on with.
final class OutgoingTree: Outgoing {
    private let order: TransferOrder
    private let roots: FileRoots
    private let journal: TransferJournal

    private struct State {
        var walk: TreeWalk
        var hash: SHA256
        var offset: UInt64
        /// At the ends of pieces that the core has not for good yet.
        var marks: [TransferJournal.Mark] = []
        /// What was read anew and the core has already.
        var skip: UInt64 = 0
    }
    private let state: Mutex<State>

    private init(
        _ order: TransferOrder, _ roots: FileRoots, _ journal: TransferJournal, _ walk: TreeWalk, _ mark: TransferJournal.Mark,
        _ hash: SHA256
    ) {
        self.order = order
        self.roots = roots
        self.journal = journal
        state = Mutex(State(walk: walk, hash: hash, offset: mark.offset, skip: order.from > mark.offset ? order.from - mark.offset : 0))
    }

    static func begin(
        _ order: TransferOrder, _ roots: FileRoots, _ journals: String, kept: TransferJournal?
    ) throws(FileFailure) -> OutgoingStart {
        if let kept, kept.mark.phase == .ended, let result = kept.mark.result { return .over(result) }
        return try roots.about(order.path) {
            let directory = try roots.directory(order.path)
            guard let real = try directory.path() else { throw SystemError("open", order.path, code: ENOENT) }
            let status = try directory.status(".")
            let source = "\(status?.device ?? 0):\(status?.inode ?? 0)"
            let ready = TransferReady(mode: status.map { UInt16($0.mode) }, modified: status?.modifiedNanoseconds)
            if let kept, order.from > 0, kept.head.source == source, kept.mark.offset <= order.from,
                let hash = SHA256(resuming: kept.mark.hash)
            {
                let walk = try TreeWalk(directory, real, roots, links: order.links, from: kept.mark.place)
                let tree = OutgoingTree(order, roots, kept, walk, kept.mark, hash)
                try tree.catchUp()
                return .goesOn(tree, at: order.from, ready)
            }
            if let kept { try kept.remove() }
            let journal = try TransferJournal.create(journals, TransferJournal.Head(order: order, source: source))
            let walk = try TreeWalk(directory, real, roots, links: order.links, from: [:])
            var fresh = order
            fresh.from = 0
            return .goesOn(OutgoingTree(fresh, roots, journal, walk, TransferJournal.Mark(), SHA256()), at: 0, ready)
        }
    }

    /// Reads once more what the core got after the last mark, without sending it.
    private func catchUp() throws {
        try state.withLock { (state) throws in
            while state.skip > 0 {
                // Pieces end where they did before.
                let (bytes, isLast) = try state.walk.piece(limit: WireLimits.transferDataBytes)
                guard !bytes.isEmpty, UInt64(bytes.count) <= state.skip, !isLast || UInt64(bytes.count) == state.skip else {
                    throw FileFailure("file-changed", "\(order.path) is another tree than that of which the core has a part")
                }
                state.hash.update(bytes.span.bytes)
                state.offset += UInt64(bytes.count)
                state.skip -= UInt64(bytes.count)
            }
        }
    }

    func next() throws(FileFailure) -> FileChunk {
        try roots.about(order.path) {
            try state.withLock { (state) throws in
                let (bytes, isLast) = try state.walk.piece(limit: WireLimits.transferDataBytes)
                state.hash.update(bytes.span.bytes)
                state.offset += UInt64(bytes.count)
                guard state.offset <= order.size else {
                    throw FileFailure("file-too-large", "\(order.path) is larger than the \(order.size) bytes that the core takes")
                }
                state.marks.append(
                    TransferJournal.Mark(offset: state.offset, hash: state.hash.exported, place: state.walk.place))
                return FileChunk(bytes: bytes, digest: isLast ? state.hash.digest : nil)
            }
        }
    }

    func durable(upTo offset: UInt64) {
        let mark = state.withLock { state -> TransferJournal.Mark? in
            let found = state.marks.last { $0.offset <= offset }
            state.marks.removeAll { $0.offset <= offset }
            return found
        }
        if let mark { try? journal.write(mark) }
    }
}

/// Where a walk through a tree is, and its bytes as a pax stream. Blocks; used by one at a time.
struct TreeWalk: Sendable {
    /// A piece ends when less than this is left of it: the longest header fits.
    private static let headerBytes = 12 << 10
    private static let directoryEntries = 500_000
    private static let depth = 64

    /// One open directory on the way, with the names that are left in it.
    private final class Level: Sendable {
        let directory: PlaceDirectory
        let path: String
        private let rest: Mutex<ArraySlice<String>>

        init(_ directory: consuming PlaceDirectory, _ path: String, _ names: ArraySlice<String>) {
            self.directory = directory
            self.path = path
            rest = Mutex(names)
        }

        func next() -> String? { rest.withLock { $0.popFirst() } }
    }

    /// A file in the middle.
    private final class Current: Sendable {
        let file: Descriptor
        let path: String
        let size: UInt64
        let identity: String
        init(_ file: consuming Descriptor, _ path: String, _ size: UInt64, _ identity: String) {
            self.file = file
            self.path = path
            self.size = size
            self.identity = identity
        }
    }

    private let base: String
    private let roots: FileRoots
    private let links: LinkPolicy
    private var levels: [Level] = []
    private var current: Current?
    private var done: UInt64 = 0
    /// Of the newest member.
    private var path = ""
    private var hasEnded = false

    /// From where it can be gone on with.
    var place: JSONObject {
        var place: JSONObject = ["path": .string(path)]
        if hasEnded { place["ended"] = .bool(true) }
        if let current {
            place["done"] = .integer(Int64(clamping: done))
            place["identity"] = .string(current.identity)
        }
        return place
    }

    init(
        _ directory: consuming PlaceDirectory, _ base: String, _ roots: FileRoots, links: LinkPolicy, from place: JSONObject
    ) throws {
        self.base = base
        self.roots = roots
        self.links = links
        path = place["path"]?.string ?? ""
        hasEnded = place["ended"]?.bool ?? false
        let parts = path.split(separator: "/").map(String.init)
        let names = try directory.names(limit: Self.directoryEntries)
        levels = [Level(directory, "", names[...])]
        // Down to the newest member: what lies before it has been sent.
        for (index, part) in parts.enumerated() {
            guard let level = levels.last else { break }
            var left = try level.directory.names(limit: Self.directoryEntries)[...]
            left = left.drop { $0.utf8.lexicographicallyPrecedes(part.utf8) }
            let isThere = left.first == part
            let after = isThere ? left.dropFirst() : left
            let parent = level.path
            levels[levels.count - 1] = Level(try level.directory.again(), parent, after)
            guard isThere, let status = try level.directory.status(part) else { break }
            let isLast = index == parts.count - 1
            if isLast, let done = place["done"]?.integer {
                try resume(part, in: level, status, done: UInt64(clamping: done), place["identity"]?.string)
            } else if status.kind == .directory {
                try enter(part, in: level)
            }
        }
    }

    private mutating func resume(
        _ name: String, in level: Level, _ status: FileStatus, done: UInt64, _ identity: String?
    ) throws {
        guard status.kind == .file, Self.identity(status) == identity, done <= status.size else {
            throw FileFailure("file-changed", "\(path) was changed while it was sent")
        }
        current = Current(try level.directory.open(name, O_RDONLY), path, status.size, Self.identity(status))
        self.done = done
    }

    private static func identity(_ status: FileStatus) -> String {
        "\(status.device):\(status.inode):\(status.size):\(status.modifiedNanoseconds)"
    }

    private mutating func enter(_ name: String, in level: Level) throws {
        guard levels.count < Self.depth else {
            throw FileFailure("tree-too-deep", "more than \(Self.depth) directories inside each other below \(base)")
        }
        let directory = PlaceDirectory(try level.directory.open(name, O_RDONLY | O_DIRECTORY))
        let names = try directory.names(limit: Self.directoryEntries)
        levels.append(Level(directory, level.path.isEmpty ? name : level.path + "/" + name, names[...]))
    }

    /// The next bytes of the stream, at most `limit`; true with the last of them.
    mutating func piece(limit: Int) throws -> ([UInt8], isLast: Bool) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(limit)
        while !hasEnded {
            if let current {
                let wanted = min(UInt64(limit - bytes.count), current.size - done)
                if wanted > 0 {
                    let read = try current.file.bytes(at: done, count: Int(wanted))
                    guard read.count == Int(wanted) else {
                        throw FileFailure("file-changed", "\(current.path) became shorter while it was read")
                    }
                    bytes += read
                    done += wanted
                }
                // Padding belongs to the same piece as the last byte, or to the next with a header's room.
                guard done == current.size, limit - bytes.count >= PaxWriting.blockBytes else { break }
                bytes.append(contentsOf: repeatElement(0, count: PaxWriting.padding(after: current.size)))
                self.current = nil
                done = 0
            }
            guard limit - bytes.count >= Self.headerBytes else { break }
            guard try nextMember(&bytes) else {
                bytes += PaxWriting.end
                hasEnded = true
                break
            }
        }
        return (bytes, hasEnded)
    }

    /// Writes the next member's header. False: there is none any more.
    private mutating func nextMember(_ bytes: inout [UInt8]) throws -> Bool {
        while let level = levels.last {
            guard let name = level.next() else {
                levels.removeLast()
                continue
            }
            if name.hasPrefix(IncomingFile.temporaryPrefix) { continue }
            // One that has gone in between is not there.
            guard let status = try level.directory.status(name) else { continue }
            let path = level.path.isEmpty ? name : level.path + "/" + name
            guard roots.isAllowed(base == "/" ? "/" + path : base + "/" + path) else { continue }
            var entry = PaxEntry(
                path: path, kind: .file, mode: UInt16(status.mode), modifiedNanoseconds: status.modifiedNanoseconds)
            switch status.kind {
            case .directory:
                entry.kind = .directory
                try enter(name, in: level)
            case .symbolicLink:
                if links == .skip { continue }
                entry.kind = .symbolicLink
                entry.target = try level.directory.readLink(name)
            case .file:
                let file = try level.directory.open(name, O_RDONLY)
                // What it is now, not what it was when it was looked at.
                let opened = try file.status(subject: path)
                guard opened.kind == .file else { continue }
                entry.size = opened.size
                current = Current(file, path, opened.size, Self.identity(opened))
                done = 0
            // Sockets, pipes and devices are no files.
            case .other: continue
            }
            self.path = path
            PaxWriting.header(of: entry, to: &bytes)
            return true
        }
        return false
    }
}
