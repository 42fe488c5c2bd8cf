import COpenSSL

/// MD5 (RFC 1321), to compare content with what object stores tell of theirs. It proves nothing against somebody who means harm.
public struct MD5: Sendable {
    private var state = MD5_CTX()

    public init() { cm_md5_begin(&state) }

    public mutating func update(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { cm_md5_update(&state, $0.baseAddress, $0.count) }
    }

    /// The 16 bytes of everything so far; the state can go on.
    public var digest: [UInt8] {
        var copy = state
        return [UInt8](unsafeUninitializedCapacity: 16) { buffer, count in
            cm_md5_finish(&copy, buffer.baseAddress)
            count = 16
        }
    }
}
