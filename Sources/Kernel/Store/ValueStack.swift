/// Where text and bytes lie while the statement runs that they are bound to: SQLite reads them in place instead of
/// allocating a copy of each.
///
/// A stack: what a statement inside another one's rows binds lies above, and goes when that one is given back. What does
/// not fit is copied by SQLite. An owner of raw memory; it belongs to the thread of its connection.
final class ValueStack {
    private static let capacity = 16 << 10
    private let base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
    /// Everything from here on is free.
    @exclusivity(unchecked) private(set) var top = 0

    deinit { base.deallocate() }

    /// A copy that lies still until `drop` to a mark below it. `nil` when there is no room.
    func keep(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawPointer? {
        guard bytes.count <= Self.capacity - top else { return nil }
        let place = base + top
        if let source = bytes.baseAddress { place.copyMemory(from: source, byteCount: bytes.count) }
        top += bytes.count
        return UnsafeRawPointer(place)
    }

    /// - Parameter mark: what `top` was.
    func drop(to mark: Int) { top = mark }
}
