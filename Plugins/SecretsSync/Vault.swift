import JSON
import PluginKit
import Synchronization

/// All secrets, with their sealed values. What changes is durable before memory follows.
///
/// Changed on the plugin's own thread only; the service reads it from its callers' threads, so the table has a lock, which is
/// never held while the core is called.
final class Vault: Sendable {
    private struct State {
        var secrets: [String: Secret] = [:]
        /// By "name/version".
        var envelopes: [String: Envelope] = [:]
        var sealedBytes = 0
    }
    private let store: Store
    private let crypto: Crypto
    private let settings: Settings
    private let state = Mutex(State())

    init(_ host: Host, _ settings: Settings) throws(PluginError) {
        store = try host.store()
        crypto = try host.crypto()
        self.settings = settings
    }

    // MARK: Reading

    var all: [Secret] { state.withLock { Array($0.secrets.values) }.sorted { $0.name < $1.name } }

    func find(_ name: String) -> Secret? { state.withLock { $0.secrets[name] } }

    func secret(_ name: String) throws(PluginError) -> Secret {
        guard let secret = find(name) else { throw .unknown("there is no secret \"\(name.prefix(Secret.nameBytes))\"") }
        return secret
    }

    /// The value in clear. Who calls this has asked for the right, or is the delivery.
    func value(_ name: String, _ version: Int) throws(PluginError) -> [UInt8] {
        guard let envelope = state.withLock({ $0.envelopes[Self.place(name, version)] }) else {
            throw .unknown("the secret \"\(name)\" has no version \(version)")
        }
        return try envelope.open(name, version, crypto)
    }

    func sha256(_ value: [UInt8]) throws(PluginError) -> String {
        try crypto.sha256(value).map { byte in
            let text = String(byte, radix: 16)
            return text.utf8.count == 1 ? "0" + text : text
        }.joined()
    }

    // MARK: Changing, on the plugin's own thread

    /// What is in the store: in `start`.
    func restore() throws(PluginError) {
        var found = State()
        try store.each(prefix: "secret/") { (key, bytes) throws(PluginError) in
            let name = String(key.dropFirst("secret/".count))
            guard let record = try? JSONValue(parsing: bytes), let secret = Secret(name: name, record: record) else {
                throw PluginError(.internal, "the record of the secret \"\(name)\" cannot be read")
            }
            found.secrets[name] = secret
        }
        try store.each(prefix: "value/") { (key, bytes) throws(PluginError) in
            guard let envelope = Envelope(bytes) else { throw PluginError(.internal, "the sealed value \(key) cannot be read") }
            found.envelopes[String(key.dropFirst("value/".count))] = envelope
            found.sealedBytes += bytes.count
        }
        let restored = found
        state.withLock { $0 = restored }
    }

    /// A new secret; `value` `nil` where a source will give it.
    func create(_ secret: Secret, value: [UInt8]?, by: String, now: UInt64) throws(PluginError) {
        guard find(secret.name) == nil else { throw .conflict("secret-exists", "there is a secret \"\(secret.name)\" already") }
        guard state.withLock({ $0.secrets.count }) < settings.maximumSecrets else {
            throw .conflict("too-many-secrets", "there are \(settings.maximumSecrets) secrets, the limit (maximum_secrets)")
        }
        var secret = secret
        guard let value else { return try write(secret) }
        try add(value, to: &secret, by: by, now: now, isCurrent: true)
    }

    /// Seals a new version. `isCurrent`: it takes the place of the current one at once. Answers its number.
    @discardableResult
    func add(_ value: [UInt8], to name: String, by: String, now: UInt64, isCurrent: Bool) throws(PluginError) -> Int {
        var secret = try secret(name)
        try add(value, to: &secret, by: by, now: now, isCurrent: isCurrent)
        return secret.nextNumber - 1
    }

    private func add(_ value: [UInt8], to secret: inout Secret, by: String, now: UInt64, isCurrent: Bool) throws(PluginError) {
        let number = secret.nextNumber
        let envelope = try Envelope(sealing: value, of: secret.name, number, crypto)
        let size = envelope.bytes.count
        guard state.withLock({ $0.sealedBytes }) + size <= Settings.totalBytes else {
            throw .conflict("secrets-full", "all values together would have more than \(Settings.totalBytes) bytes; remove some first")
        }
        secret.nextNumber += 1
        secret.versions.append(Secret.Version(number: number, createdAt: now, by: by, bytes: value.count))
        if isCurrent { secret.current = number }
        // The oldest ones go that nobody is to have.
        var dropped: [Int] = []
        while secret.versions.count > settings.versionsKept {
            guard let index = secret.versions.firstIndex(where: { !secret.inUse.contains($0.number) && $0.number != number }) else { break }
            dropped.append(secret.versions.remove(at: index).number)
        }
        try write(secret, adding: (number, envelope), dropping: dropped)
    }

    /// Commits the record, a new value and what goes with it in one transaction; then memory follows.
    private func write(_ secret: Secret, adding new: (Int, Envelope)? = nil, dropping: [Int] = []) throws(PluginError) {
        let record = JSONValue.object(secret.record).serialized()
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.put("secret/" + secret.name, record)
            if let (number, envelope) = new { try transaction.put("value/" + Self.place(secret.name, number), envelope.bytes) }
            for number in dropping { try transaction.remove("value/" + Self.place(secret.name, number)) }
        }
        state.withLock { state in
            state.secrets[secret.name] = secret
            if let (number, envelope) = new {
                state.envelopes[Self.place(secret.name, number)] = envelope
                state.sealedBytes += envelope.bytes.count
            }
            for number in dropping { Self.drop(Self.place(secret.name, number), &state) }
        }
    }

    private static func drop(_ place: String, _ state: inout State) {
        guard let envelope = state.envelopes.removeValue(forKey: place) else { return }
        state.sealedBytes -= envelope.bytes.count
    }

    func change(_ name: String, _ change: (inout Secret) throws(PluginError) -> Void) throws(PluginError) {
        var secret = try secret(name)
        try change(&secret)
        try write(secret)
    }

    /// Destroys one version: its data key goes, so that nothing opens it again.
    func remove(_ name: String, version: Int) throws(PluginError) {
        var secret = try secret(name)
        guard secret.version(version) != nil else { throw .unknown("the secret \"\(name)\" has no version \(version)") }
        guard !secret.inUse.contains(version) else {
            throw .conflict("version-in-use", "version \(version) is \(secret.state(of: version)); make another one current first")
        }
        secret.versions.removeAll { $0.number == version }
        try write(secret, dropping: [version])
    }

    func remove(_ name: String) throws(PluginError) {
        let secret = try secret(name)
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.remove("secret/" + name)
            for version in secret.versions { try transaction.remove("value/" + Self.place(name, version.number)) }
        }
        state.withLock { state in
            state.secrets[name] = nil
            for version in secret.versions { Self.drop(Self.place(name, version.number), &state) }
        }
    }

    private static func place(_ name: String, _ version: Int) -> String { "\(name)/\(version)" }
}

extension Store {
    /// Every key with this prefix, with its value.
    func each(prefix: String, _ body: (String, [UInt8]) throws(PluginError) -> Void) throws(PluginError) {
        var after = ""
        // Bounded by what a plugin's store may hold.
        for _ in 0..<1_001 {
            let page = try list(prefix: prefix, after: after)
            for key in page.items {
                // Gone meanwhile: another version of this plugin may work on the same store.
                if let bytes = try get(key) { try body(key, bytes) }
            }
            guard let next = page.next else { return }
            after = next
        }
    }
}
