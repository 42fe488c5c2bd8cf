import Crypto

/// The key under which the layers above seal what they keep themselves: 32 random bytes, file `data-key` of the key
/// directory, sealed under the master key like every secret. So a new master key costs one small file, not a look at
/// everything that was ever sealed; and without a master key what is sealed is still bound to its name.
extension IdentityService {
    private static let dataKeyName = "data-key"

    /// Made at the first call; written again when it is not sealed as it should be. Blocks for one small file.
    /// - Throws: 500 `identity-damaged` for a key that is not whole: a new one would lose what was sealed.
    public func dataKey() throws(Problem) -> [UInt8] {
        guard let known = try directory.secret(Self.dataKeyName) else {
            let key = Random.bytes(32)
            try directory.write(secret: key, Self.dataKeyName)
            return key
        }
        guard known.secret.count == 32 else {
            throw Problem(
                500, "identity-damaged", "keys/\(Self.dataKeyName) has \(known.secret.count) bytes instead of 32. Restore it from a backup")
        }
        if known.isStale { try directory.write(secret: known.secret, Self.dataKeyName) }
        return known.secret
    }
}
