import Testing

@Suite struct PrivateKeyTests {
    /// A key file as ssh-keygen writes it, without the private half, which is not looked at.
    private static func openSSH(type: String, keys: Int = 1, magic: String = "openssh-key-v1\0") -> String {
        let blob = Wire.string(Array(type.utf8)) + Wire.string([UInt8](repeating: 7, count: 32))
        var bytes = Array(magic.utf8)
        for part in ["none", "none", ""] { bytes += Wire.string(Array(part.utf8)) }
        bytes += Wire.number(keys) + Wire.string(blob) + Wire.string([1, 2, 3])
        return pem("OPENSSH PRIVATE KEY", bytes)
    }

    private static func pem(_ name: String, _ bytes: [UInt8]) -> String {
        "-----BEGIN \(name)-----\n\(Base64.encode(bytes))\n-----END \(name)-----\n"
    }

    private func refusal(_ text: String) -> Failure? {
        do throws(Failure) { try PrivateKey.check(Array(text.utf8)) } catch { return error }
        return nil
    }

    @Test func keysThatServersTakeAreTaken() {
        #expect(refusal(Self.openSSH(type: "ssh-ed25519")) == nil)
        #expect(refusal(Self.openSSH(type: "ecdsa-sha2-nistp256")) == nil)
        #expect(refusal(Self.pem("EC PRIVATE KEY", [0x30, 0x00])) == nil)
    }

    /// As OpenSSH and OpenSSL take them.
    @Test(arguments: ["# of the build machine, do not copy: ops@example\n\n", "\n\r\n  \n", "Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n"])
    func whatStandsAboveAndBelowAKeyIsNoPartOfIt(above: String) {
        for key in [Self.openSSH(type: "ssh-ed25519"), Self.pem("EC PRIVATE KEY", [0x30, 0x00])] {
            let text = above + key + "ssh-ed25519 AAAA me@host\n"
            #expect(refusal(text) == nil, "\(refusal(text)?.text ?? "")")
            // What libssh2 gets, which takes no other first line.
            #expect(PrivateKey.block(Array(text.utf8)) == key)
        }
        #expect(refusal(above + Self.openSSH(type: "sk-ssh-ed25519@openssh.com"))?.code == "ssh-key-invalid")
        let curve = Self.pem("EC PARAMETERS", [0x06, 0x00]) + Self.pem("EC PRIVATE KEY", [0x30, 0x00])
        #expect(PrivateKey.block(Array(curve.utf8)) == Self.pem("EC PRIVATE KEY", [0x30, 0x00]))
    }

    @Test func rsaNeedsALibraryThatSignsBySHA2() {
        // PKCS #8 with rsaEncryption (1.2.840.113549.1.1.1).
        let wrapped = Self.pem("PRIVATE KEY", [0x30, 0x20, 0x02, 0x01, 0x00, 0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00])
        let keys = [Self.openSSH(type: "ssh-rsa"), Self.pem("RSA PRIVATE KEY", [0x30, 0x00]), wrapped]
        for key in keys { #expect(refusal(key) == nil) }
        SSHLibrary.$signsRSAWithSHA2.withValue(false) {
            for key in keys {
                #expect(refusal(key)?.code == "ssh-rsa-unsupported")
                #expect(refusal(key)?.text.contains("use an Ed25519 or ECDSA key") == true)
            }
            #expect(refusal(Self.openSSH(type: "ssh-ed25519")) == nil)
        }
    }

    @Test func whatIsNoUsableKeyIsNamed() {
        let damaged = Self.openSSH(type: "ssh-ed25519")
        let cases = [
            ("", "no line -----BEGIN"),
            ("ssh-ed25519 AAAA me@host", "no line -----BEGIN"),
            (Self.pem("PUBLIC KEY", [1]), "this is a public key"),
            (Self.pem("DSA PRIVATE KEY", [1]), "ssh-dss"),
            (Self.openSSH(type: "sk-ssh-ed25519@openssh.com"), "sk-ssh-ed25519@openssh.com"),
            (Self.openSSH(type: "ssh-ed25519", keys: 2), "more than one key"),
            (Self.openSSH(type: "ssh-ed25519", magic: "openssh-key-v2\0"), "damaged"),
            (damaged.replacing("\n-----END", with: "*\n-----END"), "no base64"),
            (Self.pem("OPENSSH PRIVATE KEY", Array("openssh-key-v1\0".utf8) + [0, 0, 0, 9, 1]), "ends too early"),
        ]
        for (text, words) in cases {
            let failure = refusal(text)
            #expect(failure?.code == "ssh-key-invalid" && failure?.text.contains(words) == true, "\(words): \(failure?.text ?? "taken")")
        }
    }
}
