/// Reads a JSON text piece by piece, without building values that nobody asked for.
///
///     let id = try JSONReader.read(bytes) { reader throws(JSONError) in
///         var id = ""
///         try reader.object { key, reader throws(JSONError) in
///             if key.is("id") { id = try reader.string() }
///         }
///         return id
///     }
///
/// A member that the closure does not read is checked and skipped. The reader holds a pointer into the text: it lives only
/// inside `read`, where the text is kept alive, and being noncopyable and `inout` it cannot be stored elsewhere.
public struct JSONReader: ~Copyable {
    let base: UnsafePointer<UInt8>
    let end: Int
    var position = 0
    private var depth = 0
    private let limits: JSONLimits
    let lenient: Bool

    private init(_ bytes: UnsafeRawBufferPointer, _ empty: UnsafePointer<UInt8>, limits: JSONLimits, syntax: JSONSyntax) {
        base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? empty
        end = bytes.count
        self.limits = limits
        lenient = syntax == .lenient
    }

    /// Reads one whole text. The closure must read exactly one value; anything but white space after it is an error.
    public static func read<Result: ~Copyable>(
        _ bytes: RawSpan, limits: JSONLimits = .init(), syntax: JSONSyntax = .strict,
        _ body: (inout JSONReader) throws(JSONError) -> Result
    ) throws(JSONError) -> Result {
        try bytes.withUnsafeBytes { buffer throws(JSONError) in
            // An empty text may have no address; the pointer is then never followed, because `end` is 0.
            var nothing: UInt8 = 0
            return try withUnsafePointer(to: &nothing) { empty throws(JSONError) in
                var reader = JSONReader(buffer, empty, limits: limits, syntax: syntax)
                guard buffer.count <= limits.bytes else {
                    throw reader.error(.tooLong, "\(buffer.count) bytes of JSON, at most \(limits.bytes) are allowed", at: 0)
                }
                try reader.skipSpace()
                let result = try body(&reader)
                try reader.skipSpace()
                guard reader.position == reader.end else {
                    throw reader.expected("the end of the text")
                }
                return result
            }
        }
    }

    public static func read<Result: ~Copyable>(
        _ bytes: [UInt8], limits: JSONLimits = .init(), syntax: JSONSyntax = .strict,
        _ body: (inout JSONReader) throws(JSONError) -> Result
    ) throws(JSONError) -> Result {
        try read(bytes.span.bytes, limits: limits, syntax: syntax, body)
    }

    // MARK: What comes next

    public enum Kind: Sendable { case null, bool, number, string, array, object, end, invalid }

