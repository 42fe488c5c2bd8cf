import JSON
import Kernel
import Web

extension Right {
    public static let readTokens: Right = "token.read"
    public static let writeTokens: Right = "token.write"
}

/// `/api/v1/tokens`: what programs sign in with.
public func tokenRoutes(_ security: Security) -> [Route] {
    let creation = Schema.object([
        .required("name", .string("What it is for.", length: 1...128)),
        .required("roles", .array(.string(length: 1...64), count: 1...32)),
        .optional("scopes", .array(.string(length: 1...64), "Actions that it is narrowed to.", count: 1...64)),
        .optional("networks", .array(.string(length: 2...64), "Address ranges, as 10.0.0.0/8.", count: 0...64)),
        .optional("rate", .integer("Requests per second; 100 without it.", in: 1...1_000_000)),
        .optional("ttl_s", .integer("Seconds that it is good for; for ever without it.", in: 1...315_360_000)),
    ])
    return [
        Route(
            .get, "/api/v1/tokens", right: .readTokens, "API tokens, oldest first; never their text.",
            answers: [Route.Answer(200, "Tokens.", page(tokenSchema))]
        ) { (_) async throws(Problem) in .json(page(security.tokens().map { json($0) })) },
        Route(
            .post, "/api/v1/tokens", right: .writeTokens,
            "Makes a token. Its text is shown in this answer and never again. Nobody gives more than they have.",
            body: .json(creation), answers: [Route.Answer(201, "The token, with its text in \"token\".", tokenSchema)]
        ) { (request) async throws(Problem) in
            let wanted = Security.TokenRequest(
                name: request.json["name"]?.string ?? "", roles: texts(request.json["roles"]) ?? [],
                scopes: texts(request.json["scopes"]), networks: texts(request.json["networks"]) ?? [],
                rate: request.json["rate"]?.integer.map { Int($0) },
                lifetimeMilliseconds: request.json["ttl_s"]?.integer.map { UInt64($0) * 1_000 })
            let (token, text) = try await security.createToken(wanted, by: request.principal)
            return .created(json(token, text: text), at: "/api/v1/tokens/\(token.id)")
        },
        Route(
            .get, "/api/v1/tokens/{id}", right: .readTokens, "One token; never its text.",
            answers: [Route.Answer(200, "The token.", tokenSchema)]
        ) { (request) async throws(Problem) in
            guard let token = security.tokens().first(where: { $0.id == request["id"] }) else {
                throw .notFound("there is no token \"\(request["id"].prefix(64))\"")
            }
            return .json(json(token))
        },
        Route(
            .delete, "/api/v1/tokens/{id}", right: .writeTokens, "Revokes a token for good and closes what it has open.",
            answers: [Route.Answer(204, "Revoked.")]
        ) { (request) async throws(Problem) in
            try await security.revokeToken(request["id"], by: request.principal)
            return .empty
        },
    ]
}

private let tokenSchema = Schema.object([
    .required("id", .string()), .required("name", .string()), .required("owner", .string()),
    .required("roles", .array(.string())), .optional("scopes", .array(.string())), .required("networks", .array(.string())),
    .required("rate", .integer()), .required("created_ms", .integer()), .optional("expires_ms", .integer()),
    .optional("last_used_ms", .integer()), .optional("token", .string("Only in the answer that makes it.")),
])

private func json(_ token: APIToken, text: String? = nil) -> JSONValue {
    var object: JSONObject = [
        "id": .string(token.id), "name": .string(token.name), "owner": .string(token.owner),
        "roles": .array(token.roles.map { .string($0) }), "networks": .array(token.networks.map { .string($0.description) }),
        "rate": .integer(Int64(token.rate)), "created_ms": .integer(Int64(token.created)),
    ]
    if let scopes = token.scopes { object["scopes"] = .array(scopes.map { .string($0.rawValue) }) }
    if let expires = token.expires { object["expires_ms"] = .integer(Int64(clamping: expires)) }
    if token.lastUsed > 0 { object["last_used_ms"] = .integer(Int64(token.lastUsed)) }
    if let text { object["token"] = .string(text) }
    return .object(object)
}
