/// How an agent fetches the file of a release over its link: it asks for pieces, a bounded number of bytes ahead of what
/// it has written, so that the core keeps nothing per agent and an agent that stops reading costs nothing.
public struct ReleaseFetchStateMachine: Sendable, Equatable {
    public static let pieceBytes: UInt64 = 64 * 1_024

    public let size: UInt64
    /// Everything below has come.
    public private(set) var received: UInt64 = 0
    /// Everything below has been asked for on the present link.
    public private(set) var requested: UInt64 = 0
    /// Everything below has been written.
    public private(set) var written: UInt64 = 0

    public init(size: UInt64) { self.size = size }

    public var isComplete: Bool { written == size }

    /// The next piece to ask for, if there may be one more.
    public mutating func nextRequest() -> (from: UInt64, count: UInt64)? {
        guard requested < size, requested - written < WireLimits.releaseWindowBytes else { return nil }
        let count = min(Self.pieceBytes, size - requested)
        defer { requested += count }
        return (requested, count)
    }

    public enum Arrival: Sendable, Equatable {
        /// To be written behind what came before.
        case continues
        /// It has come before: the same piece was asked for twice, on either side of a restart of the core.
        case known
        /// A gap, or bytes that nobody asked for.
        case wrong
    }

    public mutating func arrived(_ count: Int, at offset: UInt64) -> Arrival {
        guard count > 0, offset <= received, offset + UInt64(count) <= requested else { return .wrong }
        guard offset == received else { return offset + UInt64(count) <= received ? .known : .wrong }
        received += UInt64(count)
        return .continues
    }

    public mutating func wrote(upTo offset: UInt64) { written = max(written, min(offset, received)) }

    /// What was asked for and has not come will not: the link is a new one, or the core is.
    public mutating func askAgain() { requested = received }
}
