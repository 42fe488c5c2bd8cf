import Crypto

/// What must not stand in the stored output of a command that was given secrets: each value of 8 bytes or more, each such
/// line of a value with several, and both as base 64, whatever stands before them (three alignments, both alphabets).
///
/// An automaton over all of them (Aho and Corasick), built once per command, immutable afterwards. Each byte of output
/// costs a constant number of steps, whatever it holds.
final class SecretPatterns: Sendable {
    static let leastBytes = 8
    /// What a node costs.
    private static let nodeBytes = 25

    /// A state of the automaton; 0 is the beginning, where nothing of a pattern has been seen.
    typealias Node = UInt32

    private let root: [Node]
    private let firstChild: [Node]
    private let nextSibling: [Node]
    private let label: [UInt8]
    private let failure: [Node]
    /// Bytes of a pattern that have been seen: what a masker has to hold back.
    private let depth: [UInt32]
    /// Length of the longest pattern that ends here; 0: none.
    private let match: [UInt32]

    /// Memory that it holds, about.
    var bytes: Int { label.count * Self.nodeBytes + root.count * 4 }

    convenience init(values: some Sequence<[UInt8]>) {
        var patterns: Set<[UInt8]> = []
        for value in values {
            var texts = [value]
            let lines = value.split(whereSeparator: { $0 == 0x0A || $0 == 0x0D }).map { Array($0) }
            if lines.count > 1 { texts += lines }
            for text in texts where text.count >= Self.leastBytes {
                patterns.insert(text)
                for encoded in Self.encodings(of: text) { patterns.insert(encoded) }
            }
        }
        self.init(patterns: patterns)
    }

    init(patterns: some Sequence<[UInt8]>) {
        var root = [Node](repeating: 0, count: 256)
        var firstChild: [Node] = [0]
        var nextSibling: [Node] = [0]
        var label: [UInt8] = [0]
        var depth: [UInt32] = [0]
        var match: [UInt32] = [0]
        func child(_ node: Node, _ byte: UInt8) -> Node {
            if node == 0 { return root[Int(byte)] }
            var next = firstChild[Int(node)]
            while next != 0, label[Int(next)] != byte { next = nextSibling[Int(next)] }
            return next
        }
        for pattern in patterns {
            var node: Node = 0
            for byte in pattern {
                var next = child(node, byte)
                if next == 0 {
                    next = Node(label.count)
                    label.append(byte)
                    firstChild.append(0)
                    depth.append(depth[Int(node)] + 1)
                    match.append(0)
                    if node == 0 {
                        root[Int(byte)] = next
                        nextSibling.append(0)
                    } else {
                        nextSibling.append(firstChild[Int(node)])
                        firstChild[Int(node)] = next
                    }
                }
                node = next
            }
            match[Int(node)] = UInt32(pattern.count)
        }
        // Breadth first: a node's failure lies less deep, and is therefore known before.
        var failure = [Node](repeating: 0, count: label.count)
        var queue = root.filter { $0 != 0 }
        var head = 0
        while head < queue.count {
            let node = queue[head]
            head += 1
            var next = firstChild[Int(node)]
            while next != 0 {
                var fallback = failure[Int(node)]
                var found = child(fallback, label[Int(next)])
                while found == 0, fallback != 0 {
                    fallback = failure[Int(fallback)]
                    found = child(fallback, label[Int(next)])
                }
                failure[Int(next)] = found
                match[Int(next)] = max(match[Int(next)], match[Int(found)])
                queue.append(next)
                next = nextSibling[Int(next)]
            }
        }
        (self.root, self.firstChild, self.nextSibling) = (root, firstChild, nextSibling)
        (self.label, self.failure, self.depth, self.match) = (label, failure, depth, match)
    }

    /// Base 64 of the text with 0, 1 and 2 bytes before it, without the characters that also depend on its neighbours.
    static func encodings(of text: [UInt8]) -> [[UInt8]] {
        var found: [[UInt8]] = []
        for before in 0..<3 {
            let encoded = Array(Base64.encode([UInt8](repeating: 0, count: before) + text).utf8)
            let first = (before * 8 + 5) / 6
            let end = (before + text.count) * 8 / 6
            let inner = Array(encoded[first..<end])
            found.append(inner)
            let other = inner.map { $0 == UInt8(ascii: "+") ? UInt8(ascii: "-") : $0 == UInt8(ascii: "/") ? UInt8(ascii: "_") : $0 }
            if other != inner { found.append(other) }
        }
        return found
    }

    func next(_ node: Node, _ byte: UInt8) -> Node {
        var node = node
        while node != 0 {
            var child = firstChild[Int(node)]
            while child != 0, label[Int(child)] != byte { child = nextSibling[Int(child)] }
            if child != 0 { return child }
            node = failure[Int(node)]
        }
        return root[Int(byte)]
    }

    func depth(_ node: Node) -> Int { Int(depth[Int(node)]) }
    func match(_ node: Node) -> Int { Int(match[Int(node)]) }
}
