import JSON
import Kernel
import Synchronization
import Web

extension Right {
    public static let readEvents: Right = "event.read"
}

/// `/api/v1/events`: what happens, as it happens.
/// - Parameter mayRead: whether the principal may see this client; events of others are left out.
public func eventRoutes(
    _ events: Events, mayRead: @escaping @Sendable (Principal, ClientID) -> Bool
) -> [Route] {
    let open = StreamCount(limit: 1_000)
    let kinds = Route.Parameter.query(
        "kind", .string("`client.offline`, all of an area as `client.*`; may be repeated.", length: 1...100), repeatable: true)
    let client = Route.Parameter.query("client", .string("Only events of this client.", length: 26...26))
    return [
        Route(
            .get, "/api/v1/events", right: .readEvents,
            "Events as server-sent events. Last-Event-ID goes on after a drop; \"gap\" says how many were missed meanwhile.",
            query: [kinds, client, .query("after", .string("Like Last-Event-ID, for the first connection.", length: 1...64))],
            answers: [Route.Answer(200, "A stream that stays open.", contentType: "text/event-stream")]
        ) { (request) async throws(Problem) in
            let wanted = try EventFilter(request)
            var position = events.end
            if let text = request.headers["last-event-id"] ?? request.query["after"] {
                guard let cursor = EventCursor(text) else {
                    throw .invalid("\"\(text.prefix(64))\" is no position: use the id of an event of this stream")
                }
                position = cursor
            }
            if open.isFull { throw open.problem }
            let start = position
            let principal = request.principal
            return .events { (stream) async throws(StreamClosed) in
                guard open.enter() else { return }
                defer { open.leave() }
                var position = start
                try await stream.send(event: "open", id: position.description, data: Array("{}".utf8))
                while true {
                    let page = events.page(after: position)
                    position = page.next
                    if page.missed > 0 || page.restarted {
                        let gap: JSONValue = [
                            "missed": .integer(Int64(clamping: page.missed)), "restarted": .bool(page.restarted),
                        ]
                        try await stream.send(event: "gap", data: gap.serialized())
                    }
                    for event in page.events
                    where wanted.matches(event) && (event.client.map { mayRead(principal, $0) } ?? true) {
                        let id = EventCursor(run: events.run, sequence: event.sequence).description
                        try await stream.send(event: event.kind, id: id, data: event.json)
                    }
                    guard page.events.isEmpty else { continue }
                    await events.wait(after: position, milliseconds: 10_000)
                    if events.end == position { try await stream.keepAlive() }
                }
            }
        },
        Route(
            .get, "/api/v1/events/recent", right: .readEvents, "The last events that are still held, oldest first.",
            query: [
                kinds, client, .query("cursor", .string("`next` of the page before.", length: 1...64)),
                .query("limit", .integer("Events that one page looks at.", in: 1...1_000)),
            ],
            answers: [
                Route.Answer(
                    200, "Events; go on with `next`.",
                    .object([
                        .required("items", .array(.any())), .required("next", .string()), .required("missed", .integer()),
                        .required("restarted", .boolean()),
                    ]))
            ]
        ) { (request) async throws(Problem) in
            let wanted = try EventFilter(request)
            let cursor = request.query["cursor"].flatMap { EventCursor($0) } ?? EventCursor(run: events.run, sequence: 0)
            let page = events.page(after: cursor, limit: Int(request.query.integer("limit") ?? 200))
            var writer = JSONWriter()
            writer.object { writer in
                writer.key("items")
                writer.array { writer in
                    for event in page.events
                    where wanted.matches(event) && (event.client.map { mayRead(request.principal, $0) } ?? true) {
                        writer.raw(event.json)
                    }
                }
                writer.field("next", page.next.description)
                writer.field("missed", page.missed)
                writer.field("restarted", page.restarted)
            }
            return .json(bytes: writer.finish())
        },
    ]
}

private struct EventFilter: Sendable {
    let kinds: [String]
    let client: ClientID?

    init(_ request: Request) throws(Problem) {
        kinds = request.query.values("kind")
        if let text = request.query["client"] {
            guard let id = ClientID(text) else { throw .invalid("\"\(text.prefix(64))\" is no client id") }
            client = id
        } else {
            client = nil
        }
    }

    func matches(_ event: PublishedEvent) -> Bool {
        if let client, event.client != client { return false }
        return kinds.isEmpty
            || kinds.contains { $0.hasSuffix(".*") ? event.kind.hasPrefix($0.dropLast()) : event.kind == $0 }
    }
}

/// Bounds the streams that are open at once. Counted inside the streams themselves: one whose peer has gone before it
/// began is never run.
final class StreamCount: Sendable {
    let limit: Int
    private let open = Atomic<Int>(0)

    init(limit: Int) { self.limit = limit }

    var isFull: Bool { open.load(ordering: .relaxed) >= limit }
    var problem: Problem {
        Problem(503, "too-many-streams", "\(limit) such streams are open already", retryAfter: 10)
    }

    /// False when there are too many; else `leave` must follow.
    func enter() -> Bool {
        if open.add(1, ordering: .relaxed).newValue <= limit { return true }
        open.subtract(1, ordering: .relaxed)
        return false
    }

    func leave() { open.subtract(1, ordering: .relaxed) }
}
