import Crypto
import System

/// The private keys of the core as files (`D/keys`, mode 0700; files 0600). A key stands there as PKCS #8 in PEM, or as
/// `CLIENT MANAGER SEALED KEY` when there is a master key.
struct KeyDirectory: Sendable {
    let path: String
    let safe: KeySafe
    private static let label = "CLIENT MANAGER SEALED KEY"

    private static func isSealed(_ pem: String) -> Bool {
        pem.split(separator: "\n").contains { $0.hasPrefix("-----BEGIN \(label)-----") }
    }
    private static func isPrivateKey(_ pem: String) -> Bool {
        pem.split(separator: "\n").contains { $0.hasPrefix("-----BEGIN ") && $0.hasSuffix("PRIVATE KEY-----") }
    }

    func prepare() throws(Problem) {
        do {
            try Files.makeDirectories(path)
            try Files.changeMode(path, 0o700)
        } catch { throw Self.problem(error) }
    }

    /// `nil` when there is no such file. A key that is not sealed as it should be is written again.
    func key(_ name: String) throws(Problem) -> P256.PrivateKey? {
        guard let text = try text(name + ".pem") else { return nil }
        var isStale = safe.isSealing
        var pem = text
        if Self.isSealed(text) {
            let body = text.split(separator: "\n").filter { !$0.hasPrefix("-----") }.joined()
            guard let sealed = Base64.decode(body) else { throw damaged(name, "its base64 is broken") }
            let opened = try safe.open(sealed, name: name)
            pem = String(decoding: opened.secret, as: UTF8.self)
            isStale = opened.isStale
        }
        let key: P256.PrivateKey
        do { key = try P256.PrivateKey(pem: pem) } catch { throw damaged(name, "\(error)") }
        if isStale { try write(key, name) }
        return key
    }

    /// Names of the private keys that are here; certificates and public keys lie beside them.
    func privateKeys() throws(Problem) -> [String] {
        let names: [String]
        do { names = try Files.list(path, limit: 1_000) } catch { throw Self.problem(error) }
        var keys: [String] = []
        for name in names where name.hasSuffix(".pem") {
            let text = try text(name) ?? ""
            if Self.isPrivateKey(text) || Self.isSealed(text) { keys.append(String(name.dropLast(4))) }
        }
        return keys
    }

    func write(_ key: P256.PrivateKey, _ name: String) throws(Problem) {
        do {
            let pem = try key.pem()
            guard safe.isSealing else { return try AtomicFile.write(Array(pem.utf8), to: file(name + ".pem"), mode: 0o600) }
            let text = Base64.encode(try safe.seal(Array(pem.utf8), name: name))
            var lines = ["-----BEGIN \(Self.label)-----"]
            var rest = Substring(text)
            while !rest.isEmpty {
                lines.append(String(rest.prefix(64)))
                rest = rest.dropFirst(64)
            }
            lines.append("-----END \(Self.label)-----\n")
            try AtomicFile.write(Array(lines.joined(separator: "\n").utf8), to: file(name + ".pem"), mode: 0o600)
        } catch let error as Problem {
            throw error
        } catch { throw Self.problem(error) }
    }

    /// A secret that is no key pair; `nil` when there is no such file.
    func secret(_ name: String) throws(Problem) -> (secret: [UInt8], isStale: Bool)? {
        let sealed: [UInt8]?
        do { sealed = try Files.readIfPresent(file(name), limit: 1 << 16) } catch { throw Self.problem(error) }
        guard let sealed else { return nil }
        return try safe.open(sealed, name: name)
    }

    func write(secret: [UInt8], _ name: String) throws(Problem) {
        let sealed = try safe.seal(secret, name: name)
        do { try AtomicFile.write(sealed, to: file(name), mode: 0o600) } catch { throw Self.problem(error) }
    }

    func text(_ name: String) throws(Problem) -> String? {
        do {
            return try Files.readIfPresent(file(name), limit: 1 << 16).map { String(decoding: $0, as: UTF8.self) }
        } catch { throw Self.problem(error) }
    }

    func write(_ text: String, _ name: String, isPublic: Bool = false) throws(Problem) {
        do {
            try AtomicFile.write(Array(text.utf8), to: file(name), mode: isPublic ? 0o644 : 0o600)
        } catch { throw Self.problem(error) }
    }

    func rename(_ from: String, to name: String) throws(Problem) {
        do {
            try Files.rename(file(from), to: file(name))
            try Files.syncDirectory(path)
        } catch { throw Self.problem(error) }
    }

    func remove(_ name: String) throws(Problem) {
        do { try Files.remove(file(name)) } catch { throw Self.problem(error) }
    }

    private func file(_ name: String) -> String { path + "/" + name }

    private func damaged(_ name: String, _ why: String) -> Problem {
        Problem(
            500, "identity-damaged",
            "\(file(name + ".pem")) cannot be used: \(why). Restore it from a backup; a new key would lock every agent out")
    }

    private static func problem(_ error: any Error) -> Problem {
        Problem(500, "identity-unusable", "the core's keys cannot be read or written: \(error)")
    }
}
