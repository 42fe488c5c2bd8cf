import AgentProtocol
import Crypto
import Glibc
import Synchronization
import System

/// What a push does with the disk, on the transfer's own line of work. `IncomingFile` and `IncomingTree`.
protocol Incoming: AnyObject, Sendable {
    /// Takes the bytes; what is durable since, if that is more.
    func write(_ bytes: [UInt8]) throws(FileFailure) -> IncomingNews
    /// Everything has come: puts it into its place.
    func finish(length: UInt64, _ digest: SHA256.Digest) throws(FileFailure) -> TransferResult
    /// Makes what has come durable, to go on from later. What cannot be is sent again.
    func pause()
}

struct IncomingNews: Sendable {
    /// Bytes that are written.
    var taken: UInt64
    /// More is durable since, without a mark.
    var durable: UInt64?
    /// A mark is due: to be called where it may wait for the disk, beside the writing. Says what is durable then.
    var mark: (@Sendable () throws(FileFailure) -> UInt64)?
}

/// How a push stands when its agent has looked.
enum IncomingStart {
    /// It goes on at the offset.
    case goesOn(any Incoming, at: UInt64)
    /// It was over already; the core does not know yet.
    case over(TransferResult)
}

/// One file that comes: written beside its target as `.cm-transfer-…`, and renamed over it when it is whole.
final class IncomingFile: Incoming {
    /// A mark (sync of data and journal) at least every so many bytes.
    static let markBytes: UInt64 = 16 << 20
    /// The kernel begins to write that often.
    private static let writeBackBytes: UInt64 = 2 << 20
    /// The disk keeps this for others.
    static let reserveBytes: UInt64 = 16 << 20
    static let temporaryPrefix = ".cm-transfer-"

    /// Nobody else has this name, and nobody can have guessed it.
    static func temporaryName(_ transfer: TransferID) -> String {
        "\(temporaryPrefix)\(transfer)-\(String(UInt32.random(in: 0 ... .max), radix: 36))"
    }

    private let order: TransferOrder
    private let roots: FileRoots
    private let journal: TransferJournal
    private let directory: PlaceDirectory
    private let name: String
    private let file: Descriptor

    private struct Position {
        var hash: SHA256
        var offset: UInt64
        var marked: UInt64
        var pushed: UInt64
        var isMarking = false
    }
    private let position: Mutex<Position>

    private init(
        _ order: TransferOrder, _ roots: FileRoots, _ journal: TransferJournal, _ directory: consuming PlaceDirectory,
        _ name: String, _ file: consuming Descriptor, _ hash: SHA256, _ offset: UInt64
    ) {
        self.order = order
        self.roots = roots
        self.journal = journal
        self.directory = directory
        self.name = name
        self.file = file
        position = Mutex(Position(hash: hash, offset: offset, marked: offset, pushed: offset))
    }

    // MARK: Begin

    /// Goes on with what `kept` has, or begins.
    /// - Parameter source: remembered with it: from which version of something outside the bytes come.
    static func begin(
        _ order: TransferOrder, _ roots: FileRoots, _ journals: String, kept: TransferJournal?, source: String = ""
    ) throws(FileFailure) -> IncomingStart {
        if let kept, kept.mark.phase == .ended, let result = kept.mark.result { return .over(result) }
        return try roots.about(order.path) {
            if let kept {
                if let start = try goOn(order, roots, kept) { return start }
                forget(kept)
            }
            let place = try roots.place(order.path, writes: true, makesParents: order.makesParents)
            guard let directory = try place.directory.path() else { throw SystemError("open", order.path, code: ENOENT) }
            return try begin(order, roots, journals, place, in: directory, source)
        }
    }

