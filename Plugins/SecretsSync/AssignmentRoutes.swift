import JSON
import PluginKit

/// `/api/v1/secrets/{name}/assignments` and `…/clients`: who gets a secret, and the proof of who has it.
struct AssignmentRoutes {
    let routes: SecretRoutes
    let fleet: Fleet
    let settings: Settings

    func add() throws(PluginError) {
        let http = try routes.host.http()
        let base = SecretRoutes.one + "/assignments"
        try http.route(
            Route(.get, base, right: "secrets.list", summary: "Which clients get a secret, and how.", operation: Operations.assignments)
        ) { [self] request, _ in
            SecretRoutes.answer(request) { () throws(PluginError) in
                let secret = try routes.secret(request)
                request.respond(
                    json: ["items": .array(routes.assignments.of(secret.name).map { .object($0.record) }), "next": .null] as JSONObject)
            }
        }
        try http.route(SecretRoutes.bodied(.post, base, "secrets.assign", "Assigns a secret to clients.", Operations.assign)) { [self] request, body in
            SecretRoutes.answer(request) { () throws(PluginError) in request.respond(201, json: try assign(request, body).record) }
        }
        try http.route(
            Route(.delete, base + "/{id}", right: "secrets.assign", summary: "Revokes a secret: its files go from the clients.", operation: Operations.revoke)
        ) { [self] request, _ in
            SecretRoutes.answer(request) { () throws(PluginError) in
                let secret = try routes.secret(request)
                let id = request.parameter("id") ?? ""
                guard let assignment = routes.assignments.find(id), assignment.secret == secret.name else {
                    throw .unknown("\"\(secret.name)\" has no assignment \"\(id.prefix(32))\"")
                }
                try routes.audited("secrets.revoke", request, secret.name, ["assignment": .string(id), "selector": .string(assignment.selector)]) {
                    () throws(PluginError) in try routes.assignments.forget([id])
                }
                routes.deliveries.reconcileSoon()
                request.respond(204)
            }
        }
        try http.route(
            Route(
                .get, SecretRoutes.one + "/clients", right: "secrets.list", summary: "What each client has been shown to have.",
                operation: Operations.clients)
        ) { [self] request, _ in
            SecretRoutes.answer(request) { () throws(PluginError) in
                // Of a secret that is gone, too: its files may still be on clients that are not there.
                let name = request.parameter("name") ?? ""
                let (limit, cursor) = try SecretRoutes.page(request)
                let state = request.query("state")
                guard state == nil || state.flatMap({ DeliveryStateMachine.Phase(rawValue: $0) }) != nil else {
                    throw .invalid("\"state\" is wanted, delivered, applied, failed or removing")
                }
                let (items, next) = routes.deliveries.shown(name, after: cursor, limit: limit, state: state)
                if items.isEmpty { _ = try routes.secret(request) }
                request.respond(json: ["items": .array(items), "next": next.map { .string($0) } ?? .null] as JSONObject)
            }
        }
    }

    private func assign(_ request: Request, _ bytes: RawSpan) throws(PluginError) -> Assignment {
        let secret = try routes.secret(request)
        let body = try Body(bytes, members: Assignment.members)
        let now = try routes.host.executor().now
        let assignment = try Assignment(body, id: try identifier(now, routes.host), secret: secret.name, by: request.actor, now: now)
        // Also says whether the selector can be read, and that it asks nothing that a machine says about itself.
        let found = try fleet.asserted(assignment.selector).count
        guard routes.deliveries.countFiles() + found <= settings.maximumFiles else {
            throw .conflict("too-many-files", "\(found) clients more would have over \(settings.maximumFiles) files, the limit (maximum_files)")
        }
        let detail: JSONObject = [
            "assignment": .string(assignment.id), "selector": .string(assignment.selector), "file": .string(assignment.file),
            "clients": .integer(Int64(found)),
        ]
        try routes.audited("secrets.assign", request, secret.name, detail) { () throws(PluginError) in try routes.assignments.add(assignment) }
        routes.deliveries.reconcileSoon()
        return assignment
    }
}
