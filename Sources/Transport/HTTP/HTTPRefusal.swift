/// Why a peer's HTTP was refused: the status that it deserves and what was wrong, in words for its author.
public struct HTTPRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// What a server answers with before it closes; on the client side only a class of fault.
    public let status: Int
    public let message: String

    public init(_ status: Int, _ message: String) {
        self.status = status
        self.message = message
    }

    public var description: String { "\(status): \(message)" }
}

/// Bounds on what a stranger may send before anybody looks at it.
public struct HTTPLimits: Sendable {
    /// Bytes of request line and fields together, with line ends.
    public var headBytes = 16 << 10
    /// Bytes of the request target.
    public var targetBytes = 8 << 10
    public var fieldCount = 100
    /// Bytes of one chunk-size line with its extensions.
    public var chunkLineBytes = 256
    /// Bytes of all trailer fields together.
    public var trailerBytes = 4 << 10

    public init() {}
}