    private static func begin(
        _ order: TransferOrder, _ roots: FileRoots, _ journals: String, _ place: consuming FileRoots.Place, in directory: String,
        _ source: String
    ) throws(SystemError) -> IncomingStart {
        let old = try place.directory.status(place.name)
        switch old?.kind {
        case nil: break
        case .file: if !order.replaces { throw SystemError("open", order.path, code: EEXIST) }
        case .directory: throw SystemError("open", order.path, code: EISDIR)
        // A link would be replaced and not what it leads to, which nobody expects.
        case .symbolicLink, .other: throw SystemError("open", order.path, code: EMEDIUMTYPE)
        }
        let free = try place.directory.freeSpace()
        guard free > reserveBytes, free - reserveBytes >= order.size else { throw SystemError("write", order.path, code: ENOSPC) }
        let temporary = temporaryName(order.transfer)
        let journal = try TransferJournal.create(
            journals, TransferJournal.Head(order: order, directory: directory, temporary: temporary, source: source))
        do throws(SystemError) {
            let file = try place.directory.open(temporary, O_RDWR | O_CREAT | O_EXCL)
            killPoint("transfer.create.after")
            if order.size > 0 { try file.reserve(Int64(clamping: order.size)) }
            if let old { file.tryOwner(old.owner, old.group) }
            let name = place.name
            return .goesOn(
                IncomingFile(order, roots, journal, take(place), name, file, SHA256(), 0), at: 0)
        } catch {
            forget(journal)
            throw error
        }
    }

    private static func take(_ place: consuming FileRoots.Place) -> PlaceDirectory { place.intoDirectory() }

    /// `nil`: what is kept cannot be gone on with.
    private static func goOn(
        _ order: TransferOrder, _ roots: FileRoots, _ journal: TransferJournal
    ) throws -> IncomingStart? {
        let place = try roots.place(order.path, writes: true)
        // Another directory has come to this path since: what lies in the old one is not gone on with.
        guard try place.directory.path() == journal.head.directory else { return nil }
        let mark = journal.mark
        guard journal.head.order.path == order.path, journal.head.order.size == order.size,
            let found = try place.directory.status(journal.head.temporary)
        else {
            // It was renamed, and whoever did it died before he could say so.
            guard mark.phase == .sealed, let result = mark.result else { return nil }
            try place.directory.sync()
            try journal.write(TransferJournal.Mark(phase: .ended, offset: mark.offset, hash: mark.hash, result: result))
            return .over(result)
        }
        guard found.kind == .file, found.size >= mark.offset, let hash = SHA256(resuming: mark.hash) else { return nil }
        let file = try place.directory.open(journal.head.temporary, O_RDWR)
        try file.truncate(to: mark.offset)
        if order.size > mark.offset { try file.reserve(Int64(clamping: order.size)) }
        let name = place.name
        let incoming = IncomingFile(order, roots, journal, take(place), name, file, hash, mark.offset)
        guard mark.phase == .sealed, let result = mark.result else { return .goesOn(incoming, at: mark.offset) }
        return .over(try incoming.install(result))
    }

    // MARK: Bytes

    func write(_ bytes: [UInt8]) throws(FileFailure) -> IncomingNews {
        do throws(SystemError) {
            return try position.withLock { (position) throws(SystemError) in
                guard position.offset + UInt64(bytes.count) <= order.size else { throw SystemError("write", order.path, code: EFBIG) }
                position.hash.update(bytes.span.bytes)
                killPoint("transfer.write.before")
                try file.write(bytes.span.bytes, at: position.offset, subject: order.path)
                position.offset += UInt64(bytes.count)
                if position.offset - position.pushed >= Self.writeBackBytes {
                    file.startWriting(from: position.pushed, count: Int(position.offset - position.pushed))
                    position.pushed = position.offset
                }
                var news = IncomingNews(taken: position.offset)
                if position.offset - position.marked >= Self.markBytes, !position.isMarking {
                    position.isMarking = true
                    position.marked = position.offset
                    let (offset, hash) = (position.offset, position.hash.exported)
                    news.mark = { [self] () throws(FileFailure) in
                        defer { self.position.withLock { $0.isMarking = false } }
                        return try mark(offset, hash)
                    }
                }
                return news
            }
        } catch { throw roots.failure(error, order.path) }
    }

