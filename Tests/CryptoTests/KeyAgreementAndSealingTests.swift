import Crypto
import Testing

private func bytes(_ hex: String) -> [UInt8] { Hex.decode(hex) ?? [] }

@Suite struct SealingTests {
    @Test func aes256GCMOfNISTsExamples() throws {
        let aead = try AEAD(.aes256GCM, key: [UInt8](repeating: 0, count: 32))
        let nonce = [UInt8](repeating: 0, count: 12)
        #expect(Hex.encode(try aead.seal([], nonce: nonce)) == "530f8afbc74536b9a963b4f1c4cb738b")
        #expect(
            Hex.encode(try aead.seal([UInt8](repeating: 0, count: 16), nonce: nonce))
                == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
        #expect(try aead.open(bytes("530f8afbc74536b9a963b4f1c4cb738b"), nonce: nonce).isEmpty)
    }

    @Test func chaCha20Poly1305OfRFC8439() throws {
        let aead = try AEAD(
            .chaCha20Poly1305, key: bytes("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"))
        let text =
            "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
        let sealed = try aead.seal(
            Array(text.utf8), nonce: bytes("070000004041424344454647"),
            associatedData: bytes("50515253c0c1c2c3c4c5c6c7"))
        #expect(Hex.encode(sealed.suffix(16)) == "1ae10b594f09e26a7e902ecbd0600691")
        #expect(Hex.encode(sealed.prefix(16)) == "d31a8d34648e60db7b86afbc53ef7ec2")
    }

    @Test(arguments: [AEAD.Cipher.aes256GCM, .chaCha20Poly1305])
    func oneChangedBitOpensNothing(_ cipher: AEAD.Cipher) throws {
        let aead = try AEAD(cipher, key: Random.bytes(32))
        let nonce = Random.bytes(12)
        let sealed = try aead.seal(Array("secret".utf8), nonce: nonce, associatedData: [1])
        #expect(try aead.open(sealed, nonce: nonce, associatedData: [1]) == Array("secret".utf8))
        for index in sealed.indices {
            var forged = sealed
            forged[index] ^= 1
            #expect(throws: CryptoError.notAuthentic) { try aead.open(forged, nonce: nonce, associatedData: [1]) }
        }
        #expect(throws: CryptoError.notAuthentic) { try aead.open(sealed, nonce: nonce, associatedData: [2]) }
        #expect(throws: CryptoError.notAuthentic) { try aead.open([1, 2, 3], nonce: nonce, associatedData: [1]) }
        var output: [UInt8] = [9]
        #expect(throws: CryptoError.notAuthentic) {
            try aead.open(sealed.span.bytes, nonce: nonce, associatedData: [], appendingTo: &output)
        }
        #expect(output == [9])
    }
}

