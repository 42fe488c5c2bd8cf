import Crypto
import Testing

@testable import AgentProtocol

/// Two state machines and the frames between them.
struct HandshakePair {
    var core: CoreHandshakeStateMachine
    var agent: AgentHandshakeStateMachine
    var toAgent: [UInt8]
    var proved: ProvedAgent?
    var coreSeal: SealedChannel?

    init(
        coreKey: P256.PrivateKey, rotation: RotationStatement? = nil, coreBinding: LinkBinding,
        agent identity: AgentIdentity, agentBinding: LinkBinding, unixSeconds: UInt64 = 1_000
    ) {
        var writer = FrameWriter()
        core = CoreHandshakeStateMachine(
            identity: CoreIdentity(key: coreKey, rotation: rotation), nonce: Random.bytes(32), binding: coreBinding,
            now: 0, to: &writer)
        agent = AgentHandshakeStateMachine(
            identity: identity, nonce: Random.bytes(32), binding: agentBinding, unixSeconds: unixSeconds)
        toAgent = writer.bytes
    }

    /// The agent's answer to one message of the core.
    mutating func agentReceives(_ message: [UInt8]) throws -> (AgentHandshakeStateMachine.Event, [UInt8]) {
        var writer = FrameWriter()
        var (header, payload) = try frame(message)
        if header.kind == .sealed {
            let plain = try agent.open(header, payload.span.bytes)
            (header, payload) = try frame(plain)
        }
        let event = try agent.receive(header, payload.span.bytes, to: &writer)
        return (event, writer.bytes)
    }

    mutating func coreReceives(_ message: [UInt8], now: UInt64 = 1) throws -> [UInt8] {
        var writer = FrameWriter()
        var (header, payload) = try frame(message)
        if header.kind == .sealed {
            let plain = try core.open(header, payload.span.bytes)
            (header, payload) = try frame(plain)
        }
        if case .proved(let agent, let seal) = try core.receive(header, payload.span.bytes, now: now, to: &writer) {
            proved = agent
            coreSeal = seal
        }
        return writer.bytes
    }

    /// Everything up to the kernel's decision.
    mutating func run() throws {
        let hello = try agentReceives(toAgent).1
        let coreProof = try coreReceives(hello)
        let agentProof = try agentReceives(coreProof).1
        _ = try coreReceives(agentProof)
    }
}

func frame(_ message: [UInt8]) throws -> (FrameHeader, [UInt8]) {
    var position = 0
    let header = try FrameHeader.next(in: message.span.bytes, at: &position)
    return (header, Array(message[position..<position + Int(header.length)]))
}

func identity(
    _ key: P256.PrivateKey, pins: [String] = [], token: EnrollmentToken? = nil, client: ClientID? = nil
) -> AgentIdentity {
    AgentIdentity(
        key: key, client: client, bootID: "boot-1", epoch: 7, agentVersion: "1.0", hostname: "host", pins: pins,
        token: token)
}

@Suite struct HandshakeTests {
    let coreKey: P256.PrivateKey
    let agentKey: P256.PrivateKey
    let exporter = LinkBinding.exporter([UInt8](repeating: 5, count: 32))

    init() throws {
        coreKey = try .generate()
        agentKey = try .generate()
    }

    private func refusal(_ body: () throws -> Void) -> String? {
        do {
            try body()
            return nil
        } catch { return (error as? HandshakeRefusal)?.code ?? "\(error)" }
    }

    @Test func tokenReachesThePinnedCoreOnly() throws {
        let token = try #require(EnrollmentToken.generate(fingerprint: coreKey.publicKey.fingerprint))
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter, agent: identity(agentKey, token: token), agentBinding: exporter)
        try pair.run()
        #expect(pair.proved?.token == token)
        #expect(pair.proved?.fingerprint == agentKey.publicKey.fingerprint)
        #expect(pair.proved?.hello.epoch == 7)

