import JSON
import Kernel
import Web

extension Right {
    public static let readClients: Right = "client.read"
    public static let editClients: Right = "client.edit"
    public static let labelClients: Right = "client.label"
    public static let disconnectClients: Right = "client.disconnect"
    public static let revokeClients: Right = "client.revoke"
    public static let forgetClients: Right = "client.forget"
    public static let resolveClients: Right = "client.resolve"
}

/// `/api/v1/clients`: the registry.
public func clientRoutes(_ enrollment: Enrollment, scope: @escaping ClientScope) -> [Route] {
    let scoped = ScopedClients(clients: enrollment.clients, scope: scope)
    return clientReadRoutes(scoped) + clientChangeRoutes(scoped) + clientActRoutes(scoped, enrollment)
}

private func clientReadRoutes(_ scoped: ScopedClients) -> [Route] {
    let clients = scoped.clients
    return [
        Route(
            .get, "/api/v1/clients", right: .readClients, "Clients, by selector, a page at a time.",
            query: [
                .query("selector", .string("Which clients; all without it.", length: 1...SelectorSyntax.maximumLength)),
                .query("q", .string("Part of id, name, host name or address.", length: 1...255)),
                .query("sort", .choice(ClientQuery.Order.allCases.flatMap { [$0.rawValue, "-" + $0.rawValue] })),
                .query("facts", .string("Paths of facts to show, with commas between them.", length: 1...1_024)),
                Reading.limit, Reading.cursor,
            ],
            answers: [Route.Answer(200, "Clients.", page(clientSchema, .required("total", .integer("Clients in all."))))]
        ) { (request) async throws(Problem) in
            let (allowed, denied) = scoped.scope(request.principal, .readClients)
            let sort = request.query["sort"] ?? "id"
            var query = ClientQuery(
                allowed: allowed, denied: denied, text: request.query["q"] ?? "",
                order: ClientQuery.Order(rawValue: String(sort.drop { $0 == "-" })) ?? .id,
                isDescending: sort.hasPrefix("-"), limit: Reading.limit(request))
            if let text = request.query["selector"] { query.selector = try Selector(parsing: text) }
            if let text = request.query["cursor"] {
                guard let cursor = ClientCursor(encoded: text) else {
                    throw .invalid("the cursor is none that a list of clients gave out")
                }
                query.cursor = cursor
            }
            let found = try clients.page(query)
            let paths = request.query["facts"]?.split(separator: ",").map(String.init) ?? ["os", "os_version", "arch"]
            let items = found.clients.map { client in
                json(client, facts: clients.facts(Array(paths.prefix(32)), of: client.id))
            }
            return .json([
                "items": .array(items), "next": found.next.map { .string($0.encoded) } ?? .null,
                "total": .integer(Int64(found.total)),
            ]).tagged(found.entityTag)
        },
        Route(
            .get, "/api/v1/clients/{id}", right: .readClients, "One client with its facts, notes and last heartbeats.",
            answers: [Route.Answer(200, "The client.", .any())]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .readClients)
            guard let detail = try await clients.detail(id) else { throw .notFound("there is no client \(id)") }
            return .json(clientJSON(detail)).with("etag", "\"\(detail.client.entityTag)\"")
        },
        Route(
            .get, "/api/v1/clients/{id}/sessions", right: .readClients, "Past links of a client, newest first.",
            query: [Reading.limit, Reading.cursor], answers: [Route.Answer(200, "Sessions.", page(.any()))]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .readClients)
            let limit = Reading.limit(request)
            let sessions = try await clients.sessions(
                of: id, before: request.query["cursor"].flatMap { Int64($0) }, limit: limit)
            return .json(
                .page(
                    sessions.map { json($0) }, next: sessions.count == limit ? sessions.last.map { "\($0.id)" } : nil))
        },
    ]
}

