import AgentProtocol
import Crypto
import Glibc
import JSON
import Synchronization
import System

/// What an agent knows of one transfer for good: `A/transfers/ID`. It is there before anything of the transfer is in the
/// file system, so that whatever dies, nothing is left over and nothing is sent twice.
///
/// The head says what it is and never changes. Behind it are two slots that take turns, each with a number and a checksum:
/// a write that a crash cuts leaves the other one.
final class TransferJournal: Sendable {
    struct Head: Sendable, Equatable {
        var order: TransferOrder
        /// Push: the directory of the target as the kernel names it, and the name of what grows beside it.
        var directory = ""
        var temporary = ""
        /// Pull: the file that is read.
        var source = ""
    }

    enum Phase: String {
        /// On its way.
        case moving
        /// Push: whole, checked and on the disk; all that is left is the rename.
        case sealed
        /// Over; the core may not know yet.
        case ended
    }

    struct Mark: Sendable, Equatable {
        var phase = Phase.moving
        /// Bytes that are on this disk (push) or on the core's (pull), and the hash of them as it goes on.
        var offset: UInt64 = 0
        var hash: [UInt8] = SHA256().exported
        /// Of trees: where it goes on.
        var place = JSONObject()
        var result: TransferResult?
    }

    private static let slotStart = 64 << 10
    private static let slotBytes = 48 << 10

    let head: Head
    private let path: String
    private struct State: ~Copyable {
        let file: Descriptor
        var sequence: UInt64
        var mark: Mark
    }
    private let state: Mutex<State>

    var mark: Mark { state.withLock { $0.mark } }

    private init(_ path: String, _ head: Head, _ file: consuming Descriptor, _ sequence: UInt64, _ mark: Mark) {
        self.path = path
        self.head = head
        state = Mutex(State(file: file, sequence: sequence, mark: mark))
    }

    /// Durable when this returns.
    static func create(_ directory: String, _ head: Head) throws(SystemError) -> TransferJournal {
        let path = "\(directory)/\(head.order.transfer)"
        killPoint("transfer.journal.before")
        try AtomicFile.write(checked(head.json.serialized()), to: path)
        killPoint("transfer.journal.after")
        return TransferJournal(path, head, try Descriptor.open(path, O_RDWR), 0, Mark())
    }

    /// `nil`: there is none, or none that can be understood; that is removed.
    static func open(_ directory: String, _ transfer: TransferID) throws(SystemError) -> TransferJournal? {
        let path = "\(directory)/\(transfer)"
        let file: Descriptor
        do throws(SystemError) { file = try Descriptor.open(path, O_RDWR) } catch {
            if error.isMissing { return nil }
            throw error
        }
        guard let text = try body(file, at: 0, limit: slotStart), let head = Head(text), head.order.transfer == transfer else {
            try Files.remove(path)
            return nil
        }
        var best: (sequence: UInt64, mark: Mark) = (0, Mark())
        for slot in 0..<2 as Range<UInt64> {
            guard let text = try body(file, at: UInt64(slotStart) + slot * UInt64(slotBytes), limit: slotBytes),
                let sequence: UInt64 = integer(text[...]), sequence > best.sequence,
                let mark = Mark(Array(text[8...]))
            else { continue }
            best = (sequence, mark)
        }
        return TransferJournal(path, head, file, best.sequence, best.mark)
    }

    /// Durable when this returns. An older mark than the present one changes nothing.
    func write(_ mark: Mark) throws(SystemError) {
        try state.withLock { (state) throws(SystemError) in
            guard mark.offset >= state.mark.offset || mark.phase != .moving else { return }
            let sequence = state.sequence + 1
            let bytes = Self.checked(littleEndian(sequence) + mark.json.serialized())
            guard bytes.count <= Self.slotBytes else { throw SystemError("write", path, code: EFBIG) }
            killPoint("transfer.mark.before")
            try state.file.write(
                bytes.span.bytes, at: UInt64(Self.slotStart) + sequence % 2 * UInt64(Self.slotBytes), subject: path)
            try state.file.syncData(subject: path)
            killPoint("transfer.mark.after")
            state.sequence = sequence
            state.mark = mark
        }
    }

    /// Nothing is known of it afterwards.
    func remove() throws(SystemError) { try Files.remove(path) }

    // MARK: Form

    private static func checked(_ body: [UInt8]) -> [UInt8] {
        littleEndian(UInt32(body.count)) + body + littleEndian(CRC32C.checksum(body))
    }

    /// `nil`: nothing whole is there.
    private static func body(_ file: borrowing Descriptor, at offset: UInt64, limit: Int) throws(SystemError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: limit)
        var count = 0
        while count < limit {
            let got = bytes.withUnsafeMutableBytes { buffer in
                pread(file.number, buffer.baseAddress.map { $0 + count }, limit - count, off_t(offset) + off_t(count))
            }
            if got < 0, errno == EINTR { continue }
            if got < 0 { throw .last("pread") }
            if got == 0 { break }
            count += got
        }
        guard let length: UInt32 = integer(bytes[..<count]), Int(length) + 8 <= count else { return nil }
        let body = Array(bytes[4..<4 + Int(length)])
        guard integer(bytes[(4 + Int(length))..<count]) == CRC32C.checksum(body) else { return nil }
        return body
    }
}

extension TransferJournal.Head {
    fileprivate var json: JSONValue {
        [
            "order": .string(String(decoding: order.payload, as: UTF8.self)), "directory": .string(directory),
            "temporary": .string(temporary), "source": .string(source),
        ]
    }

    fileprivate init?(_ text: [UInt8]) {
        guard let value = try? JSONValue(parsing: text), let order = value["order"]?.string,
            let read = try? TransferOrder(reading: Array(order.utf8).span.bytes)
        else { return nil }
        self.init(
            order: read, directory: value["directory"]?.string ?? "", temporary: value["temporary"]?.string ?? "",
            source: value["source"]?.string ?? "")
    }
}

extension TransferJournal.Mark {
    fileprivate var json: JSONValue {
        var object: JSONObject = [
            "phase": .string(phase.rawValue), "offset": .integer(Int64(clamping: offset)), "hash": .string(Base64.encodeURL(hash)),
        ]
        if !place.isEmpty { object["place"] = .object(place) }
        if let result { object["result"] = .string(String(decoding: result.payload, as: UTF8.self)) }
        return .object(object)
    }

    fileprivate init?(_ text: [UInt8]) {
        guard let value = try? JSONValue(parsing: text), let phase = value["phase"]?.string.flatMap(TransferJournal.Phase.init),
            let offset = value["offset"]?.integer, let hash = value["hash"]?.string.flatMap({ Base64.decodeURL($0) })
        else { return nil }
        self.init(
            phase: phase, offset: UInt64(clamping: offset), hash: hash, place: value["place"]?.object ?? [:],
            result: value["result"]?.string.flatMap { try? TransferResult(reading: Array($0.utf8).span.bytes) })
    }
}
