/// Reads a pax archive (also what older tars write) from pieces of bytes, without I/O. Everything is bounded; what is no
/// archive is an error, never a guess.
public struct PaxReaderStateMachine: Sendable {
    public struct Fault: Error, Sendable, Equatable, CustomStringConvertible {
        public let description: String
        init(_ text: String) { description = text }
    }

    /// What comes next out of the bytes.
    public enum Step: Sendable, Equatable {
        /// A member begins; `data` steps with `entry.size` bytes follow, then the next member.
        case entry(PaxEntry)
        /// This part of the input is data of the present member.
        case data(Range<Int>)
        /// The input is used up.
        case more
        /// The archive has ended; what follows is padding.
        case end
    }

    /// An extended header is a handful of records.
    static let extendedBytes = 64 << 10
    static let pathBytes = 4_096

    private enum State: Sendable {
        case header
        /// Data of a member: bytes left, then padding.
        case data(left: UInt64, padding: Int)
        case padding(Int)
        case extended(type: UInt8, left: Int, padding: Int)
        case ended
    }
    private var state = State.header
    private var block: [UInt8] = []
    private var records: [UInt8] = []
    private var emptyBlocks = 0
    /// What extended headers say of the next member.
    private var pending: [String: String] = [:]

    public init() { block.reserveCapacity(512) }

    /// True when the archive's end mark, or at least one whole member and nothing half, has been read.
    public var isComplete: Bool {
        if case .ended = state { return true }
        return false
    }

    /// - Parameter offset: moves on to what has not been used yet.
    public mutating func next(_ input: Span<UInt8>, _ offset: inout Int) throws(Fault) -> Step {
        while true {
            switch state {
            case .ended:
                offset = input.count
                return .end
            case .data(let left, let padding):
                guard offset < input.count else { return .more }
                let count = Int(min(left, UInt64(input.count - offset)))
                let range = offset..<offset + count
                offset += count
                state = UInt64(count) == left ? .padding(padding) : .data(left: left - UInt64(count), padding: padding)
                return .data(range)
            case .padding(let left):
                let count = min(left, input.count - offset)
                offset += count
                guard count == left else {
                    state = .padding(left - count)
                    return .more
                }
                state = .header
            case .extended(let type, let left, let padding):
                let count = min(left, input.count - offset)
                append(input, offset..<offset + count, to: &records)
                offset += count
                guard count == left else {
                    state = .extended(type: type, left: left - count, padding: padding)
                    return .more
                }
                try readRecords(type)
                records = []
                state = .padding(padding)
            case .header:
                let count = min(512 - block.count, input.count - offset)
                append(input, offset..<offset + count, to: &block)
                offset += count
                guard block.count == 512 else { return .more }
                let step = try readHeader()
                block.removeAll(keepingCapacity: true)
                if let step { return step }
            }
        }
    }

    private func append(_ input: Span<UInt8>, _ range: Range<Int>, to bytes: inout [UInt8]) {
        input.extracting(range).withUnsafeBufferPointer { bytes.append(contentsOf: $0) }
    }

    // MARK: Headers

    private mutating func readHeader() throws(Fault) -> Step? {
        if block.allSatisfy({ $0 == 0 }) {
            emptyBlocks += 1
            guard emptyBlocks == 2 else { return nil }
            state = .ended
            return .end
        }
        guard emptyBlocks == 0 else { throw Fault("an empty block between members") }
        try checkSum()
        let type = block[156]
        let size = try number(124, 12, "size")
        switch type {
        case 0x78, 0x67, 0x4C, 0x4B:
            guard size <= UInt64(Self.extendedBytes) else { throw Fault("an extended header of \(size) bytes") }
            state = .extended(type: type, left: Int(size), padding: PaxWriting.padding(after: size))
            return nil
        default: return .entry(try member(type, size))
        }
    }

    private mutating func member(_ type: UInt8, _ plainSize: UInt64) throws(Fault) -> PaxEntry {
        defer { pending = [:] }
        var size = plainSize
        if let text = pending["size"] {
            guard let number = UInt64(text), number <= UInt64(Int64.max) else { throw Fault("a size of \"\(text.prefix(32))\"") }
            size = number
        }
        var path: String
        if let long = pending["path"] { path = long } else { path = try plainPath() }
        while path.utf8.count > 1, path.utf8.last == 0x2F { path.removeLast() }
        let target: String
        if let long = pending["linkpath"] { target = long } else { target = try text(157, 100) }
        guard path.utf8.count <= Self.pathBytes, target.utf8.count <= Self.pathBytes else { throw Fault("a path of more than 4,096 bytes") }
        let kind: PaxEntry.Kind =
            switch type {
            case 0x30, 0, 0x37: plainPathEndsInSlash && pending["path"] == nil ? .directory : .file
            case 0x31: .hardLink
            case 0x32: .symbolicLink
            case 0x35: .directory
            default: .other
            }
        // Links and directories have no data, whatever some writers put into their size.
        let data = kind == .file || kind == .other ? size : 0
        state = data > 0 ? .data(left: data, padding: PaxWriting.padding(after: data)) : .header
        return PaxEntry(
            path: path, kind: kind, size: data, mode: UInt16(try number(100, 8, "mode") & 0o7777),
            modifiedNanoseconds: try modified(), target: kind == .symbolicLink || kind == .hardLink ? target : "")
    }

