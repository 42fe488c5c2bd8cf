import JSON
import Kernel
import Program
import Web

extension Right {
    public static let readLimits: Right = "limit.read"
    public static let resetLimits: Right = "limit.reset"
    public static let readIdentity: Right = "identity.read"
    public static let rotateIdentity: Right = "identity.rotate"
}

/// `/api/v1/limits`: rate limits in use and log-in locks.
public func limitRoutes(_ security: Security) -> [Route] {
    [
        Route(
            .get, "/api/v1/limits", right: .readLimits, "Buckets that are in use now, busiest first, and log-in locks.",
            answers: [Route.Answer(200, "Limits.", page(limitSchema))]
        ) { (_) async throws(Problem) in .json(page(security.limits().map { json($0) })) },
        Route(
            .post, "/api/v1/limits/reset", right: .resetLimits, "Fills a bucket again or lifts the locks of an address; all without a key.",
            body: .json(.object([.optional("key", .string("As in the list.", length: 1...512))])),
            answers: [Route.Answer(204, "Reset.")]
        ) { (request) async throws(Problem) in
            try await security.resetLimit(request.json["key"]?.string, by: request.principal)
            return .empty
        },
    ]
}

/// `/api/v1/identity`: who this core is to its agents.
public func identityRoutes(_ identity: IdentityService, _ security: Security) -> [Route] {
    [
        Route(
            .get, "/api/v1/identity", right: .readIdentity, "Fingerprints, the authority's certificate, a rotation under way.",
            answers: [Route.Answer(200, "The identity.", identitySchema)]
        ) { (_) async throws(Problem) in .json(try json(identity)) },
        Route(
            .post, "/api/v1/identity/rotate", right: .rotateIdentity,
            "Makes the backup key the identity. Agents follow by the old key's signature for the days given, or by the pinned backup.",
            body: .json(.object([.optional("valid_days", .integer("90 without it.", in: 1...3_650))])),
            answers: [Route.Answer(200, "The new identity.", identitySchema)]
        ) { (request) async throws(Problem) in
            _ = try await security.rotate(
                identity, validDays: Int(request.json["valid_days"]?.integer ?? 90), by: request.principal)
            return .json(try json(identity))
        },
    ]
}

private let limitSchema = Schema.object([
    .required("id", .string()), .required("kind", .string()), .optional("account", .string()), .optional("limit", .integer()),
    .optional("remaining", .integer()), .required("reset_ms", .integer()),
])

private let identitySchema = Schema.object([
    .required("fingerprint", .string()), .optional("backup_fingerprint", .string()), .optional("rotation_ends_ms", .integer()),
    .required("authority", .string("The CA certificate in PEM.")),
])

private func json(_ limit: LimitStatus) -> JSONValue {
    var object: JSONObject = ["id": .string(limit.key), "kind": .string(limit.kind)]
    if let account = limit.account { object["account"] = .string(account) }
    if let rate = limit.limit { object["limit"] = .integer(Int64(rate)) }
    if let remaining = limit.remaining { object["remaining"] = .integer(Int64(remaining)) }
    object["reset_ms"] = .integer(Int64(limit.resetMilliseconds))
    return .object(object)
}

private func json(_ identity: IdentityService) throws(Problem) -> JSONValue {
    var object: JSONObject = ["fingerprint": .string(identity.fingerprint)]
    if let backup = identity.backupFingerprint { object["backup_fingerprint"] = .string(backup) }
    if let ends = identity.rotationEnds(at: UInt64(Timestamp.now().milliseconds)) { object["rotation_ends_ms"] = .integer(Int64(ends)) }
    object["authority"] = .string(try identity.authorityPEM())
    return .object(object)
}
