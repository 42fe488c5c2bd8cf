import Crypto
import JSON

/// A signature algorithm that a token may use (RFC 7518 §3.1, RFC 8037 §3.1). There is no `none`.
public enum TokenAlgorithm: String, Sendable, CaseIterable {
    case rs256 = "RS256"
    case es256 = "ES256"
    case edDSA = "EdDSA"
    case hs256 = "HS256"
}

/// A key for exactly one algorithm: a public key can never serve as a shared secret.
public enum TokenKey: Sendable {
    case rs256(RSAPublicKey)
    case es256(P256.PublicKey)
    case edDSA(Ed25519.PublicKey)
    case hs256([UInt8])

    var algorithm: TokenAlgorithm {
        switch self {
        case .rs256: .rs256
        case .es256: .es256
        case .edDSA: .edDSA
        case .hs256: .hs256
        }
    }

    func isValid(signature: [UInt8], for message: [UInt8]) -> Bool {
        switch self {
        case .rs256(let key): key.isValid(signature: signature, for: message)
        case .es256(let key): key.isValid(fixedSignature: signature, for: message)
        case .edDSA(let key): key.isValid(signature: signature, for: message)
        case .hs256(let secret): HMACSHA256.isValid(tag: signature, key: secret, message)
        }
    }
}

/// A compact JWS with JSON claims (RFC 7515, RFC 7519), taken apart but not yet believed.
struct JSONWebToken: Sendable {
    let algorithm: TokenAlgorithm
    let keyID: String?
    let claims: JSONObject
    let signedText: [UInt8]
    let signature: [UInt8]

    static let maximumBytes = 8_192

    /// - Throws: 401 `token-invalid`.
    init(_ text: String) throws(Problem) {
        guard text.utf8.count <= Self.maximumBytes else { throw Self.invalid("it has more than \(Self.maximumBytes) bytes") }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3, let headerBytes = Base64.decodeURL(parts[0]), let claimBytes = Base64.decodeURL(parts[1]),
            let signature = Base64.decodeURL(parts[2])
        else { throw Self.invalid("it does not have three parts in base64url") }
        let header = try Self.object(headerBytes, "header")
        guard let name = header["alg"]?.string, let algorithm = TokenAlgorithm(rawValue: name) else {
            throw Self.invalid("its algorithm is none of RS256, ES256, EdDSA, HS256")
        }
        // RFC 7515 §4.1.11: extensions that must be understood are not.
        guard header["crit"] == nil else { throw Self.invalid("it demands extensions (\"crit\") that are not supported") }
        self.algorithm = algorithm
        keyID = header["kid"]?.string
        claims = try Self.object(claimBytes, "claims")
        signedText = Array((parts[0] + "." + parts[1]).utf8)
        self.signature = signature
    }

    private static func object(_ bytes: [UInt8], _ what: String) throws(Problem) -> JSONObject {
        guard let value = try? JSONValue(parsing: bytes, limits: JSONLimits(depth: 8, bytes: maximumBytes)), let object = value.object
        else { throw invalid("its \(what) is not one JSON object") }
        return object
    }

    static func invalid(_ why: String) -> Problem { Problem(401, "token-invalid", "the token is not accepted: \(why)") }
}
