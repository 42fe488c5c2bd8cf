import AgentProtocol
import JSON

/// What an agent proved in its handshake, before the kernel decides about it. The signature over both identities,
/// nonces and the TLS exporter has been checked: the peer does hold `publicKey`.
public struct AgentHello: Sendable {
    /// SubjectPublicKeyInfo (DER) of the agent's P-256 key.
    public var publicKey: [UInt8]
    /// The id that it was given at enrollment; `nil` for a machine that has none yet.
    public var client: ClientID?
    public var enrollmentToken: String?
    public var bootID: String
    /// The agent's own durable link counter; never below the last accepted one, unless a snapshot was restored.
    public var epoch: UInt64
    public var agentVersion: String
    public var hostname: String
    /// A proof by the old key that `publicKey` succeeds it, if the agent changed its key.
    public var succession: [UInt8]?
    /// Peer address without port, after trusted proxies were taken off.
    public var address: String
    public var correlation: String

    public init(
        publicKey: [UInt8], client: ClientID? = nil, enrollmentToken: String? = nil, bootID: String, epoch: UInt64,
        agentVersion: String = "", hostname: String = "", succession: [UInt8]? = nil, address: String,
        correlation: String = ""
    ) {
        self.publicKey = publicKey
        self.client = client
        self.enrollmentToken = enrollmentToken
        self.bootID = bootID
        self.epoch = epoch
        self.agentVersion = agentVersion
        self.hostname = hostname
        self.succession = succession
        self.address = address
        self.correlation = correlation
    }
}

/// The kernel's answer to a hello.
public enum Admission: Sendable {
    case accepted(AdmittedClient)
    /// Known, waiting for an operator. The link stays open without rights; a later `EnrollmentVerdict` ends the wait.
    case pending(enrollment: String, fingerprint: String)
    /// The link is closed with this stable code (`token-invalid`, `revoked`, `key-mismatch`, `clone-suspected`, …).
    case refused(code: String, message: String)
}

public struct AdmittedClient: Sendable {
    public var client: ClientID
    /// The epoch that this link holds; it is durable on the core before this value exists.
    public var epoch: UInt64
    public var heartbeatSeconds: Int
    /// How far a beat may move in either direction.
    public var jitterPercent: Int
    public init(client: ClientID, epoch: UInt64, heartbeatSeconds: Int, jitterPercent: Int = 10) {
        self.client = client
        self.epoch = epoch
        self.heartbeatSeconds = heartbeatSeconds
        self.jitterPercent = jitterPercent
    }
}

/// One heartbeat as measured. Loads are in hundredths, memory in KiB.
public struct Beat: Sendable, Equatable {
    public var roundTripMicroseconds: UInt32
    public var loadHundredths: UInt32
    public var memoryAvailableKiB: UInt32
    public var memoryTotalKiB: UInt32
    public init(
        roundTripMicroseconds: UInt32, loadHundredths: UInt32, memoryAvailableKiB: UInt32, memoryTotalKiB: UInt32
    ) {
        self.roundTripMicroseconds = roundTripMicroseconds
        self.loadHundredths = loadHundredths
        self.memoryAvailableKiB = memoryAvailableKiB
        self.memoryTotalKiB = memoryTotalKiB
    }
}

/// Why a link ended, as kept in the session history.
public struct LinkEnd: Sendable, Equatable {
    /// `closed`, `timeout`, `fenced`, `revoked`, `disconnected`, `protocol-error`, `core-stopping`, `lost`, …
    public var code: String
    public var detail: String
    public init(code: String, detail: String) {
        self.code = code
        self.detail = detail
    }
}

/// Why a peer did not become an accepted link.
public struct HandshakeFailure: Sendable {
    public var address: String
    /// Only what the peer claimed.
    public var client: ClientID?
    /// SHA-256 of the key, as hexadecimal, if the peer proved one: a pending machine, or one that was being decided about.
    public var provedKey: String?
    public var code: String
    public var message: String
}

/// Who may connect, and what becomes of a link: implemented by the registry (`Clients`, `Enrollment`).
/// Called on the link's loop.
public protocol AgentAuthority: Sendable {
    func admit(_ hello: AgentHello) async -> Admission
    /// After the accepting message was sent. Fences an older link of the same client at once.
    func linkUp(_ link: AgentLink)
    func linkDown(_ link: AgentLink, _ end: LinkEnd)
    /// At most once per beat; must not allocate per call beyond its ring.
    func heartbeat(_ client: ClientID, _ beat: Beat)
    /// Facts arrive after acceptance, and again when they change; the link has checked size and depth.
    func facts(_ client: ClientID, _ facts: JSONValue)
    /// Waits for the operator's verdict on a pending enrollment; `nil` when it lapsed.
    func verdict(enrollment: String) async -> Admission?
    /// A peer was turned away before it was accepted. To be counted, not written each.
    func handshakeFailed(_ failure: HandshakeFailure)
    /// An accepted agent broke the protocol (`protocol-…`); its link is being closed.
    func violated(_ link: AgentLink, code: String, message: String)
    /// The agent is back from a move that came to nothing.
    func moveFailed(_ link: AgentLink, _ failure: MoveFailure)
}

extension AgentAuthority {
    public func handshakeFailed(_ failure: HandshakeFailure) {}
    public func violated(_ link: AgentLink, code: String, message: String) {}
    public func moveFailed(_ link: AgentLink, _ failure: MoveFailure) {}
}

/// What an agent says about the end of an execution, and the link that it came over. An object, since it goes from hand to hand.
public final class ReportedEnd: Sendable {
    let link: any ExecutionLink
    public let record: ExitRecord

    init(link: any ExecutionLink, record: ExitRecord) {
        self.link = link
        self.record = record
    }
}

/// Where executions of an agent end up: implemented by `Commands`. Called on the link's loop.
public protocol ExecutionSink: Sendable {
    /// Once, when the link is accepted and before the registry shows its client as online.
    func linkAccepted(_ link: AgentLink)
    /// Once after each accept, before any other message of the link. Orders that the agent does not report and that
    /// have no end yet are sent by the sink itself from inside this call, through `link.send`.
    func reconcile(_ link: AgentLink, _ reports: [ExecutionReport]) async -> [ResumeDecision]
    func started(_ link: AgentLink, _ command: CommandID, at unixMilliseconds: UInt64)
    /// Bytes that continue the stream at `offset`. Overlaps are dropped by offset; a gap is a protocol error (false).
    /// The sink returns credit with `link.grant` when its store has the bytes.
    func output(
        _ link: AgentLink, _ command: CommandID, _ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan
    ) -> Bool
    /// Records ends durably: all that the agents of one loop reported in one of its turns, so that they cost one task and one
    /// write. The link acknowledges to the agent those for which this returns true; false means "not now" (the agent keeps it
    /// and reports it at the next connect).
    func finished(_ ends: [ReportedEnd]) async -> [Bool]
    /// Once, when the link is dead, and before a newer link of the same client is reconciled.
    func linkLost(_ link: AgentLink)
}
