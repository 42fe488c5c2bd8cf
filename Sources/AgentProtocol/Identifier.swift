import JSON

/// A 128-bit identifier, ordered by the time it was made: 48 bits of Unix milliseconds, then 80 random bits.
///
/// Its text is 26 upper-case Crockford base-32 characters, the first of them 0 to 7 (the form known as ULID). No label
/// key can have that form, because a label key begins with a lower-case letter; a bare identifier is therefore a
/// selector. `Kind` only keeps identifiers of different things apart at compile time.
public struct Identifier<Kind>: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// - Parameters:
    ///   - milliseconds: Unix time; the low 48 bits count.
    ///   - random: the 80 random bits are the low 16 of `random.0` and all of `random.1`.
    public init(milliseconds: UInt64, random: (UInt64, UInt64)) {
        high = (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | (random.0 & 0xFFFF)
        low = random.1
    }

    /// The 26-character form, in either case; `nil` for anything else.
    public init?(_ text: some StringProtocol) { self.init(String(text)) }

    public init?(_ text: String) { self.init(characters: text.utf8Span.span) }

    /// The 26-character form where it stands.
    public init?(characters: Span<UInt8>) {
        guard characters.count == 26, characters[0] >= 0x30, characters[0] <= 0x37 else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        for index in characters.indices {
            guard let value = Crockford.value(of: characters[index]) else { return nil }
            high = high << 5 | low >> 59
            low = low << 5 | UInt64(value)
        }
        self.init(high: high, low: low)
    }

    /// The same 128 bits as an identifier of something else: a terminal's order and end have the forms of a command's.
    public init<Other>(sameAs other: Identifier<Other>) {
        self.init(high: other.high, low: other.low)
    }

    /// Sixteen bytes, big-endian, as in the database; `nil` for any other count.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        high = bytes[0..<8].reduce(0) { $0 << 8 | UInt64($1) }
        low = bytes[8..<16].reduce(0) { $0 << 8 | UInt64($1) }
    }

    public var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 16) { buffer, count in
            for index in 0..<8 {
                buffer[index] = UInt8(truncatingIfNeeded: high >> UInt64(56 - 8 * index))
                buffer[index + 8] = UInt8(truncatingIfNeeded: low >> UInt64(56 - 8 * index))
            }
            count = 16
        }
    }

    public var description: String {
        String(unsafeUninitializedCapacity: 26) { buffer in
            let text = text
            for index in 0..<26 { buffer[index] = text[index] }
            return 26
        }
    }

    /// The 26 characters as ASCII.
    public var text: [26 of UInt8] {
        // Twelve characters out of the low half, one that stands across, thirteen out of the rest of the high half.
        var text = [26 of UInt8](repeating: 0)
        var bits = low
        for index in (14..<26).reversed() {
            text[index] = Crockford.character(of: bits)
            bits &>>= 5
        }
        text[13] = Crockford.character(of: bits | high &<< 4)
        bits = high &>> 1
        for index in (0..<13).reversed() {
            text[index] = Crockford.character(of: bits)
            bits &>>= 5
        }
        return text
    }

    /// For dictionaries and sets. The standard hash is made for keys of any length and costs each look-up ten times as much. The
    /// bits are the core's own or an agent's, so that two secret numbers, new with each process, keep anybody from choosing
    /// many that fall together.
    public func _rawHashValue(seed: Int) -> Int {
        let product = (low ^ IdentifierHash.low).multipliedFullWidth(by: high ^ IdentifierHash.high)
        return Int(truncatingIfNeeded: product.high ^ product.low) ^ seed
    }

    public static func < (a: Self, b: Self) -> Bool { (a.high, a.low) < (b.high, b.low) }
}

extension Identifier: JSONWritable {
    public func write(to writer: inout JSONWriter) {
        let text = text
        writer.plain(text.span)
    }
}

private enum IdentifierHash {
    static let low = UInt64.random(in: .min ... .max)
    static let high = UInt64.random(in: .min ... .max)
}

public enum ClientKind: Sendable {}
public enum CommandKind: Sendable {}
public enum ChannelTag: Sendable {}
public enum TransferTag: Sendable {}

/// A machine in the registry.
public typealias ClientID = Identifier<ClientKind>
/// One accepted command, whatever the number of its targets.
public typealias CommandID = Identifier<CommandKind>
/// One terminal (or stream) of a client, whatever the links that carry it.
public typealias ChannelID = Identifier<ChannelTag>
/// One file or tree on its way between the core and one client, whatever the links that carry it.
public typealias TransferID = Identifier<TransferTag>

private enum Crockford {
    /// The digits without I, L, O and U.
    @inline(__always)
    static func character(of value: UInt64) -> UInt8 { digits.utf8Start[Int(truncatingIfNeeded: value & 31)] }
    private static let digits: StaticString = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

    static func value(of character: UInt8) -> UInt8? {
        switch character & 0xDF {
        case 0x10...0x19 where character < 0x3A: character - 0x30
        case 0x41...0x48: (character & 0xDF) - 0x41 + 10
        case 0x4A, 0x4B: (character & 0xDF) - 0x4A + 18
        case 0x4D, 0x4E: (character & 0xDF) - 0x4D + 20
        case 0x50...0x54: (character & 0xDF) - 0x50 + 22
        case 0x56...0x5A: (character & 0xDF) - 0x56 + 27
        default: nil
        }
    }
}
