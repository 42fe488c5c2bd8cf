import Crypto
import Glibc
import JSON
import Synchronization
import Testing

@testable import Kernel

/// An identity provider in a box.
private struct Provider {
    let elliptic: P256.PrivateKey
    let edwards: Ed25519.PrivateKey
    let now: Int64

    init(_ clock: TestClock) throws {
        elliptic = try P256.PrivateKey.generate()
        edwards = try Ed25519.PrivateKey.generate()
        now = Int64(clock.milliseconds / 1_000)
    }

    func claims(_ change: (inout JSONObject) -> Void = { _ in }) -> JSONObject {
        var claims: JSONObject = [
            "iss": "https://idp.example", "aud": "client-manager", "sub": "ada", "exp": .integer(now + 600), "nbf": .integer(now),
            "iat": .integer(now), "roles": ["fleet-ops"], "jti": "1",
        ]
        change(&claims)
        return claims
    }

    func token(_ header: JSONObject, _ claims: JSONObject, sign: ([UInt8]) throws -> [UInt8]) rethrows -> String {
        let text = Base64.encodeURL(JSONValue.object(header).serialized()) + "." + Base64.encodeURL(JSONValue.object(claims).serialized())
        return text + "." + Base64.encodeURL(try sign(Array(text.utf8)))
    }

    func es256(_ claims: JSONObject) throws -> String {
        try token(["alg": "ES256", "typ": "JWT"], claims) { try elliptic.signFixed($0) }
    }
}

@Suite struct OutsideTokenTests {
    private let clock = TestClock()

    private func fixture(
        _ provider: Provider, _ algorithms: [TokenAlgorithm] = [.es256, .edDSA, .rs256]
    ) async throws -> SecurityFixture {
        let fixture = try await SecurityFixture(clock: clock)
        let definition = try TokenIssuer(
            name: "idp", issuer: "https://idp.example", audience: "client-manager", algorithms: algorithms,
            keyFile: algorithms == [.hs256] ? nil : "unused", secretFile: algorithms.contains(.hs256) ? "unused" : nil,
            roles: ["fleet-ops": ["operator"]])
        fixture.security.use([
            LoadedIssuer(
                definition,
                keys: [
                    ("ec", .es256(provider.elliptic.publicKey)), ("ed", .edDSA(provider.edwards.publicKey)),
                    (nil, .rs256(try RSAPublicKey(pem: OutsideKeys.rsaPublicPEM))),
                    (nil, .hs256(Array("a shared secret of at least 32 bytes!".utf8))),
                ].filter { algorithms.contains($0.1.algorithm) })
        ])
        return fixture
    }

    @Test func aGoodTokenIsSomebodyUntilItExpires() async throws {
        let provider = try Provider(clock)
        let fixture = try await fixture(provider)
        defer { fixture.close() }
        let text = try provider.es256(provider.claims())
        for _ in 0..<2 {
            let principal = try await fixture.authenticate(text)
            #expect(principal.kind == .issuer && principal.id == "idp#ada" && principal.roles == ["operator"])
        }
        let edwards = try provider.token(["alg": "EdDSA", "kid": "ed"], provider.claims { $0["aud"] = ["x", "client-manager"] }) {
            try provider.edwards.sign($0)
        }
        #expect(try await fixture.authenticate(edwards).id == "idp#ada")
        clock.advance(631_000)
        #expect(await code { _ = try await fixture.authenticate(text) } == "token-expired")
    }

    @Test func rolesComeFromTheConfiguredClaimOnly() async throws {
        let provider = try Provider(clock)
        let fixture = try await fixture(provider)
        defer { fixture.close() }
        let text = try provider.es256(provider.claims { $0["roles"] = ["administrator", "operator"] })
        let principal = try await fixture.authenticate(text)
        #expect(principal.roles.isEmpty)
        #expect(!fixture.security.grants(principal, "client.read"))
    }

