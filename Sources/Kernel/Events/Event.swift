import AgentProtocol
import JSON

/// Something that happened, for live views and webhooks. Not a record: the audit trail and each area's tables are that.
public struct Event: Sendable {
    /// `area.what`: `client.online`, `command.finished`, `settings.changed`, …
    public var kind: String
    public var client: ClientID?
    /// What else it is about: a command's id, a setting's name.
    public var subject: String?
    public var data: JSONValue

    public init(kind: String, client: ClientID? = nil, subject: String? = nil, data: JSONValue = .null) {
        self.kind = kind
        self.client = client
        self.subject = subject
        self.data = data
    }
}

/// An event with its place in the order of this core's events, as readers get it.
public struct PublishedEvent: Sendable {
    /// Counts from 1 when the core starts; see `EventCursor` for the form that survives a restart.
    public let sequence: UInt64
    public let kind: String
    public let client: ClientID?
    public let subject: String?
    /// `{"kind", "time_ms", "client", "subject", "data"}`, made once for all readers.
    public let json: [UInt8]
}

/// The position of a reader, as it travels in `Last-Event-ID`: `<run>-<sequence>`. The run tells the events of this
/// core process from those of an earlier one, which are gone.
public struct EventCursor: Sendable, Equatable, CustomStringConvertible {
    public var run: UInt64
    public var sequence: UInt64

    public init(run: UInt64, sequence: UInt64) {
        self.run = run
        self.sequence = sequence
    }

    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let run = UInt64(parts[0], radix: 16), let sequence = UInt64(parts[1]) else {
            return nil
        }
        self.init(run: run, sequence: sequence)
    }

    public var description: String { "\(String(run, radix: 16))-\(sequence)" }
}
