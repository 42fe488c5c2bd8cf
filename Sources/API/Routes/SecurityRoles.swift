import JSON
import Kernel
import Web

extension Right {
    public static let readRoles: Right = "role.read"
    /// As strong as every right together: a role can give any.
    public static let writeRoles: Right = "role.write"
    public static let readPolicies: Right = "policy.read"
    public static let writePolicies: Right = "policy.write"
}

/// `/api/v1/roles` and `/api/v1/policies`: who may do what, and which commands.
public func roleRoutes(_ security: Security) -> [Route] {
    let rules = Schema.array(ruleSchema, "What no rule allows is denied; a rule that denies wins.", count: 0...256)
    return [
        Route(
            .get, "/api/v1/roles", right: .readRoles, "All roles, by name; three come with the program.",
            answers: [Route.Answer(200, "Roles.", page(roleSchema))]
        ) { (_) async throws(Problem) in .json(page(security.roles().map { json($0) })) },
        Route(
            .get, "/api/v1/roles/{name}", right: .readRoles, "One role.", answers: [Route.Answer(200, "The role.", roleSchema)]
        ) { (request) async throws(Problem) in .json(json(try security.role(request["name"]))) },
        Route(
            .put, "/api/v1/roles/{name}", right: .writeRoles, "Makes a role or replaces its rules; holds from the next request on.",
            body: .json(.object([.optional("summary", .string(length: 0...1_024)), .required("rules", rules)])),
            answers: [Route.Answer(200, "The role.", roleSchema)]
        ) { (request) async throws(Problem) in
            .json(
                json(
                    try await security.putRole(
                        name: request["name"], summary: request.json["summary"]?.string ?? "", rules: request.json["rules"] ?? .null,
                        by: request.principal)))
        },
        Route(
            .delete, "/api/v1/roles/{name}", right: .writeRoles, "Deletes a role that nobody has.",
            answers: [Route.Answer(204, "Deleted.")]
        ) { (request) async throws(Problem) in
            try await security.deleteRole(request["name"], by: request.principal)
            return .empty
        },
    ]
}

public func policyRoutes(_ security: Security) -> [Route] {
    [
        Route(
            .get, "/api/v1/policies", right: .readPolicies, "The rules of the command policy, in the order in which they were made.",
            answers: [Route.Answer(200, "Rules.", page(policySchema))]
        ) { (_) async throws(Problem) in .json(page(security.policyRules().map { json($0) })) },
        Route(
            .post, "/api/v1/policies", right: .writePolicies,
            "Adds a rule with exactly one of argv, preset, shell, anything. No rule that fits: refused; a rule that denies wins.",
            body: .json(.object(policyMembers)), answers: [Route.Answer(201, "The rule.", policySchema)]
        ) { (request) async throws(Problem) in
            let rule = try await security.addPolicyRule(request.json, by: request.principal)
            return .created(json(rule), at: "/api/v1/policies/\(rule.id)")
        },
        Route(
            .delete, "/api/v1/policies/{id}", right: .writePolicies, "Takes a rule out.", answers: [Route.Answer(204, "Deleted.")]
        ) { (request) async throws(Problem) in
            try await security.deletePolicyRule(request["id"], by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/policies/check", access: .signedIn,
            "Where I could run a command now: role, policy and the stop switch together. Runs nothing.",
            body: .json(
                .object([
                    .optional("argv", .array(.string(length: 0...65_536), count: 1...1_024)), .optional("shell", .boolean()),
                ])),
            answers: [Route.Answer(200, "Selectors; a client needs one of allowed and none of denied.", scopeSchema)]
        ) { (request) async throws(Problem) in
            let subject: PolicySubject
            switch (texts(request.json["argv"]), request.json["shell"]?.bool ?? false) {
            case (let argv?, false): subject = .argv(argv)
            case (nil, true): subject = .shell
            default: throw .invalid("give either \"argv\" or \"shell\": true")
            }
            let scope = try security.commandScope(request.principal, subject)
            return .json([
                "allowed": .array(scope.allowed.map { .string($0.text) }), "denied": .array(scope.denied.map { .string($0.text) }),
            ])
        },
    ]
}

private let ruleSchema = Schema.object([
    .required("effect", .choice(["allow", "deny"])),
    .required("actions", .array(.string("area.verb, area.* or *", length: 1...64), count: 1...64)),
    .optional("selector", .string("The clients; all without it.", length: 1...4_096)),
])

private let roleSchema = Schema.object([
    .required("id", .string("The same as the name.")), .required("name", .string()), .required("summary", .string()),
    .required("built_in", .boolean()), .required("rules", .array(ruleSchema)),
])

private let policyMembers: [Schema.Member] = [
    .required("effect", .choice(["allow", "deny"])),
    .optional("argv", .array(.string(length: 0...1_024), "One glob per argument; a last \"...\" for any more.", count: 1...64)),
    .optional("preset", .choice(["safe", "moderate", "dangerous", "restricted"])), .optional("shell", .boolean()),
    .optional("anything", .boolean()), .optional("roles", .array(.string(length: 1...64), count: 0...64)),
    .optional("users", .array(.string(length: 1...320), count: 0...256)), .optional("selector", .string(length: 1...4_096)),
]

private let policySchema = Schema.object([.required("id", .string())] + policyMembers)

private let scopeSchema = Schema.object([.required("allowed", .array(.string())), .required("denied", .array(.string()))])

private func json(_ role: Role) -> JSONValue {
    [
        "id": .string(role.name), "name": .string(role.name), "summary": .string(role.summary), "built_in": .bool(role.isBuiltIn),
        "rules": role.rulesJSON,
    ]
}

private func json(_ rule: PolicyRule) -> JSONValue { rule.json }
