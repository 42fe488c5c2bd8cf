import Glibc

/// The last head of a connection with what it means. Programs send the same head again and again, byte by byte: then one
/// comparison stands for the scan and the parse, which are most of what a small request costs here. The limits were
/// held when it was parsed, and the same bytes mean the same.
///
/// From the second request of a connection on, so that one that sends a single one, agents above all, keeps nothing.
struct HTTPKnownHead {
    /// Longer ones are parsed each time: a connection keeps this much for it, and about twice as much as what it means.
    private static let longest = 1_024
    private var bytes: [UInt8] = []
    private var head: HTTPRequestHead?
    private var isFirst = true

    /// What the bytes at the front of `input` are, if they are the known head, and how many.
    func match(_ input: Span<UInt8>) -> (head: HTTPRequestHead, count: Int)? {
        guard let head, input.count >= bytes.count else { return nil }
        let isSame = input.withUnsafeBytes { input in
            bytes.withUnsafeBytes { known in
                guard let left = input.baseAddress, let right = known.baseAddress else { return false }
                return memcmp(left, right, known.count) == 0
            }
        }
        return isSame ? (head, bytes.count) : nil
    }

    /// - Parameter text: the whole head as it came, with its empty line.
    mutating func learn(_ text: Span<UInt8>, _ head: HTTPRequestHead) {
        guard !isFirst else {
            isFirst = false
            return
        }
        guard text.count <= Self.longest else { return }
        bytes.removeAll(keepingCapacity: true)
        text.withUnsafeBufferPointer { bytes.append(contentsOf: $0) }
        self.head = head
    }
}
