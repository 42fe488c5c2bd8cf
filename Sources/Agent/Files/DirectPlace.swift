import AgentProtocol
import Crypto
import Glibc
import System

/// The disk's side of a transfer between a file and a URL. Its functions are called on the transfer's line of work.
struct DirectPlace: Sendable {
    /// Without the URL, which goes into no journal.
    let order: TransferOrder
    let url: TransferURL
    let roots: FileRoots
    let journals: String
    let work: SerialWork

    init(_ order: TransferOrder, _ url: TransferURL, _ roots: FileRoots, _ journals: String, _ work: SerialWork) {
        self.order = order.withoutURL
        self.url = url
        self.roots = roots
        self.journals = journals
        self.work = work
    }

    /// What is there of a download.
    struct Kept: Sendable {
        var offset: UInt64 = 0
        var size: UInt64 = 0
        var validator = ""
        /// It is over.
        var result: TransferResult?
    }

    /// What the server has announced, and where it goes on.
    struct Found: Sendable {
        var size: UInt64
        var offset: UInt64
        var validator: String
    }

    func kept() throws(FileFailure) -> Kept {
        guard let journal = try journal() else { return Kept() }
        let mark = journal.mark
        switch mark.phase {
        case .ended: return Kept(result: mark.result)
        case .sealed:
            // Whole and checked; only its end was not said.
            guard case .over(let result) = try IncomingFile.begin(journal.head.order, roots, journals, kept: journal) else {
                try forget()
                return Kept()
            }
            return Kept(result: result)
        case .moving:
            guard !journal.head.source.isEmpty, mark.offset < journal.head.order.size else { return Kept() }
            return Kept(offset: mark.offset, size: journal.head.order.size, validator: journal.head.source)
        }
    }

    func begin(_ found: Found) throws(FileFailure) -> IncomingStart {
        if found.offset == 0 { try forget() }
        var order = order
        order.size = found.size
        return try IncomingFile.begin(order, roots, journals, kept: try journal(), source: found.validator)
    }

    func forget() throws(FileFailure) {
        if let journal = try journal() { IncomingFile.forget(journal) }
    }

    private func journal() throws(FileFailure) -> TransferJournal? {
        do throws(SystemError) { return try TransferJournal.open(journals, order.transfer) } catch {
            throw FileFailure("agent-storage-failed", "\(error)")
        }
    }

    /// The file of an upload, or the result of one that is over.
    func source() throws(FileFailure) -> (source: DirectSource?, result: TransferResult?) {
        let kept = try journal()
        if let kept, kept.mark.phase == .ended { return (nil, kept.mark.result) }
        return try roots.about(order.path) {
            let file = try roots.file(order.path)
            let size = try file.status(subject: order.path).size
            guard size <= order.size else {
                throw FileFailure("file-too-large", "\(order.path) has \(size) bytes; \(order.size) may go")
            }
            let journal = try kept ?? TransferJournal.create(journals, TransferJournal.Head(order: order))
            return (DirectSource(file, size, journal), nil)
        }
    }
}

/// A file that is uploaded. The length is that of the moment of its opening.
final class DirectSource: Sendable {
    let size: UInt64
    private let file: Descriptor
    private let journal: TransferJournal

    init(_ file: consuming Descriptor, _ size: UInt64, _ journal: TransferJournal) {
        self.file = file
        self.size = size
        self.journal = journal
    }

    func read(at offset: UInt64, _ count: UInt64, _ place: DirectPlace) throws(FileFailure) -> [UInt8] {
        let path = place.order.path
        return try place.roots.about(path) {
            let bytes = try file.bytes(at: offset, count: Int(count))
            guard bytes.count == Int(count) else {
                throw FileFailure("file-changed", "\(path) became shorter while it was read")
            }
            return bytes
        }
    }

    func ended(_ result: TransferResult, _ place: DirectPlace) throws(FileFailure) {
        try place.roots.about(place.order.path) { try journal.write(TransferJournal.Mark(phase: .ended, result: result)) }
    }
}

extension TransferOrder {
    /// What may be written down.
    var withoutURL: TransferOrder {
        var order = self
        order.url = nil
        return order
    }
}
