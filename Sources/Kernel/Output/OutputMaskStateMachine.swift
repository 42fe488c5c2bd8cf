/// One stream of output on its way to the store, with secrets replaced by asterisks, byte for byte: lengths and offsets
/// stay what the program wrote.
///
/// Holds back only what may be the beginning of a secret, at most the longest pattern; `finish` gives that out. Not a
/// boundary: a program can print a secret in any other form.
struct OutputMaskStateMachine: Sendable, Equatable {
    static let asterisk = UInt8(ascii: "*")

    /// `nil`: nobody knows the secrets any more, and everything but line ends is masked.
    private let patterns: SecretPatterns?
    private var node: SecretPatterns.Node = 0
    private var held: [UInt8] = []

    init(_ patterns: SecretPatterns?) { self.patterns = patterns }

    var heldBytes: Int { held.count }

    /// Leaves line ends only.
    static func cover(_ bytes: inout [UInt8]) {
        for place in bytes.indices where bytes[place] != 0x0A { bytes[place] = asterisk }
    }

    /// What may be stored now.
    mutating func take(_ bytes: RawSpan) -> [UInt8] {
        guard let patterns else {
            var masked = bytes.withUnsafeBytes { Array($0) }
            Self.cover(&masked)
            return masked
        }
        var work = held
        held = []
        work.reserveCapacity(work.count + bytes.byteCount)
        bytes.withUnsafeBytes { bytes in
            for byte in bytes {
                work.append(byte)
                node = patterns.next(node, byte)
                let match = patterns.match(node)
                // A pattern that ends here began within what is held: the automaton's depth never falls behind it.
                if match > 0 { for place in work.count - match..<work.count { work[place] = Self.asterisk } }
            }
        }
        let keep = patterns.depth(node)
        held = Array(work.suffix(keep))
        work.removeLast(held.count)
        return work
    }

    /// The stream has ended.
    mutating func finish() -> [UInt8] {
        defer {
            held = []
            node = 0
        }
        return held
    }

    static func == (a: Self, b: Self) -> Bool { a.patterns === b.patterns && a.node == b.node && a.held == b.held }
}
