import JSON
import Kernel
import Web

extension Right {
    public static let readSessions: Right = "session.read"
    public static let revokeSessions: Right = "session.write"
}

/// `/api/v1/sessions`: log-in, refresh, and one's own account.
public func sessionRoutes(_ security: Security) -> [Route] {
    let logIn = Schema.object([
        .required("name", .string("The user's name.", length: 1...64)),
        .required("password", .string(length: 1...1_024)),
        .optional("code", .string("The one-time code, for accounts with a second factor.", length: 6...6)),
    ])
    return [
        Route(
            .post, "/api/v1/sessions", access: .open,
            "Logs in: a short access token and a refresh token. Failures are slowed down per account and address.",
            body: .json(logIn, limit: 4_096), answers: [Route.Answer(201, "The session.", grantSchema)]
        ) { (request) async throws(Problem) in
            let grant = try await security.logIn(
                name: request.json["name"]?.string ?? "", password: request.json["password"]?.string ?? "",
                code: request.json["code"]?.string, address: request.address, correlation: request.correlation)
            return .created(json(grant), at: "/api/v1/sessions/\(grant.session.id)")
        },
        Route(
            .post, "/api/v1/sessions/refresh", access: .open,
            "A new pair of tokens for a refresh token, which is dead afterwards. Used twice, it ends the session.",
            body: .json(.object([.required("refresh_token", .string(length: 1...256))]), limit: 4_096),
            answers: [Route.Answer(200, "The session.", grantSchema)]
        ) { (request) async throws(Problem) in
            .json(
                json(
                    try await security.refresh(
                        request.json["refresh_token"]?.string ?? "", address: request.address, correlation: request.correlation)))
        },
        Route(
            .get, "/api/v1/sessions/current", access: .signedIn, "Who I am: principal, roles, scopes, rate limit.",
            answers: [Route.Answer(200, "The caller.", callerSchema)]
        ) { (request) async throws(Problem) in .json(caller(request.principal)) },
        Route(
            .get, "/api/v1/sessions", access: .signedIn,
            "Sessions, oldest first: one's own; with the right session.read, those of any `user`, or of `all`.",
            query: [.query("user", .string(length: 1...64)), .query("all", .boolean())],
            answers: [Route.Answer(200, "Sessions.", page(sessionSchema))]
        ) { (request) async throws(Problem) in
            var user: String? = request.principal.kind == .user ? request.principal.id : ""
            if let wanted = request.query["user"], wanted != user {
                try require(.readSessions, security, request)
                user = wanted
            } else if request.query.bool("all") == true {
                try require(.readSessions, security, request)
                user = nil
            }
            return .json(page(security.sessions(of: user).map { json($0) }))
        },
        Route(
            .delete, "/api/v1/sessions/{id}", access: .signedIn,
            "Ends a session and what it has open: one's own, or with the right session.write anybody's.",
            answers: [Route.Answer(204, "Ended.")]
        ) { (request) async throws(Problem) in
            try await security.revokeSession(request["id"], by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/sessions/revocations", right: .revokeSessions,
            "Refuses a subject (ISSUER#SUBJECT) or one token (ISSUER#jti:ID) of an outside issuer, and closes what is open.",
            body: .json(
                .object([
                    .required("subject", .string(length: 3...600)),
                    .optional("ttl_s", .integer("For how long; a year without it.", in: 1...315_360_000)),
                ])),
            answers: [Route.Answer(204, "Refused from now on.")]
        ) { (request) async throws(Problem) in
            try await security.revokeOutsider(
                request.json["subject"]?.string ?? "", seconds: UInt64(request.json["ttl_s"]?.integer ?? 31_536_000),
                by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/sessions/password", access: .signedIn,
            "Changes one's own password. All sessions of the account end; log in again.",
            body: .json(.object([.required("old", .string(length: 1...1_024)), .required("new", .string(length: 10...1_024))])),
            answers: [Route.Answer(204, "Changed.")]
        ) { (request) async throws(Problem) in
            try await security.changeOwnPassword(
                old: request.json["old"]?.string ?? "", new: request.json["new"]?.string ?? "", by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/sessions/second-factor", access: .signedIn,
            "A new secret for an authenticator app (RFC 6238). It counts once a first code has confirmed it.",
            answers: [Route.Answer(200, "The secret.", .object([.required("secret", .string()), .required("uri", .string())]))]
        ) { (request) async throws(Problem) in
            guard request.principal.kind == .user else { throw .forbidden("only a logged-in user has a second factor") }
            let secret = security.newSecondFactor().secret
            return .json([
                "secret": .string(secret),
                "uri": .string("otpauth://totp/client-manager:\(request.principal.id)?secret=\(secret)&issuer=client-manager"),
            ])
        },
        Route(
            .put, "/api/v1/sessions/second-factor", access: .signedIn, "Turns the second factor on with a first code.",
            body: .json(.object([.required("secret", .string(length: 32...32)), .required("code", .string(length: 6...6))])),
            answers: [Route.Answer(204, "On.")]
        ) { (request) async throws(Problem) in
            try await security.confirmSecondFactor(
                secret: request.json["secret"]?.string ?? "", code: request.json["code"]?.string ?? "", by: request.principal)
            return .empty
        },
    ]
}

/// Refuses where a right is needed for a part of what a route can do.
func require(_ right: Right, _ security: Security, _ request: Request) throws(Problem) {
    guard security.grants(request.principal, right) else {
        throw .forbidden("this needs the right \"\(right)\", which no role or scope of \(request.principal.id) grants")
    }
}

/// Lists that are never long enough for pages.
func page(_ items: [JSONValue]) -> JSONValue { ["items": .array(items), "next": .null] }

private let sessionSchema = Schema.object([
    .required("id", .string()), .required("user", .string()), .required("address", .string()),
    .required("created_ms", .integer()), .required("expires_ms", .integer()), .required("ends_ms", .integer()),
])

private let grantSchema = Schema.object([
    .required("id", .string()), .required("user", .string()), .required("access_token", .string()),
    .required("access_expires_ms", .integer()), .required("refresh_token", .string()),
    .required("expires_ms", .integer("When the session ends unless it is refreshed.")),
    .required("ends_ms", .integer("When it ends however often it is refreshed.")),
])

private let callerSchema = Schema.object([
    .required("id", .string()), .required("kind", .choice(["user", "token", "issuer"])),
    .required("roles", .array(.string())), .optional("scopes", .array(.string())), .required("address", .string()),
    .optional("credential", .string()),
])

private func json(_ session: Session) -> JSONValue {
    [
        "id": .string(session.id), "user": .string(session.user), "address": .string(session.address),
        "created_ms": .integer(Int64(session.created)), "expires_ms": .integer(Int64(session.expires)),
        "ends_ms": .integer(Int64(session.ends)),
    ]
}

private func json(_ grant: SessionGrant) -> JSONValue {
    [
        "id": .string(grant.session.id), "user": .string(grant.session.user), "access_token": .string(grant.accessToken),
        "access_expires_ms": .integer(Int64(grant.accessExpires)), "refresh_token": .string(grant.refreshToken),
        "expires_ms": .integer(Int64(grant.session.expires)), "ends_ms": .integer(Int64(grant.session.ends)),
    ]
}

private func caller(_ principal: Principal) -> JSONValue {
    var object: JSONObject = [
        "id": .string(principal.id), "kind": .string(principal.kind.rawValue), "roles": .array(principal.roles.map { .string($0) }),
        "address": .string(principal.address ?? ""),
    ]
    if let scopes = principal.scopes { object["scopes"] = .array(scopes.map { .string($0.rawValue) }) }
    if let credential = principal.credential { object["credential"] = .string(credential) }
    return .object(object)
}
