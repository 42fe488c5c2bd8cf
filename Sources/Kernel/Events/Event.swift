import AgentProtocol
import JSON
import Synchronization

/// Something that happened, for live views and webhooks. Not a record: the audit trail and each area's tables are that.
public struct Event: Sendable {
    /// `area.what`: `client.online`, `command.finished`, `settings.changed`, …
    public let kind: String
    public let client: ClientID?
    let content: Content

    enum Content: Sendable {
        case ready(subject: String?, data: [UInt8])
        case later(@Sendable () -> (subject: String?, data: JSONValue))
        /// The same as parts. Commands are the most frequent by far, and thousands are kept: each is one object that holds
        /// nothing else alive, so that its end does not touch a dozen places of memory that are long out of the caches.
        case command(CommandID, title: String, by: String, targets: Int)
    }

    /// - Parameter subject: what else it is about: a command's id, a setting's name.
    public init(kind: String, client: ClientID? = nil, subject: String? = nil, data: JSONValue = .null) {
        self.kind = kind
        self.client = client
        content = .ready(subject: subject, data: data.isNull ? [] : data.serialized())
    }

    /// For what happens often: subject and data are made when the first reader asks, and never if nobody does.
    public init(kind: String, client: ClientID?, later: @escaping @Sendable () -> (subject: String?, data: JSONValue)) {
        self.kind = kind
        self.client = client
        content = .later(later)
    }

    /// About a command, which is the subject.
    public init(kind: String, client: ClientID?, command: CommandID, title: String, by: String, targets: Int) {
        self.kind = kind
        self.client = client
        content = .command(command, title: title, by: by, targets: targets)
    }
}

/// An event with its place in the order of this core's events, as readers get it.
public final class PublishedEvent: Sendable {
    /// Counts from 1 when the core starts; see `EventCursor` for the form that survives a restart.
    public let sequence: UInt64
    public let kind: String
    public let client: ClientID?
    private let milliseconds: UInt64
    private enum Form {
        case raw(Event.Content)
        case shown(subject: String?, json: [UInt8])
    }
    private let form: Mutex<Form>

    init(_ event: Event, sequence: UInt64, milliseconds: UInt64) {
        self.sequence = sequence
        self.milliseconds = milliseconds
        kind = event.kind
        client = event.client
        form = Mutex(.raw(event.content))
    }

    /// `{"kind", "time_ms", "client", "subject", "data"}`, made once for all readers.
    public var json: [UInt8] { shown.json }
    public var subject: String? { shown.subject }

    private var shown: (subject: String?, json: [UInt8]) {
        form.withLock { form in
            let subject: String?
            let data: [UInt8]
            switch form {
            case .shown(let subject, let json): return (subject, json)
            case .raw(.ready(let known, let bytes)): (subject, data) = (known, bytes)
            case .raw(.later(let make)):
                let made = make()
                (subject, data) = (made.subject, made.data.isNull ? [] : made.data.serialized())
            case .raw(.command(let id, let title, let by, let targets)):
                subject = id.description
                data = (["title": .string(title), "by": .string(by), "targets": .integer(Int64(targets))] as JSONValue).serialized()
            }
            let json = encode(subject, data)
            form = .shown(subject: subject, json: json)
            return (subject, json)
        }
    }

    /// What one event may carry; more is left out and says so.
    static let maximumDataBytes = 4_096

    private func encode(_ subject: String?, _ data: [UInt8]) -> [UInt8] {
        var writer = JSONWriter()
        writer.object { writer in
            writer.field("kind", kind)
            writer.field("time_ms", milliseconds)
            if let client { writer.field("client", client) }
            writer.field("subject", ifPresent: subject)
            guard !data.isEmpty else { return }
            writer.key("data")
            if data.count <= Self.maximumDataBytes {
                writer.raw(data)
            } else {
                writer.object { $0.field("left_out_bytes", data.count) }
            }
        }
        return writer.finish()
    }

    /// What it holds, about; at least what its JSON will take.
    static func weight(of event: Event) -> Int {
        switch event.content {
        case .ready(let subject, let data): 128 + event.kind.utf8.count + 2 * (subject?.utf8.count ?? 0) + min(data.count, maximumDataBytes)
        case .later: 512
        // Title and name are in the JSON, each byte of them as six at most; and the object itself.
        case .command(_, let title, let by, _): 384 + 2 * (title.utf8.count + by.utf8.count)
        }
    }
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
