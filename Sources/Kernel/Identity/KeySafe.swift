import Crypto
import Synchronization
import System

/// The key under which the core's own secrets are sealed.
public struct MasterKey: Sendable {
    let id: [UInt8]
    let aead: AEAD

    /// - Parameter material: 32 raw bytes, or their text as hexadecimal or base64 with white space around it.
    /// - Throws: 500 `master-key-invalid`.
    public init(material: [UInt8]) throws(Problem) {
        let key: [UInt8]
        if material.count == 32 {
            key = material
        } else {
            let text = String(decoding: material, as: UTF8.self).split(whereSeparator: \.isWhitespace)
            guard text.count == 1, let decoded = Hex.decode(text[0]) ?? Base64.decode(text[0]), decoded.count == 32
            else {
                throw Problem(
                    500, "master-key-invalid",
                    "a master key is 32 random bytes, raw or as hexadecimal or base64 (for example from: openssl rand -hex 32)")
            }
            key = decoded
        }
        id = Array(SHA256.hash(Array("cm-master-key-id".utf8) + key).prefix(8))
        do {
            aead = try AEAD(
                .aes256GCM,
                key: HKDF.derive(secret: key, salt: [], info: Array("cm-master-key-seal-1".utf8), count: 32))
        } catch { throw Problem(500, "master-key-invalid", "the master key cannot be used: \(error)") }
    }

    /// Where the master key may come from; at most one of them should be given.
    public enum Source: Sendable, Equatable {
        case file(String)
        /// The value of an environment variable.
        case text(String)
        /// A credential that systemd placed for the service (`LoadCredential=`), in `$CREDENTIALS_DIRECTORY`.
        case credential(directory: String, name: String)
    }

    public static func load(_ source: Source) throws(Problem) -> MasterKey {
        switch source {
        case .text(let text): return try MasterKey(material: Array(text.utf8))
        case .file(let path): return try MasterKey(material: read(path))
        case .credential(let directory, let name): return try MasterKey(material: read(directory + "/" + name))
        }
    }

    private static func read(_ path: String) throws(Problem) -> [UInt8] {
        do { return try Files.read(path, limit: 4_096) } catch {
            throw Problem(500, "master-key-invalid", "the master key cannot be read: \(error)")
        }
    }
}

/// Seals the secrets that the core keeps on disk. Without a master key they are kept as they are, mode 0600.
///
/// Sealed form: `01`, master key id (8), nonce (12), AES-256-GCM text and tag; the secret's name is associated data, so
/// that one sealed secret cannot be put in the place of another. Unsealed form: `00`, the secret.
public final class KeySafe: Sendable {
    private struct Keys {
        var current: MasterKey?
        var previous: [MasterKey]
    }
    private let keys: Mutex<Keys>

    /// - Parameter previous: keys that may still open, while everything is sealed anew under `current`.
    public init(current: MasterKey? = nil, previous: [MasterKey] = []) {
        keys = Mutex(Keys(current: current, previous: previous))
    }

    /// Changes the master key of a running core; what is sealed under the old one can still be opened. The owners of
    /// secrets then seal them again (`CoreIdentity.seal`).
    public func replace(current: MasterKey?) {
        keys.withLock { keys in
            if let old = keys.current, old.id != current?.id { keys.previous = Array(([old] + keys.previous).prefix(4)) }
            keys.current = current
        }
    }

    /// Whether `key` is the one in use already; `nil` stands for none.
    func isCurrent(_ key: MasterKey?) -> Bool { keys.withLock { $0.current?.id == key?.id } }

    public var isSealing: Bool { keys.withLock { $0.current != nil } }

    public func seal(_ secret: [UInt8], name: String) throws(Problem) -> [UInt8] {
        guard let key = keys.withLock({ $0.current }) else { return [0] + secret }
        let nonce = Random.bytes(AEAD.nonceBytes)
        do {
            return try [1] + key.id + nonce + key.aead.seal(secret, nonce: nonce, associatedData: Self.context(name))
        } catch { throw Problem(500, "seal-failed", "the secret \"\(name)\" could not be sealed: \(error)") }
    }

    /// - Returns: the secret, and whether it ought to be sealed again (it was under an old key, or not at all).
    public func open(_ sealed: [UInt8], name: String) throws(Problem) -> (secret: [UInt8], isStale: Bool) {
        let (current, candidates) = keys.withLock { ($0.current, [$0.current].compactMap { $0 } + $0.previous) }
        switch sealed.first {
        case 0: return (Array(sealed.dropFirst()), current != nil)
        case 1 where sealed.count >= 1 + 8 + AEAD.nonceBytes + AEAD.tagBytes:
            let id = Array(sealed[1..<9])
            guard let key = candidates.first(where: { $0.id == id }) else {
                throw Problem(
                    500, "master-key-missing",
                    "\"\(name)\" is sealed under master key \(Hex.encode(id)), which was not given")
            }
            do {
                let secret = try key.aead.open(
                    Array(sealed[21...]), nonce: Array(sealed[9..<21]), associatedData: Self.context(name))
                return (secret, key.id != current?.id)
            } catch {
                throw Problem(500, "seal-broken", "\"\(name)\" was changed since it was sealed")
            }
        default: throw Problem(500, "seal-broken", "\"\(name)\" is not in the form of a sealed secret")
        }
    }

    private static func context(_ name: String) -> [UInt8] { Array("cm-sealed-1:\(name)".utf8) }
}
