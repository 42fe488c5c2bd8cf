import Crypto

/// How a receiver knows that a message is ours and fresh:
/// `X-Client-Manager-Signature: t=<unix seconds>,v1=<hex HMAC-SHA-256 over "<t>.<body>">`.
public enum WebhookSignature {
    public static let header = "x-client-manager-signature"

    public static func value(secret: [UInt8], seconds: UInt64, body: [UInt8]) -> String {
        var tag = HMACSHA256(key: secret)
        tag.update(Array("\(seconds).".utf8))
        tag.update(body)
        return "t=\(seconds),v1=\(Hex.encode(tag.tag))"
    }

    /// For receivers and tests: true when the value fits body and secret and is at most `tolerance` seconds off `now`.
    public static func isValid(
        _ value: String, secret: [UInt8], body: [UInt8], now: UInt64, tolerance: UInt64 = 300
    ) -> Bool {
        let parts = value.split(separator: ",")
        guard parts.count == 2, parts[0].hasPrefix("t="), let seconds = UInt64(parts[0].dropFirst(2)),
            max(seconds, now) - min(seconds, now) <= tolerance
        else { return false }
        return constantTimeEquals(Array(value.utf8), Array(self.value(secret: secret, seconds: seconds, body: body).utf8))
    }
}
