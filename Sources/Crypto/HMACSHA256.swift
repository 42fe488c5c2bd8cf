/// HMAC with SHA-256 (RFC 2104). A value: keep one made from the key and copy it per message, which saves two blocks.
public struct HMACSHA256: Sendable {
    private var inner = SHA256()
    private var outer = SHA256()

    public init(key: [UInt8]) {
        var block = key.count > 64 ? SHA256.hash(key) : key
        block.append(contentsOf: repeatElement(0, count: 64 - block.count))
        inner.update(block.map { $0 ^ 0x36 })
        outer.update(block.map { $0 ^ 0x5C })
    }

    public mutating func update(_ bytes: some Collection<UInt8>) { inner.update(bytes) }
    public mutating func update(_ bytes: RawSpan) { inner.update(bytes) }

    /// The 32-byte tag of everything so far.
    public var tag: [UInt8] {
        var outer = outer
        outer.update(inner.digest.bytes)
        return outer.digest.bytes
    }

    public static func tag(key: [UInt8], _ message: some Collection<UInt8>) -> [UInt8] {
        var state = HMACSHA256(key: key)
        state.update(message)
        return state.tag
    }

    /// Constant time in the tag.
    public static func isValid(tag: [UInt8], key: [UInt8], _ message: some Collection<UInt8>) -> Bool {
        constantTimeEquals(tag, self.tag(key: key, message))
    }
}

/// HKDF with SHA-256 (RFC 5869).
public enum HKDF {
    public static func extract(salt: [UInt8], secret: [UInt8]) -> [UInt8] { HMACSHA256.tag(key: salt, secret) }

    /// - Parameter count: at most 8,160 bytes; more is an error of the caller.
    public static func expand(pseudoRandomKey: [UInt8], info: [UInt8], count: Int) -> [UInt8] {
        precondition(count >= 0 && count <= 255 * 32, "HKDF gives at most 8,160 bytes")
        let keyed = HMACSHA256(key: pseudoRandomKey)
        var output: [UInt8] = []
        var previous: [UInt8] = []
        var counter: UInt8 = 1
        while output.count < count {
            var block = keyed
            block.update(previous)
            block.update(info)
            block.update([counter])
            previous = block.tag
            output.append(contentsOf: previous)
            counter &+= 1
        }
        output.removeLast(output.count - count)
        return output
    }

    public static func derive(secret: [UInt8], salt: [UInt8], info: [UInt8], count: Int) -> [UInt8] {
        expand(pseudoRandomKey: extract(salt: salt, secret: secret), info: info, count: count)
    }
}
