import AgentProtocol
import Crypto
import Glibc
import JSON
import Synchronization
import System

/// What a pull does with the disk, on the transfer's own line of work. `OutgoingFile` and `OutgoingTree`.
protocol Outgoing: AnyObject, Sendable {
    /// The next piece; the last one has the hash of the whole.
    func next() throws(FileFailure) -> FileChunk
    /// The core has it for good up to here, which is the end of a piece.
    func durable(upTo offset: UInt64)
}

enum OutgoingStart {
    case goesOn(any Outgoing, at: UInt64, TransferReady)
    case over(TransferResult)
}

/// One file that goes: read once, hashed as it is read. The length is that of the moment of its opening: what is appended
/// meanwhile stays, a file that shrinks is a failure.
final class OutgoingFile: Outgoing {
    private let order: TransferOrder
    private let roots: FileRoots
    private let journal: TransferJournal
    private let file: Descriptor
    private let size: UInt64

    /// So much is read at once.
    private static let readBytes = 4 * FileChunk.fullBytes

    private struct Position {
        var hash: SHA256
        var offset: UInt64
        /// What was read and, from `taken` on, is not in a piece yet.
        var read: [UInt8] = []
        var taken = 0
        /// Hashes at the ends of pieces that the core has not for good yet.
        var states: [(offset: UInt64, hash: SHA256)] = []
    }
    private let position: Mutex<Position>

    private init(
        _ order: TransferOrder, _ roots: FileRoots, _ journal: TransferJournal, _ file: consuming Descriptor, _ size: UInt64,
        _ hash: SHA256, _ offset: UInt64
    ) {
        self.order = order
        self.roots = roots
        self.journal = journal
        self.file = file
        self.size = size
        position = Mutex(Position(hash: hash, offset: offset))
    }

    /// Goes on at `order.from` if the file is still the one of which the core has a part; else from the beginning.
    static func begin(
        _ order: TransferOrder, _ roots: FileRoots, _ journals: String, kept: TransferJournal?
    ) throws(FileFailure) -> OutgoingStart {
        if let kept, kept.mark.phase == .ended, let result = kept.mark.result { return .over(result) }
        return try roots.about(order.path) {
            let file = try roots.file(order.path)
            let status = try file.status(subject: order.path)
            guard status.size <= order.size else {
                throw FileFailure(
                    "file-too-large", "\(order.path) has \(status.size) bytes; the core takes \(order.size) at most")
            }
            let ready = TransferReady(size: status.size, mode: UInt16(status.mode), modified: status.modifiedNanoseconds)
            let source = identity(status)
            if let kept, order.from > 0, order.from <= status.size, kept.head.source == source,
                let hash = try hash(file, kept.mark, upTo: order.from)
            {
                return .goesOn(OutgoingFile(order, roots, kept, file, status.size, hash, order.from), at: order.from, ready)
            }
            if let kept { try kept.remove() }
            let journal = try TransferJournal.create(journals, TransferJournal.Head(order: order, source: source))
            return .goesOn(OutgoingFile(order, roots, journal, file, status.size, SHA256(), 0), at: 0, ready)
        }
    }

    /// A file that was changed in between is another one.
    private static func identity(_ status: FileStatus) -> String {
        "\(status.device):\(status.inode):\(status.size):\(status.modifiedNanoseconds)"
    }

    /// The hash of what the core has. The journal is written after the core said so, so it can be behind by what was under
    /// way; that much is read once more here, and not sent.
    private static func hash(
        _ file: borrowing Descriptor, _ mark: TransferJournal.Mark, upTo offset: UInt64
    ) throws(SystemError) -> SHA256? {
        guard mark.offset <= offset, var hash = SHA256(resuming: mark.hash) else { return nil }
        var done = mark.offset
        while done < offset {
            let bytes = try file.bytes(at: done, count: Int(min(1 << 20, offset - done)))
            if bytes.isEmpty { return nil }
            hash.update(bytes.span.bytes)
            done += UInt64(bytes.count)
        }
        return hash
    }

    func next() throws(FileFailure) -> FileChunk {
        do throws(SystemError) {
            return try position.withLock { (position) throws(SystemError) in
                if position.read.isEmpty {
                    let wanted = Int(min(UInt64(Self.readBytes), size - position.offset))
                    position.read = wanted == 0 ? [] : try file.bytes(at: position.offset, count: wanted)
                    guard position.read.count == wanted else { throw SystemError("read", order.path, code: ESTALE) }
                }
                let read = position.read
                let range = position.taken..<min(position.taken + FileChunk.fullBytes, read.count)
                position.hash.update(read.span.bytes.extracting(range))
                position.offset += UInt64(range.count)
                position.states.append((position.offset, position.hash))
                let piece = FileChunk(in: read, range, digest: position.offset == size ? position.hash.digest : nil)
                position.taken = range.upperBound
                if position.taken == read.count { (position.read, position.taken) = ([], 0) }
                return piece
            }
        } catch {
            if error.code == ESTALE { throw FileFailure("file-changed", "\(order.path) became shorter while it was read") }
            throw roots.failure(error, order.path)
        }
    }

    func durable(upTo offset: UInt64) {
        let hash = position.withLock { position -> SHA256? in
            let found = position.states.first { $0.offset == offset }?.hash
            position.states.removeAll { $0.offset <= offset }
            return found
        }
        // Without it the next start reads that much once more.
        if let hash { try? journal.write(TransferJournal.Mark(offset: offset, hash: hash.exported)) }
    }
}

extension Descriptor {
    /// Up to `count` bytes at `offset`; fewer only at the end.
    func bytes(at offset: UInt64, count: Int) throws(SystemError) -> [UInt8] {
        var failure: SystemError?
        // Invariant: the span covers the array's own storage and ends with the closure.
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            let free = UnsafeMutableRawBufferPointer(buffer)
            var output = OutputRawSpan(buffer: free, initializedCount: 0)
            do throws(SystemError) { _ = try read(at: offset, into: &output) } catch { failure = error }
            initialized = output.finalize(for: free)
        }
        if let failure { throw failure }
        return bytes
    }
}