    private func mark(_ offset: UInt64, _ hash: [UInt8]) throws(FileFailure) -> UInt64 {
        do throws(SystemError) {
            killPoint("transfer.sync.before")
            try file.syncData(subject: order.path)
            killPoint("transfer.sync.after")
            try journal.write(TransferJournal.Mark(offset: offset, hash: hash))
            return offset
        } catch { throw roots.failure(error, order.path) }
    }

    func finish(length: UInt64, _ digest: SHA256.Digest) throws(FileFailure) -> TransferResult {
        try finish(length: length, expecting: digest, tells: false)
    }

    /// - Parameters:
    ///   - digest: `nil`: nobody has said which hash it has to have.
    ///   - tells: the result says the hash.
    func finish(
        length: UInt64, expecting digest: SHA256.Digest?, tells: Bool
    ) throws(FileFailure) -> TransferResult {
        let (hash, offset) = position.withLock { ($0.hash, $0.offset) }
        guard length == order.size, offset == order.size else {
            throw FileFailure("transfer-cut", "\(offset) of \(order.size) bytes have come")
        }
        if let digest, hash.digest != digest {
            throw FileFailure("digest-mismatch", "the bytes that came have the hash \(hash.digest.hex), not \(digest.hex)")
        }
        do throws(SystemError) {
            let old = try directory.status(name)
            try file.setMode(mode_t(order.mode ?? (old?.kind == .file ? UInt16(old?.mode ?? 0o644) : 0o644)))
            if let modified = order.modified { try file.setModified(nanoseconds: modified) }
            killPoint("transfer.seal.before")
            try file.sync(subject: order.path)
            let result = TransferResult(bytes: offset, entries: 1, digest: tells ? hash.digest : nil)
            try journal.write(TransferJournal.Mark(phase: .sealed, offset: offset, hash: hash.exported, result: result))
            return try install(result)
        } catch { throw roots.failure(error, order.path) }
    }

    private func install(_ result: TransferResult) throws(SystemError) -> TransferResult {
        killPoint("transfer.rename.before")
        try directory.rename(journal.head.temporary, to: name, replaces: order.replaces)
        killPoint("transfer.rename.after")
        try directory.sync()
        try journal.write(
            TransferJournal.Mark(phase: .ended, offset: order.size, hash: journal.mark.hash, result: result))
        return result
    }

    func pause() {
        let (hash, offset) = position.withLock { ($0.hash.exported, $0.offset) }
        _ = try? mark(offset, hash)
    }

    // MARK: What is left over

    /// Removes what a transfer has beside its target. Its name is its own: nobody else's file is ever taken for it.
    static func clear(_ journal: TransferJournal) {
        if !journal.head.temporary.isEmpty, let directory = try? Descriptor.open(journal.head.directory, O_RDONLY | O_DIRECTORY) {
            let place = PlaceDirectory(directory)
            // Of a tree it is a directory.
            if let status = try? place.status(journal.head.temporary), status.kind == .directory {
                if let own = try? place.open(journal.head.temporary, O_RDONLY | O_DIRECTORY) {
                    let inside = PlaceDirectory(own)
                    for name in (try? inside.names(limit: 1 << 20)) ?? [] { try? inside.remove(name) }
                }
                try? place.remove(journal.head.temporary, directory: true)
            } else {
                try? place.remove(journal.head.temporary)
            }
            try? place.sync()
        }
    }

    /// The same, and the memory of it.
    static func forget(_ journal: TransferJournal) {
        clear(journal)
        killPoint("transfer.forget.before")
        try? journal.remove()
    }
}

extension FileRoots.Place {
    consuming func intoDirectory() -> PlaceDirectory { directory }
}
