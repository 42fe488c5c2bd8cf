import Crypto

/// Who the core is, for one handshake.
public struct CoreIdentity: Sendable {
    public var key: P256.PrivateKey
    /// While agents may still pin the key before.
    public var rotation: RotationStatement?
    public var backupPins: [String]

    public init(key: P256.PrivateKey, rotation: RotationStatement? = nil, backupPins: [String] = []) {
        self.key = key
        self.rotation = rotation
        self.backupPins = backupPins
    }
}

/// What an agent has proved, for the kernel to decide about.
public struct ProvedAgent: Sendable, Equatable {
    public var hello: Hello
    public var token: EnrollmentToken?
    public var fingerprint: String
    /// What both sides can do.
    public var features: [String]
}

/// The core's side of one handshake: challenge, hello, both proofs. It knows no registry: it ends with an agent that
/// has proved its key, or with a refusal.
public struct CoreHandshakeStateMachine: Sendable {
    /// From the challenge on; a nonce is dead after that, and dies with the connection anyway.
    public static let timeLimitMilliseconds: UInt64 = 10_000

    public enum Event: Sendable {
        /// The answer stands in the writer.
        case replied
        case proved(ProvedAgent, SealedChannel?)
    }

    private enum State {
        case awaitingHello
        case awaitingProof(HandshakeTranscript, P256.PublicKey)
        case over
    }

    public var backupPins: [String] { identity.backupPins }

    private let identity: CoreIdentity
    private let binding: LinkBinding
    private let challenge: Challenge
    private let challengeHash: [UInt8]
    private let startedAt: UInt64
    private var state = State.awaitingHello
    /// Seals what follows the hello when a proxy ends TLS.
    private var sealed: SealedChannel?

    /// Writes the challenge.
    /// - Parameters:
    ///   - nonce: 32 fresh random bytes.
    ///   - now: milliseconds of any steady clock, the same for `receive`.
    public init(
        identity: CoreIdentity, features: [String] = Feature.all, nonce: [UInt8], binding: LinkBinding, now: UInt64,
        to writer: inout FrameWriter
    ) {
        self.identity = identity
        self.binding = binding
        challenge = Challenge(
            features: features, nonce: nonce, coreKey: identity.key.publicKey.spki, binding: binding.kind,
            exchangeKey: binding.exchangeKey, rotation: identity.rotation)
        let payload = challenge.payload
        challengeHash = SHA256.hash(payload)
        startedAt = now
        writer.frame(.challenge, payload: payload)
    }

    /// Takes the agent's next frame. After a refusal the state machine is over: the connection is to be closed.
    ///
    /// With `BindingKind.exchange` the core proof is written sealed, and the agent's proof comes out of a sealed frame.
    public mutating func receive(
        _ header: FrameHeader, _ payload: borrowing RawSpan, now: UInt64, to writer: inout FrameWriter
    ) throws(HandshakeRefusal) -> Event {
        let state = state
        self.state = .over
        guard now &- startedAt <= Self.timeLimitMilliseconds else {
            throw HandshakeRefusal("handshake-timeout", "the challenge was good for 10 seconds")
        }
        switch (state, header.kind) {
        case (.awaitingHello, .hello): return try receiveHello(payload, to: &writer)
        case (.awaitingProof(let transcript, let key), .agentProof):
            return try receiveProof(payload, transcript, key)
        default:
            throw HandshakeRefusal(
                WireError(.unexpected, "a \(header.kind) frame; the handshake waits for something else"))
        }
    }

    private mutating func receiveHello(
        _ payload: borrowing RawSpan, to writer: inout FrameWriter
    ) throws(HandshakeRefusal) -> Event {
        let hello: Hello
        do throws(WireError) { hello = try Hello(reading: payload) } catch { throw HandshakeRefusal(error) }
        guard challenge.versions.contains(hello.version) else {
            throw HandshakeRefusal(
                "version-unsupported", "the agent speaks version \(hello.version), this core \(challenge.versions)")
        }
        let key: P256.PublicKey
        do throws(CryptoError) { key = try P256.PublicKey(spki: hello.agentKey) } catch {
            throw HandshakeRefusal("key-invalid", "the agent's key is no P-256 SubjectPublicKeyInfo of 91 bytes")
        }
        guard key.spki != challenge.coreKey, hello.nonce != challenge.nonce else {
            throw HandshakeRefusal("reflected", "the hello repeats the core's own key or nonce")
        }
        let helloHash = SHA256.hash(payload)
        let bound = try boundValue(
            binding, peer: hello.exchangeKey, challengeHash: challengeHash, helloHash: helloHash, isCore: true)
        let transcript = HandshakeTranscript(
            challenge: challenge, hello: hello, challengeHash: challengeHash, helloHash: helloHash,
            binding: bound.value)
        let signature: [UInt8]
        do throws(CryptoError) { signature = try identity.key.sign(transcript.signed(by: .core)) } catch {
            throw HandshakeRefusal("core-failure", "the core cannot sign now")
        }
        sealed = bound.sealed
        writer.frame(.coreProof, payload: Proof(signature: signature).payload)
        try sealIfNeeded(&writer)
        state = .awaitingProof(transcript, key)
        return .replied
    }

    private mutating func sealIfNeeded(_ writer: inout FrameWriter) throws(HandshakeRefusal) {
        guard sealed != nil else { return }
        do throws(WireError) { try sealed?.seal(&writer) } catch { throw HandshakeRefusal(error) }
    }

    /// Opens a sealed frame while the handshake still owns the seal.
    public mutating func open(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(HandshakeRefusal) -> [UInt8] {
        do throws(WireError) {
            guard sealed != nil, let plain = try sealed?.open(header, payload) else {
                throw WireError(.unexpected, "a sealed frame on a link that is not sealed")
            }
            return plain
        } catch {
            state = .over
            throw HandshakeRefusal(error)
        }
    }

    private func receiveProof(
        _ payload: borrowing RawSpan, _ transcript: HandshakeTranscript, _ key: P256.PublicKey
    ) throws(HandshakeRefusal) -> Event {
        let proof: Proof
        do throws(WireError) { proof = try Proof(reading: payload) } catch { throw HandshakeRefusal(error) }
        guard key.isValid(signature: proof.signature, for: transcript.signed(by: .agent, token: proof.token)) else {
            throw HandshakeRefusal("signature-invalid", "the agent's signature does not prove its key")
        }
        var token: EnrollmentToken?
        if let text = proof.token {
            token = EnrollmentToken(text)
            guard token != nil else {
                throw HandshakeRefusal("token-invalid", "an enrollment token has the form cmt1.SECRET.FINGERPRINT")
            }
        }
        let offered = challenge.features
        return .proved(
            ProvedAgent(
                hello: transcript.hello, token: token, fingerprint: key.fingerprint,
                features: transcript.hello.features.filter { offered.contains($0) }), sealed)
    }
}