private func clientChangeRoutes(_ scoped: ScopedClients) -> [Route] {
    let clients = scoped.clients
    let edit = Schema.object([
        .optional("name", .string("Display name.", length: 0...255)),
        .optional("notes", .string("Free text.", length: 0...16_384)),
        .optional("metadata", .map(.any(), "Free data; replaces what is there.")),
        .optional("labels", .map(.any(), "Labels to set; null removes one. Others stay.", count: 0...64)),
    ])
    let bulk = Schema.object([
        .optional("selector", .string(length: 1...SelectorSyntax.maximumLength)),
        .optional("clients", .array(.string(length: 26...26), count: 1...10_000)),
        .required("labels", .map(.any(), "Labels to set; null removes one.", count: 1...64)),
    ])
    return [
        Route(
            .patch, "/api/v1/clients/{id}", right: .editClients,
            "Changes name, notes, metadata or labels. With If-Match only if nobody else has.",
            body: .json(edit), answers: [Route.Answer(200, "The client.", clientSchema)]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .editClients)
            let change = ClientEdit(
                name: request.json["name"]?.string, notes: request.json["notes"]?.string,
                metadata: request.json["metadata"]?.object, labels: try Reading.labels(request.json["labels"]))
            if !change.labels.isEmpty { try await scoped.require(.labelClients, on: id, request) }
            let client = try await clients.edit(
                id, change, by: request.principal, ifRevision: try Reading.revision(request))
            return .json(json(client, facts: [:])).tagged(client.entityTag)
        },
        Route(
            .post, "/api/v1/clients/labels", right: .labelClients, "Sets and removes labels on many clients.",
            body: .json(bulk),
            answers: [Route.Answer(200, "How many clients changed.", .object([.required("changed", .integer())]))]
        ) { (request) async throws(Problem) in
            let (ids, text) = try await scoped.selection(request, .labelClients)
            let changed = try await clients.label(
                ids, try Reading.labels(request.json["labels"]), by: request.principal, selector: text)
            return .json(["matched": .integer(Int64(ids.count)), "changed": .integer(Int64(changed))])
        },
        Route(
            .delete, "/api/v1/clients/{id}", right: .forgetClients,
            "Forgets a client: its link drops and its key is unknown from then on.",
            query: [
                .query("purge", .boolean("Also drop what was kept about it, except the audit trail.")),
                .query("reason", .string(length: 0...1_024)),
            ],
            answers: [Route.Answer(204, "Forgotten.")]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .forgetClients)
            try await clients.forget(
                id, purge: request.query.bool("purge") ?? false, reason: request.query["reason"] ?? "",
                by: request.principal)
            return .empty
        },
    ]
}

private func clientActRoutes(_ scoped: ScopedClients, _ enrollment: Enrollment) -> [Route] {
    let clients = scoped.clients
    let resolution = Schema.object([
        .required(
            "action",
            .choice(
                Enrollment.Resolution.allCases.map(\.rawValue),
                "replace: one machine stays. split: and a token for the other. rekey: a token for a new key.")),
        .optional("boot_id", .string("The machine that keeps the id; not for rekey.", length: 1...64)),
    ])
    return [
        Route(
            .post, "/api/v1/clients/{id}/disconnect", right: .disconnectClients,
            "Closes the client's link; the agent comes back by itself.", body: .json(Reading.reason),
            answers: [Route.Answer(204, "Closed.")]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .disconnectClients)
            try await clients.disconnect(id, reason: Reading.reason(request), by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/clients/{id}/revoke", right: .revokeClients,
            "Shuts the client out: its link drops at once and no other is accepted.", body: .json(Reading.reason),
            answers: [Route.Answer(204, "Revoked.")]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .revokeClients)
            try await clients.revoke(id, reason: Reading.reason(request), by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/clients/{id}/reinstate", right: .revokeClients, "Lets a revoked client in again.",
            body: .json(Reading.reason), answers: [Route.Answer(204, "Reinstated.")]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .revokeClients)
            try await clients.reinstate(id, reason: Reading.reason(request), by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/clients/{id}/resolve", right: .resolveClients,
            "Decides about a client that is held back because two machines have its identity.",
            body: .json(resolution),
            answers: [Route.Answer(200, "A token for split and rekey.", .object([.optional("token", .string())]))]
        ) { (request) async throws(Problem) in
            let id = try await scoped.client(request, .resolveClients)
            let action = Enrollment.Resolution(rawValue: request.json["action"]?.string ?? "") ?? .replace
            let token = try await enrollment.resolve(
                id, action, keeping: request.json["boot_id"]?.string, by: request.principal)
            return .json(["token": token.map { .string($0) } ?? .null]).with("cache-control", "no-store")
        },
    ]
}

