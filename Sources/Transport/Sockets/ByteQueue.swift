import Glibc

/// Bytes that wait: appended at the back, taken from the front, no memory at all while empty.
///
/// One of the few owners of raw memory. Invariant: `base` is nil exactly when `capacity` is 0, and
/// `head + count <= capacity`.
struct ByteQueue: ~Copyable {
    private var base: UnsafeMutableRawPointer?
    private var head: UInt32 = 0
    private var length: UInt32 = 0
    private var capacity: UInt32 = 0

    init() { base = nil }

    deinit { free(base) }

    @inline(__always) var count: Int { Int(length) }
    @inline(__always) var isEmpty: Bool { length == 0 }

    mutating func append(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { append($0) }
    }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        reserve(bytes.count)
        guard let base else { return }
        memcpy(base + Int(head) + Int(length), source, bytes.count)
        length += UInt32(bytes.count)
    }

    /// Makes room for `extra` more bytes behind the present ones.
    mutating func reserve(_ extra: Int) {
        let needed = Int(length) + extra
        if Int(head) + needed <= Int(capacity) { return }
        if needed <= Int(capacity), let base {
            memmove(base, base + Int(head), Int(length))
            head = 0
            return
        }
        var size = max(Int(capacity) * 2, 64)
        while size < needed { size *= 2 }
        let grown = malloc(size)
        precondition(grown != nil, "out of memory")
        if let base, let grown { memcpy(grown, base + Int(head), Int(length)) }
        free(base)
        base = grown
        head = 0
        capacity = UInt32(size)
    }

    mutating func consume(_ count: Int) {
        precondition(count <= Int(length))
        length -= UInt32(count)
        head += UInt32(count)
        if length == 0 { clear() }
    }

    mutating func clear() {
        free(base)
        base = nil
        (head, length, capacity) = (0, 0, 0)
    }

    /// The queued bytes; the pointer is valid inside `body`, which must not touch the queue.
    @inline(__always)
    borrowing func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        body(UnsafeRawBufferPointer(start: base.map { $0 + Int(head) }, count: Int(length)))
    }

    /// The last `count` bytes, to be changed in place.
    mutating func withLast(_ count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void) {
        precondition(count <= Int(length))
        guard let base else { return }
        body(UnsafeMutableRawBufferPointer(start: base + Int(head) + Int(length) - count, count: count))
    }
}
