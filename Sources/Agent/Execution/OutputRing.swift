import Glibc

/// The newest output of a terminal, at most `capacity` bytes, by offset. Memory is touched as it fills.
final class OutputRing {
    let capacity: Int
    /// Offset of the oldest byte that is kept, and of the next that will come.
    private(set) var keptFrom: UInt64 = 0
    private(set) var end: UInt64 = 0
    private let memory: UnsafeMutableRawPointer

    init(capacity: Int) {
        self.capacity = capacity
        // Freed by `deinit`; large blocks come from the kernel and take no memory before they are written.
        memory = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit { memory.deallocate() }

    /// Free bytes when everything below `limit` may be given up.
    func room(givingUp limit: UInt64) -> Int {
        let firstNeeded = min(max(limit, keptFrom), end)
        return capacity - Int(end - firstNeeded)
    }

    /// Reads once from `descriptor`, at most `maximum` bytes, which must not be more than the room. What they push out
    /// is gone. Returns what read(2) said.
    func readOnce(_ descriptor: Int32, maximum: Int) -> Int {
        let place = Int(end % UInt64(capacity))
        // Invariant: the piece lies inside the block.
        let count = read(descriptor, memory + place, min(maximum, capacity - place))
        guard count > 0 else { return count }
        end += UInt64(count)
        if end - keptFrom > UInt64(capacity) { keptFrom = end - UInt64(capacity) }
        return count
    }

    /// Adds kept bytes from `offset` on to `bytes`.
    func append(from offset: UInt64, count: Int, to bytes: inout [UInt8]) {
        precondition(offset >= keptFrom && offset + UInt64(count) <= end, "only kept output can be read")
        let place = Int(offset % UInt64(capacity))
        let first = min(count, capacity - place)
        // Invariant: both pieces lie inside the block and hold bytes that were read into it.
        bytes.append(contentsOf: UnsafeRawBufferPointer(start: memory + place, count: first))
        if count > first { bytes.append(contentsOf: UnsafeRawBufferPointer(start: memory, count: count - first)) }
    }
}