// MARK: JSON

func page(_ item: Schema, _ more: Schema.Member...) -> Schema {
    .object([.required("items", .array(item)), .required("next", .any("Cursor of the next page, or null."))] + more)
}

private let clientSchema = Schema.object([
    .required("id", .string()), .required("name", .string()),
    .required("state", .choice(ClientState.allCases.map(\.rawValue))), .required("state_since_ms", .integer()),
    .required("held_back", .boolean("Two machines seem to have this identity; see resolve.")),
    .required("hostname", .string()), .required("address", .string()), .required("agent_version", .string()),
    .required("labels", .map(.string())), .required("fingerprint", .string()), .required("enrolled_ms", .integer()),
    .required("last_seen_ms", .integer()), .required("revision", .integer()), .required("epoch", .integer()),
    .optional("facts", .map(.any())), .optional("heartbeat", .any()),
])

private func json(_ client: Client, facts: [String: [String]]) -> JSONValue {
    var object: JSONObject = [
        "id": .string(client.id.description), "name": .string(client.name), "state": .string(client.state.rawValue),
        "state_since_ms": .milliseconds(client.stateSince), "held_back": .bool(client.isHeldBack),
        "hostname": .string(client.hostname), "address": .string(client.address),
        "agent_version": .string(client.agentVersion), "labels": .labels(client.labels),
        "fingerprint": .string(client.fingerprint), "enrolled_ms": .milliseconds(client.enrolledAt),
        "last_seen_ms": .milliseconds(client.lastSeen), "revision": .milliseconds(client.revision),
        "epoch": .milliseconds(client.epoch),
    ]
    if !facts.isEmpty {
        object["facts"] = .object(
            JSONObject(
                facts.sorted { $0.key < $1.key }.map { path, values in
                    (path, values.count == 1 ? .string(values[0]) : .array(values.map { .string($0) }))
                }))
    }
    if let beat = client.lastBeat { object["heartbeat"] = json(beat, totalKiB: client.memoryTotalKiB) }
    return .object(object)
}

private func json(_ beat: BeatSample, totalKiB: UInt32) -> JSONValue {
    [
        "time_ms": .milliseconds(UInt64(beat.at) * 1_000),
        "round_trip_us": .integer(Int64(beat.roundTripMicroseconds)),
        "load": .number(Double(beat.loadHundredths) / 100),
        "memory_available_kib": .integer(Int64(beat.memoryAvailableKiB)), "memory_total_kib": .integer(Int64(totalKiB)),
    ]
}

/// One client with everything that is known of it.
func clientJSON(_ detail: ClientDetail) -> JSONValue {
    guard case .object(var object) = json(detail.client, facts: [:]) else { return .null }
    object["notes"] = .string(detail.notes)
    object["metadata"] = detail.metadata
    object["facts"] = detail.facts
    object["facts_reported_ms"] = .milliseconds(detail.factsReportedAt)
    object["enrolled_by"] = .string(detail.enrolledBy)
    object["boot_id"] = .string(detail.bootID)
    if let reason = detail.revokedReason { object["revoked_reason"] = .string(reason) }
    if !detail.contenders.isNull { object["contenders"] = detail.contenders }
    object["heartbeats"] = .array(detail.beats.map { json($0, totalKiB: detail.client.memoryTotalKiB) })
    return .object(object)
}

private func json(_ session: ClientSession) -> JSONValue {
    [
        "id": .string("\(session.id)"), "epoch": .milliseconds(session.epoch), "address": .string(session.address),
        "boot_id": .string(session.bootID), "agent_version": .string(session.agentVersion),
        "connected_ms": .milliseconds(session.connectedAt), "disconnected_ms": .milliseconds(session.disconnectedAt),
        "end": .string(session.end.code), "detail": .string(session.end.detail),
    ]
}
