import Crypto

/// A password as it is stored: `$scrypt$ln=15,r=8,p=1$salt$hash`, both in base64url. Every function takes about 0.1 s and
/// 32 MiB: only on a blocking pool.
enum PasswordHash {
    static let lengths = 10...1_024
    private static let parameters = Scrypt()

    static func make(_ password: String) throws(Problem) -> String {
        let salt = Random.bytes(16)
        do {
            let hash = try parameters.derive(password: Array(password.utf8), salt: salt, count: 32)
            return "$scrypt$ln=\(parameters.cost.trailingZeroBitCount),r=\(parameters.blockSize),p=\(parameters.parallelism)$"
                + Base64.encodeURL(salt) + "$" + Base64.encodeURL(hash)
        } catch { throw Problem(500, "password-unusable", "the password could not be hashed: \(error)") }
    }

    /// - Parameter stored: `nil` for an account that does not exist; takes as long as for one that does.
    static func isRight(_ password: String, for stored: String?) -> Bool {
        guard password.utf8.count <= lengths.upperBound else { return false }
        let parts = stored?.split(separator: "$") ?? []
        guard parts.count == 4, parts[0] == "scrypt", let scrypt = read(parts[1]), let salt = Base64.decodeURL(parts[2]),
            let hash = Base64.decodeURL(parts[3])
        else {
            _ = try? parameters.derive(password: Array(password.utf8), salt: [0], count: 32)
            return false
        }
        guard let derived = try? scrypt.derive(password: Array(password.utf8), salt: salt, count: hash.count) else { return false }
        return constantTimeEquals(derived, hash)
    }

    private static func read(_ text: Substring) -> Scrypt? {
        var numbers: [UInt64] = []
        for (part, name) in zip(text.split(separator: ","), ["ln=", "r=", "p="]) {
            guard part.hasPrefix(name), let number = UInt64(part.dropFirst(name.count)) else { return nil }
            numbers.append(number)
        }
        guard numbers.count == 3, (1...20).contains(numbers[0]) else { return nil }
        return Scrypt(cost: 1 << numbers[0], blockSize: numbers[1], parallelism: numbers[2])
    }
}