@Suite struct EdwardsCurveTests {
    @Test func x25519OfRFC7748() throws {
        // Section 6.1: Bob's side, with Alice's public key.
        let bob = try X25519.PrivateKey(
            raw: bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
        #expect(
            Hex.encode(bob.publicKey) == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        #expect(
            Hex.encode(
                try bob.sharedSecret(with: bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")))
                == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
        let alice = try X25519.PrivateKey.generate()
        #expect(try alice.sharedSecret(with: bob.publicKey) == bob.sharedSecret(with: alice.publicKey))
    }

    @Test func aPointOfSmallOrderIsRefused() throws {
        let key = try X25519.PrivateKey.generate()
        #expect(throws: CryptoError.self) { try key.sharedSecret(with: [UInt8](repeating: 0, count: 32)) }
        #expect(throws: CryptoError.self) { try key.sharedSecret(with: [1] + [UInt8](repeating: 0, count: 31)) }
        #expect(throws: CryptoError.self) { try key.sharedSecret(with: [1]) }
    }

    @Test func ed25519OfRFC8032() throws {
        let key = try Ed25519.PrivateKey(
            seed: bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
        #expect(
            Hex.encode(key.publicKey.raw) == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        let signature = try key.sign([])
        #expect(
            Hex.encode(signature)
                == "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        )
        #expect(key.publicKey.isValid(signature: signature, for: []))
        #expect(!key.publicKey.isValid(signature: signature, for: [1]))
        #expect(try Ed25519.PrivateKey(pem: key.pem()).publicKey == key.publicKey)
    }
}

@Suite struct PasswordTests {
    @Test func scryptOfRFC7914() throws {
        #expect(
            Hex.encode(try Scrypt(cost: 16, blockSize: 1, parallelism: 1).derive(password: [], salt: [], count: 64))
                == "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906"
        )
        #expect(
            Hex.encode(
                try Scrypt(cost: 1024, blockSize: 8, parallelism: 16).derive(
                    password: Array("password".utf8), salt: Array("NaCl".utf8), count: 64))
                == "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
        )
        #expect(throws: CryptoError.self) { try Scrypt(cost: 1000).derive(password: [1], salt: [1], count: 32) }
        #expect(throws: CryptoError.self) { try Scrypt(cost: 1 << 40).derive(password: [1], salt: [1], count: 32) }
    }

    @Test func oneTimeCodesOfRFC6238() {
        let secret = Array("12345678901234567890".utf8)
        #expect(OneTimePassword.code(secret: secret, step: 59 / 30) == "287082")
        #expect(OneTimePassword.code(secret: secret, step: 1_111_111_109 / 30) == "081804")
        #expect(OneTimePassword.matchingStep("287082", secret: secret, unixSeconds: 59) == 1)
        #expect(OneTimePassword.matchingStep("287082", secret: secret, unixSeconds: 89) == 1)
        #expect(OneTimePassword.matchingStep("287082", secret: secret, unixSeconds: 120) == nil)
        #expect(OneTimePassword.matchingStep("", secret: secret, unixSeconds: 59) == nil)
    }

    @Test func base32OfRFC4648() {
        for (plain, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foobar", "MZXW6YTBOI")] {
            #expect(Base32.encode(Array(plain.utf8)) == text)
            #expect(Base32.decode(text) == Array(plain.utf8))
        }
        #expect(Base32.decode("MZ1") == nil)
    }
}

@Suite struct RSATests {
    @Test func verifiesWhatOpenSSLSigned() throws {
        let key = try RSAPublicKey(pem: RSAVector.publicPEM)
        let same = try RSAPublicKey(modulus: bytes(RSAVector.modulus), exponent: [1, 0, 1])
        let message = Array("the message".utf8)
        for key in [key, same] {
            #expect(key.isValid(signature: bytes(RSAVector.signature), for: message))
            #expect(!key.isValid(signature: bytes(RSAVector.signature), for: message + [0]))
            #expect(!key.isValid(signature: [], for: message))
        }
    }

    @Test func aKeyIsNotTakenForAnotherKind() throws {
        #expect(throws: CryptoError.self) { try P256.PublicKey(pem: RSAVector.publicPEM) }
        #expect(throws: CryptoError.self) { try Ed25519.PublicKey(pem: RSAVector.publicPEM) }
        #expect(throws: CryptoError.self) { try RSAPublicKey(modulus: [1, 2, 3], exponent: [3]) }
    }
}

@Suite struct CertificateTests {
    private let validity = CertificateValidity(notBefore: 1_700_000_000, notAfter: 1_900_000_000)

    @Test func aLeafChainsToTheAuthorityThatHoldsTheIdentityKey() throws {
        let identity = try P256.PrivateKey.generate()
        let authority = try Certificate.authority(key: identity, commonName: "Client Manager", validity: validity)
        let leafKey = try P256.PrivateKey.generate()
        let leaf = try Certificate.server(
            publicKey: leafKey.publicKey, commonName: "core",
            names: [.dns("core.example"), .address("127.0.0.1"), .address("::1")], validity: validity,
            authority: authority, authorityKey: identity)

        #expect(try authority.fingerprint() == identity.publicKey.fingerprint)
        #expect(try leaf.fingerprint() == leafKey.publicKey.fingerprint)
        #expect(leaf.isSigned(by: authority))
        #expect(!authority.isSigned(by: leaf))
        #expect(leaf.names(.dns("core.example")))
        #expect(leaf.names(.address("127.0.0.1")))
        #expect(leaf.names(.address("0:0::1")))
        #expect(!leaf.names(.dns("other.example")))
        #expect(!leaf.names(.address("127.0.0.2")))
        #expect(try leaf.validity() == validity)
        #expect(try Certificate(pem: leaf.pem()).der() == leaf.der())
        #expect(try P256.PublicKey(pem: authority.pem()) == identity.publicKey)
    }

    @Test(arguments: ["", "a,DNS:evil", "-a", "a..b", "a b", "*a.example", "a\0b"])
    func namesThatWouldChangeTheCertificateAreRefused(_ name: String) throws {
        #expect(CertificateName(name) == nil)
        let key = try P256.PrivateKey.generate()
        let authority = try Certificate.authority(key: key, commonName: "A", validity: validity)
        #expect(throws: CryptoError.self) {
            try Certificate.server(
                publicKey: key.publicKey, commonName: "core", names: [.dns(name)], validity: validity,
                authority: authority, authorityKey: key)
        }
    }
}
