/// A private key's text: what can be said of it before it is used.
enum PrivateKey {
    /// - Throws: `ssh-rsa-unsupported`, `ssh-key-invalid`: a key that this machine's libssh2 cannot sign with as servers want it.
    static func check(_ text: [UInt8]) throws(Failure) {
        let lines = block(text).split(whereSeparator: \.isNewline)
        guard let begin = lines.first, begin.hasPrefix("-----BEGIN ") else {
            throw Failure("ssh-key-invalid", "the private key has no line -----BEGIN … PRIVATE KEY-----")
        }
        if says(begin, "PUBLIC KEY") { throw Failure("ssh-key-invalid", "this is a public key; the private one is needed") }
        if says(begin, " DSA ") { throw unsupported("ssh-dss") }
        if says(begin, " RSA ") { return try checkRSA() }
        let body = lines.filter { !$0.hasPrefix("-----") && !$0.contains(":") }.joined()
        guard let bytes = Base64.decode(body) else { throw Failure("ssh-key-invalid", "the private key is no base64") }
        if says(begin, " OPENSSH ") { return try checkOpenSSH(bytes) }
        // PKCS #8: the algorithm stands at the beginning (RFC 5208); an encrypted one does not say it.
        if begin == "-----BEGIN PRIVATE KEY-----", contains(bytes.prefix(48), [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01]) {
            try checkRSA()
        }
    }

    /// The key itself: PEM may stand below comments, blank lines or parameters of its curve, and other things may follow it. libssh2
    /// looks at the first line alone.
    static func block(_ text: [UInt8]) -> String {
        let lines = String(decoding: text, as: UTF8.self).split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        let begins = lines.indices.filter { lines[$0].hasPrefix("-----BEGIN ") }
        guard let begin = begins.first(where: { says(lines[$0], "PRIVATE KEY") }) ?? begins.first else { return "" }
        let end = lines[begin...].firstIndex { $0.hasPrefix("-----END ") } ?? lines.index(before: lines.endIndex)
        return lines[begin...end].joined(separator: "\n") + "\n"
    }

    /// PROTOCOL.key of OpenSSH: the public half stands in clear text before what may be encrypted.
    private static func checkOpenSSH(_ bytes: [UInt8]) throws(Failure) {
        let magic = Array("openssh-key-v1\0".utf8)
        guard bytes.starts(with: magic) else { throw Failure("ssh-key-invalid", "the private key is damaged") }
        var reader = WireReader(Array(bytes.dropFirst(magic.count)))
        for _ in 0..<3 { _ = try reader.string() }  // Cipher, key derivation, its options.
        guard try reader.number() == 1 else { throw Failure("ssh-key-invalid", "the file holds more than one key") }
        try check(type: try type(of: try reader.string()))
    }

    /// The name of a public key's type.
    static func type(of blob: [UInt8]) throws(Failure) -> String {
        var reader = WireReader(blob)
        return String(decoding: try reader.string(), as: UTF8.self)
    }

    static func check(type: String) throws(Failure) {
        if type == "ssh-rsa" { return try checkRSA() }
        guard type == "ssh-ed25519" || type.hasPrefix("ecdsa-sha2-") else { throw unsupported(type) }
    }

    private static func checkRSA() throws(Failure) {
        guard SSHLibrary.signsRSAWithSHA2 else {
            throw Failure(
                "ssh-rsa-unsupported",
                "libssh2 \(SSHLibrary.version) of this machine signs with RSA keys only by SHA-1, which servers refuse (1.11 signs by SHA-2): use an Ed25519 or ECDSA key")
        }
    }

    private static func unsupported(_ type: String) -> Failure {
        Failure("ssh-key-invalid", "keys of the type \(type.prefix(40)) cannot be used here: use an Ed25519 or ECDSA key")
    }

    private static func says(_ line: Substring, _ words: String) -> Bool { contains(Array(line.utf8)[...], Array(words.utf8)) }

    private static func contains(_ bytes: ArraySlice<UInt8>, _ part: [UInt8]) -> Bool {
        guard bytes.count >= part.count else { return false }
        return (bytes.startIndex...bytes.endIndex - part.count).contains { bytes[$0..<$0 + part.count].elementsEqual(part) }
    }
}
