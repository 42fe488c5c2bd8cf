/// Header fields in the order of their arrival: one byte buffer, in the form in which they go out, and an index; a whole
/// head costs two allocations.
/// Names are kept in lower case, which is how they go out too (RFC 9110 §5.1: names have no case).
public struct HTTPHeaders: Sendable, Equatable, ExpressibleByDictionaryLiteral {
    struct Field: Sendable, Equatable {
        var nameStart: UInt32
        var nameCount: UInt32
        var valueStart: UInt32
        var valueCount: UInt32

        var name: Range<Int> { Int(nameStart)..<Int(nameStart + nameCount) }
        var value: Range<Int> { Int(valueStart)..<Int(valueStart + valueCount) }
    }
    private(set) var bytes: [UInt8] = []
    private(set) var fields: [Field] = []

    public init() {}

    public init(dictionaryLiteral elements: (String, String)...) {
        for (name, value) in elements { add(name, value) }
    }

    /// Empty, with room for the fields of a usual answer.
    public static var roomy: HTTPHeaders {
        var headers = HTTPHeaders()
        headers.bytes.reserveCapacity(640)
        headers.fields.reserveCapacity(14)
        return headers
    }

    public var count: Int { fields.count }

    /// The value of the first field with this name.
    public subscript(_ name: String) -> String? { first(name).map { text($0.value) } }

    public func values(_ name: String) -> [String] {
        var values: [String] = []
        let name = name.utf8Span.span
        for field in fields where isNamed(field, name) {
            values.append(text(field.value))
        }
        return values
    }

    /// Whether the first field with this name has exactly this value. Makes no text.
    public func holds(_ name: String, _ value: String) -> Bool {
        first(name).map { bytes.span.extracting($0.value).matches(value) } ?? false
    }

    public func contains(_ name: String) -> Bool { first(name) != nil }

    /// The bytes of the first field with this name, where they stand. `nil` without such a field.
    public func withValue<Result>(_ name: String, _ body: (Span<UInt8>) -> Result) -> Result? {
        first(name).map { body(bytes.span.extracting($0.value)) }
    }

    private func first(_ name: String) -> Field? {
        let name = name.utf8Span.span
        for field in fields where isNamed(field, name) { return field }
        return nil
    }

    /// All fields as text, in order.
    public var all: [(name: String, value: String)] {
        fields.map { (text($0.name), text($0.value)) }
    }

    /// True when a comma-separated list field (all its lines together) holds this token, without regard to case.
    public func list(_ name: String, contains token: String) -> Bool {
        let name = name.utf8Span.span
        for field in fields where isNamed(field, name) {
            let value = bytes.span.extracting(field.value)
            var start = 0
            while start <= value.count {
                var end = start
                while end < value.count, value[end] != 0x2C { end += 1 }
                var first = start
                var last = end
                while first < last, value[first] == HTTPBytes.space || value[first] == HTTPBytes.tab { first += 1 }
                while last > first, value[last - 1] == HTTPBytes.space || value[last - 1] == HTTPBytes.tab {
                    last -= 1
                }
                if value.extracting(first..<last).matchesIgnoringCase(token) { return true }
                start = end + 1
            }
        }
        return false
    }

    /// Adds a field. A byte that could end the line or hide in it (control characters) becomes a space in the value
    /// and `-` in the name: text from strangers cannot split a response.
    public mutating func add(_ name: String, _ value: String) {
        let nameStart = bytes.count
        // Copied in one go and then looked over in place: nearly every byte is right as it stands.
        bytes.append(text: name)
        let nameEnd = bytes.count
        separate()
        let valueStart = bytes.count
        bytes.append(text: value)
        let isPlain = bytes.span.plainPrefix(from: valueStart) == bytes.count
        bytes.withUnsafeMutableBufferPointer { buffer in
            for index in nameStart..<nameEnd {
                let byte = buffer[index]
                if byte >= 0x61 && byte <= 0x7A || byte == 0x2D { continue }
                buffer[index] = HTTPBytes.isToken(byte) ? HTTPBytes.lowercased(byte) : 0x2D
            }
            guard !isPlain else { return }
            for index in valueStart..<buffer.count where !HTTPBytes.isFieldValue(buffer[index]) {
                buffer[index] = HTTPBytes.space
            }
        }
        note(nameStart, nameCount: nameEnd - nameStart, valueStart)
    }

    /// Adds a field whose value is `prefix` and then text of which the caller knows that it is visible ASCII.
    public mutating func add(_ name: StaticString, _ prefix: StaticString, plain ascii: Span<UInt8>) {
        let nameStart = bytes.count
        bytes.append(static: name)
        separate()
        let valueStart = bytes.count
        bytes.append(static: prefix)
        ascii.withUnsafeBufferPointer { bytes.append(contentsOf: $0) }
        note(nameStart, nameCount: name.utf8CodeUnitCount, valueStart)
    }

    /// Adds a field whose value is a number.
    public mutating func add(_ name: StaticString, decimal value: UInt64) {
        let nameStart = bytes.count
        bytes.append(static: name)
        separate()
        let valueStart = bytes.count
        bytes.append(decimal: value)
        note(nameStart, nameCount: name.utf8CodeUnitCount, valueStart)
    }

    private mutating func separate() {
        bytes.append(HTTPBytes.colon)
        bytes.append(HTTPBytes.space)
    }