    private var plainPathEndsInSlash: Bool {
        let name = block[0..<100].prefix { $0 != 0 }
        return name.last == 0x2F
    }

    private func plainPath() throws(Fault) -> String {
        let name = try text(0, 100)
        // Only POSIX headers have a prefix there.
        guard block[257..<263].elementsEqual(Array("ustar\u{0}".utf8)), block[345] != 0 else { return name }
        return try text(345, 155) + "/" + name
    }

    private func modified() throws(Fault) -> Int64 {
        guard let text = pending["mtime"] else {
            let seconds = try number(136, 12, "time")
            return seconds < 9_000_000_000 ? Int64(seconds) * 1_000_000_000 : Int64.max
        }
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard let whole = Int64(parts[0]), abs(whole) < 9_000_000_000 else { throw Fault("a time of \"\(text.prefix(32))\"") }
        var fraction: Int64 = 0
        if parts.count == 2 {
            let digits = parts[1].prefix(9)
            guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { throw Fault("a time of \"\(text.prefix(32))\"") }
            fraction = (Int64(digits) ?? 0) * [1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1][digits.count]
        }
        return whole * 1_000_000_000 + (text.hasPrefix("-") ? -fraction : fraction)
    }

    private func checkSum() throws(Fault) {
        var sum: UInt64 = 0
        for (index, byte) in block.enumerated() { sum += (148..<156).contains(index) ? 0x20 : UInt64(byte) }
        guard try number(148, 8, "checksum") == sum else { throw Fault("a header whose checksum is wrong: this is no tar archive, or a damaged one") }
    }

    /// Octal digits, or a big-endian number with its first bit set (GNU's for what has no room).
    private func number(_ offset: Int, _ count: Int, _ what: String) throws(Fault) -> UInt64 {
        let field = block[offset..<offset + count]
        if block[offset] & 0x80 != 0 {
            guard block[offset] == 0x80, field.dropFirst().prefix(count - 9).allSatisfy({ $0 == 0 }) || count < 10 else {
                throw Fault("a \(what) that is negative or too large")
            }
            let value = field.suffix(min(count - 1, 8)).reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
            guard value <= UInt64(Int64.max) else { throw Fault("a \(what) that is too large") }
            return value
        }
        let digits = field.drop { $0 == 0x20 }.prefix { $0 != 0 && $0 != 0x20 }
        var value: UInt64 = 0
        for digit in digits {
            guard (0x30...0x37).contains(digit), value < 1 << 60 else { throw Fault("a \(what) that is no octal number") }
            value = value << 3 | UInt64(digit - 0x30)
        }
        return value
    }

    private func text(_ offset: Int, _ count: Int) throws(Fault) -> String {
        try Self.text(block[offset..<offset + count].prefix { $0 != 0 })
    }

    private static func text(_ bytes: some Collection<UInt8>) throws(Fault) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw Fault("a name that is not UTF-8") }
        return text
    }

    // MARK: Extended headers

    private mutating func readRecords(_ type: UInt8) throws(Fault) {
        switch type {
        case 0x4C: pending["path"] = try Self.text(records.prefix { $0 != 0 })
        case 0x4B: pending["linkpath"] = try Self.text(records.prefix { $0 != 0 })
        case 0x67: break
        default:
            var rest = records[...]
            while !rest.isEmpty {
                let digits = rest.prefix { $0 != 0x20 }
                guard digits.count < 10, let length = Int(String(decoding: digits, as: UTF8.self)), length > digits.count + 2,
                    length <= rest.count, rest[rest.startIndex + length - 1] == 0x0A
                else { throw Fault("an extended header that is not of the form LENGTH KEY=VALUE") }
                let record = rest[(rest.startIndex + digits.count + 1)..<(rest.startIndex + length - 1)]
                guard let equals = record.firstIndex(of: 0x3D) else { throw Fault("an extended header without a value") }
                let key = String(decoding: record[..<equals], as: UTF8.self)
                if ["path", "linkpath", "size", "mtime"].contains(key) { pending[key] = try Self.text(record[(equals + 1)...]) }
                rest = rest[(rest.startIndex + length)...]
            }
        }
    }
}
