import JSON
import Kernel
import Web

extension Right {
    public static let readEnrollmentTokens: Right = "enrollment-token.read"
    public static let createEnrollmentTokens: Right = "enrollment-token.create"
    public static let revokeEnrollmentTokens: Right = "enrollment-token.revoke"
}

/// `/api/v1/enrollment-tokens`: what lets machines in without waiting.
public func enrollmentTokenRoutes(_ enrollment: Enrollment, scope: @escaping ClientScope) -> [Route] {
    let scoped = ScopedClients(clients: enrollment.clients, scope: scope)
    let tokens = enrollment.tokens
    let lifetimes = Int64(EnrollmentTokens.lifetimes.lowerBound)...Int64(EnrollmentTokens.lifetimes.upperBound)
    let creation = Schema.object([
        .optional("description", .string(length: 0...255)),
        .optional("uses", .integer("Machines that it lets in; 1 without it.", in: 1...Int64(EnrollmentTokens.maximumUses))),
        .optional("ttl_s", .integer("Seconds that it is good for; an hour without it.", in: lifetimes)),
        .optional("labels", .map(.any(), "Asserted on each client that it enrolls.", count: 0...64)),
        .optional(
            "client", .string("Gives this client a new key and keeps its id, instead of making a new client.", length: 26...26)),
    ])
    return [
        Route(
            .get, "/api/v1/enrollment-tokens", right: .readEnrollmentTokens, "Enrollment tokens, newest first; never their text.",
            query: [Reading.limit, Reading.cursor], answers: [Route.Answer(200, "Tokens.", page(tokenSchema))]
        ) { (request) async throws(Problem) in
            let limit = Reading.limit(request)
            let found = try await tokens.list(
                before: request.query["cursor"].flatMap { EnrollmentTokenID($0) }, limit: limit)
            return .json(
                .page(found.map { json($0, tokens) }, next: found.count == limit ? found.last?.id.description : nil))
        },
        Route(
            .post, "/api/v1/enrollment-tokens", right: .createEnrollmentTokens,
            "Makes a token. Its text is shown in this answer and never again.", body: .json(creation),
            answers: [Route.Answer(201, "The token.", .any())]
        ) { (request) async throws(Problem) in
            var client: ClientID?
            if let text = request.json["client"]?.string {
                guard let id = ClientID(text) else { throw .invalid("this is no client id", pointer: "/client") }
                // Whoever uses the token becomes this client: that takes the right to decide about its identity, too.
                try await scoped.require(.resolveClients, on: id, request)
                client = id
            }
            let (record, text) = try await tokens.create(
                description: request.json["description"]?.string ?? "",
                labels: try Reading.labels(request.json["labels"], removing: false).compactMapValues { $0 },
                lifetime: Int(request.json["ttl_s"]?.integer ?? 3_600), uses: Int(request.json["uses"]?.integer ?? 1),
                client: client, by: request.principal)
            guard case .object(var object) = json(record, tokens) else { return .json(["token": .string(text)], status: 201) }
            object["token"] = .string(text)
            return .created(.object(object), at: "/api/v1/enrollment-tokens/\(record.id)")
                .with("cache-control", "no-store")
        },
        Route(
            .get, "/api/v1/enrollment-tokens/{id}", right: .readEnrollmentTokens, "One token; never its text.",
            answers: [Route.Answer(200, "The token.", tokenSchema)]
        ) { (request) async throws(Problem) in
            guard let record = try await tokens.get(try id(request)) else {
                throw .notFound("there is no enrollment token \(request["id"].prefix(64))")
            }
            return .json(json(record, tokens))
        },
        Route(
            .delete, "/api/v1/enrollment-tokens/{id}", right: .revokeEnrollmentTokens,
            "Revokes a token; clients that it enrolled stay.", answers: [Route.Answer(204, "Revoked.")]
        ) { (request) async throws(Problem) in
            try await tokens.revoke(try id(request), by: request.principal)
            return .empty
        },
    ]
}

private func id(_ request: Request) throws(Problem) -> EnrollmentTokenID {
    guard let id = EnrollmentTokenID(request["id"]) else {
        throw .invalid("'\(request["id"].prefix(64))' is no token id (26 characters)")
    }
    return id
}

private let tokenSchema = Schema.object([
    .required("id", .string()), .required("state", .choice(["active", "expired", "revoked", "used-up"])),
    .required("description", .string()), .required("labels", .map(.string())), .required("uses", .integer()),
    .required("used", .integer()), .required("created_ms", .integer()), .required("created_by", .string()),
    .required("expires_ms", .integer()), .optional("client", .string()), .optional("revoked_ms", .integer()),
])

private func json(_ record: EnrollmentTokenRecord, _ tokens: EnrollmentTokens) -> JSONValue {
    var object: JSONObject = [
        "id": .string(record.id.description), "state": .string(tokens.state(of: record).rawValue),
        "description": .string(record.description), "labels": .labels(record.labels),
        "uses": .integer(Int64(record.uses)), "used": .integer(Int64(record.used)),
        "created_ms": .milliseconds(record.createdAt), "created_by": .string(record.createdBy),
        "expires_ms": .milliseconds(record.expiresAt),
    ]
    if let client = record.client { object["client"] = .string(client.description) }
    if let at = record.revokedAt { object["revoked_ms"] = .milliseconds(at) }
    return .object(object)
}
