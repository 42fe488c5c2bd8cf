import Kernel

/// The path and query of a request target (RFC 3986), decoded once and strictly: a bad escape, a dot segment or a NUL
/// is an error, so that no later stage sees two readings of one path.
public struct RequestTarget: Sendable {
    /// Decoded segments; `/` alone has none.
    public let segments: [String]
    public let query: Query

    public init(_ target: some StringProtocol) throws(Problem) {
        guard target.utf8.first == 0x2F else {
            throw .invalid("the request target must begin with \"/\"")
        }
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var segments: [String] = []
        for raw in parts[0].dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
            let segment = try RequestTarget.decoded(raw, plusIsSpace: false)
            guard segment != ".", segment != ".." else { throw .invalid("the path has a dot segment") }
            segments.append(segment)
        }
        if segments.last == "" { segments.removeLast() }
        guard !segments.contains("") else { throw .invalid("the path has an empty segment") }
        self.segments = segments
        query = try Query(parts.count > 1 ? String(parts[1]) : "")
    }

    static func decoded(_ text: some StringProtocol, plusIsSpace: Bool) throws(Problem) -> String {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var iterator = text.utf8.makeIterator()
        while let byte = iterator.next() {
            switch byte {
            case 0x25:
                guard let high = iterator.next().flatMap(hexadecimal), let low = iterator.next().flatMap(hexadecimal)
                else { throw .invalid("a percent sign in the target must be followed by two hexadecimal digits") }
                bytes.append(high << 4 | low)
            case 0x2B where plusIsSpace: bytes.append(0x20)
            default: bytes.append(byte)
            }
        }
        guard let decoded = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
            throw .invalid("the target is not UTF-8 once decoded, or holds a NUL")
        }
        return decoded
    }

    private static func hexadecimal(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }
}

/// Query parameters in order.
public struct Query: Sendable {
    public let items: [(name: String, value: String)]

    init(_ text: String) throws(Problem) {
        var items: [(name: String, value: String)] = []
        for pair in text.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            items.append(
                (
                    try RequestTarget.decoded(parts[0], plusIsSpace: true),
                    parts.count > 1 ? try RequestTarget.decoded(parts[1], plusIsSpace: true) : ""
                ))
            guard items.count <= 64 else { throw .invalid("more than 64 query parameters") }
        }
        self.items = items
    }

    /// The first value of this name.
    public subscript(name: String) -> String? { items.first { $0.name == name }?.value }
    public func values(_ name: String) -> [String] { items.filter { $0.name == name }.map(\.value) }

    /// After `Route.query` has been checked this cannot fail for a declared integer.
    public func integer(_ name: String) -> Int64? { self[name].flatMap { Int64($0) } }
    public func bool(_ name: String) -> Bool? { self[name].map { $0 == "true" || $0 == "1" || $0 == "" } }
}
