/// What a value is held against: literal text, or a glob in which `*` is any run of bytes and `?` one character.
struct Pattern: Sendable, Hashable {
    let text: String
    let isGlob: Bool

    init(_ text: String, literal: Bool = false) {
        self.text = text
        isGlob = !literal && text.utf8.contains { $0 == 0x2A || $0 == 0x3F }
    }

    func matches(_ value: String) -> Bool {
        isGlob ? Self.glob(text.utf8, value.utf8) : value.utf8.elementsEqual(text.utf8)
    }

    /// Goes back only to the last `*`, so the work is at most pattern × value, never exponential.
    private static func glob(_ pattern: String.UTF8View, _ value: String.UTF8View) -> Bool {
        var p = pattern.startIndex
        var v = value.startIndex
        var star: (pattern: String.Index, value: String.Index)?
        while v < value.endIndex {
            if p < pattern.endIndex, pattern[p] == 0x2A {
                p = pattern.index(after: p)
                star = (p, v)
            } else if p < pattern.endIndex, pattern[p] == 0x3F {
                p = pattern.index(after: p)
                v = afterCharacter(value, v)
            } else if p < pattern.endIndex, pattern[p] == value[v] {
                p = pattern.index(after: p)
                v = value.index(after: v)
            } else if let last = star {
                p = last.pattern
                v = value.index(after: last.value)
                star = (p, v)
            } else {
                return false
            }
        }
        while p < pattern.endIndex, pattern[p] == 0x2A { p = pattern.index(after: p) }
        return p == pattern.endIndex
    }

    /// The position after one UTF-8 encoded scalar.
    private static func afterCharacter(_ value: String.UTF8View, _ index: String.Index) -> String.Index {
        var next = value.index(after: index)
        while next < value.endIndex, value[next] & 0xC0 == 0x80 { next = value.index(after: next) }
        return next
    }
}

/// `<`, `<=`, `>` or `>=` against a number, a size or a version.
struct Comparison: Sendable, Hashable {
    enum Operator: String, Sendable {
        case less = "<"
        case lessOrEqual = "<="
        case greater = ">"
        case greaterOrEqual = ">="
    }
    let `operator`: Operator
    let text: String
    /// The bound as a number, sizes multiplied out; `nil` compares as versions (runs of digits by their number).
    let number: Double?

    init(_ operator: Operator, _ text: String) {
        self.operator = `operator`
        self.text = text
        number = Self.number(text)
    }

    /// A number against a number goes by size. A number against something that begins with a digit (`6.1.0-18`), and
    /// text against text, go by version order. A number against other text never holds.
    func holds(for value: String) -> Bool {
        if let number {
            if let other = Self.number(value) { return accepts(other < number ? -1 : other > number ? 1 : 0) }
            guard let first = value.utf8.first, SelectorSyntax.isDigit(first) else { return false }
        }
        return accepts(Self.versionOrder(value, text))
    }

    private func accepts(_ order: Int) -> Bool {
        switch self.operator {
        case .less: order < 0
        case .lessOrEqual: order <= 0
        case .greater: order > 0
        case .greaterOrEqual: order >= 0
        }
    }

    /// A decimal number with an optional size suffix: K, M, G, T, or KiB … TiB, each a power of 1,024.
    static func number(_ text: String) -> Double? {
        let bytes = Array(text.utf8)
        var end = bytes.count
        if end >= 3, bytes[end - 1] == 0x42, bytes[end - 2] == 0x69 { end -= 2 }  // "iB"
        var factor = 1.0
        if end > 1, !SelectorSyntax.isDigit(bytes[end - 1]) {
            switch bytes[end - 1] {
            case 0x4B, 0x6B: factor = 1_024
            case 0x4D: factor = 1_048_576
            case 0x47: factor = 1_073_741_824
            case 0x54: factor = 1_099_511_627_776
            default: return nil
            }
            end -= 1
        } else if end != bytes.count {
            return nil
        }
        guard end > 0, end <= 32 else { return nil }
        for (index, byte) in bytes[..<end].enumerated() {
            guard SelectorSyntax.isDigit(byte) || byte == 0x2E || (index == 0 && byte == 0x2D) else { return nil }
        }
        return Double(String(decoding: bytes[..<end], as: UTF8.self)).map { $0 * factor }
    }

    /// Runs of digits by their number, everything else byte by byte: 6.1.9 < 6.1.10, deb9 < deb10. −1, 0 or 1.
    static func versionOrder(_ a: String, _ b: String) -> Int {
        var a = Array(a.utf8)[...]
        var b = Array(b.utf8)[...]
        while let x = a.first, let y = b.first {
            if SelectorSyntax.isDigit(x), SelectorSyntax.isDigit(y) {
                let left = takeDigits(&a)
                let right = takeDigits(&b)
                if left.count != right.count { return left.count < right.count ? -1 : 1 }
                if left != right { return left.lexicographicallyPrecedes(right) ? -1 : 1 }
            } else {
                if x != y { return x < y ? -1 : 1 }
                a.removeFirst()
                b.removeFirst()
            }
        }
        return a.isEmpty ? (b.isEmpty ? 0 : -1) : 1
    }

    /// A run of digits without its leading zeros.
    private static func takeDigits(_ bytes: inout ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        let run = bytes.prefix(while: SelectorSyntax.isDigit)
        bytes = bytes.dropFirst(run.count)
        return run.drop { $0 == 0x30 }
    }
}
