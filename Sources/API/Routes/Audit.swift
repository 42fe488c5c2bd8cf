import JSON
import Kernel
import Web

extension Right {
    public static let readAudit: Right = "audit.read"
    public static let verifyAudit: Right = "audit.verify"
}

/// `/api/v1/audit`: the trail. Nothing here changes it.
public func auditRoutes(_ audit: Audit) -> [Route] {
    let open = StreamCount(limit: 100)
    let filters: [Route.Parameter] = [
        .query("actor", .string("User, token, issuer#subject or part of the core.", length: 1...1_024)),
        .query("action", .string("`command.submit`, or all of an area as `command.*`.", length: 1...100)),
        .query("target", .string(length: 1...1_024)),
        .query("client", .string("A client's id.", length: 26...26)),
        .query("outcome", .choice(AuditRecord.Outcome.allCases.map(\.rawValue))),
        .query("correlation", .string(length: 1...256)),
        .query("address", .string(length: 1...64)),
        .query("since_ms", .integer("Unix milliseconds, inclusive.")),
        .query("until_ms", .integer("Unix milliseconds, exclusive.")),
    ]
    return [
        Route(
            .get, "/api/v1/audit", right: .readAudit,
            "Audit records, newest first. A page may be short and still have a next one: each looks at 50,000 records.",
            query: filters + [
                .query("cursor", .string("`next` of the page before.", length: 1...20)),
                .query("limit", .integer("Items of one page.", in: 1...1_000)),
            ],
            answers: [
                Route.Answer(
                    200, "Records.",
                    .object([.required("items", .array(auditRecordSchema)), .optional("next", .string())]))
            ], auditedRead: "audit.read"
        ) { (request) async throws(Problem) in
            var before: UInt64?
            if let text = request.query["cursor"] {
                guard let sequence = UInt64(text) else { throw .invalid("\"\(text)\" is no cursor of this list") }
                before = sequence
            }
            let page = try await audit.query(
                try filter(request), before: before, limit: Int(request.query.integer("limit") ?? 100))
            var writer = JSONWriter(reserving: 512 * (page.lines.count + 1))
            writer.object { writer in
                writer.key("items")
                writer.array { writer in for line in page.lines { line.write(to: &writer) } }
                writer.key("next")
                writer.value(page.next.map { JSONValue.string(String($0)) } ?? .null)
            }
            return .json(bytes: writer.finish())
        },
        Route(
            .get, "/api/v1/audit/export", right: .readAudit,
            "The trail as JSON lines with its signed checkpoints, up to now: `client-manager audit verify --file` checks it.",
            query: [.query("from", .integer("The first record that is wanted; begins at the checkpoint before it.", in: 1...Int64.max))],
            answers: [Route.Answer(200, "JSON lines.", contentType: "application/jsonl")], auditedRead: "audit.export"
        ) { (request) async throws(Problem) in
            if open.isFull { throw open.problem }
            let begun = try await AuditExport(audit, from: UInt64(request.query.integer("from") ?? 1))
            return Response.stream(contentType: "application/jsonl") { (writer) async throws(StreamClosed) in
                guard open.enter() else { return }
                defer { open.leave() }
                var export = begun
                // A file that ends early has no checkpoint at its end, so whoever verifies it sees that.
                while true {
                    guard let piece = try? await export.next() else { return }
                    try await writer.write(piece)
                }
            }.with("content-disposition", "attachment; filename=\"audit.jsonl\"")
        },
        Route(
            .get, "/api/v1/audit/tail", right: .readAudit,
            "New records as server-sent events; Last-Event-ID (a sequence number) goes on after a drop.",
            query: filters,
            answers: [Route.Answer(200, "A stream that stays open.", contentType: "text/event-stream")],
            auditedRead: "audit.tail"
        ) { (request) async throws(Problem) in
            let filter = try filter(request)
            var position = audit.newest
            if let text = request.headers["last-event-id"] {
                guard let sequence = UInt64(text) else { throw .invalid("\"\(text.prefix(64))\" is no record's number") }
                position = sequence
            }
            if open.isFull { throw open.problem }
            let start = position
            return .events { (stream) async throws(StreamClosed) in
                guard open.enter() else { return }
                defer { open.leave() }
                try await tail(audit, after: start, filter, to: stream, of: request)
            }
        },
        Route(
            .post, "/api/v1/audit/verify", right: .verifyAudit,
            "Checks the whole live trail, hash by hash, and names the first bad or missing record.",
            answers: [
                Route.Answer(
                    200, "What was found; `fault` is null for a sound trail.",
                    .object([
                        .required("records", .integer()), .required("checkpoints", .integer()), .required("first", .integer()),
                        .required("last", .integer()), .required("signed_through", .integer()), .required("key", .string()),
                        .optional("fault", .object([.required("record", .integer()), .required("reason", .string())])),
                    ]))
            ], auditedRead: "audit.verify"
        ) { (_) async throws(Problem) in .json(try await audit.verify().json) },
    ]
}

