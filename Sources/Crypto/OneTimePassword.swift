import COpenSSL

/// Time-based one-time passwords (RFC 6238): SHA-1, six digits, steps of 30 seconds, as every authenticator app does.
public enum OneTimePassword {
    public static let stepSeconds: UInt64 = 30

    /// The code of one step, six digits.
    public static func code(secret: [UInt8], step: UInt64) -> String {
        let counter = (0..<8).map { UInt8(truncatingIfNeeded: step >> UInt64(56 - 8 * $0)) }
        var tag = [UInt8](repeating: 0, count: 20)
        var count: UInt32 = 0
        HMAC(EVP_sha1(), secret, Int32(secret.count), counter, 8, &tag, &count)
        // Dynamic truncation, RFC 4226 §5.3.
        let offset = Int(tag[19] & 15)
        let number = tag[offset..<offset + 4].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } & 0x7FFF_FFFF
        let digits = String(number % 1_000_000)
        return String(repeating: "0", count: 6 - digits.utf8.count) + digits
    }

    /// The step whose code this is, one step early or late allowed; `nil` if none. The caller must refuse a step that
    /// was used before (RFC 6238 §5.2).
    public static func matchingStep(_ code: String, secret: [UInt8], unixSeconds: UInt64) -> UInt64? {
        let now = unixSeconds / stepSeconds
        let given = Array(code.utf8)
        for step in [now, now > 0 ? now - 1 : 0, now + 1]
        where constantTimeEquals(Array(self.code(secret: secret, step: step).utf8), given) {
            return step
        }
        return nil
    }
}
