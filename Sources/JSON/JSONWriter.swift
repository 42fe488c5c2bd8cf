/// Writes a JSON text into one growing buffer. Commas take care of themselves.
///
///     var writer = JSONWriter()
///     writer.object {
///         $0.field("id", id)
///         $0.array("labels") { for label in labels { $0.value(label) } }
///     }
///     let bytes = writer.finish()
///
/// Keys are written in the order of the calls; the caller does not repeat one.
public struct JSONWriter: ~Copyable {
    private var text: JSONBuffer
    /// Whether a value stands before, in the same container: the next one comes after a comma.
    private var needsComma = false

    public init(reserving capacity: Int = 256) { text = JSONBuffer(capacity: capacity) }

    /// What has been written so far: a copy.
    public var bytes: [UInt8] { text.bytes }

    /// How many bytes have been written so far.
    public var byteCount: Int { text.count }

    public consuming func finish() -> [UInt8] { text.bytes }

    /// Forgets the text and keeps the memory, for the next one.
    public mutating func restart() {
        text.removeAll()
        needsComma = false
    }

    // MARK: Containers

    @inlinable
    public mutating func object<Failure>(_ members: (inout JSONWriter) throws(Failure) -> Void) throws(Failure) {
        open(UInt8(ascii: "{"))
        try members(&self)
        close(UInt8(ascii: "}"))
    }

    @inlinable
    public mutating func array<Failure>(_ elements: (inout JSONWriter) throws(Failure) -> Void) throws(Failure) {
        open(UInt8(ascii: "["))
        try elements(&self)
        close(UInt8(ascii: "]"))
    }

    @inlinable
    public mutating func object<Failure>(
        _ key: StaticString, _ members: (inout JSONWriter) throws(Failure) -> Void
    ) throws(Failure) {
        self.key(key)
        try object(members)
    }

    @inlinable
    public mutating func array<Failure>(
        _ key: StaticString, _ elements: (inout JSONWriter) throws(Failure) -> Void
    ) throws(Failure) {
        self.key(key)
        try array(elements)
    }

    @usableFromInline
    mutating func open(_ bracket: UInt8) {
        separate()
        text.append(bracket)
        needsComma = false
    }

    @usableFromInline
    mutating func close(_ bracket: UInt8) {
        text.append(bracket)
        needsComma = true
    }

    // MARK: Members and values

