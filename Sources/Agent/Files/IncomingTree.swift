import AgentProtocol
import Crypto
import Glibc
import JSON
import Synchronization
import System

/// A tree that comes as a pax stream, unpacked below its path. Members are made in a directory of the transfer's own; with
/// one sync for a batch of them they are on the disk, and only then they are renamed into their places: whatever dies,
/// there are whole files only. A batch is durable with the sync of the next one.
///
/// Everything is opened beneath the tree's own directory, and no link in it is followed, so nothing leads out.
final class IncomingTree: Incoming {
    private static let batchMembers = 1_000
    private static let batchBytes: UInt64 = 32 << 20

    private let order: TransferOrder
    private let roots: FileRoots
    private let journal: TransferJournal
    private let tree: TreePlaces

    private struct State {
        var reader = PaxReaderStateMachine()
        var hash: SHA256
        /// Bytes that came.
        var offset: UInt64
        /// The newest end of a member, with the hash up to there.
        var boundary: TransferJournal.Mark
        /// What is in its places but not synced yet.
        var installed: TransferJournal.Mark?
        /// Where the present member ends, its padding included.
        var memberEnd: UInt64
        var members = TreeMembers()
    }
    private let state: Mutex<State>

    private init(
        _ order: TransferOrder, _ roots: FileRoots, _ journal: TransferJournal, _ tree: TreePlaces, _ mark: TransferJournal.Mark,
        _ hash: SHA256
    ) {
        self.order = order
        self.roots = roots
        self.journal = journal
        self.tree = tree
        state = Mutex(
            State(hash: hash, offset: mark.offset, boundary: mark, memberEnd: mark.offset, members: TreeMembers(mark.place)))
    }

    static func begin(
        _ order: TransferOrder, _ roots: FileRoots, _ journals: String, kept: TransferJournal?
    ) throws(FileFailure) -> IncomingStart {
        if let kept, kept.mark.phase == .ended, let result = kept.mark.result { return .over(result) }
        return try roots.about(order.path) {
            let directory = try root(order, roots)
            guard let real = try directory.path() else { throw SystemError("open", order.path, code: ENOENT) }
            if let kept, kept.head.directory == real, kept.head.order.size == order.size, let hash = SHA256(resuming: kept.mark.hash) {
                // What was not in its place yet is sent again.
                IncomingFile.clear(kept)
                let tree = try TreePlaces(directory, temporary: kept.head.temporary)
                return .goesOn(IncomingTree(order, roots, kept, tree, kept.mark, hash), at: kept.mark.offset)
            }
            if let kept { IncomingFile.forget(kept) }
            let free = try directory.freeSpace()
            guard free > IncomingFile.reserveBytes, free - IncomingFile.reserveBytes >= order.size else {
                throw SystemError("write", order.path, code: ENOSPC)
            }
            let temporary = IncomingFile.temporaryName(order.transfer)
            let journal = try TransferJournal.create(
                journals, TransferJournal.Head(order: order, directory: real, temporary: temporary))
            do {
                let tree = try TreePlaces(directory, temporary: temporary)
                return .goesOn(IncomingTree(order, roots, journal, tree, TransferJournal.Mark(), SHA256()), at: 0)
            } catch {
                IncomingFile.forget(journal)
                throw error
            }
        }
    }

    /// The tree's directory, made if it is not there.
    private static func root(_ order: TransferOrder, _ roots: FileRoots) throws -> PlaceDirectory {
        do throws(FileFailure) { return try roots.directory(order.path, writes: true) } catch {
            guard error.code == "path-not-found" else { throw error }
        }
        let place = try roots.place(order.path, writes: true, makesParents: order.makesParents)
        // In a directory that is a file this is "not a directory", as it should be.
        do throws(SystemError) { try place.directory.makeDirectory(place.name, mode: 0o755) } catch {
            if !error.alreadyExists { throw error }
        }
        try place.directory.sync()
        return try roots.directory(order.path, writes: true)
    }

    // MARK: Bytes

