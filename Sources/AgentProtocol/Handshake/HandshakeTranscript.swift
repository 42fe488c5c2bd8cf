import Crypto

/// What both sides of a handshake sign.
///
/// It names the signer's role, so that no side's signature serves for the other; both nonces, so that it is worth
/// nothing later; both identities, client id, boot id and epoch; the binding, so that it is worth nothing on another
/// connection; and the hashes of both opening payloads, so that nobody in between can take a version or feature away.
struct HandshakeTranscript {
    enum Role: UInt8 {
        case core = 0x43
        case agent = 0x41
    }

    let challenge: Challenge
    let hello: Hello
    let challengeHash: [UInt8]
    let helloHash: [UInt8]
    /// The TLS exporter value, the value out of the inner exchange, or nothing on plain loopback.
    let binding: [UInt8]

    /// - Parameter token: the token that the agent's proof carries; its hash is part of what the agent signs.
    func signed(by role: Role, token: String? = nil) -> [UInt8] {
        var text = SignedText("client-manager.v1 handshake")
        text.fixed([role.rawValue])
        text.number(UInt64(hello.version))
        text.fixed(challenge.nonce)
        text.fixed(hello.nonce)
        text.counted(challenge.coreKey)
        text.counted(hello.agentKey)
        text.fixed(hello.client?.bytes ?? [UInt8](repeating: 0, count: 16))
        text.counted(Array(hello.bootID.utf8))
        text.number(hello.epoch)
        text.counted(Array(challenge.binding.rawValue.utf8))
        text.counted(binding)
        text.fixed(challengeHash)
        text.fixed(helloHash)
        text.fixed(token.map { SHA256.hash(Array($0.utf8)) } ?? [UInt8](repeating: 0, count: 32))
        return text.bytes
    }
}

/// Why a handshake ended. The code is stable; the peer is told both.
public struct HandshakeRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    public var code: String
    public var message: String

    public init(_ code: String, _ message: String) {
        self.code = code
        self.message = message
    }

    init(_ error: WireError) { self.init(error.code.rawValue, error.detail) }

    public var description: String { "\(code): \(message)" }
}

/// Names of what a side can do beyond the base of version 1.
public enum Feature {
    public static let execution = "execution"
    public static let beatMeasures = "beat-measures"
    /// Terminals: `open` with flags 2.
    public static let terminal = "pty"
    /// Transfers and file requests: `open` with flags 3.
    public static let file = "file"
    /// Small files of secret content, in the client's memory.
    public static let privateFile = "private-file"
    /// Orders with secret variables, which the agent writes to no disk.
    public static let secretEnvironment = "secret-environment"
    /// The agent replaces its own program when it is told to.
    public static let upgrade = "upgrade"
    /// Transfers whose far end is an HTTPS URL: an order with `url`. Only together with `file`.
    public static let fileURL = "file-url"
    /// File requests for the hash of a file. Only together with `file`.
    public static let fileHash = "file-hash"
    public static let all = [execution, beatMeasures, terminal, file, privateFile, secretEnvironment, upgrade, fileURL, fileHash]
}

/// How a connection is tied to the handshake on it, as its owner found it.
public enum LinkBinding: Sendable {
    /// 32 bytes of keying material: label `EXPORTER-client-manager-agent-v1`, no context (RFC 8446 §7.5).
    case exporter([UInt8])
    /// Plain, and both ends are loopback addresses.
    case loopback
    /// A proxy ends TLS: this side's ephemeral key, used for one connection.
    case exchange(X25519.PrivateKey)

    public static let exporterLabel = "EXPORTER-client-manager-agent-v1"
    public static let exporterBytes = 32

    /// `nil` when the system gives no key.
    public static func freshExchange() -> LinkBinding? {
        (try? X25519.PrivateKey.generate()).map { .exchange($0) }
    }

    public var kind: BindingKind {
        switch self {
        case .exporter: .tlsExporter
        case .loopback: .none
        case .exchange: .exchange
        }
    }

    var exchangeKey: [UInt8]? {
        if case .exchange(let key) = self { key.publicKey } else { nil }
    }
}
