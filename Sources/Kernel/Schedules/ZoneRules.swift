/// What the clocks of one time zone show: offsets from UTC and when they change, as a TZif file (RFC 8536) says it.
///
/// Times are Unix seconds, offsets are seconds east of UTC.
public struct ZoneRules: Sendable, Equatable {
    /// A time over which the offset stays the same: from `start` up to but not including `end`.
    public struct Period: Sendable, Equatable {
        public var start: Int64
        public var end: Int64
        public var offset: Int64
    }

    /// When the offset changes, rising; `offsets[n]` holds before `changes[n]`, and the last one after all of them.
    private let changes: [Int64]
    private let offsets: [Int64]
    /// Goes on after the last change.
    private let future: RecurringZone?

    public static let utc = ZoneRules(changes: [], offsets: [0], future: nil)

    private init(changes: [Int64], offsets: [Int64], future: RecurringZone?) {
        self.changes = changes
        self.offsets = offsets
        self.future = future
    }

    /// The period that `seconds` lies in.
    public func period(at seconds: Int64) -> Period {
        if let future, seconds >= changes.last ?? .min {
            var period = future.period(at: seconds)
            period.start = max(period.start, changes.last ?? .min)
            return period
        }
        // How many changes are not after `seconds`.
        var low = 0
        var high = changes.count
        while low < high {
            let middle = (low + high) / 2
            if changes[middle] <= seconds { low = middle + 1 } else { high = middle }
        }
        return Period(
            start: low == 0 ? .min : changes[low - 1], end: low == changes.count ? .max : changes[low],
            offset: offsets[low])
    }
}

/// Why a file is no usable time zone.
public struct ZoneFault: Error, Sendable, Equatable {
    public let reason: String
}

extension ZoneRules {
    /// Files of the system have up to about 4 KiB.
    static let maximumBytes = 64 << 10

    /// Reads a TZif file of version 1 to 4.
    public init(tzif bytes: [UInt8]) throws(ZoneFault) {
        var reader = ZoneFileReader(bytes)
        var head = try reader.head()
        var timeBytes = 4
        if head.version >= 2 {
            // The first block is for readers that know only 32-bit times.
            try reader.skip(head.size(timeBytes: 4))
            head = try reader.head()
            timeBytes = 8
        }
        guard head.leaps == 0 else {
            throw ZoneFault(reason: "it counts leap seconds; take the zone of the same name without right/")
        }
        guard head.types > 0, head.times <= 4_096 else { throw ZoneFault(reason: "it has no types or too many changes") }
        var times: [Int64] = []
        for _ in 0..<head.times { times.append(try reader.integer(timeBytes)) }
        var indexes: [Int] = []
        for _ in 0..<head.times { indexes.append(Int(try reader.byte())) }
        var typeOffsets: [Int64] = []
        for _ in 0..<head.types {
            typeOffsets.append(try reader.integer(4))
            try reader.skip(2)
        }
        try reader.skip(head.characters + head.standardFlags + head.universalFlags)
        guard indexes.allSatisfy({ $0 < typeOffsets.count }), typeOffsets.allSatisfy({ abs($0) < 7 * 86_400 }) else {
            throw ZoneFault(reason: "it refers to types that it does not have")
        }
        var changes: [Int64] = []
        var offsets = [typeOffsets[0]]
        for (time, index) in zip(times, indexes) {
            guard time > changes.last ?? .min else { throw ZoneFault(reason: "its changes are not in order") }
            // Changes of the name alone are of no interest here.
            guard typeOffsets[index] != offsets[offsets.count - 1] else { continue }
            changes.append(time)
            offsets.append(typeOffsets[index])
        }
        let footer = head.version >= 2 ? try reader.footer() : ""
        self.init(
            changes: changes, offsets: offsets, future: footer.isEmpty ? nil : try RecurringZone(footer))
    }
}

private struct ZoneFileReader {
    struct Head {
        var version: Int
        var universalFlags: Int
        var standardFlags: Int
        var leaps: Int
        var times: Int
        var types: Int
        var characters: Int

        /// Of the data after the head.
        func size(timeBytes: Int) -> Int {
            times * (timeBytes + 1) + types * 6 + characters + leaps * (timeBytes + 4) + standardFlags + universalFlags
        }
    }

    private var rest: ArraySlice<UInt8>
    init(_ bytes: [UInt8]) { rest = bytes[...] }

    mutating func skip(_ count: Int) throws(ZoneFault) {
        guard count <= rest.count else { throw ZoneFault(reason: "it ends too early") }
        rest = rest.dropFirst(count)
    }

    mutating func byte() throws(ZoneFault) -> UInt8 {
        guard let byte = rest.popFirst() else { throw ZoneFault(reason: "it ends too early") }
        return byte
    }

    /// Big-endian, signed.
    mutating func integer(_ bytes: Int) throws(ZoneFault) -> Int64 {
        var value = Int64(Int8(bitPattern: try byte()))
        for _ in 1..<bytes { value = value << 8 | Int64(try byte()) }
        return value
    }

    mutating func head() throws(ZoneFault) -> Head {
        guard rest.starts(with: Array("TZif".utf8)), rest.count >= 44 else { throw ZoneFault(reason: "it is no TZif file") }
        try skip(4)
        let version = try byte()
        try skip(15)
        var counts: [Int] = []
        for _ in 0..<6 {
            let count = try integer(4)
            guard (0...65_536).contains(count) else { throw ZoneFault(reason: "it has an impossible count") }
            counts.append(Int(count))
        }
        return Head(
            version: version == 0 ? 1 : Int(version) - 0x30, universalFlags: counts[0], standardFlags: counts[1],
            leaps: counts[2], times: counts[3], types: counts[4], characters: counts[5])
    }

    /// The text between two line feeds at the end; may be empty.
    mutating func footer() throws(ZoneFault) -> String {
        guard try byte() == 0x0A, let end = rest.firstIndex(of: 0x0A), end - rest.startIndex <= 256 else {
            throw ZoneFault(reason: "its footer is damaged")
        }
        return String(decoding: rest[..<end], as: UTF8.self)
    }
}
