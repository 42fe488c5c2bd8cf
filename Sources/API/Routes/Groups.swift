import JSON
import Kernel
import Web

extension Right {
    public static let readGroups: Right = "group.read"
    public static let editGroups: Right = "group.edit"
}

/// `/api/v1/groups`: saved selectors, used as `group=NAME`.
public func groupRoutes(_ clients: Clients, scope: @escaping ClientScope) -> [Route] {
    let selector = Schema.Member.required("selector", .string(length: 1...SelectorSyntax.maximumLength))
    let description = Schema.Member.optional("description", .string(length: 0...1_024))
    return [
        Route(
            .get, "/api/v1/groups", right: .readGroups, "All groups with the number of their clients that you may see.",
            answers: [Route.Answer(200, "Groups.", page(groupSchema))]
        ) { (request) async throws(Problem) in
            let (allowed, denied) = scope(request.principal, .readClients)
            var items: [JSONValue] = []
            for group in try await clients.groups() {
                let members = try clients.select(try Selector(parsing: group.selector), allowed: allowed, denied: denied)
                items.append(json(group, count: members.count))
            }
            return .json(.page(items, next: nil))
        },
        Route(
            .post, "/api/v1/groups", right: .editGroups, "Saves a selector under a new name.",
            body: .json(.object([.required("name", .string(length: 1...63)), selector, description])),
            answers: [Route.Answer(201, "The group.", groupSchema)]
        ) { (request) async throws(Problem) in
            let group = try await clients.setGroup(
                request.json["name"]?.string ?? "", selector: request.json["selector"]?.string ?? "",
                description: request.json["description"]?.string ?? "", by: request.principal, ifRevision: 0)
            return .created(json(group, count: nil), at: "/api/v1/groups/\(group.name)").tagged(group.entityTag)
        },
        Route(
            .get, "/api/v1/groups/{name}", right: .readGroups, "One group. Its clients: /api/v1/clients?selector=group=NAME.",
            answers: [Route.Answer(200, "The group.", groupSchema)]
        ) { (request) async throws(Problem) in
            guard let group = try await clients.group(request["name"]) else {
                throw .notFound("there is no group '\(request["name"].prefix(64))'")
            }
            return .json(json(group, count: nil)).tagged(group.entityTag)
        },
        Route(
            .put, "/api/v1/groups/{name}", right: .editGroups,
            "Makes or changes a group. With If-Match only if nobody else has.",
            body: .json(.object([selector, description])), answers: [Route.Answer(200, "The group.", groupSchema)]
        ) { (request) async throws(Problem) in
            let group = try await clients.setGroup(
                request["name"], selector: request.json["selector"]?.string ?? "",
                description: request.json["description"]?.string ?? "", by: request.principal,
                ifRevision: try Reading.revision(request))
            return .json(json(group, count: nil)).tagged(group.entityTag)
        },
        Route(
            .delete, "/api/v1/groups/{name}", right: .editGroups, "Removes a group that no other group refers to.",
            answers: [Route.Answer(204, "Removed.")]
        ) { (request) async throws(Problem) in
            try await clients.removeGroup(request["name"], by: request.principal)
            return .empty
        },
    ]
}

private let groupSchema = Schema.object([
    .required("id", .string("The name.")), .required("name", .string()), .required("selector", .string()),
    .required("description", .string()), .required("created_ms", .integer()), .required("created_by", .string()),
    .required("changed_ms", .integer()), .required("revision", .integer()), .optional("clients", .integer()),
])

private func json(_ group: Group, count: Int?) -> JSONValue {
    var object: JSONObject = [
        "id": .string(group.name), "name": .string(group.name), "selector": .string(group.selector),
        "description": .string(group.description), "created_ms": .milliseconds(group.createdAt),
        "created_by": .string(group.createdBy), "changed_ms": .milliseconds(group.changedAt),
        "revision": .milliseconds(group.revision),
    ]
    if let count { object["clients"] = .integer(Int64(count)) }
    return .object(object)
}
