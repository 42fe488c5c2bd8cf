import Crypto
import Synchronization

/// What one accepted secret stands for. Immutable but for the time of its last use; a change makes a new one.
final class Credential: Sendable {
    /// Public: shown in lists, named in the audit trail and by revocations.
    let id: String
    let kind: Principal.Kind
    let principal: String
    let roles: [String]
    let scopes: [Right]?
    /// Unix milliseconds, exclusive; the largest number for never.
    let expires: UInt64
    /// Empty: from anywhere.
    let networks: [Network]
    /// Requests per second.
    let rate: Int
    /// Credentials of one user share one bucket.
    let bucket: RateBucket
    /// Unix milliseconds; 0 for never.
    let lastUsed: Atomic<UInt64>

    init(
        id: String, kind: Principal.Kind, principal: String, roles: [String], scopes: [Right]? = nil, expires: UInt64,
        networks: [Network] = [], rate: Int, bucket: RateBucket? = nil, lastUsed: UInt64 = 0
    ) {
        self.id = id
        self.kind = kind
        self.principal = principal
        self.roles = roles
        self.scopes = scopes
        self.expires = expires
        self.networks = networks
        self.rate = rate
        self.bucket = bucket ?? RateBucket(key: "\(kind.rawValue):\(principal)")
        self.lastUsed = Atomic(lastUsed)
    }
}

/// Random secrets in the form in which they are handed out: a prefix that tells what it is (and lets scanners find
/// leaked ones), then 256 random bits.
enum SecretText {
    static let access = "cms_"
    static let refresh = "cmr_"
    static let token = "cmt_"

    static func make(_ prefix: String) -> String { prefix + Base64.encodeURL(Random.bytes(32)) }

    /// What the store keeps, and what a look-up compares.
    static func hash(_ text: String) -> SHA256.Digest { SHA256.digest(text.utf8) }

    /// A public id: 80 random bits.
    static func publicID(_ prefix: String) -> String { prefix + Base32.encode(Random.bytes(10)).lowercased() }
}
