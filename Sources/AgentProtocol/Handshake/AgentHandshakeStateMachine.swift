import Crypto

/// What an agent brings to one handshake.
public struct AgentIdentity: Sendable {
    public var key: P256.PrivateKey
    public var client: ClientID?
    public var bootID: String
    /// Already counted up and durable.
    public var epoch: UInt64
    public var agentVersion: String
    public var hostname: String
    /// Fingerprints of cores that may see the token and give orders; empty for an agent that knows none yet.
    public var pins: [String]
    public var token: EnrollmentToken?
    /// While the core may still hold the key before.
    public var succession: SuccessionStatement?
    /// What this agent can do; it says those that the core knows too.
    public var features = Feature.all

    public init(
        key: P256.PrivateKey, client: ClientID?, bootID: String, epoch: UInt64, agentVersion: String,
        hostname: String, pins: [String], token: EnrollmentToken? = nil, succession: SuccessionStatement? = nil
    ) {
        self.key = key
        self.client = client
        self.bootID = bootID
        self.epoch = epoch
        self.agentVersion = agentVersion
        self.hostname = hostname
        self.pins = pins
        self.token = token
        self.succession = succession
    }
}

/// The agent's side of one handshake. It signs nothing and shows no secret before the core has proved the identity that
/// this agent pins; without a pin it shows no secret at all and can only become pending.
public struct AgentHandshakeStateMachine: Sendable {
    public enum Event: Sendable, Equatable {
        /// The answer stands in the writer.
        case replied
        /// An operator has to decide; `accepted` or `refused` follows on the same link.
        case pending(PendingNotice, coreFingerprint: String)
        /// The link has rights. The core's fingerprint and the backup pins are to be kept.
        case accepted(Accepted, coreFingerprint: String)
        case refused(Farewell)
    }

    private enum State {
        case awaitingChallenge
        case awaitingProof(HandshakeTranscript, P256.PublicKey, isPinned: Bool)
        case awaitingVerdict(coreFingerprint: String, features: [String])
        case over
    }

    private let identity: AgentIdentity
    private let binding: LinkBinding
    private let nonce: [UInt8]
    private let unixSeconds: UInt64
    private var state = State.awaitingChallenge
    /// Set when a proxy ends TLS; the session takes it over when the handshake is done.
    public private(set) var sealed: SealedChannel?
    /// The core's identity key, once its signature was checked.
    public private(set) var coreKey: P256.PublicKey?

    /// - Parameters:
    ///   - nonce: 32 fresh random bytes.
    ///   - unixSeconds: for the end of a rotation statement.
    public init(identity: AgentIdentity, nonce: [UInt8], binding: LinkBinding, unixSeconds: UInt64) {
        self.identity = identity
        self.nonce = nonce
        self.binding = binding
        self.unixSeconds = unixSeconds
    }

    /// Takes the core's next frame. A refusal thrown here is the agent's own: it closes, and tries another server.
    public mutating func receive(
        _ header: FrameHeader, _ payload: borrowing RawSpan, to writer: inout FrameWriter
    ) throws(HandshakeRefusal) -> Event {
        let state = state
        self.state = .over
        do throws(WireError) {
            if header.kind == .refused || header.kind == .close { return .refused(try Farewell(reading: payload)) }
        } catch { throw HandshakeRefusal(error) }
        switch (state, header.kind) {
        case (.awaitingChallenge, .challenge): return try receiveChallenge(payload, to: &writer)
        case (.awaitingProof(let transcript, let core, let isPinned), .coreProof):
            return try receiveProof(payload, transcript, core, isPinned, to: &writer)
        case (.awaitingVerdict(let fingerprint, let features), .pending):
            self.state = .awaitingVerdict(coreFingerprint: fingerprint, features: features)
            do throws(WireError) {
                return .pending(try PendingNotice(reading: payload), coreFingerprint: fingerprint)
            } catch { throw HandshakeRefusal(error) }
        case (.awaitingVerdict(let fingerprint, let features), .accepted):
            let accepted: Accepted
            do throws(WireError) { accepted = try Accepted(reading: payload) } catch { throw HandshakeRefusal(error) }
            guard accepted.features.allSatisfy(features.contains) else {
                throw HandshakeRefusal("feature-unsupported", "the core chose features \(accepted.features)")
            }
            return .accepted(accepted, coreFingerprint: fingerprint)
        default:
            throw HandshakeRefusal(
                WireError(.unexpected, "a \(header.kind) frame; the handshake waits for something else"))
        }
    }

