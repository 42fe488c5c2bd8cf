import Crypto

/// The account of whoever sends the bytes of one transfer: what went out, how far it may go, what the other side has for
/// good.
public struct TransferSending: Sendable, Equatable {
    public private(set) var sent: UInt64
    public private(set) var limit: UInt64
    public private(set) var durable: UInt64
    public private(set) var hasEnded = false

    public init(from offset: UInt64) {
        sent = offset
        limit = offset
        durable = offset
    }

    /// Bytes that may go now.
    public var room: UInt64 { hasEnded ? 0 : limit - sent }

    mutating func granted(upTo offset: UInt64) { limit = max(limit, offset) }

    mutating func arrived(upTo offset: UInt64) throws(WireError) {
        guard offset >= durable, offset <= sent else {
            throw WireError(.wrongOffset, "\(offset) is said to be durable; \(durable) was, and \(sent) were sent")
        }
        durable = offset
    }

    mutating func send(_ count: Int) { sent += UInt64(count) }
    mutating func end() { hasEnded = true }
}

/// The account of whoever receives them.
public struct TransferReceiving: Sendable, Equatable {
    public private(set) var received: UInt64
    public private(set) var granted: UInt64
    public private(set) var durable: UInt64
    public private(set) var hasEnded = false

    public init(from offset: UInt64) {
        received = offset
        granted = offset
        durable = offset
    }

    mutating func receive(_ header: FrameHeader, _ count: Int) throws(WireError) {
        guard count > 0 else { throw WireError(.malformed, "a data frame without data") }
        guard !hasEnded, header.offset == received else {
            throw WireError(.wrongOffset, "channel \(header.channel) goes on at \(received), not at \(header.offset)")
        }
        let (end, overflow) = received.addingReportingOverflow(UInt64(count))
        guard !overflow, end <= granted else {
            throw WireError(.creditExceeded, "channel \(header.channel) may go up to \(granted)")
        }
        received = end
    }

    mutating func end(_ header: FrameHeader) throws(WireError) {
        guard !hasEnded, header.offset == received else {
            throw WireError(.wrongOffset, "channel \(header.channel) ends at \(header.offset); \(received) bytes have come")
        }
        hasEnded = true
    }

    /// False: it had been granted already.
    mutating func grant(upTo offset: UInt64) -> Bool {
        guard offset > granted, !hasEnded else { return false }
        granted = offset
        return true
    }

    /// False: nothing new.
    mutating func keep(upTo offset: UInt64) -> Bool {
        guard offset > durable, offset <= received else { return false }
        durable = offset
        return true
    }
}

/// The account of bytes that move between a file of the client and a URL: neither side sends them over the link, but the core
/// says how far they may go.
public struct TransferDirect: Sendable, Equatable {
    public private(set) var moved: UInt64
    public private(set) var granted: UInt64

    public init(from offset: UInt64) {
        moved = offset
        granted = offset
    }

    /// False: it had been granted already.
    mutating func grant(upTo offset: UInt64) -> Bool {
        guard offset > granted else { return false }
        granted = offset
        return true
    }

    /// An upload that was cut begins again, so this may become less. False: nothing new.
    mutating func move(to offset: UInt64) -> Bool {
        guard offset != moved, offset <= granted else { return false }
        moved = offset
        return true
    }

    mutating func told(_ offset: UInt64) throws(WireError) {
        guard offset <= granted else {
            throw WireError(.creditExceeded, "\(offset) bytes have moved; \(granted) were granted")
        }
        moved = offset
    }
}

/// How a transfer is stopped before its end: the flags of a `transfer-stop` frame.
public enum TransferStop: UInt8, Sendable {
    /// What has come is kept, to go on from.
    case pause = 1
    /// Nothing is kept.
    case cancel = 2
}

extension FrameWriter {
    /// A frame of a transfer with a copy of `bytes`, at most `WireLimits.transferDataBytes`.
    mutating func transferData(number: UInt32, offset: UInt64, _ bytes: borrowing RawSpan) {
        begin(.transferData, channel: number, offset: offset)
        append(bytes)
        end()
    }

    mutating func transferEnd(number: UInt32, length: UInt64, digest: SHA256.Digest) {
        frame(.transferEnd, channel: number, offset: length, payload: digest.bytes)
    }
}

func digest(reading payload: borrowing RawSpan) throws(WireError) -> SHA256.Digest {
    var reader = ByteReader()
    guard payload.byteCount == 32, let digest = SHA256.Digest(bytes: try reader.array(payload, count: 32)) else {
        throw WireError(.malformed, "the end of a transfer holds 32 bytes")
    }
    return digest
}

func reportedTransfer(_ payload: borrowing RawSpan) throws(WireError) -> TransferID {
    var reader = ByteReader()
    let transfer: TransferID = try reader.identifier(payload)
    try reader.end(payload)
    return transfer
}
