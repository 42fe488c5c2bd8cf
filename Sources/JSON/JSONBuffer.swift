import Glibc

/// The growing memory that `JSONWriter` writes into.
///
/// Raw memory instead of an array: an array asks at each append whether it is shared and has to be told of each count, which
/// for texts of many short pieces costs more than the pieces. Invariant: `count <= capacity`, the first `count` bytes of
/// `base` are initialized, and only this value has the pointer.
struct JSONBuffer: ~Copyable {
    private(set) var base: UnsafeMutablePointer<UInt8>
    private(set) var count = 0
    private var capacity: Int

    init(capacity: Int) {
        self.capacity = max(capacity, 64)
        base = Self.allocate(self.capacity)
    }

    deinit { free(base) }

    /// From `malloc`: `UnsafeMutablePointer.allocate` asks for an alignment that bytes do not need, by a slower way.
    private static func allocate(_ capacity: Int) -> UnsafeMutablePointer<UInt8> {
        guard let memory = malloc(capacity) else { fatalError("no memory for \(capacity) bytes of JSON") }
        return memory.bindMemory(to: UInt8.self, capacity: capacity)
    }

    /// The whole text, copied once.
    var bytes: [UInt8] { Array(UnsafeBufferPointer(start: base, count: count)) }

    mutating func removeAll() { count = 0 }

    /// Where the next byte goes, with room for `wanted` of them; `advance` says how many were written.
    @inline(__always)
    mutating func room(_ wanted: Int) -> UnsafeMutablePointer<UInt8> {
        if capacity &- count < wanted { grow(wanted) }
        return base + count
    }

    @inline(__always)
    mutating func advance(_ written: Int) { count &+= written }

    @inline(__always)
    mutating func append(_ byte: UInt8) {
        room(1).pointee = byte
        count &+= 1
    }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>) {
        guard let source = text.baseAddress else { return }
        room(text.count).update(from: source, count: text.count)
        count &+= text.count
    }

    mutating func append(_ text: StaticString) {
        append(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    @inline(never)
    private mutating func grow(_ wanted: Int) {
        capacity = max(capacity * 2, count + wanted)
        let larger = Self.allocate(capacity)
        larger.update(from: base, count: count)
        free(base)
        base = larger
    }
}
