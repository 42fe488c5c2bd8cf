import COpenSSL

/// SHA-256 (FIPS 180-4). The running state is a plain value: a copy of it is a branch of the same transcript.
public struct SHA256: Sendable {
    private var state = SHA256_CTX()

    public init() { cm_sha256_begin(&state) }

    public mutating func update(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { cm_sha256_update(&state, $0.baseAddress, $0.count) }
    }

    public mutating func update(_ bytes: some Collection<UInt8>) {
        if bytes.withContiguousStorageIfAvailable({ cm_sha256_update(&state, $0.baseAddress, $0.count) }) == nil {
            update(Array(bytes).span.bytes)
        }
    }

    /// The digest of everything so far; the state can go on.
    public var digest: Digest {
        var copy = state
        var digest = Digest()
        withUnsafeMutableBytes(of: &digest) { cm_sha256_finish(&copy, $0.baseAddress) }
        return digest
    }

    /// The running state as bytes (40 to 103), for whoever has to go on after a restart. They tell about what was hashed
    /// and are kept where that is kept.
    public var exported: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 103) { buffer, count in
            count = withUnsafePointer(to: state) { cm_sha256_export($0, buffer.baseAddress) }
        }
    }

    /// Goes on from an `exported` state; `nil` for bytes that are none.
    public init?(resuming exported: [UInt8]) {
        guard cm_sha256_import(&state, exported, exported.count) == 1 else { return nil }
    }

    /// 32 bytes as one value that needs no allocation.
    public struct Digest: Hashable, Sendable {
        private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

        init() {}

        /// `nil` unless there are exactly 32 bytes.
        public init?(bytes: [UInt8]) {
            guard bytes.count == 32 else { return nil }
            withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes) }
        }

        public var bytes: [UInt8] { withUnsafeBytes(of: words) { Array($0) } }
        public var hex: String { Hex.encode(bytes) }

        /// Takes the same time wherever the difference is.
        public static func == (a: Digest, b: Digest) -> Bool {
            (a.words.0 ^ b.words.0) | (a.words.1 ^ b.words.1) | (a.words.2 ^ b.words.2) | (a.words.3 ^ b.words.3) == 0
        }

        /// One word of a digest is as good as the whole, and the standard hasher is keyed.
        public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
    }

    public static func digest(_ bytes: RawSpan) -> Digest {
        var state = SHA256()
        state.update(bytes)
        return state.digest
    }

    public static func digest(_ bytes: some Collection<UInt8>) -> Digest {
        var state = SHA256()
        state.update(bytes)
        return state.digest
    }

    /// The digest as 32 bytes.
    public static func hash(_ bytes: some Collection<UInt8>) -> [UInt8] { digest(bytes).bytes }
    public static func hash(_ bytes: RawSpan) -> [UInt8] { digest(bytes).bytes }
}