    private mutating func receiveChallenge(
        _ payload: borrowing RawSpan, to writer: inout FrameWriter
    ) throws(HandshakeRefusal) -> Event {
        let challenge: Challenge
        do throws(WireError) { challenge = try Challenge(reading: payload) } catch { throw HandshakeRefusal(error) }
        guard challenge.versions.contains(1) else {
            throw HandshakeRefusal("version-unsupported", "the core speaks \(challenge.versions), this agent version 1")
        }
        guard challenge.binding == binding.kind else {
            throw HandshakeRefusal(
                "binding-mismatch",
                """
                the core binds by \(challenge.binding.rawValue), this agent by \(binding.kind.rawValue): via-proxy must \
                be set on both ends or on none
                """)
        }
        let core: P256.PublicKey
        do throws(CryptoError) { core = try P256.PublicKey(spki: challenge.coreKey) } catch {
            throw HandshakeRefusal("key-invalid", "the core's key is no P-256 SubjectPublicKeyInfo of 91 bytes")
        }
        let isPinned = try checkPin(core, challenge.rotation)
        let hello = Hello(
            features: challenge.features.filter { identity.features.contains($0) }, nonce: nonce,
            agentKey: identity.key.publicKey.spki, client: identity.client, bootID: identity.bootID,
            epoch: identity.epoch, agentVersion: identity.agentVersion, hostname: identity.hostname,
            exchangeKey: binding.exchangeKey, succession: identity.succession?.text)
        let helloPayload = hello.payload
        let challengeHash = SHA256.hash(payload)
        let helloHash = SHA256.hash(helloPayload)
        let bound = try boundValue(
            binding, peer: challenge.exchangeKey, challengeHash: challengeHash, helloHash: helloHash, isCore: false)
        let transcript = HandshakeTranscript(
            challenge: challenge, hello: hello, challengeHash: challengeHash, helloHash: helloHash,
            binding: bound.value)
        sealed = bound.sealed
        writer.frame(.hello, payload: helloPayload)
        state = .awaitingProof(transcript, core, isPinned: isPinned)
        return .replied
    }

    /// True for a pinned core, false for an agent without pins.
    private func checkPin(_ core: P256.PublicKey, _ rotation: RotationStatement?) throws(HandshakeRefusal) -> Bool {
        var pins = identity.pins
        if let token = identity.token { pins.append(token.fingerprint) }
        guard !pins.isEmpty else { return false }
        if pins.contains(core.fingerprint) { return true }
        if let rotation, pins.contains(rotation.oldFingerprint),
            rotation.isValid(for: core.spki, unixSeconds: unixSeconds)
        {
            return true
        }
        throw HandshakeRefusal(
            "core-identity-mismatch",
            "the core's fingerprint is \(core.fingerprint); pinned is \(pins.joined(separator: ", "))")
    }

    private mutating func receiveProof(
        _ payload: borrowing RawSpan, _ transcript: HandshakeTranscript, _ core: P256.PublicKey, _ isPinned: Bool,
        to writer: inout FrameWriter
    ) throws(HandshakeRefusal) -> Event {
        let proof: Proof
        do throws(WireError) { proof = try Proof(reading: payload) } catch { throw HandshakeRefusal(error) }
        guard core.isValid(signature: proof.signature, for: transcript.signed(by: .core)) else {
            throw HandshakeRefusal("signature-invalid", "the core's signature does not prove its identity")
        }
        coreKey = core
        let token = isPinned ? identity.token?.text : nil
        let signature: [UInt8]
        do throws(CryptoError) {
            signature = try identity.key.sign(transcript.signed(by: .agent, token: token))
        } catch { throw HandshakeRefusal("agent-failure", "the agent cannot sign: \(error)") }
        writer.frame(.agentProof, payload: Proof(signature: signature, token: token).payload)
        if sealed != nil {
            do throws(WireError) { try sealed?.seal(&writer) } catch { throw HandshakeRefusal(error) }
        }
        state = .awaitingVerdict(coreFingerprint: core.fingerprint, features: transcript.hello.features)
        return .replied
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
}
