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
        // Bytes, not characters: grapheme breaking would cost more than the rest of a short request.
        let bytes = target.utf8
        let pathEnd = bytes.firstIndex(of: 0x3F) ?? bytes.endIndex
        var segments: [String] = []
        segments.reserveCapacity(8)
        var start = bytes.index(after: bytes.startIndex)
        while true {
            let end = bytes[start..<pathEnd].firstIndex(of: 0x2F) ?? pathEnd
            let segment = try RequestTarget.decoded(bytes[start..<end], plusIsSpace: false)
            guard segment != ".", segment != ".." else { throw .invalid("the path has a dot segment") }
            segments.append(segment)
            guard end < pathEnd else { break }
            start = bytes.index(after: end)
        }
        if segments.last == "" { segments.removeLast() }
        guard !segments.contains("") else { throw .invalid("the path has an empty segment") }
        self.segments = segments
        query = try Query(pathEnd < bytes.endIndex ? bytes[bytes.index(after: pathEnd)...] : bytes[pathEnd...])
    }

    static func decoded(_ text: some Collection<UInt8>, plusIsSpace: Bool) throws(Problem) -> String {
        if text.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x25 && $0 != 0x2B }) {
            return String(decoding: text, as: UTF8.self)
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count)
        var iterator = text.makeIterator()
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

    init(_ text: some Collection<UInt8>) throws(Problem) {
        var items: [(name: String, value: String)] = []
        for pair in text.split(separator: 0x26) {
            let equals = pair.firstIndex(of: 0x3D) ?? pair.endIndex
            let value = equals < pair.endIndex ? pair[pair.index(after: equals)...] : pair[equals...]
            items.append(
                (
                    try RequestTarget.decoded(pair[..<equals], plusIsSpace: true),
                    try RequestTarget.decoded(value, plusIsSpace: true)
                ))
            guard items.count <= 64 else { throw .invalid("more than 64 query parameters") }
        }
        self.items = items
    }

    private init(items: [(name: String, value: String)]) { self.items = items }

    func without(_ name: String) -> Query { Query(items: items.filter { $0.name != name }) }

    /// The first value of this name.
    public subscript(name: String) -> String? { items.first { $0.name == name }?.value }
    public func values(_ name: String) -> [String] { items.filter { $0.name == name }.map(\.value) }

    /// After `Route.query` has been checked this cannot fail for a declared integer.
    public func integer(_ name: String) -> Int64? { self[name].flatMap { Int64($0) } }
    public func bool(_ name: String) -> Bool? { self[name].map { $0 == "true" || $0 == "1" || $0 == "" } }
}
