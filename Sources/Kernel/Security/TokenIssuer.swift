import Crypto
import JSON
import System

/// Somebody outside whose tokens are accepted, exactly as configured: nothing about it is taken from a token.
public struct TokenIssuer: Sendable {
    /// Short name for principals and the audit trail.
    public var name: String
    /// Must equal the claim `iss`.
    public var issuer: String
    /// Must be the claim `aud`, or one of its elements.
    public var audience: String
    public var algorithms: [TokenAlgorithm]
    /// PEM (one or more public keys or certificates) or a JWK set.
    public var keyFile: String?
    /// The shared secret of HS256: the whole content of the file without a final line end, at least 32 bytes.
    public var secretFile: String?
    /// The claim that holds a text or a list of texts, and what each of them means here.
    public var rolesClaim: String
    public var roles: [String: [String]]
    /// Clocks may differ by this much.
    public var leewaySeconds: Int

    public init(
        name: String, issuer: String, audience: String, algorithms: [TokenAlgorithm], keyFile: String? = nil,
        secretFile: String? = nil, rolesClaim: String = "roles", roles: [String: [String]] = [:], leewaySeconds: Int = 30
    ) throws(Problem) {
        guard !name.isEmpty, !issuer.isEmpty, !audience.isEmpty, !algorithms.isEmpty, (0...300).contains(leewaySeconds)
        else {
            throw .invalid("an issuer needs \"name\", \"issuer\", \"audience\" and \"algorithms\", and at most 300 s of leeway")
        }
        guard algorithms.contains(.hs256) == (secretFile != nil),
            algorithms.contains(where: { $0 != .hs256 }) == (keyFile != nil)
        else {
            throw .invalid(
                "issuer \"\(name)\": HS256 needs \"secret_file\", the other algorithms need \"key_file\", and neither file may be given without")
        }
        self.name = name
        self.issuer = issuer
        self.audience = audience
        self.algorithms = algorithms
        self.keyFile = keyFile
        self.secretFile = secretFile
        self.rolesClaim = rolesClaim
        self.roles = roles
        self.leewaySeconds = leewaySeconds
    }

    /// From the configuration: `{"name", "issuer", "audience", "algorithms", "key_file", "secret_file", "roles_claim",
    /// "roles": {"value of the claim": ["role", …]}, "leeway_s"}`.
    public init(json: JSONValue) throws(Problem) {
        let known = ["name", "issuer", "audience", "algorithms", "key_file", "secret_file", "roles_claim", "roles", "leeway_s"]
        for member in json.object ?? JSONObject() where !known.contains(member.key) {
            throw .invalid("issuer: unknown key \"\(member.key)\"; known are \(known.joined(separator: ", "))")
        }
        var algorithms: [TokenAlgorithm] = []
        for value in json["algorithms"]?.array ?? [] {
            guard let algorithm = value.string.flatMap({ TokenAlgorithm(rawValue: $0) }) else {
                throw .invalid("issuer: \"algorithms\" may hold RS256, ES256, EdDSA and HS256")
            }
            algorithms.append(algorithm)
        }
        var roles: [String: [String]] = [:]
        for member in json["roles"]?.object ?? JSONObject() {
            roles[member.key] = member.value.array?.compactMap(\.string) ?? []
        }
        try self.init(
            name: json["name"]?.string ?? "", issuer: json["issuer"]?.string ?? "", audience: json["audience"]?.string ?? "",
            algorithms: algorithms, keyFile: json["key_file"]?.string, secretFile: json["secret_file"]?.string,
            rolesClaim: json["roles_claim"]?.string ?? "roles", roles: roles, leewaySeconds: Int(json["leeway_s"]?.integer ?? 30))
    }
}

/// An issuer with the keys that its files held when they were last read.
struct LoadedIssuer: Sendable {
    let definition: TokenIssuer
    private let keys: [(id: String?, key: TokenKey)]

    /// Reads the files. Blocks: not on a loop.
    init(_ definition: TokenIssuer) throws(Problem) {
        var keys: [(id: String?, key: TokenKey)] = []
        if let path = definition.keyFile {
            let text = String(decoding: try Self.read(path), as: UTF8.self)
            keys = text.drop(while: \.isWhitespace).first == "{"
                ? try TokenKeyFile.jwks(text, path) : try TokenKeyFile.pem(text, path)
        }
        if let path = definition.secretFile {
            var secret = try Self.read(path)
            if secret.last == 0x0A { secret.removeLast() }
            guard secret.count >= 32, !secret.split(separator: 0x0A).contains(where: { $0.starts(with: "-----BEGIN".utf8) })
            else {
                throw .invalid("issuer \"\(definition.name)\": \(path) must hold a secret of at least 32 bytes that is not a PEM key")
            }
            keys.append((nil, .hs256(secret)))
        }
        keys.removeAll { !definition.algorithms.contains($0.key.algorithm) }
        guard !keys.isEmpty, keys.count <= 64 else {
            throw .invalid("issuer \"\(definition.name)\": the key file holds no key for its algorithms (or more than 64)")
        }
        self.definition = definition
        self.keys = keys
    }

    init(_ definition: TokenIssuer, keys: [(id: String?, key: TokenKey)]) {
        self.definition = definition
        self.keys = keys
    }

