import Crypto
import Testing

private func bytes(_ hex: String) -> [UInt8] { Hex.decode(hex) ?? [] }

@Suite struct HashTests {
    @Test func sha256OfTheStandardsExamples() {
        // FIPS 180-4 examples.
        #expect(
            Hex.encode(SHA256.hash("abc".utf8)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(
            Hex.encode(SHA256.hash([UInt8]())) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }

    @Test func piecesGiveTheSameDigestAndACopyIsABranch() {
        var state = SHA256()
        state.update("a".utf8)
        var branch = state
        state.update("bc".utf8)
        branch.update("x".utf8)
        #expect(state.digest == SHA256.digest("abc".utf8))
        #expect(branch.digest == SHA256.digest("ax".utf8))
        #expect(state.digest != branch.digest)
        #expect(SHA256.Digest(bytes: state.digest.bytes) == state.digest)
    }

    @Test func hmacOfRFC4231() {
        #expect(
            Hex.encode(HMACSHA256.tag(key: [UInt8](repeating: 0x0B, count: 20), "Hi There".utf8))
                == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
        // Case 6: a key longer than one block.
        #expect(
            Hex.encode(
                HMACSHA256.tag(
                    key: [UInt8](repeating: 0xAA, count: 131),
                    "Test Using Larger Than Block-Size Key - Hash Key First".utf8))
                == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
    }

    @Test func hkdfOfRFC5869Case1() {
        let output = HKDF.derive(
            secret: [UInt8](repeating: 0x0B, count: 22), salt: bytes("000102030405060708090a0b0c"),
            info: bytes("f0f1f2f3f4f5f6f7f8f9"), count: 42)
        #expect(
            Hex.encode(output)
                == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    }
}

@Suite struct TextFormTests {
    @Test func base64OfRFC4648() {
        let pairs = [
            ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ]
        for (plain, text) in pairs {
            #expect(Base64.encode(plain.utf8) == text)
            #expect(Base64.decode(text) == Array(plain.utf8))
        }
        #expect(Base64.encodeURL([0xFB, 0xFF]) == "-_8")
        #expect(Base64.decodeURL("-_8") == [0xFB, 0xFF])
    }

    @Test(arguments: ["Zg", "Zg=", "Zh==", "Zg==Zg==", "Z g=", "Zm9v=", "====", "Zm9_"])
    func otherSpellingsOfBase64AreRefused(_ text: String) { #expect(Base64.decode(text) == nil) }

    @Test(arguments: ["Zg==", "Zh", "+_8", "A"])
    func otherSpellingsOfBase64URLAreRefused(_ text: String) { #expect(Base64.decodeURL(text) == nil) }

    @Test func hex() {
        #expect(Hex.encode([0, 0xAB, 0xFF]) == "00abff")
        #expect(Hex.decode("00ABff") == [0, 0xAB, 0xFF])
        #expect(Hex.decode("0") == nil)
        #expect(Hex.decode("0g") == nil)
    }

    @Test func comparesSecrets() {
        #expect(constantTimeEquals([1, 2], [1, 2]))
        #expect(!constantTimeEquals([1, 2], [1, 3]))
        #expect(!constantTimeEquals([1, 2], [1, 2, 3]))
        #expect(constantTimeEquals([], []))
        #expect(Random.bytes(32) != Random.bytes(32))
        #expect(Random.bytes(0).isEmpty)
    }
}

@Suite struct P256Tests {
    @Test func verifiesTheSignatureOfRFC6979() throws {
        // RFC 6979 A.2.5: P-256, SHA-256, message "sample".
        let key = try P256.PublicKey(
            x: bytes("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"),
            y: bytes("7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"))
        let signature = bytes(
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
                + "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8")
        #expect(key.isValid(fixedSignature: signature, for: Array("sample".utf8)))
        #expect(!key.isValid(fixedSignature: signature, for: Array("Sample".utf8)))
        #expect(!key.isValid(fixedSignature: Array(signature.dropLast()), for: Array("sample".utf8)))
        #expect(!key.isValid(fixedSignature: [UInt8](repeating: 0, count: 64), for: Array("sample".utf8)))
    }

    @Test func signsAndSurvivesPEM() throws {
        let key = try P256.PrivateKey.generate()
        let again = try P256.PrivateKey(pem: key.pem())
        let message = Array("the message".utf8)
        #expect(again.publicKey == key.publicKey)
        #expect(key.publicKey.isValid(signature: try again.sign(message), for: message))
        #expect(key.publicKey.isValid(fixedSignature: try again.signFixed(message), for: message))
        #expect(!(try P256.PrivateKey.generate().publicKey.isValid(signature: key.sign(message), for: message)))
        #expect(try P256.PublicKey(spki: key.publicKey.spki).fingerprint == key.publicKey.fingerprint)
        #expect(key.publicKey.fingerprint == Hex.encode(SHA256.hash(key.publicKey.spki)))
    }

    @Test func refusesWhatIsNoCanonicalP256Key() throws {
        let spki = try P256.PrivateKey.generate().publicKey.spki
        #expect(throws: CryptoError.self) { try P256.PublicKey(spki: spki + [0]) }
        #expect(throws: CryptoError.self) { try P256.PublicKey(spki: []) }
        var offCurve = spki
        offCurve[90] ^= 1
        #expect(throws: CryptoError.self) { try P256.PublicKey(spki: offCurve) }
        #expect(throws: CryptoError.self) { try P256.PrivateKey(pem: "nonsense") }
    }
}

@Suite struct SHA256StateTests {
    @Test(arguments: [0, 1, 55, 63, 64, 65, 127, 128, 1_000])
    func aHashGoesOnFromItsExportedState(_ cut: Int) throws {
        let bytes = (0..<1_000).map { UInt8(truncatingIfNeeded: $0) }
        var first = SHA256()
        first.update(bytes[..<cut])
        let exported = first.exported
        #expect(exported.count == 40 + cut % 64)
        var second = try #require(SHA256(resuming: exported))
        second.update(bytes[cut...])
        #expect(second.digest == SHA256.digest(bytes))
        #expect(second.exported != exported || cut == 1_000)
    }

    @Test func whatIsNoStateIsRefused() {
        let state = SHA256().exported
        #expect(SHA256(resuming: []) == nil)
        #expect(SHA256(resuming: Array(state.dropLast())) == nil)
        #expect(SHA256(resuming: state + [1]) == nil)
        var long = state
        long[32] = 0xFF
        #expect(SHA256(resuming: long) == nil)
    }
}
