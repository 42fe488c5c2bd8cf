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
    /// What has been written so far.
    public private(set) var bytes: [UInt8] = []

    public init(reserving capacity: Int = 256) { bytes.reserveCapacity(capacity) }

    public consuming func finish() -> [UInt8] { bytes }

    /// Forgets the text and keeps the memory, for the next one.
    public mutating func restart() { bytes.removeAll(keepingCapacity: true) }

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
        bytes.append(bracket)
    }

    @usableFromInline
    mutating func close(_ bracket: UInt8) { bytes.append(bracket) }

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
        separate()
        bytes.append(contentsOf: text)
    }

    /// A string out of bytes that need not be UTF-8: what is not becomes U+FFFD.
    public mutating func string(utf8 text: some Collection<UInt8>) { string(String(decoding: text, as: UTF8.self)) }

    /// Ends a line of JSON lines (https://jsonlines.org); the next value starts afresh.
    public mutating func newline() { bytes.append(0x0A) }

    // MARK: Scalars

    public mutating func null() {
        separate()
        bytes.append(contentsOf: [UInt8(ascii: "n"), UInt8(ascii: "u"), UInt8(ascii: "l"), UInt8(ascii: "l")])
    }

    public mutating func bool(_ value: Bool) {
        separate()
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    public mutating func integer(_ value: Int64) {
        separate()
        if value < 0 { bytes.append(UInt8(ascii: "-")) }
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
        bytes.append(contentsOf: value.description.utf8)
    }

    public mutating func string(_ value: String) {
        appendQuoted(value.utf8Span.span, isKey: false)
    }

    /// A string that stands somewhere already; nothing is copied on the way.
    public mutating func string(_ value: UTF8Span) { appendQuoted(value.span, isKey: false) }

    /// A string of which the caller knows that no byte of it needs an escape.
    public mutating func plain(_ ascii: Span<UInt8>) { ascii.withUnsafeBufferPointer { appendPlain($0, isKey: false) } }

    // MARK: Bytes

    /// No comma where the last byte shows that nothing stands before: no JSON value ends in one of these.
    private var needsComma: Bool {
        switch bytes.last {
        case nil, UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: ":"), 0x0A: false
        default: true
        }
    }

    private mutating func separate() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
    }

    private mutating func appendDigits(_ value: UInt64) {
        var count = 1
        var rest = value / 10
        while rest > 0 {
            rest /= 10
            count += 1
        }
        bytes.append(addingCapacity: count) { (output: inout OutputSpan<UInt8>) in
            output.withUnsafeMutableBufferPointer { buffer, initialized in
                var rest = value
                for index in (0..<count).reversed() {
                    buffer[index] = UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest % 10)
                    rest /= 10
                }
                initialized = count
            }
        }
    }

    /// A comma where one is due, quotes, and the colon after a key.
    private mutating func appendQuoted(_ text: Span<UInt8>, isKey: Bool) {
        text.withUnsafeBufferPointer { text in
            guard plainLength(text, from: 0) < text.count else { return appendPlain(text, isKey: isKey) }
            separate()
            bytes.append(UInt8(ascii: "\""))
            appendEscaped(text)
            bytes.append(UInt8(ascii: "\""))
            if isKey { bytes.append(UInt8(ascii: ":")) }
        }
    }

    /// In one go: most text needs no escape, and room is asked for once.
    private mutating func appendPlain(_ text: UnsafeBufferPointer<UInt8>, isKey: Bool) {
        let needsComma = needsComma
        bytes.append(addingCapacity: text.count + 4) { (output: inout OutputSpan<UInt8>) in
            output.withUnsafeMutableBufferPointer { buffer, initialized in
                var end = 0
                if needsComma {
                    buffer[end] = UInt8(ascii: ",")
                    end += 1
                }
                buffer[end] = UInt8(ascii: "\"")
                end += 1
                if let source = text.baseAddress, let base = buffer.baseAddress {
                    (base + end).update(from: source, count: text.count)
                    end += text.count
                }
                buffer[end] = UInt8(ascii: "\"")
                end += 1
                if isKey {
                    buffer[end] = UInt8(ascii: ":")
                    end += 1
                }
                initialized = end
            }
        }
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
    private mutating func appendEscaped(_ text: UnsafeBufferPointer<UInt8>) {
        var index = 0
        while true {
            let end = plainLength(text, from: index)
            bytes.append(contentsOf: text[index..<end])
            guard end < text.count else { return }
            index = end + 1
            bytes.append(UInt8(ascii: "\\"))
            switch text[end] {
            case 0x08: bytes.append(UInt8(ascii: "b"))
            case 0x09: bytes.append(UInt8(ascii: "t"))
            case 0x0A: bytes.append(UInt8(ascii: "n"))
            case 0x0C: bytes.append(UInt8(ascii: "f"))
            case 0x0D: bytes.append(UInt8(ascii: "r"))
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes.append(text[end])
            case let control:
                bytes.append(contentsOf: (control < 16 ? "u000" : "u00").utf8)
                bytes.append(contentsOf: String(control, radix: 16).utf8)
            }
        }
    }
}
