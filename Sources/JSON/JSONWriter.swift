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

    public mutating func object<Failure>(_ members: (inout JSONWriter) throws(Failure) -> Void) throws(Failure) {
        separate()
        bytes.append(UInt8(ascii: "{"))
        try members(&self)
        bytes.append(UInt8(ascii: "}"))
    }

    public mutating func array<Failure>(_ elements: (inout JSONWriter) throws(Failure) -> Void) throws(Failure) {
        separate()
        bytes.append(UInt8(ascii: "["))
        try elements(&self)
        bytes.append(UInt8(ascii: "]"))
    }

    public mutating func object<Failure>(
        _ key: String, _ members: (inout JSONWriter) throws(Failure) -> Void
    ) throws(Failure) {
        self.key(key)
        try object(members)
    }

    public mutating func array<Failure>(
        _ key: String, _ elements: (inout JSONWriter) throws(Failure) -> Void
    ) throws(Failure) {
        self.key(key)
        try array(elements)
    }

    // MARK: Members and values

    /// The name of the member whose value is written next.
    public mutating func key(_ key: String) {
        separate()
        appendQuoted(key)
        bytes.append(UInt8(ascii: ":"))
    }

    @inlinable
    public mutating func field(_ key: String, _ value: some JSONWritable) {
        self.key(key)
        value.write(to: &self)
    }

    /// Leaves the member out when there is no value. (`field` writes `null`.)
    @inlinable
    public mutating func field(_ key: String, ifPresent value: (some JSONWritable)?) {
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
        separate()
        appendQuoted(value)
    }

    /// A string of which the caller knows that no byte of it needs an escape.
    public mutating func plain(_ ascii: Span<UInt8>) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        ascii.withUnsafeBufferPointer { bytes.append(contentsOf: $0) }
        bytes.append(UInt8(ascii: "\""))
    }

    // MARK: Bytes

    /// A comma, unless the last byte shows that nothing stands before: no JSON value ends in one of these.
    private mutating func separate() {
        switch bytes.last {
        case nil, UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: ":"), 0x0A: break
        default: bytes.append(UInt8(ascii: ","))
        }
    }

    private mutating func appendDigits(_ value: UInt64) {
        var digits = [20 of UInt8](repeating: 0)
        var start = digits.count
        var rest = value
        repeat {
            start -= 1
            digits[start] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        } while rest > 0
        for index in start..<digits.count { bytes.append(digits[index]) }
    }

    private mutating func appendQuoted(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        let contiguous: Void? = text.utf8.withContiguousStorageIfAvailable { appendEscaped($0) }
        if contiguous == nil { Array(text.utf8).withUnsafeBufferPointer { appendEscaped($0) } }
        bytes.append(UInt8(ascii: "\""))
    }

    /// Copies runs that need no escape in one go.
    private mutating func appendEscaped(_ text: UnsafeBufferPointer<UInt8>) {
        guard let base = text.baseAddress else { return }
        var runStart = 0
        var index = 0
        func run() -> UnsafeBufferPointer<UInt8> { UnsafeBufferPointer(start: base + runStart, count: index - runStart) }
        while true {
            index += plainPrefix(UnsafeRawPointer(base + index), text.count - index)
            guard index < text.count else { break }
            let byte = text[index]
            guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else {
                index += 1
                continue
            }
            bytes.append(contentsOf: run())
            index += 1
            runStart = index
            bytes.append(UInt8(ascii: "\\"))
            switch byte {
            case 0x08: bytes.append(UInt8(ascii: "b"))
            case 0x09: bytes.append(UInt8(ascii: "t"))
            case 0x0A: bytes.append(UInt8(ascii: "n"))
            case 0x0C: bytes.append(UInt8(ascii: "f"))
            case 0x0D: bytes.append(UInt8(ascii: "r"))
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes.append(byte)
            default:
                bytes.append(contentsOf: (byte < 16 ? "u000" : "u00").utf8)
                bytes.append(contentsOf: String(byte, radix: 16).utf8)
            }
        }
        bytes.append(contentsOf: run())
    }
}