    @Test func claimsThatAreWrongOrMissingAreRefused() async throws {
        let provider = try Provider(clock)
        let fixture = try await fixture(provider)
        defer { fixture.close() }
        let now = provider.now
        let wrong: [(String, JSONValue?)] = [
            ("iss", "https://evil.example"), ("iss", nil), ("aud", "another"), ("aud", nil), ("aud", ["x"]), ("aud", 7),
            ("exp", nil), ("exp", .integer(now - 60)), ("exp", "never"), ("exp", .integer(-1)), ("exp", .null), ("exp", 1e300),
            ("nbf", .integer(now + 3_600)), ("nbf", "now"), ("iat", .integer(now + 3_600)), ("sub", nil), ("sub", ""), ("sub", 1),
        ]
        for (name, value) in wrong {
            let text = try provider.es256(provider.claims { $0[name] = value })
            #expect(await code { _ = try await fixture.authenticate(text) } == "token-invalid", "\(name) = \(String(describing: value))")
        }
    }

    @Test func forgedTokensAreRefused() async throws {
        let provider = try Provider(clock)
        let fixture = try await fixture(provider)
        defer { fixture.close() }
        let claims = provider.claims()
        let thief = try P256.PrivateKey.generate()
        let good = try provider.es256(claims)
        let parts = good.split(separator: ".")
        var forged: [String] = []
        // No signature under any spelling of "none".
        for name in ["none", "None", "NONE", "nOnE", ""] {
            forged.append(provider.token(["alg": .string(name)], claims) { _ in [] })
            forged.append("\(provider.token(["alg": .string(name)], claims) { _ in [] })\(parts[2])")
        }
        forged.append(provider.token(["typ": "JWT"], claims) { _ in [] })
        // A public key as the secret of HS256.
        for secret in [Array(OutsideKeys.rsaPublicPEM.utf8), Array((OutsideKeys.rsaPublicPEM + "\n").utf8), provider.elliptic.publicKey.spki] {
            forged.append(provider.token(["alg": "HS256"], claims) { HMACSHA256.tag(key: secret, $0) })
            forged.append(provider.token(["alg": "ES256"], claims) { HMACSHA256.tag(key: secret, $0) })
        }
        // Another's key, also brought along in the header.
        forged.append(try provider.token(["alg": "ES256"], claims) { try thief.signFixed($0) })
        forged.append(try provider.token(["alg": "ES256", "kid": "ec"], claims) { try thief.signFixed($0) })
        forged.append(try provider.token(["alg": "ES256", "jwk": ["kty": "EC"], "jku": "https://evil.example"], claims) { try thief.signFixed($0) })
        // The right key under another name, another algorithm, or as DER.
        forged.append(try provider.token(["alg": "ES256", "kid": "ed"], claims) { try provider.elliptic.signFixed($0) })
        forged.append(try provider.token(["alg": "EdDSA"], claims) { try provider.elliptic.signFixed($0) })
        forged.append(try provider.token(["alg": "ES256"], claims) { try provider.elliptic.sign($0) })
        forged.append(try provider.token(["alg": "ES384"], claims) { try provider.elliptic.signFixed($0) })
        forged.append(try provider.token(["alg": "ES256", "crit": ["exp"]], claims) { try provider.elliptic.signFixed($0) })
        // Signatures of zeros (CVE-2022-21449), cut, or over other claims.
        forged.append(provider.token(["alg": "ES256"], claims) { _ in [UInt8](repeating: 0, count: 64) })
        forged.append("\(parts[0]).\(parts[1]).")
        forged.append("\(parts[0]).\(parts[1])")
        forged.append("\(parts[0]).\(Base64.encodeURL(JSONValue.object(provider.claims { $0["sub"] = "root" }).serialized())).\(parts[2])")
        forged.append("\(good)=")
        forged.append("\(good).x")
        forged.append(" \(good)")
        // Two readings of one claim.
        let twice = Base64.encodeURL(Array("{\"alg\":\"none\",\"alg\":\"ES256\"}".utf8)) + "." + parts[1]
        forged.append("\(twice).\(Base64.encodeURL(try provider.elliptic.signFixed(Array(twice.utf8))))")
        forged.append(String(repeating: "a", count: 5_000) + "." + String(repeating: "b", count: 5_000) + ".c")
        for text in forged {
            #expect(await code { _ = try await fixture.authenticate(text) } == "token-invalid", "\(text.prefix(60))")
        }
        #expect(await code { _ = try await fixture.authenticate(good) } == nil)
    }

