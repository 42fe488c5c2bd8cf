import AgentProtocol
import System

/// The journal of one execution: a file of records that only grows, each `u32 length, u8 kind, payload, u32 CRC-32C`
/// (little-endian; the checksum covers kind and payload). A torn last record counts as not written.
///
/// The order is synced before the execution exists for anybody; the start mark is synced before exec. So the file says
/// exactly whether the program cannot have run, may have run, or did run.
struct ExecutionJournal: Equatable {
    enum RecordKind: UInt8 {
        case order = 1
        case startMark = 2
        case running = 3
        /// In place of an order.
        case terminal = 4
    }

    /// Room for an order of `WireLimits.openBytes` and the small records.
    static let maximumBytes = WireLimits.openBytes + 4_096

    var order: Order
    /// Set for a terminal: `order` is then its part.
    var terminal: TerminalOrder?
    /// The boot in which the order was taken.
    var bootID: String
    /// Unix milliseconds just before exec.
    var startMark: UInt64?
    /// The session that the program leads, once exec had succeeded. Not synced: missing after a power loss.
    var leader: Int32?

    /// As far as the journal alone tells.
    var started: Started { leader != nil ? .yes : startMark != nil ? .maybe : .no }

    init(order: Order, terminal: TerminalOrder? = nil, bootID: String) {
        self.order = order
        self.terminal = terminal
        self.bootID = bootID
    }

    // MARK: Writing

    static func orderRecord(_ order: Order, bootID: String) -> [UInt8] {
        var writer = FrameWriter(reserving: order.encodedBytes)
        order.write(to: &writer)
        return orderRecord(.order, writer.bytes, bootID)
    }

    static func orderRecord(_ terminal: TerminalOrder, bootID: String) -> [UInt8] {
        var writer = FrameWriter(reserving: terminal.encodedBytes)
        terminal.write(to: &writer)
        return orderRecord(.terminal, writer.bytes, bootID)
    }

    private static func orderRecord(_ kind: RecordKind, _ order: [UInt8], _ bootID: String) -> [UInt8] {
        let boot = Array(bootID.utf8.prefix(255))
        return record(kind, [UInt8(boot.count)] + boot + order)
    }

    static func startMarkRecord(at unixMilliseconds: UInt64) -> [UInt8] {
        record(.startMark, littleEndian(unixMilliseconds))
    }

    static func runningRecord(leader: Int32) -> [UInt8] {
        record(.running, littleEndian(UInt32(bitPattern: leader)))
    }

    private static func record(_ kind: RecordKind, _ payload: [UInt8]) -> [UInt8] {
        let body = [kind.rawValue] + payload
        return littleEndian(UInt32(payload.count)) + body + littleEndian(CRC32C.checksum(body))
    }

    // MARK: Reading

    enum Damage: Error, Equatable {
        /// No whole order stands at the beginning.
        case noOrder
        case unreadableOrder(String)
    }

    init(parsing bytes: [UInt8]) throws(Damage) {
        var found: ExecutionJournal?
        var offset = 0
        while let (kind, payload) = Self.next(bytes, &offset) {
            switch kind {
            case .order, .terminal:
                guard found == nil, let count = payload.first, payload.count > Int(count) else { throw .noOrder }
                let start = payload.startIndex + 1
                let boot = payload[start..<start + Int(count)]
                let encoded = [UInt8](payload[(start + Int(count))...])
                let bootID = String(decoding: boot, as: UTF8.self)
                do throws(WireError) {
                    if kind == .terminal {
                        let terminal = try TerminalOrder(reading: encoded.span.bytes)
                        found = ExecutionJournal(order: terminal.order, terminal: terminal, bootID: bootID)
                    } else {
                        found = ExecutionJournal(order: try Order(reading: encoded.span.bytes), bootID: bootID)
                    }
                } catch { throw .unreadableOrder("\(error)") }
            case .startMark: found?.startMark = integer(payload)
            case .running: found?.leader = integer(payload).map { (value: UInt32) in Int32(bitPattern: value) }
            }
            guard found != nil else { throw .noOrder }
        }
        guard let found else { throw .noOrder }
        self = found
    }

    /// The next whole record; `nil` at the end, at a torn or damaged record and at an unknown kind.
    private static func next(_ bytes: [UInt8], _ offset: inout Int) -> (RecordKind, ArraySlice<UInt8>)? {
        guard let length: UInt32 = integer(bytes[min(offset, bytes.count)...]) else { return nil }
        let bodyStart = offset + 4
        let bodyEnd = bodyStart + 1 + Int(length)
        guard Int(length) <= maximumBytes, bodyEnd + 4 <= bytes.count,
            integer(bytes[bodyEnd...]) == CRC32C.checksum(Array(bytes[bodyStart..<bodyEnd])),
            let kind = RecordKind(rawValue: bytes[bodyStart])
        else { return nil }
        offset = bodyEnd + 4
        return (kind, bytes[(bodyStart + 1)..<bodyEnd])
    }
}

/// The exit record as a file: `u32 length, record, u32 CRC-32C`, written beside, synced, renamed.
enum ExitFile {
    static let maximumBytes = 8_192

    static func encode(_ record: ExitRecord) -> [UInt8] {
        var writer = FrameWriter(reserving: 512)
        record.write(to: &writer)
        return littleEndian(UInt32(writer.bytes.count)) + writer.bytes + littleEndian(CRC32C.checksum(writer.bytes))
    }

    /// `nil`: damaged.
    static func decode(_ bytes: [UInt8]) -> ExitRecord? {
        guard let length: UInt32 = integer(bytes[...]), bytes.count >= 8 + Int(length) else { return nil }
        let body = Array(bytes[4..<(4 + Int(length))])
        guard integer(bytes[(4 + Int(length))...]) == CRC32C.checksum(body) else { return nil }
        do throws(WireError) { return try ExitRecord(reading: body.span.bytes) } catch { return nil }
    }
}

func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    (0..<(Value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> Value($0 * 8)) }
}

/// The first bytes as a little-endian integer; `nil` if there are too few.
func integer<Value: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>) -> Value? {
    let count = Value.bitWidth / 8
    guard bytes.count >= count else { return nil }
    return (0..<count).reduce(0) { $0 | Value(truncatingIfNeeded: bytes[bytes.startIndex + $1]) << Value($1 * 8) }
}
