import AgentProtocol
import JSON

/// The kernel's façade names it, so that the layers above need not import the wire protocol.
public typealias ClientID = AgentProtocol.ClientID

/// One client as the registry knows it at a moment. Times are Unix milliseconds.
public struct Client: Sendable {
    public var id: ClientID
    /// The display name that operators gave; empty if none.
    public var name: String
    public var state: ClientState
    public var stateSince: UInt64
    /// Two machines seem to have this identity; no link is accepted until an operator resolves it.
    public var isHeldBack: Bool
    public var enrolledAt: UInt64
    /// The last heartbeat, or the last end of a link.
    public var lastSeen: UInt64
    /// Grows with each change by an operator.
    public var revision: UInt64
    public var epoch: UInt64
    /// Lower-case hexadecimal SHA-256 of the agent's public key.
    public var fingerprint: String
    public var address: String
    public var agentVersion: String
    public var hostname: String
    /// Asserted by operators and tokens.
    public var labels: [String: String]
    public var lastBeat: BeatSample?
    public var memoryTotalKiB: UInt32

    /// Changes when anything shown of the client changes, except heartbeats.
    public var entityTag: String { "\(revision)-\(epoch)-\(stateSince)-\(isHeldBack ? 1 : 0)" }
}

/// What is kept in the database only, because it can be large and is asked for one client at a time.
public struct ClientDetail: Sendable {
    public var client: Client
    public var notes: String
    /// Free data of operators.
    public var metadata: JSONValue
    /// The last report of the agent, whole.
    public var facts: JSONValue
    public var factsReportedAt: UInt64?
    public var enrolledBy: String
    public var bootID: String
    public var revokedReason: String?
    /// The machines that were seen with this identity, if it is held back.
    public var contenders: JSONValue
    /// Oldest first.
    public var beats: [BeatSample]
}

/// One link of the past.
public struct ClientSession: Sendable {
    public var id: Int64
    public var epoch: UInt64
    public var address: String
    public var bootID: String
    public var agentVersion: String
    public var connectedAt: UInt64
    public var disconnectedAt: UInt64
    public var end: LinkEnd
}

/// A change by an operator; `nil` leaves as it is.
public struct ClientEdit: Sendable {
    public var name: String?
    public var notes: String?
    public var metadata: JSONObject?
    /// `nil` as a value removes the label.
    public var labels: [String: String?]
    public init(
        name: String? = nil, notes: String? = nil, metadata: JSONObject? = nil, labels: [String: String?] = [:]
    ) {
        self.name = name
        self.notes = notes
        self.metadata = metadata
        self.labels = labels
    }

    static let maximumNameBytes = 255
    static let maximumNotesBytes = 16_384
    static let maximumMetadataBytes = 16_384
    static let maximumLabels = 64

    /// - Throws: `invalid` (400) that names the field.
    func check() throws(Problem) {
        if let name {
            guard name.utf8.count <= Self.maximumNameBytes, !name.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
            else {
                throw .invalid(
                    "a name has at most \(Self.maximumNameBytes) bytes and no control characters", pointer: "/name")
            }
        }
        if let notes, notes.utf8.count > Self.maximumNotesBytes {
            throw .invalid(
                "notes have at most \(Self.maximumNotesBytes) bytes, these have \(notes.utf8.count)", pointer: "/notes")
        }
        if let metadata {
            let size = JSONValue.object(metadata).serialized().count
            guard size <= Self.maximumMetadataBytes else {
                throw .invalid(
                    "metadata has at most \(Self.maximumMetadataBytes) bytes as JSON, this has \(size)",
                    pointer: "/metadata")
            }
        }
        try Self.check(labels: labels)
    }

    static func check(labels: [String: String?]) throws(Problem) {
        guard labels.count <= maximumLabels else {
            throw .invalid("a client has at most \(maximumLabels) labels", pointer: "/labels")
        }
        for (key, value) in labels {
            if let fault = SelectorSyntax.fault(ofLabelKey: key)
                ?? value.flatMap({ SelectorSyntax.fault(ofLabelValue: $0) })
            {
                throw .invalid(fault, pointer: "/labels/\(key)")
            }
        }
    }
}
