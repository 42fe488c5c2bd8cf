/// The masking of RFC 6455 §5.3, eight bytes at a time. A raw pointer, because the optimizer turns this loop into
/// vector instructions only without a check per store (28 instead of 100 ns for 1,000 bytes).
enum Masking {
    /// XORs `bytes` with the key, whose first byte belongs to payload offset `phase` modulo 4. The key's bytes are in
    /// the order of the wire, the first one lowest.
    @inline(__always)
    static func apply(_ key: UInt32, phase: Int, to bytes: UnsafeMutableRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        pass(key, phase, from: UnsafeRawPointer(base), to: base, bytes.count)
    }

    /// The same, of a copy at `target`: one pass instead of two. `target` has room for them and lies elsewhere.
    @inline(__always)
    static func copy(_ key: UInt32, phase: Int, from bytes: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer) {
        guard let base = bytes.baseAddress else { return }
        pass(key, phase, from: base, to: target, bytes.count)
    }

    @inline(__always)
    private static func pass(
        _ key: UInt32, _ phase: Int, from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, _ count: Int
    ) {
        let shift = UInt32(phase & 3) &* 8
        let turned = shift == 0 ? key : key >> shift | key << (32 &- shift)
        let wide = (UInt64(turned) | UInt64(turned) << 32).littleEndian
        let words = count >> 3
        for index in 0..<words {
            let word = (source + index &* 8).loadUnaligned(as: UInt64.self)
            (target + index &* 8).storeBytes(of: word ^ wide, as: UInt64.self)
        }
        var rest = turned
        for index in (words &* 8)..<count {
            let byte = (source + index).load(as: UInt8.self)
            (target + index).storeBytes(of: byte ^ UInt8(truncatingIfNeeded: rest), as: UInt8.self)
            rest = rest >> 8 | rest << 24
        }
    }
}
