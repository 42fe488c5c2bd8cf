import AgentProtocol
import Crypto
import Reactor
import Synchronization

/// What a TLS listener shows: the leaf, then the authority that holds the identity key.
public struct ServerCertificate: Sendable, Equatable {
    /// Leaf and authority in PEM, in the order of the handshake.
    public let chain: String
    /// Unencrypted PKCS #8 of the leaf's key. It lives in memory only and dies with the process.
    public let privateKey: String
    /// Unix milliseconds.
    public let issuedAt: UInt64
    public let notAfter: UInt64
}

/// Who this core is: the long-lived key that agents pin, apart from the certificates of TLS, which may change daily.
///
/// All functions may be called from any thread. Files are read at `open` and written by `rotate` and `seal` only.
public final class IdentityService: Sendable {
    private struct State {
        var key: P256.PrivateKey
        var backup: P256.PrivateKey?
        var authority: Certificate
        var rotation: RotationStatement?
        var leaf: ServerCertificate?
    }
    private let state: Mutex<State>
    let directory: KeyDirectory
    private let names: [CertificateName]
    /// In a struct for the reason that `OutputStore.Hook` gives.
    private struct Hook: Sendable {
        var body: (@Sendable () -> Void)?
    }
    private let rotationHook = Mutex(Hook())

    /// Reads the identity of a data directory, or makes one. Blocks for a few small files.
    /// - Parameters:
    ///   - directory: usually `D/keys`.
    ///   - names: what the self-made server certificate is valid for; at least one.
    ///   - now: Unix milliseconds.
    /// - Throws: 500 `identity-damaged`, `identity-unusable`, `master-key-missing`.
    public static func open(
        directory path: String, safe: KeySafe = KeySafe(), names: [CertificateName], now: UInt64
    ) throws(Problem) -> IdentityService {
        let directory = KeyDirectory(path: path, safe: safe)
        try directory.prepare()
        let rotation = try readRotation(directory)
        try finishRotation(directory, rotation)
        let key = try existingOrNew(directory, "identity")
        // A backup that an operator has moved off the machine is not replaced by another.
        var backup = try directory.key("backup")
        if backup == nil, try directory.text("backup.fingerprint") == nil {
            backup = try existingOrNew(directory, "backup")
        }
        if let backup { try directory.write(backup.publicKey.fingerprint + "\n", "backup.fingerprint", isPublic: true) }
        let authority = try authority(directory, key, now: now)
        return IdentityService(
            State(key: key, backup: backup, authority: authority, rotation: rotation, leaf: nil), directory, names)
    }

    private init(_ state: State, _ directory: KeyDirectory, _ names: [CertificateName]) {
        self.state = Mutex(state)
        self.directory = directory
        self.names = names
    }

    public var publicKey: P256.PublicKey { state.withLock { $0.key.publicKey } }
    /// Lower-case hexadecimal SHA-256 of the key's SubjectPublicKeyInfo.
    public var fingerprint: String { publicKey.fingerprint }
    /// Of the key that will follow; agents pin it beside the identity. `nil` when it is not on this machine.
    public var backupFingerprint: String? { state.withLock { $0.backup?.publicKey.fingerprint } }
    /// The certificate authority in PEM, for browsers and `curl --cacert`.
    public func authorityPEM() throws(Problem) -> String {
        do { return try state.withLock { $0.authority }.pem() } catch { throw Self.failed(error) }
    }

    /// ECDSA with SHA-256, DER: the core's part of the agents' handshake. About 30 µs.
    public func sign(_ message: [UInt8]) throws(Problem) -> [UInt8] {
        let key = state.withLock { $0.key }
        do { return try key.sign(message) } catch { throw Self.failed(error) }
    }

    /// What the agents' handshake needs: the key, the statement of a rotation that agents may still have missed, and the
    /// fingerprint to pin beside the key's.
    public func forHandshake(at now: UInt64) -> CoreIdentity {
        state.withLock { state in
            CoreIdentity(
                key: state.key, rotation: state.rotation.flatMap { $0.acceptedUntil >= now / 1_000 ? $0 : nil },
                backupPins: [state.backup?.publicKey.fingerprint].compactMap { $0 })
        }
    }

    /// Unix milliseconds until which agents accept the present key by the word of the one before it; `nil` when no
    /// rotation is under way.
    public func rotationEnds(at now: UInt64) -> UInt64? {
        forHandshake(at: now).rotation.map { $0.acceptedUntil * 1_000 }
    }

    /// The server certificate of today: made anew when it is older than a day. About 0.1 ms then, nothing otherwise.
    public func serverCertificate(now: UInt64) throws(Problem) -> ServerCertificate {
        let (leaf, key, authority) = state.withLock { ($0.leaf, $0.key, $0.authority) }
        if let leaf, leaf.issuedAt <= now, now - leaf.issuedAt < Self.dayMilliseconds { return leaf }
        do {
            let leafKey = try P256.PrivateKey.generate()
            let seconds = Int64(now / 1_000)
            // From a day ago, for clients whose clock is behind; for eight days, should renewal fail for a while.
            let validity = CertificateValidity(notBefore: seconds - 86_400, notAfter: seconds + 8 * 86_400)
            let certificate = try Certificate.server(
                publicKey: leafKey.publicKey, commonName: "client-manager", names: names, validity: validity,
                authority: authority, authorityKey: key)
            let made = ServerCertificate(
                chain: try certificate.pem() + authority.pem(), privateKey: try leafKey.pem(), issuedAt: now,
                notAfter: now + 8 * Self.dayMilliseconds)
            // A rotation may have come between; then the certificate of the old authority is not kept.
            state.withLock { if $0.key.publicKey == key.publicKey { $0.leaf = made } }
            return made
        } catch { throw Self.failed(error) }
    }

