/// What holder and agent say to each other over the packet socket in the execution's directory. Whole states, so that
/// a skipped packet loses nothing: the agent reads bytes and the exit record from the files.

/// Holder to agent, at each change and after each connect. 32 bytes, little-endian.
struct HolderStatus: Equatable {
    enum Phase: UInt8 {
        case starting = 0
        case running = 1
        /// The exit record is durable; the holder is about to end.
        case finished = 2
    }

    static let version: UInt8 = 1
    static let byteCount = 32

    var phase = Phase.starting
    /// Unix milliseconds; 0 before the start.
    var startedAt: UInt64 = 0
    var standardOutputBytes: UInt64 = 0
    var standardErrorBytes: UInt64 = 0

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCount)
        bytes += [Self.version, phase.rawValue, 0, 0, 0, 0, 0, 0]
        bytes += littleEndian(startedAt)
        bytes += littleEndian(standardOutputBytes)
        bytes += littleEndian(standardErrorBytes)
        return bytes
    }

    init() {}

    /// `nil`: not a status of this version.
    init?(_ bytes: ArraySlice<UInt8>) {
        let start = bytes.startIndex
        guard bytes.count == Self.byteCount, bytes[start] == Self.version, let phase = Phase(rawValue: bytes[start + 1]),
            let startedAt: UInt64 = integer(bytes[(start + 8)...]),
            let output: UInt64 = integer(bytes[(start + 16)...]),
            let errors: UInt64 = integer(bytes[(start + 24)...])
        else { return nil }
        self.phase = phase
        self.startedAt = startedAt
        standardOutputBytes = output
        standardErrorBytes = errors
    }
}

/// Agent to holder: version and kind.
enum HolderRequest: UInt8 {
    case cancel = 1

    var bytes: [UInt8] { [HolderStatus.version, rawValue] }

    init?(_ bytes: ArraySlice<UInt8>) {
        guard bytes.count >= 2, bytes.first == HolderStatus.version else { return nil }
        self.init(rawValue: bytes[bytes.startIndex + 1])
    }
}
