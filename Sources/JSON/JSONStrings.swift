import Glibc

/// The name of a member while its object is being read. Lives as long as the closure that got it.
public struct JSONKey: ~Copyable {
    let text: JSONScannedString
    init(_ text: JSONScannedString) { self.text = text }

    /// Compares without allocating, except for a name that was written with escapes.
    public func `is`(_ name: StaticString) -> Bool {
        let wanted = UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        if text.isEscaped { return string.utf8.elementsEqual(wanted) }
        return sameBytes(text.bytes, wanted)
    }

    public var string: String { text.string }
}

/// The content of a string between its quotes, already checked: escapes, control characters, UTF-8, surrogates.
/// Points into the text of the reader and must not outlive it.
struct JSONScannedString {
    let bytes: UnsafeBufferPointer<UInt8>
    let isEscaped: Bool
    let isASCII: Bool

    var string: String {
        if isEscaped { return String(decoding: unescaped(), as: UTF8.self) }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func unescaped() -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            guard byte == UInt8(ascii: "\\") else {
                result.append(byte)
                index += 1
                continue
            }
            index += 2
            switch bytes[index - 1] {
            case UInt8(ascii: "b"): result.append(0x08)
            case UInt8(ascii: "f"): result.append(0x0C)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "u"):
                var scalar = hexadecimal(at: index)
                index += 4
                if scalar & 0xFC00 == 0xD800 {  // The scan has made sure that the low half follows.
                    scalar = 0x10000 + ((scalar & 0x3FF) << 10 | (hexadecimal(at: index + 2) & 0x3FF))
                    index += 6
                }
                if let scalar = UnicodeScalar(scalar) { result.append(contentsOf: UTF8.encode(scalar) ?? .init()) }
            case let itself: result.append(itself)  // quote, backslash, slash
            }
        }
        return result
    }

    private func hexadecimal(at index: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 << 4 | UInt32(hexadecimalDigit(bytes[index + $1]) ?? 0) }
    }
}

private func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}

extension JSONReader {
    public mutating func string() throws(JSONError) -> String {
        guard take(UInt8(ascii: "\"")) else { throw expected("a string") }
        return try scanString().string
    }

    /// Hands the next string's bytes to `body` where they stand: text is only made of one with escapes.
    public mutating func string<Result>(_ body: (Span<UInt8>) -> Result) throws(JSONError) -> Result {
        guard take(UInt8(ascii: "\"")) else { throw expected("a string") }
        let scanned = try scanString()
        return scanned.isEscaped ? body(scanned.string.utf8Span.span) : body(scanned.bytes.span)
    }

    /// From behind the opening quote to behind the closing one.
    mutating func scanString() throws(JSONError) -> JSONScannedString {
        let start = position
        var isEscaped = false
        var seen: UInt8 = 0
        while true {
            skipPlainBytes()
            guard position < end else {
                throw error(.syntax, "this string has no end: expected '\"'", at: start - 1)
            }
            let byte = base[position]
            if byte == UInt8(ascii: "\"") { break }
            guard byte >= 0x20 else {
                let code = "\\u00" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
                throw error(.syntax, "a control character in a string must be written as \(code)", at: position)
            }
            if byte == UInt8(ascii: "\\") {
                isEscaped = true
                try scanEscape()
            } else {
                seen |= byte
                position += 1
            }
        }
        let bytes = UnsafeBufferPointer(start: base + start, count: position - start)
        position += 1
        let isASCII = seen < 0x80
        if !isASCII { try checkUTF8(bytes, at: start) }
        return JSONScannedString(bytes: bytes, isEscaped: isEscaped, isASCII: isASCII)
    }

    /// To the next byte that needs a look: a quote, a backslash, a control character, or one outside ASCII.
    @inline(__always)
    private mutating func skipPlainBytes() {
        position += plainPrefix(UnsafeRawPointer(base + position), end - position)
    }

    private mutating func scanEscape() throws(JSONError) {
        let start = position
        position += 1
        guard position < end else { throw expected("an escape") }
        switch base[position] {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
            position += 1
        case UInt8(ascii: "u"):
            position += 1
            let unit = try scanCodeUnit()
            if unit & 0xF800 == 0xD800 {
                let pair: Bool
                if unit < 0xDC00, take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) {
                    pair = try scanCodeUnit() & 0xFC00 == 0xDC00
                } else {
                    pair = false
                }
                guard pair else { throw error(.syntax, "half of a surrogate pair stands alone", at: start) }
            }
        default: throw error(.syntax, "unknown escape: allowed are \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX", at: start)
        }
    }

    private mutating func scanCodeUnit() throws(JSONError) -> UInt32 {
        var unit: UInt32 = 0
        for _ in 0..<4 {
            guard position < end, let digit = hexadecimalDigit(base[position]) else {
                throw error(.syntax, "expected four hexadecimal digits after \\u", at: position)
            }
            unit = unit << 4 | UInt32(digit)
            position += 1
        }
        return unit
    }

    private func checkUTF8(_ bytes: UnsafeBufferPointer<UInt8>, at start: Int) throws(JSONError) {
        do throws(UTF8.ValidationError) {
            _ = try UTF8Span(validating: bytes.span)
        } catch {
            throw self.error(.badUTF8, "a string holds bytes that are not UTF-8", at: start + error.byteOffsets.lowerBound)
        }
    }
}

/// How many leading bytes are ASCII and neither control characters nor a quote nor a backslash; looks at eight at a time and
/// may stop short of the last seven.
@inline(__always)
func plainPrefix(_ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let highs: UInt64 = 0x8080_8080_8080_8080
    var index = 0
    while count - index >= 8 {
        let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
        let quote = word ^ (ones &* 0x22)
        let backslash = word ^ (ones &* 0x5C)
        // A borrow can only mark a byte above a true hit wrongly: the lowest mark is always right.
        let special =
            (((quote &- ones) & ~quote) | ((backslash &- ones) & ~backslash) | ((word &- (ones &* 0x20)) & ~word) | word)
            & highs
        if special != 0 { return index + special.trailingZeroBitCount >> 3 }
        index += 8
    }
    return index
}

@inline(__always)
private func sameBytes(_ left: UnsafeBufferPointer<UInt8>, _ right: UnsafeBufferPointer<UInt8>) -> Bool {
    guard left.count == right.count else { return false }
    guard let a = left.baseAddress, let b = right.baseAddress else { return true }
    return memcmp(a, b, left.count) == 0
}

/// The names seen in one object. Up to 16 plain ASCII names need no memory of their own; beyond that, and as soon as a name
/// is escaped or not ASCII, they are compared as strings, so an object of any size costs linear time.
struct JSONKeySet: ~Copyable {
    private var plain = [16 of UnsafeBufferPointer<UInt8>](repeating: UnsafeBufferPointer(start: nil, count: 0))
    private var count = 0
    private var strings: Set<String> = []

    /// False when the name is already there.
    mutating func insert(_ key: borrowing JSONKey) -> Bool {
        guard strings.isEmpty, key.text.isASCII, !key.text.isEscaped, count < plain.count else {
            if strings.isEmpty {
                for index in 0..<count { strings.insert(String(decoding: plain[index], as: UTF8.self)) }
            }
            return strings.insert(key.string).inserted
        }
        let bytes = key.text.bytes
        for index in 0..<count
        where sameBytes(plain[index], bytes) {
            return false
        }
        plain[count] = bytes
        count += 1
        return true
    }
}