    /// The name of the member whose value is written next: a literal that needs no escape, so that nobody looks for one.
    public mutating func key(_ key: StaticString) {
        let text = UnsafeBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount)
        assert(plainLength(text, from: 0) == text.count, "a key that needs escapes: name it with member(_:_:)")
        appendPlain(text, isKey: true)
    }

    @inlinable
    public mutating func field(_ key: StaticString, _ value: some JSONWritable) {
        self.key(key)
        value.write(to: &self)
    }

    /// A member whose name comes from data.
    @inlinable
    public mutating func member(_ name: String, _ value: some JSONWritable) {
        self.name(name)
        value.write(to: &self)
    }

    /// The name, out of data, of the member whose value is written next.
    public mutating func name(_ name: String) { appendQuoted(name.utf8Span.span, isKey: true) }

    /// Leaves the member out when there is no value. (`field` writes `null`.)
    @inlinable
    public mutating func field(_ key: StaticString, ifPresent value: (some JSONWritable)?) {
        if let value { field(key, value) }
    }

    @inlinable
    public mutating func value(_ value: some JSONWritable) { value.write(to: &self) }

    /// Bytes that the caller knows to be exactly one JSON value.
    public mutating func raw(_ text: [UInt8]) {
        guard !text.isEmpty else { return }
        separate()
        text.withUnsafeBufferPointer { self.text.append($0) }
    }

    /// A string out of bytes that need not be UTF-8: what is not becomes U+FFFD.
    public mutating func string(utf8 text: some Collection<UInt8>) { string(String(decoding: text, as: UTF8.self)) }

    /// Ends a line of JSON lines (https://jsonlines.org); the next value starts afresh.
    public mutating func newline() {
        text.append(0x0A)
        needsComma = false
    }

    // MARK: Scalars

    public mutating func null() {
        separate()
        text.append("null")
    }

    public mutating func bool(_ value: Bool) {
        separate()
        text.append(value ? "true" : "false")
    }

    public mutating func integer(_ value: Int64) {
        separate()
        if value < 0 { text.append(UInt8(ascii: "-")) }
        appendDigits(value.magnitude)
    }

    public mutating func unsigned(_ value: UInt64) {
        separate()
        appendDigits(value)
    }

    /// JSON has no infinity and no NaN: those become `null`.
    public mutating func double(_ value: Double) {
        guard value.isFinite else { return null() }
        separate()
        var description = value.description
        description.withUTF8 { text.append($0) }
    }

    /// A number of thousandths, such as microseconds to be shown as milliseconds: exact, and as `double` shows it ("1.5", "2.0").
    public mutating func thousandths(_ value: UInt64) {
        separate()
        appendDigits(value / 1_000)
        var rest = value % 1_000
        text.append(UInt8(ascii: "."))
        var place: UInt64 = 100
        repeat {
            text.append(UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest / place))
            rest %= place
            place /= 10
        } while rest > 0
    }

    public mutating func string(_ value: String) {
        appendQuoted(value.utf8Span.span, isKey: false)
    }

    /// A string that stands somewhere already; nothing is copied on the way.
    public mutating func string(_ value: UTF8Span) { appendQuoted(value.span, isKey: false) }

    /// A string of which the caller knows that no byte of it needs an escape.
    public mutating func plain(_ ascii: Span<UInt8>) { ascii.withUnsafeBufferPointer { appendPlain($0, isKey: false) } }

    // MARK: Bytes

    /// Before each value that is no string.
    @inline(__always)
    private mutating func separate() {
        if needsComma { text.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    private mutating func appendDigits(_ value: UInt64) {
        // Two digits at a time, from the right.
        var count = 1
        var rest = value
        while rest >= 10 {
            count += rest >= 100 ? 2 : 1
            rest /= 100
        }
        let start = text.room(count)
        var end = count
        rest = value
        while end >= 2 {
            let pair = UInt8(truncatingIfNeeded: rest % 100)
            rest /= 100
            start[end - 1] = UInt8(ascii: "0") &+ pair % 10
            start[end - 2] = UInt8(ascii: "0") &+ pair / 10
            end -= 2
        }
        if end == 1 { start[0] = UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest) }
        text.advance(count)
    }

    /// A comma where one is due, quotes, and the colon after a key.
    private mutating func appendQuoted(_ content: Span<UInt8>, isKey: Bool) {
        content.withUnsafeBufferPointer { content in
            guard plainLength(content, from: 0) < content.count else { return appendPlain(content, isKey: isKey) }
            separate()
            text.append(UInt8(ascii: "\""))
            appendEscaped(content)
            text.append(UInt8(ascii: "\""))
            if isKey {
                text.append(UInt8(ascii: ":"))
                needsComma = false
            }
        }
    }

    /// In one go: most text needs no escape, and room is asked for once.
    @inline(__always)
    private mutating func appendPlain(_ content: UnsafeBufferPointer<UInt8>, isKey: Bool) {
        let start = text.room(content.count + 4)
        var end = 0
        if needsComma {
            start[end] = UInt8(ascii: ",")
            end += 1
        }
        start[end] = UInt8(ascii: "\"")
        end += 1
        if let source = content.baseAddress {
            (start + end).update(from: source, count: content.count)
            end += content.count
        }
        start[end] = UInt8(ascii: "\"")
        end += 1
        if isKey {
            start[end] = UInt8(ascii: ":")
            end += 1
        }
        needsComma = !isKey
        text.advance(end)
    }

    /// The index of the first byte from `start` on that needs an escape; the count when none does.
    private func plainLength(_ text: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
        guard let base = text.baseAddress else { return 0 }
        var index = start
        while true {
            index += plainPrefix(UnsafeRawPointer(base + index), text.count - index)
            guard index < text.count else { return index }
            let byte = text[index]
            if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { return index }
            index += 1
        }
    }

    /// Copies runs that need no escape in one go.
    private mutating func appendEscaped(_ content: UnsafeBufferPointer<UInt8>) {
        var index = 0
        while true {
            let end = plainLength(content, from: index)
            text.append(UnsafeBufferPointer(rebasing: content[index..<end]))
            guard end < content.count else { return }
            index = end + 1
            text.append(UInt8(ascii: "\\"))
            switch content[end] {
            case 0x08: text.append(UInt8(ascii: "b"))
            case 0x09: text.append(UInt8(ascii: "t"))
            case 0x0A: text.append(UInt8(ascii: "n"))
            case 0x0C: text.append(UInt8(ascii: "f"))
            case 0x0D: text.append(UInt8(ascii: "r"))
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): text.append(content[end])
            case let control:
                text.append(control < 16 ? "u000" : "u00")
                var digits = String(control, radix: 16)
                digits.withUTF8 { text.append($0) }
            }
        }
    }
}