    func write(_ bytes: [UInt8]) throws(FileFailure) -> IncomingNews {
        try roots.about(order.path) {
            try state.withLock { (state) throws in
                guard state.offset + UInt64(bytes.count) <= order.size else { throw SystemError("write", order.path, code: EFBIG) }
                var hashed = 0
                var position = 0
                /// The present member has ended inside these bytes, or just before: that is a place to go on from.
                func note() {
                    guard state.memberEnd > state.boundary.offset, state.memberEnd <= state.offset + UInt64(bytes.count) else { return }
                    let end = Int(state.memberEnd - state.offset)
                    state.hash.update(bytes.span.bytes.extracting(hashed..<end))
                    hashed = end
                    state.boundary = TransferJournal.Mark(offset: state.memberEnd, hash: state.hash.exported, place: state.members.place)
                }
                reading: while true {
                    switch try state.reader.step(bytes.span, &position) {
                    case .entry(let entry):
                        note()
                        try tree.finish(&state.members)
                        if isDue(state.members) { try install(&state) }
                        try begin(entry, &state)
                        state.memberEnd = state.offset + UInt64(position) + entry.size + UInt64(PaxWriting.padding(after: entry.size))
                    case .data(let range): try tree.write(bytes.span.bytes.extracting(range), &state.members)
                    case .more:
                        note()
                        break reading
                    case .end:
                        note()
                        break reading
                    }
                }
                state.hash.update(bytes.span.bytes.extracting(hashed..<bytes.count))
                state.offset += UInt64(bytes.count)
                return IncomingNews(taken: state.offset, durable: journal.mark.offset)
            }
        }
    }

    private func begin(_ entry: PaxEntry, _ state: inout State) throws {
        guard let parts = entry.parts else {
            throw FileFailure("path-not-allowed", "the tree has a member \(entry.path.prefix(256)), which leads out of it")
        }
        // The tree's own directory.
        if parts.isEmpty { return }
        switch entry.kind {
        case .symbolicLink where order.links == .skip:
            state.members.skipped += 1
            return
        case .symbolicLink, .hardLink:
            guard entry.targetIsBelow else {
                throw FileFailure("link-leads-out", "the link \(entry.path) leads to \(entry.target.prefix(256)), out of the tree")
            }
            // A hard link's other name has to be in its place.
            if entry.kind == .hardLink { try install(&state) }
        case .other:
            throw FileFailure("entry-unsupported", "\(entry.path) is a device, a pipe or something unknown; trees hold none")
        case .file, .directory: break
        }
        try tree.begin(entry, parts.map(String.init), replaces: order.replaces, &state.members)
    }

    private func isDue(_ members: TreeMembers) -> Bool {
        members.waiting.count >= Self.batchMembers || members.bytes >= Self.batchBytes
    }

    /// Syncs what waits and puts it into its places. What was put there before is durable with the same sync.
    private func install(_ state: inout State) throws {
        killPoint("transfer.batch.before")
        try tree.sync()
        if let installed = state.installed { try journal.write(installed) }
        killPoint("transfer.batch.synced")
        try tree.install(&state.members)
        killPoint("transfer.batch.renamed")
        state.boundary.place = state.members.place
        state.installed = state.boundary
    }

    func finish(length: UInt64, _ digest: SHA256.Digest) throws(FileFailure) -> TransferResult {
        try roots.about(order.path) {
            try state.withLock { (state) throws in
                guard length == order.size, state.offset == order.size, state.reader.isComplete else {
                    throw FileFailure("transfer-cut", "the tree ends before its end mark, after \(state.offset) of \(order.size) bytes")
                }
                guard state.hash.digest == digest else {
                    throw FileFailure("digest-mismatch", "the bytes that came have the hash \(state.hash.digest.hex), not \(digest.hex)")
                }
                try tree.finish(&state.members)
                try install(&state)
                try tree.finishDirectories(&state.members, except: nil)
                try tree.close()
                try tree.sync()
                let result = TransferResult(bytes: length, entries: state.members.count, skipped: state.members.skipped)
                try journal.write(
                    TransferJournal.Mark(phase: .ended, offset: length, hash: state.hash.exported, result: result))
                return result
            }
        }
    }

    func pause() {
        _ = try? state.withLock { (state) throws in
            if state.memberEnd <= state.offset { try tree.finish(&state.members) } else { try tree.drop(&state.members) }
            try install(&state)
            try tree.sync()
            if let installed = state.installed { try journal.write(installed) }
        }
    }
}

extension PaxReaderStateMachine {
    /// The next step; what is no archive is a failure.
    fileprivate mutating func step(_ bytes: Span<UInt8>, _ position: inout Int) throws(FileFailure) -> Step {
        do throws(Fault) { return try next(bytes, &position) } catch {
            throw FileFailure("tree-malformed", "the tree is no pax archive: \(error)")
        }
    }
}