        // The same agent in front of another core says nothing at all.
        var impostor = HandshakePair(
            coreKey: try .generate(), coreBinding: exporter, agent: identity(agentKey, token: token),
            agentBinding: exporter)
        #expect(refusal { _ = try impostor.agentReceives(impostor.toAgent) } == "core-identity-mismatch")
    }

    @Test func withoutPinNoSecretLeavesTheAgent() throws {
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter, agent: identity(agentKey), agentBinding: exporter)
        try pair.run()
        #expect(pair.proved != nil)
        #expect(pair.proved?.token == nil)
    }

    @Test func acceptanceAndPendingComeThrough() throws {
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: .loopback,
            agent: identity(agentKey, pins: [coreKey.publicKey.fingerprint]), agentBinding: .loopback)
        try pair.run()
        let notice = PendingNotice(enrollment: "e1", fingerprint: "f")
        var writer = FrameWriter()
        writer.frame(.pending, payload: notice.payload)
        #expect(
            try pair.agentReceives(writer.bytes).0
                == .pending(notice, coreFingerprint: coreKey.publicKey.fingerprint))
        let accepted = Accepted(
            client: ClientID(high: 1, low: 2), epoch: 7, features: [Feature.execution], heartbeatSeconds: 15,
            coreVersion: "1", time: 5, backupPins: ["b"])
        writer.reset()
        writer.frame(.accepted, payload: accepted.payload)
        #expect(
            try pair.agentReceives(writer.bytes).0
                == .accepted(accepted, coreFingerprint: coreKey.publicKey.fingerprint))
    }

    @Test func manInTheMiddleCannotJoinTwoConnections() throws {
        // He relays every frame between two TLS connections of his own: the exporters differ.
        let other = LinkBinding.exporter([UInt8](repeating: 6, count: 32))
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter,
            agent: identity(agentKey, pins: [coreKey.publicKey.fingerprint]), agentBinding: other)
        #expect(refusal { try pair.run() } == "signature-invalid")
    }

    @Test func changedOpeningPayloadsBreakTheSignature() throws {
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter,
            agent: identity(agentKey, pins: [coreKey.publicKey.fingerprint]), agentBinding: exporter)
        // Somebody takes a feature out of the challenge.
        let opening = try frame(pair.toAgent).1
        var challenge = try Challenge(reading: opening.span.bytes)
        challenge.features.removeLast()
        var writer = FrameWriter()
        writer.frame(.challenge, payload: challenge.payload)
        pair.toAgent = writer.bytes
        #expect(refusal { try pair.run() } == "signature-invalid")
    }

    @Test func recordedProofIsWorthNothingLater() throws {
        let pinned = identity(agentKey, pins: [coreKey.publicKey.fingerprint])
        var first = HandshakePair(coreKey: coreKey, coreBinding: exporter, agent: pinned, agentBinding: exporter)
        let hello = try first.agentReceives(first.toAgent).1
        let agentProof = try first.agentReceives(first.coreReceives(hello)).1
        _ = try first.coreReceives(agentProof)
        #expect(first.proved != nil)
        // A thief replays both recorded frames to the core; even the exporter is the same here.
        var second = HandshakePair(coreKey: coreKey, coreBinding: exporter, agent: pinned, agentBinding: exporter)
        _ = try second.coreReceives(hello)
        #expect(refusal { _ = try second.coreReceives(agentProof) } == "signature-invalid")
        #expect(second.proved == nil)
        // And twice on the same link.
        #expect(refusal { _ = try first.coreReceives(agentProof) } == "protocol-unexpected")
    }

    @Test func stolenIdWithoutTheKeyProvesOnlyTheThiefsKey() throws {
        let thief = try P256.PrivateKey.generate()
        let stolen = ClientID(high: 3, low: 4)
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter, agent: identity(thief, client: stolen), agentBinding: exporter)
        try pair.run()
        #expect(pair.proved?.hello.client == stolen)
        #expect(pair.proved?.fingerprint == thief.publicKey.fingerprint)
    }

    @Test func coreMirrorsAreRefused() throws {
        // A peer that answers with the core's own key.
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter, agent: identity(coreKey), agentBinding: exporter)
        #expect(refusal { try pair.run() } == "reflected")
    }

    @Test func lateHelloIsRefused() throws {
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter, agent: identity(agentKey), agentBinding: exporter)
        let hello = try pair.agentReceives(pair.toAgent).1
        #expect(refusal { _ = try pair.coreReceives(hello, now: 10_001) } == "handshake-timeout")
    }

    @Test func versionsMustMeet() throws {
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: exporter, agent: identity(agentKey), agentBinding: exporter)
        let answer = try frame(pair.agentReceives(pair.toAgent).1).1
        var hello = try Hello(reading: answer.span.bytes)
        hello.version = 2
        var writer = FrameWriter()
        writer.frame(.hello, payload: hello.payload)
        let message = writer.bytes
        #expect(refusal { _ = try pair.coreReceives(message) } == "version-unsupported")
    }

    @Test func rotationIsFollowedUntilItsEnd() throws {
        let newKey = try P256.PrivateKey.generate()
        let statement = try RotationStatement(from: coreKey, to: newKey.publicKey, acceptedUntil: 2_000)
        #expect(try RotationStatement(text: statement.text) == statement)
        let pinned = identity(agentKey, pins: [coreKey.publicKey.fingerprint])
        var inTime = HandshakePair(
            coreKey: newKey, rotation: statement, coreBinding: exporter, agent: pinned, agentBinding: exporter,
            unixSeconds: 2_000)
        try inTime.run()
        #expect(inTime.proved != nil)
        var late = HandshakePair(
            coreKey: newKey, rotation: statement, coreBinding: exporter, agent: pinned, agentBinding: exporter,
            unixSeconds: 2_001)
        #expect(refusal { try late.run() } == "core-identity-mismatch")
        // The statement leads to no third key.
        var other = HandshakePair(
            coreKey: try .generate(), rotation: statement, coreBinding: exporter, agent: pinned,
            agentBinding: exporter)
        #expect(refusal { try other.run() } == "core-identity-mismatch")
    }

    @Test func bindingsMustMeet() throws {
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: .loopback, agent: identity(agentKey), agentBinding: exporter)
        #expect(refusal { try pair.run() } == "binding-mismatch")
    }

    @Test func innerExchangeSealsEverythingAfterTheHello() throws {
        let token = try #require(EnrollmentToken.generate(fingerprint: coreKey.publicKey.fingerprint))
        var pair = HandshakePair(
            coreKey: coreKey, coreBinding: .exchange(try .generate()), agent: identity(agentKey, token: token),
            agentBinding: .exchange(try .generate()))
        let hello = try pair.agentReceives(pair.toAgent).1
        let coreProof = try pair.coreReceives(hello)
        #expect(try frame(coreProof).0.kind == .sealed)
        let agentProof = try pair.agentReceives(coreProof).1
        #expect(try frame(agentProof).0.kind == .sealed)
        _ = try pair.coreReceives(agentProof)
        #expect(pair.proved?.token == token)

        var seal = try #require(pair.coreSeal)
        var agentSeal = try #require(pair.agent.sealed)
        var writer = FrameWriter()
        writer.frame(.beat, offset: 9)
        let plain = writer.bytes
        try seal.seal(&writer)
        let (header, sealed) = try frame(writer.bytes)
        var changed = sealed
        changed[3] ^= 1
        #expect(throws: WireError.self) { try agentSeal.open(header, changed.span.bytes) }
        #expect(try agentSeal.open(header, sealed.span.bytes) == plain)
        #expect(throws: WireError.self) { try agentSeal.open(header, sealed.span.bytes) }
    }

    @Test func tokenText() throws {
        let token = try #require(EnrollmentToken.generate(fingerprint: coreKey.publicKey.fingerprint))
        #expect(EnrollmentToken(token.text) == token)
        #expect(!token.description.contains(Base64.encodeURL(token.secret)))
        for wrong in [
            "", "cmt1..", String(token.text.dropLast()), token.text + "0", token.text.uppercased(),
            token.text.replacing("cmt1", with: "cmt2"),
        ] {
            #expect(EnrollmentToken(wrong) == nil)
        }
    }

    @Test func successionNeedsTheOldKey() throws {
        let newKey = try P256.PrivateKey.generate()
        let client = ClientID(high: 9, low: 9)
        let statement = try SuccessionStatement(client: client, from: agentKey, to: newKey.publicKey)
        let read = try SuccessionStatement(text: statement.text)
        let (old, new) = (agentKey.publicKey.spki, newKey.publicKey.spki)
        #expect(read.isValid(client: client, registeredKey: old, presentedKey: new))
        #expect(!read.isValid(client: ClientID(high: 9, low: 8), registeredKey: old, presentedKey: new))
        #expect(!read.isValid(client: client, registeredKey: new, presentedKey: new))
        let forged = try SuccessionStatement(client: client, from: newKey, to: newKey.publicKey)
        #expect(!forged.isValid(client: client, registeredKey: old, presentedKey: new))
    }
}
