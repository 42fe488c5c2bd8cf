/// The version of an agent release, `MAJOR.MINOR.PATCH` with an optional `-PRE` part, ordered as semantic versions are:
/// numbers by their value, and a version with such a part before the one without.
public struct ReleaseVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    public static let maximumBytes = 40

    private let numbers: [UInt64]
    /// Words between dots; empty for a version without that part.
    private let pre: [String]

    /// `nil` for any other text: also for numbers with zeros in front, so that a version has one text.
    public init?(_ text: String) {
        guard (1...Self.maximumBytes).contains(text.utf8.count) else { return nil }
        let halves = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        let parts = halves[0].split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3 else { return nil }
        var numbers: [UInt64] = []
        for part in parts {
            guard let number = Self.number(part) else { return nil }
            numbers.append(number)
        }
        self.numbers = numbers
        var pre: [String] = []
        if halves.count == 2 {
            for word in halves[1].split(separator: ".", omittingEmptySubsequences: false) {
                guard !word.isEmpty, word.utf8.allSatisfy(Self.isWordCharacter) else { return nil }
                pre.append(String(word))
            }
        }
        self.pre = pre
    }

    private static func number(_ text: Substring) -> UInt64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), text == "0" || text.utf8.first != 0x30
        else { return nil }
        return UInt64(text)
    }

    private static func isWordCharacter(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x2D
    }

    public var description: String {
        let base = numbers.map(String.init).joined(separator: ".")
        return pre.isEmpty ? base : base + "-" + pre.joined(separator: ".")
    }

    public static func < (a: ReleaseVersion, b: ReleaseVersion) -> Bool {
        if a.numbers != b.numbers { return a.numbers.lexicographicallyPrecedes(b.numbers) }
        if a.pre.isEmpty || b.pre.isEmpty { return !a.pre.isEmpty && b.pre.isEmpty }
        for (left, right) in zip(a.pre, b.pre) where left != right {
            switch (number(left[...]), number(right[...])) {
            case (let x?, let y?): return x < y
            case (.some, nil): return true
            case (nil, .some): return false
            case (nil, nil): return left.utf8.lexicographicallyPrecedes(right.utf8)
            }
        }
        return a.pre.count < b.pre.count
    }
}