    @Test func anAlgorithmOutsideTheListIsRefusedEvenWithAGoodSignature() async throws {
        let provider = try Provider(clock)
        let fixture = try await fixture(provider, [.edDSA])
        defer { fixture.close() }
        let text = try provider.es256(provider.claims())
        #expect(await code { _ = try await fixture.authenticate(text) } == "token-invalid")
    }

    @Test func sharedSecretsWorkOnlyWhereConfigured() async throws {
        let provider = try Provider(clock)
        let fixture = try await fixture(provider, [.hs256])
        defer { fixture.close() }
        let good = provider.token(["alg": "HS256"], provider.claims()) {
            HMACSHA256.tag(key: Array("a shared secret of at least 32 bytes!".utf8), $0)
        }
        #expect(try await fixture.authenticate(good).id == "idp#ada")
        let empty = provider.token(["alg": "HS256"], provider.claims()) { HMACSHA256.tag(key: [], $0) }
        #expect(await code { _ = try await fixture.authenticate(empty) } == "token-invalid")
        #expect(throws: Problem.self) {
            try TokenIssuer(name: "x", issuer: "i", audience: "a", algorithms: [.hs256], keyFile: "public.pem")
        }
    }

    @Test func revokingASubjectClosesWhatItHasOpenAndSurvivesARestart() async throws {
        let provider = try Provider(clock)
        let fixture = try await fixture(provider)
        let text = try provider.es256(provider.claims())
        let other = try provider.es256(provider.claims { $0["sub"] = "bob" ; $0["jti"] = "2" })
        let principal = try await fixture.authenticate(text)
        let closed = Atomic(0)
        let watch = fixture.security.watch(principal) { closed.wrappingAdd(1, ordering: .relaxed) }
        let admin = try await fixture.admin()
        try await fixture.security.revokeOutsider("idp#ada", until: clock.milliseconds + 3_600_000, by: admin)
        #expect(closed.load(ordering: .relaxed) == 1)
        #expect(await code { _ = try await fixture.authenticate(text) } == "token-revoked")
        #expect(await code { _ = try await fixture.authenticate(other) } == nil)
        try await fixture.security.revokeOutsider("idp#jti:2", until: clock.milliseconds + 3_600_000, by: admin)
        #expect(await code { _ = try await fixture.authenticate(other) } == "token-revoked")
        withExtendedLifetime(watch) {}
        fixture.close()
        let directory = fixture.directory
        let again = try await SecurityFixture(directory: directory, clock: clock)
        again.security.use(fixture.security.state.withLock { $0.issuers })
        #expect(await code { _ = try await again.authenticate(text) } == "token-revoked")
        again.close()
    }

    @Test func keyFilesAreReadAsPEMAndJWKSAndReloaded() async throws {
        let provider = try Provider(clock)
        let directory = TemporaryDirectory()
        let path = directory.path + "/keys.json"
        func write(_ text: String) {
            guard let file = fopen(path, "w") else { return }
            fputs(text, file)
            fclose(file)
        }
        let spki = provider.elliptic.publicKey.spki
        let jwk: JSONValue = [
            "kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "x": .string(Base64.encodeURL(spki[27..<59])),
            "y": .string(Base64.encodeURL(spki[59..<91])),
        ]
        write(JSONValue(dictionaryLiteral: ("keys", [jwk, ["kty": "oct", "k": "AAAA"]])).description)
        let fixture = try await SecurityFixture(clock: clock) { options in
            options.issuers = [
                try? TokenIssuer(
                    name: "idp", issuer: "https://idp.example", audience: "client-manager", algorithms: [.es256, .rs256], keyFile: path,
                    roles: ["fleet-ops": ["viewer"]])
            ].compactMap { $0 }
        }
        defer { fixture.close() }
        let text = try provider.es256(provider.claims())
        #expect(try await fixture.authenticate(text).roles == ["viewer"])

        // A broken file changes nothing.
        write("{")
        #expect(await code { try await fixture.security.reloadIssuers() } == "invalid")
        #expect(try await fixture.authenticate(text).roles == ["viewer"])
        // The key is gone from the file: so is the trust, also in tokens that were accepted before.
        write(OutsideKeys.rsaPublicPEM)
        try await fixture.security.reloadIssuers()
        #expect(await code { _ = try await fixture.authenticate(text) } == "token-invalid")
    }
}
