/// The newest output of one session, by offset: what viewers that join, lag or come back read from.
///
/// Touched only under its session's lock. Memory grows up to the bound as output comes, and stays.
struct OutputRing {
    private let capacity: Int
    private var bytes: [UInt8] = []
    /// Offset of the first byte that is kept, and of the one after the last.
    private(set) var start: UInt64
    private(set) var end: UInt64

    init(capacity: Int, from offset: UInt64 = 0) {
        self.capacity = capacity
        start = offset
        end = offset
    }

    /// Output that continues at `end`. A greater offset is a gap: what was before is dropped, because nobody could tell where
    /// it went on.
    mutating func append(_ piece: RawSpan, at offset: UInt64) {
        if offset != end { restart(at: offset) }
        let dropped = max(0, piece.byteCount - capacity)
        if dropped > 0 { restart(at: offset + UInt64(dropped)) }
        let piece = piece.extracting(dropped..<piece.byteCount)
        piece.withUnsafeBytes { piece in
            var done = 0
            while done < piece.count {
                let at = Int(end % UInt64(capacity))
                let count = min(piece.count - done, capacity - at)
                let source = UnsafeRawBufferPointer(rebasing: piece[done..<done + count])
                if bytes.count < at + count { bytes.append(contentsOf: repeatElement(0, count: at + count - bytes.count)) }
                bytes.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[at..<at + count]).copyMemory(from: source) }
                done += count
                end += UInt64(count)
            }
        }
        if end - start > UInt64(capacity) { start = end - UInt64(capacity) }
    }

    mutating func restart(at offset: UInt64) {
        start = offset
        end = offset
    }

    /// Up to `limit` bytes from `offset`, which lies between `start` and `end`.
    func copy(from offset: UInt64, limit: Int) -> [UInt8] {
        var result: [UInt8] = []
        var left = min(limit, Int(end - offset))
        var position = offset
        result.reserveCapacity(left)
        while left > 0 {
            let at = Int(position % UInt64(capacity))
            let count = min(left, capacity - at)
            result.append(contentsOf: bytes[at..<at + count])
            position += UInt64(count)
            left -= count
        }
        return result
    }
}