    /// The value ends here: ends the line and puts it into the index.
    private mutating func note(_ nameStart: Int, nameCount: Int, _ valueStart: Int) {
        fields.append(
            Field(
                nameStart: UInt32(nameStart), nameCount: UInt32(nameCount), valueStart: UInt32(valueStart),
                valueCount: UInt32(bytes.count - valueStart)))
        bytes.append(HTTPBytes.carriageReturn)
        bytes.append(HTTPBytes.lineFeed)
    }

    /// Adds all fields of `other`, whose bytes have been checked when they were added there.
    public mutating func append(_ other: HTTPHeaders) {
        let shift = UInt32(bytes.count)
        bytes.append(contentsOf: other.bytes)
        for var field in other.fields {
            field.nameStart += shift
            field.valueStart += shift
            fields.append(field)
        }
    }

    /// Replaces all fields of this name.
    public mutating func set(_ name: String, _ value: String) {
        remove(name)
        add(name, value)
    }

    public mutating func remove(_ name: String) {
        guard contains(name) else { return }
        let old = self
        let name = name.utf8Span.span
        bytes.removeAll(keepingCapacity: true)
        fields.removeAll(keepingCapacity: true)
        for field in old.fields where !old.isNamed(field, name) {
            let nameStart = bytes.count
            let line = Int(field.nameStart)..<Int(field.valueStart + field.valueCount)
            bytes.append(contentsOf: old.bytes[line])
            note(nameStart, nameCount: Int(field.nameCount), nameStart + field.value.lowerBound - line.lowerBound)
        }
    }

    /// Appends every field as a line.
    func write(to output: inout [UInt8]) { output.append(contentsOf: bytes) }

    /// Nearly always the count alone tells.
    @inline(__always)
    private func isNamed(_ field: Field, _ name: Span<UInt8>) -> Bool {
        Int(field.nameCount) == name.count && bytes.span.extracting(field.name).matchesIgnoringCase(name)
    }

    private func text(_ range: Range<Int>) -> String { String(repairing: bytes.span.extracting(range)) }

    public static func == (left: Self, right: Self) -> Bool {
        left.all.elementsEqual(right.all) { $0.name == $1.name && $0.value == $1.value }
    }
}

extension HTTPHeaders {
    /// Reads the field lines of `head` (each ended by CR LF; the scanner has checked that) up to the empty line.
    /// RFC 9112 §5.1 and §5.2: no white space before the colon, no folded lines.
    static func parsing(_ head: Span<UInt8>, from start: Int, limit: Int) throws(HTTPRefusal) -> HTTPHeaders {
        var headers = HTTPHeaders()
        // Each line may grow by the space after its colon.
        headers.bytes.reserveCapacity(head.count - start + 16)
        headers.fields.reserveCapacity(8)
        var line = start
        while line < head.count {
            var end = head.plainPrefix(from: line)
            while end < head.count, head[end] != HTTPBytes.carriageReturn { end = head.plainPrefix(from: end + 1) }
            if end == line { break }
            try headers.parseLine(head.extracting(line..<end), limit: limit)
            line = end + 2
        }
        return headers
    }

    private mutating func parseLine(_ line: Span<UInt8>, limit: Int) throws(HTTPRefusal) {
        guard fields.count < limit else {
            throw HTTPRefusal(431, "more than \(limit) header fields")
        }
        guard line[0] != HTTPBytes.space, line[0] != HTTPBytes.tab else {
            throw HTTPRefusal(400, "a header line begins with white space; folded headers are not accepted")
        }
        var nameCount = 0
        while nameCount < line.count, HTTPBytes.isToken(line[nameCount]) { nameCount += 1 }
        guard nameCount < line.count else { throw HTTPRefusal(400, "a header line without a colon") }
        guard line[nameCount] == HTTPBytes.colon else {
            throw HTTPRefusal(400, "byte \(line[nameCount]) in a header name; names are tokens followed by a colon")
        }
        guard nameCount > 0 else { throw HTTPRefusal(400, "an empty header name") }
        var first = nameCount + 1
        var last = line.count
        while first < last, line[first] == HTTPBytes.space || line[first] == HTTPBytes.tab { first += 1 }
        while last > first, line[last - 1] == HTTPBytes.space || line[last - 1] == HTTPBytes.tab { last -= 1 }
        var position = line.plainPrefix(from: first)
        while position < last {
            guard HTTPBytes.isFieldValue(line[position]) else {
                throw HTTPRefusal(400, "control byte \(line[position]) in a header value")
            }
            position = line.plainPrefix(from: position + 1)
        }
        let nameStart = bytes.count
        line.extracting(0..<nameCount).withUnsafeBufferPointer { bytes.append(contentsOf: $0) }
        bytes.withUnsafeMutableBufferPointer { buffer in
            for index in nameStart..<buffer.count { buffer[index] = HTTPBytes.lowercased(buffer[index]) }
        }
        separate()
        let valueStart = bytes.count
        line.extracting(first..<last).withUnsafeBufferPointer { bytes.append(contentsOf: $0) }
        note(nameStart, nameCount: nameCount, valueStart)
    }

    /// How often a field occurs, without making text of it.
    func occurrences(_ name: String) -> Int {
        var count = 0
        let name = name.utf8Span.span
        for field in fields where isNamed(field, name) { count += 1 }
        return count
    }
}
