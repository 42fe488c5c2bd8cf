import COpenSSL

/// Scrypt (RFC 7914). It is slow and takes memory by design: never call it on a loop.
public struct Scrypt: Sendable, Equatable {
    /// A power of two; memory is 128 × cost × blockSize bytes.
    public var cost: UInt64
    public var blockSize: UInt64
    public var parallelism: UInt64

    public init(cost: UInt64 = 1 << 15, blockSize: UInt64 = 8, parallelism: UInt64 = 1) {
        self.cost = cost
        self.blockSize = blockSize
        self.parallelism = parallelism
    }

    public func derive(password: [UInt8], salt: [UInt8], count: Int) throws(CryptoError) -> [UInt8] {
        let (product, overflow) = cost.multipliedReportingOverflow(by: blockSize)
        guard !overflow, cost >= 2, cost & (cost - 1) == 0, blockSize >= 1, product <= 1 << 21, (1...16).contains(parallelism) else {
            throw .malformed("scrypt's parameters are out of range")
        }
        let memory = 128 * (product + blockSize * parallelism) + 1 << 20
        var key = [UInt8](repeating: 0, count: count)
        let derived = password.withUnsafeBytes { bytes in
            // OpenSSL takes no null pointer for an empty password.
            var nothing: CChar = 0
            return withUnsafePointer(to: &nothing) { empty in
                EVP_PBE_scrypt(
                    bytes.bindMemory(to: CChar.self).baseAddress ?? empty, bytes.count, salt, salt.count, cost,
                    blockSize, parallelism, memory, &key, count)
            }
        }
        guard derived == 1 else { throw .fromLibrary("scrypt") }
        return key
    }
}