    private static func read(_ path: String) throws(Problem) -> [UInt8] {
        do { return try Files.read(path, limit: 1 << 20) } catch {
            throw Problem(500, "issuer-unusable", "the issuer's key file cannot be read: \(error)")
        }
    }

    /// - Parameter now: Unix seconds.
    /// - Returns: who it is and until when (Unix seconds).
    func verify(_ token: JSONWebToken, now: Int64) throws(Problem) -> (subject: String, roles: [String], expires: Int64, id: String?) {
        guard definition.algorithms.contains(token.algorithm) else {
            throw JSONWebToken.invalid("its algorithm is not allowed for this issuer")
        }
        let candidates = keys.filter { entry in
            entry.key.algorithm == token.algorithm && (token.keyID == nil || entry.id == nil || entry.id == token.keyID)
        }
        guard candidates.contains(where: { $0.key.isValid(signature: token.signature, for: token.signedText) }) else {
            throw JSONWebToken.invalid("no key of its issuer made its signature")
        }
        let claims = token.claims
        let leeway = Int64(definition.leewaySeconds)
        guard claims["iss"]?.string == definition.issuer else { throw JSONWebToken.invalid("its issuer is another") }
        let audiences = claims["aud"]?.string.map { [$0] } ?? claims["aud"]?.array?.compactMap(\.string) ?? []
        guard audiences.contains(definition.audience) else { throw JSONWebToken.invalid("it is meant for another audience") }
        guard let expires = try Self.time(claims, "exp") else { throw JSONWebToken.invalid("it has no expiry (\"exp\")") }
        guard expires + leeway > now else { throw JSONWebToken.invalid("it has expired") }
        if let notBefore = try Self.time(claims, "nbf"), notBefore - leeway > now {
            throw JSONWebToken.invalid("it is not valid yet (\"nbf\")")
        }
        if let issued = try Self.time(claims, "iat"), issued - leeway > now {
            throw JSONWebToken.invalid("it was issued in the future (\"iat\")")
        }
        guard let subject = claims["sub"]?.string, (1...256).contains(subject.utf8.count) else {
            throw JSONWebToken.invalid("it has no subject (\"sub\")")
        }
        let values = claims[definition.rolesClaim]?.string.map { [$0] }
            ?? claims[definition.rolesClaim]?.array?.compactMap(\.string) ?? []
        var roles: [String] = []
        for role in values.prefix(64).flatMap({ definition.roles[$0] ?? [] }) where !roles.contains(role) { roles.append(role) }
        return (subject, roles, expires + leeway, claims["jti"]?.string)
    }

    /// A NumericDate; anything that is there and is none is refused, not ignored.
    private static func time(_ claims: JSONObject, _ name: String) throws(Problem) -> Int64? {
        guard let value = claims[name] else { return nil }
        guard let number = value.number, number >= 0, number < 1e11 else {
            throw JSONWebToken.invalid("its \"\(name)\" is not a time in seconds")
        }
        return Int64(number)
    }
}

/// The two forms in which issuers publish keys.
enum TokenKeyFile {
    static func pem(_ text: String, _ path: String) throws(Problem) -> [(id: String?, key: TokenKey)] {
        var keys: [(id: String?, key: TokenKey)] = []
        var block = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("-----BEGIN") { block = "" }
            block += line + "\n"
            guard line.hasPrefix("-----END") else { continue }
            if let key = try? RSAPublicKey(pem: block) {
                keys.append((nil, .rs256(key)))
            } else if let key = try? P256.PublicKey(pem: block) {
                keys.append((nil, .es256(key)))
            } else if let key = try? Ed25519.PublicKey(pem: block) {
                keys.append((nil, .edDSA(key)))
            } else {
                throw .invalid("\(path): a PEM block is no public key of RSA (2,048 bits and more), P-256 or Ed25519")
            }
        }
        return keys
    }

    /// RFC 7517. Keys of other kinds or uses are passed over; a key of our kinds that is broken is an error.
    static func jwks(_ text: String, _ path: String) throws(Problem) -> [(id: String?, key: TokenKey)] {
        guard let list = (try? JSONValue(parsing: text))?["keys"]?.array else {
            throw .invalid("\(path) is not a JWK set (an object with an array \"keys\")")
        }
        var keys: [(id: String?, key: TokenKey)] = []
        for item in list {
            if let use = item["use"]?.string, use != "sig" { continue }
            func part(_ name: String) -> [UInt8] { item[name]?.string.flatMap { Base64.decodeURL($0) } ?? [] }
            let id = item["kid"]?.string
            do throws(CryptoError) {
                switch (item["kty"]?.string, item["crv"]?.string) {
                case ("RSA", _): keys.append((id, .rs256(try RSAPublicKey(modulus: part("n"), exponent: part("e")))))
                case ("EC", "P-256"): keys.append((id, .es256(try P256.PublicKey(x: part("x"), y: part("y")))))
                case ("OKP", "Ed25519"): keys.append((id, .edDSA(try Ed25519.PublicKey(raw: part("x")))))
                default: continue
                }
            } catch { throw .invalid("\(path): the key \"\(id ?? "without kid")\" is broken: \(error)") }
        }
        return keys
    }
}