    /// Makes the backup key the identity and a new key the backup. Agents that know the old identity accept the new one
    /// by the statement until it lapses; agents that have pinned the backup accept it at any time.
    /// Blocks for a few small files: call it on a blocking pool.
    /// - Parameter validMilliseconds: how long agents may take to learn the new key.
    /// - Throws: 409 `rotation-under-way` while an earlier statement is valid: an agent that has missed it could not
    ///   follow two steps. 409 `backup-key-absent`.
    public func rotate(now: UInt64, validMilliseconds: UInt64) throws(Problem) -> RotationStatement {
        if let ends = rotationEnds(at: now) {
            throw .conflict(
                "rotation-under-way",
                "agents may still learn the last rotation for \((ends - now) / 1_000) seconds; rotate again after that")
        }
        let (old, next) = state.withLock { ($0.key, $0.backup) }
        guard let next else {
            throw .conflict(
                "backup-key-absent",
                "the backup key is not in the key directory: put backup.pem back there and restart, then rotate")
        }
        do {
            let backup = try P256.PrivateKey.generate()
            let statement = try RotationStatement(
                from: old, to: next.publicKey, acceptedUntil: (now + validMilliseconds) / 1_000)
            try directory.write(backup, "backup-next")
            // From here on the rotation has happened: `open` finishes it after a crash.
            try directory.write(String(decoding: statement.text, as: UTF8.self), "rotation.json", isPublic: true)
            try Self.finishRotation(directory, statement)
            let authority = try Self.authority(directory, next, now: now)
            state.withLock {
                $0 = State(key: next, backup: backup, authority: authority, rotation: statement, leaf: nil)
            }
            rotationHook.withLock { $0.body }?()
            return statement
        } catch let error as Problem {
            throw error
        } catch { throw Self.failed(error) }
    }

    /// Has `body` called after each rotation, before the caller of `rotate` hears of it, on the caller's thread: TLS then
    /// shows a certificate of the new authority.
    public func whenRotated(_ body: @escaping @Sendable () -> Void) { rotationHook.withLock { $0.body = body } }

    /// Brings every private key of the directory under the present master key. Blocks for a few small files.
    public func seal() throws(Problem) {
        _ = try freshTicketKeys(now: unixMilliseconds())
        _ = try dataKey()
        // Reading a key that is not sealed as it should be writes it again.
        for name in try directory.privateKeys() { _ = try directory.key(name) }
    }

    private static let dayMilliseconds: UInt64 = 86_400_000

    private static func existingOrNew(_ directory: KeyDirectory, _ name: String) throws(Problem) -> P256.PrivateKey {
        if let key = try directory.key(name) { return key }
        let key: P256.PrivateKey
        do { key = try P256.PrivateKey.generate() } catch { throw failed(error) }
        try directory.write(key, name)
        return key
    }

    /// The authority's certificate can be made again at any time: what is pinned is the key in it.
    private static func authority(
        _ directory: KeyDirectory, _ key: P256.PrivateKey, now: UInt64
    ) throws(Problem) -> Certificate {
        let seconds = Int64(now / 1_000)
        if let text = try directory.text("ca.pem"), let kept = try? Certificate(pem: text),
            (try? kept.fingerprint()) == key.publicKey.fingerprint,
            let validity = try? kept.validity(), validity.notBefore <= seconds, validity.notAfter > seconds + 366 * 86_400
        {
            return kept
        }
        do {
            let made = try Certificate.authority(
                key: key, commonName: "Client Manager \(key.publicKey.fingerprint.prefix(16))",
                validity: CertificateValidity(notBefore: seconds - 86_400, notAfter: seconds + 20 * 366 * 86_400))
            try directory.write(made.pem(), "ca.pem", isPublic: true)
            return made
        } catch let error as Problem {
            throw error
        } catch { throw failed(error) }
    }

    private static func readRotation(_ directory: KeyDirectory) throws(Problem) -> RotationStatement? {
        guard let text = try directory.text("rotation.json") else { return nil }
        do { return try RotationStatement(text: Array(text.utf8)) } catch {
            throw Problem(500, "identity-damaged", "rotation.json in the key directory is broken: \(error)")
        }
    }

    /// Brings the key files to where the last statement says they are; does nothing when they are there.
    private static func finishRotation(_ directory: KeyDirectory, _ last: RotationStatement?) throws(Problem) {
        guard let next = try directory.key("backup-next") else { return }
        guard let last, let backup = try directory.key("backup"), backup.publicKey.spki == last.newKey else {
            // The crash came before the statement: nothing happened.
            return try directory.remove("backup-next.pem")
        }
        try directory.write(backup, "identity")
        try directory.rename("backup-next.pem", to: "backup.pem")
        try directory.write(next.publicKey.fingerprint + "\n", "backup.fingerprint", isPublic: true)
    }

    private static func failed(_ error: any Error) -> Problem {
        Problem(500, "identity-unusable", "the core's identity cannot be used: \(error)")
    }
}
