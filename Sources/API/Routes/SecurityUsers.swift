import JSON
import Kernel
import Web

extension Right {
    public static let readUsers: Right = "user.read"
    public static let writeUsers: Right = "user.write"
}

/// `/api/v1/users`: accounts of people.
public func userRoutes(_ security: Security) -> [Route] {
    let roles = Schema.array(.string(length: 1...64), "Names of roles.", count: 0...32)
    let password = Schema.string("10 to 1,024 bytes.", length: 10...1_024)
    return [
        Route(
            .get, "/api/v1/users", right: .readUsers, "All accounts, by name.",
            answers: [Route.Answer(200, "Users.", page(userSchema))]
        ) { (_) async throws(Problem) in .json(page(security.users().map { json($0) })) },
        Route(
            .post, "/api/v1/users", right: .writeUsers, "Makes an account. Nobody gives roles that they do not have.",
            body: .json(
                .object([
                    .required("name", .string("A-Z a-z 0-9 . - _ @", length: 1...64)), .required("password", password),
                    .optional("roles", roles),
                ])),
            answers: [Route.Answer(201, "The user.", userSchema)]
        ) { (request) async throws(Problem) in
            let user = try await security.createUser(
                name: request.json["name"]?.string ?? "", password: request.json["password"]?.string ?? "",
                roles: texts(request.json["roles"]) ?? [], by: request.principal)
            return .created(json(user), at: "/api/v1/users/\(user.name)")
        },
        Route(
            .get, "/api/v1/users/{name}", right: .readUsers, "One account.",
            answers: [Route.Answer(200, "The user.", userSchema)]
        ) { (request) async throws(Problem) in .json(json(try security.user(request["name"]))) },
        Route(
            .patch, "/api/v1/users/{name}", right: .writeUsers,
            "Changes password, roles or whether it is disabled. Sessions end with a new password and when it is disabled.",
            body: .json(
                .object([.optional("password", password), .optional("roles", roles), .optional("disabled", .boolean())])),
            answers: [Route.Answer(200, "The user.", userSchema)]
        ) { (request) async throws(Problem) in
            let change = Security.UserChange(
                password: request.json["password"]?.string, roles: texts(request.json["roles"]),
                isDisabled: request.json["disabled"]?.bool)
            return .json(json(try await security.changeUser(request["name"], change, by: request.principal)))
        },
        Route(
            .delete, "/api/v1/users/{name}", right: .writeUsers, "Deletes an account, its sessions and its API tokens.",
            answers: [Route.Answer(204, "Deleted.")]
        ) { (request) async throws(Problem) in
            try await security.deleteUser(request["name"], by: request.principal)
            return .empty
        },
        Route(
            .delete, "/api/v1/users/{name}/second-factor", right: .writeUsers,
            "Turns a second factor off, for somebody who lost the device.", answers: [Route.Answer(204, "Off.")]
        ) { (request) async throws(Problem) in
            try await security.removeSecondFactor(request["name"], by: request.principal)
            return .empty
        },
    ]
}

/// A list of texts in a body that the schema has checked.
func texts(_ value: JSONValue?) -> [String]? { value?.array?.compactMap(\.string) }

private let userSchema = Schema.object([
    .required("id", .string("The same as the name.")), .required("name", .string()), .required("roles", .array(.string())),
    .required("disabled", .boolean()), .required("second_factor", .boolean()), .required("created_ms", .integer()),
])

private func json(_ user: User) -> JSONValue {
    [
        "id": .string(user.name), "name": .string(user.name), "roles": .array(user.roles.map { .string($0) }),
        "disabled": .bool(user.isDisabled), "second_factor": .bool(user.hasSecondFactor),
        "created_ms": .integer(Int64(user.createdMilliseconds)),
    ]
}