    /// The kind of the next value, judged by its first byte.
    public var next: Kind {
        guard position < end else { return .end }
        return switch base[position] {
        case UInt8(ascii: "n"): .null
        case UInt8(ascii: "t"), UInt8(ascii: "f"): .bool
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): .number
        case UInt8(ascii: "\""): .string
        case UInt8(ascii: "["): .array
        case UInt8(ascii: "{"): .object
        default: .invalid
        }
    }

    /// An error of the caller's own at the present position, for a value that is JSON but not allowed.
    public func fail(_ detail: String) -> JSONError { error(.unexpected, detail, at: position) }

    // MARK: Containers

    /// Calls `member` for each member. Duplicate keys are an error.
    public mutating func object(
        _ member: (borrowing JSONKey, inout JSONReader) throws(JSONError) -> Void
    ) throws(JSONError) {
        try enter(UInt8(ascii: "{"), "an object")
        defer { depth -= 1 }
        if take(UInt8(ascii: "}")) { return }
        var seen = JSONKeySet()
        while true {
            let keyStart = position
            guard take(UInt8(ascii: "\"")) else { throw expected("a member's name in quotes") }
            let key = JSONKey(try scanString())
            guard seen.insert(key) else {
                throw error(.duplicateKey, "\"\(key.string)\" stands twice in the same object", at: keyStart)
            }
            try skipSpace()
            guard take(UInt8(ascii: ":")) else { throw expected("':' after a member's name") }
            try skipSpace()
            let start = position
            do throws(JSONError) {
                try member(key, &self)
                if position == start { try skip() }
            } catch {
                throw error.inside(key.string)
            }
            if try isLast(closing: UInt8(ascii: "}"), "',' or '}' after a member") { return }
        }
    }

    /// Calls `element` for each element; one that it does not read is skipped.
    public mutating func array(_ element: (inout JSONReader) throws(JSONError) -> Void) throws(JSONError) {
        try enter(UInt8(ascii: "["), "an array")
        defer { depth -= 1 }
        if take(UInt8(ascii: "]")) { return }
        var index = 0
        while true {
            let start = position
            do throws(JSONError) {
                try element(&self)
                if position == start { try skip() }
            } catch {
                throw error.inside(String(index))
            }
            index += 1
            if try isLast(closing: UInt8(ascii: "]"), "',' or ']' after an element") { return }
        }
    }

    private mutating func enter(_ opening: UInt8, _ name: String) throws(JSONError) {
        guard take(opening) else { throw expected(name) }
        depth += 1
        guard depth <= limits.depth else {
            throw error(.tooDeep, "more than \(limits.depth) arrays and objects inside each other", at: position - 1)
        }
        try skipSpace()
    }

    /// After a member or element: true when the container has ended.
    private mutating func isLast(closing: UInt8, _ wanted: String) throws(JSONError) -> Bool {
        try skipSpace()
        if take(closing) { return true }
        guard take(UInt8(ascii: ",")) else { throw expected(wanted) }
        try skipSpace()
        return lenient && take(closing)
    }

    // MARK: Scalars

    public mutating func bool() throws(JSONError) -> Bool {
        if takeWord("true") { return true }
        if takeWord("false") { return false }
        throw expected("true or false")
    }

    /// True, and past it, when the next value is `null`.
    public mutating func null() -> Bool { takeWord("null") }

    /// Any value, as a tree.
    public mutating func value() throws(JSONError) -> JSONValue {
        switch next {
        case .string: return .string(try string())
        case .number: return try number()
        case .bool: return .bool(try bool())
        case .null:
            guard null() else { throw expected("a value") }
            return .null
        case .array:
            var elements: [JSONValue] = []
            try array { reader throws(JSONError) in elements.append(try reader.value()) }
            return .array(elements)
        case .object:
            var members = JSONObject()
            try object { key, reader throws(JSONError) in members.appendNew(key.string, try reader.value()) }
            return .object(members)
        case .end, .invalid: throw expected("a value")
        }
    }

    /// Passes over the next value; it is checked as strictly as if it were read.
    public mutating func skip() throws(JSONError) {
        switch next {
        case .string:
            position += 1
            _ = try scanString()
        case .number: _ = try number()
        case .bool: _ = try bool()
        case .null: guard null() else { throw expected("a value") }
        case .array: try array { _ throws(JSONError) in }
        case .object: try object { _, _ throws(JSONError) in }
        case .end, .invalid: throw expected("a value")
        }
    }

    /// Passes over the next value and gives its text as it stands, checked.
    public mutating func raw() throws(JSONError) -> [UInt8] {
        let start = position
        try skip()
        return Array(UnsafeBufferPointer(start: base + start, count: position - start))
    }

    /// The strings of an array.
    public mutating func strings() throws(JSONError) -> [String] {
        var result: [String] = []
        try array { reader throws(JSONError) in result.append(try reader.string()) }
        return result
    }

    // MARK: Bytes

    mutating func take(_ byte: UInt8) -> Bool {
        guard position < end, base[position] == byte else { return false }
        position += 1
        return true
    }

    private mutating func takeWord(_ word: StaticString) -> Bool {
        let length = word.utf8CodeUnitCount
        guard end - position >= length else { return false }
        for index in 0..<length where base[position + index] != word.utf8Start[index] { return false }
        position += length
        return true
    }

    /// Most often there is none.
    @inline(__always)
    mutating func skipSpace() throws(JSONError) {
        guard position < end, base[position] <= 0x20 || base[position] == UInt8(ascii: "/") else { return }
        try skipAllSpace()
    }

    private mutating func skipAllSpace() throws(JSONError) {
        while position < end {
            switch base[position] {
            case 0x20, 0x0A, 0x0D, 0x09: position += 1
            case UInt8(ascii: "/") where lenient: try skipComment()
            default: return
            }
        }
    }

    private mutating func skipComment() throws(JSONError) {
        let start = position
        position += 1
        if take(UInt8(ascii: "/")) {
            while position < end, base[position] != 0x0A { position += 1 }
        } else if take(UInt8(ascii: "*")) {
            while position + 1 < end {
                if base[position] == UInt8(ascii: "*"), base[position + 1] == UInt8(ascii: "/") {
                    position += 2
                    return
                }
                position += 1
            }
            throw error(.syntax, "this comment has no end: expected '*/'", at: start)
        } else {
            throw expected("'//' or '/*'")
        }
    }

    // MARK: Errors

    func expected(_ wanted: String) -> JSONError {
        let isValue = switch next {
        case .end, .invalid: false
        default: true
        }
        return error(isValue ? .unexpected : .syntax, "expected \(wanted), found \(found)", at: position)
    }

    private var found: String {
        guard position < end else { return "the end of the text" }
        let byte = base[position]
        if byte > 0x20, byte < 0x7F { return "'\(Character(UnicodeScalar(byte)))'" }
        return "byte 0x" + String(byte, radix: 16, uppercase: true)
    }

    func error(_ reason: JSONError.Reason, _ detail: String, at offset: Int) -> JSONError {
        var line = 1
        var column = 1
        for index in 0..<min(offset, end) {
            if base[index] == 0x0A {
                line += 1
                column = 1
            } else if base[index] & 0xC0 != 0x80 {
                column += 1
            }
        }
        return JSONError(reason: reason, detail: detail, offset: offset, line: line, column: column)
    }
}
