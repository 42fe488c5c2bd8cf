import AgentProtocol
import JSON

/// News of the registry for watchers: `client.online`, `client.offline`, `client.stale`, `client.enrolled`,
/// `client.changed`, `client.revoked`, `client.reinstated`, `client.forgotten`, `client.held-back`, `client.resolved`,
/// `enrollment.pending`, `enrollment.approved`, `enrollment.rejected`, `enrollment.lapsed`, `group.changed`, …
public struct RegistryEvent: Sendable, Equatable {
    public var kind: String
    public var client: ClientID?
    public var data: JSONValue
    public init(_ kind: String, _ client: ClientID? = nil, _ data: JSONValue = .null) {
        self.kind = kind
        self.client = client
        self.data = data
    }
}

/// Takes an event; never blocks and calls nothing back.
public typealias EventSink = @Sendable (RegistryEvent) -> Void
