import COpenSSL

/// Bytes that nobody can guess, from OpenSSL's generator (seeded by the kernel). Any thread.
public enum Random {
    public static func bytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            fill(UnsafeMutableRawBufferPointer(buffer))
            filled = count
        }
    }

    public static func uint64() -> UInt64 {
        var value: UInt64 = 0
        withUnsafeMutableBytes(of: &value) { fill($0) }
        return value
    }

    /// Ends the process if the generator has no entropy: every answer other than that would be a guessable secret.
    private static func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        guard buffer.count > 0 else { return }
        let pointer = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self)
        precondition(RAND_bytes(pointer, Int32(buffer.count)) == 1, "the system gives no random bytes")
    }
}

/// Whether two secrets are the same, in a time that depends only on their lengths.
public func constantTimeEquals(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    a.count == b.count && CRYPTO_memcmp(a, b, a.count) == 0
}