private func tail(
    _ audit: Audit, after start: UInt64, _ filter: AuditFilter, to stream: EventStream, of request: Request
) async throws(StreamClosed) {
    var position = start
    var quiet = 0
    try await stream.send(event: "open", id: String(position), data: Array("{}".utf8))
    while true {
        if audit.newest > position {
            guard let page = try? await audit.lines(after: position, filter, limit: 200) else {
                // The store is busy: later.
                await request.sleep(milliseconds: 1_000)
                continue
            }
            for line in page.lines {
                var writer = JSONWriter(reserving: 512)
                line.write(to: &writer)
                try await stream.send(event: "record", id: String(line.entry.sequence), data: writer.finish())
            }
            position = page.reached
            quiet = 0
        } else {
            await request.sleep(milliseconds: 500)
            quiet += 1
            if quiet % 20 == 0 { try await stream.keepAlive() }
        }
    }
}

private func filter(_ request: Request) throws(Problem) -> AuditFilter {
    var filter = AuditFilter()
    filter.actor = request.query["actor"]
    filter.action = request.query["action"]
    filter.target = request.query["target"]
    filter.outcome = request.query["outcome"].flatMap { AuditRecord.Outcome(rawValue: $0) }
    filter.correlation = request.query["correlation"]
    filter.address = request.query["address"]
    filter.since = request.query.integer("since_ms").map { UInt64(clamping: $0) }
    filter.until = request.query.integer("until_ms").map { UInt64(clamping: $0) }
    if let text = request.query["client"] {
        guard let id = ClientID(text) else { throw .invalid("\"\(text)\" is no client id") }
        filter.client = id
    }
    return filter
}

private let auditRecordSchema = Schema.object([
    .required("sequence", .integer("Counts from 1 without gaps.")),
    .required("time_ms", .integer("Unix milliseconds.")),
    .required("actor_kind", .choice(["user", "token", "issuer", "agent", "system"])),
    .required("actor", .string()), .optional("address", .string()), .required("correlation", .string()),
    .required("action", .string()), .optional("target", .string()), .optional("clients", .array(.string())),
    .required("outcome", .choice(AuditRecord.Outcome.allCases.map(\.rawValue))), .required("reason", .string()),
    .optional("detail", .any()), .required("hash", .string("Hexadecimal SHA-256 that chains the records.")),
])

extension AuditReport {
    /// As the API shows it and `client-manager audit verify` prints it.
    public var json: JSONValue {
        [
            "records": .integer(Int64(clamping: records)), "checkpoints": .integer(Int64(clamping: checkpoints)),
            "first": .integer(Int64(clamping: first)), "last": .integer(Int64(clamping: last)),
            "signed_through": .integer(Int64(clamping: signedThrough)), "key": .string(key),
            "fault": fault.map {
                ["record": .integer(Int64(clamping: $0.record)), "reason": .string($0.reason)]
            } ?? .null,
        ]
    }
}
