import AgentProtocol

// What the layers above need of the agent protocol's words, without knowing the protocol.
public typealias CommandID = AgentProtocol.CommandID
public typealias Invocation = AgentProtocol.Invocation
public typealias OutputStream = AgentProtocol.OutputStream
public typealias StreamPair = AgentProtocol.StreamPair

/// What somebody wants to run, for the one who decides whether he may.
public struct CommandProposal: Sendable {
    public var selection: TargetSelection
    public var invocation: Invocation
    /// The user on the client; `nil` is the agent's own.
    public var user: String?
    public var template: CommandSpecification.TemplateReference?
}

/// What Commands asks of the registry and of security.
public protocol CommandAuthority: Sendable {
    /// The clients of the selection, if the principal may run this on all of them.
    /// - Throws: 403 with the reason, 404 for an unknown client, 400 for a selector that cannot be read, 503 while new
    ///   commands are switched off.
    func admit(_ proposal: CommandProposal, _ principal: Principal) async throws(Problem) -> [ClientID]

    /// Why no order goes to this client any more (`client-revoked`, `client-forgotten`, …); `nil` for one in service.
    func outOfService(_ client: ClientID) -> String?
}

/// Something that happened to commands, for the event stream and the outbox.
public struct CommandEvent: Sendable {
    public enum Kind: String, Sendable {
        case submitted = "command.submitted"
        case finished = "command.finished"
    }
    public let kind: Kind
    public let targetCount: Int
    public let counts: OutcomeCounts
    /// The only client of a command for one.
    public let client: ClientID?
    private let specification: CommandSpecification

    init(_ kind: Kind, _ specification: CommandSpecification, targetCount: Int, counts: OutcomeCounts, client: ClientID?) {
        self.kind = kind
        self.specification = specification
        self.targetCount = targetCount
        self.counts = counts
        self.client = client
    }

    public var command: CommandID { specification.id }
    public var title: String { specification.title }
    public var principal: String { specification.principal }
    /// Of the request that it came with.
    public var correlation: String { specification.correlation }
}

/// Numbers for `/metrics`; plain closures over counters, so that this folder does not depend on the registry of metrics.
public struct CommandObservers: Sendable {
    public var event: @Sendable (CommandEvent) -> Void = { _ in }
    public var targetEnded: @Sendable (FinalState) -> Void = { _ in }
    /// Milliseconds from the submit to the last durable end.
    public var commandTook: @Sendable (UInt64) -> Void = { _ in }
    /// An agent spoke about a command that is not its own or was recorded before.
    public var foreignAnswer: @Sendable (ClientID, CommandID) -> Void = { _, _ in }
    /// An agent reported an execution of a command that was for other clients.
    public var answeredForOthers: @Sendable (ClientID, CommandID) -> Void = { _, _ in }
    public var outputTaken: @Sendable (Int) -> Void = { _ in }
    /// Bytes of a target that ended became asterisks, because a filter that they had to pass was not there or failed.
    public var outputWithheld: @Sendable (ClientID, CommandID, UInt64) -> Void = { _, _, _ in }
    /// The disk's limit removed so many segments, of so many bytes, before the archive had everything in them.
    public var outputDropped: @Sendable (Int, UInt64) -> Void = { _, _ in }
    /// The database refused an end; it is tried again.
    public var recordFailed: @Sendable (Problem) -> Void = { _ in }

    public init() {}
}
