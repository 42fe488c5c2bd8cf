import JSON
import PluginKit

/// `/api/v1/installations`.
struct InstallationRoutes {
    private static let base = "/api/v1/installations"
    private let installations: Installations
    private let enrollment: Enrollment

    init(_ installations: Installations, _ enrollment: Enrollment) {
        self.installations = installations
        self.enrollment = enrollment
    }

    func add(to http: HTTP) throws(PluginError) {
        let (installations, enrollment) = (installations, enrollment)
        var create = Route(
            .post, Self.base, right: "installation.create", summary: "Installs, upgrades, repairs or removes the agent on hosts over SSH.",
            operation: Operations.create)
        create.audit = "installation.create"
        create.timeoutSeconds = 60
        try http.route(create) { request, body in
            Self.answer(request) { () throws(PluginError) in
                let plans = try Reading.plans(
                    try Reading.object(body), installations.settings, serverURL: try enrollment.core().url)
                Self.accept(plans, request, installations)
            }
        }
        try http.route(
            Route(.get, Self.base, right: "installation.read", summary: "Installations, newest first.", operation: Operations.list)
        ) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                let limit = try Self.limit(request)
                let page = try installations.list(before: request.query("cursor"), limit: limit)
                request.respond(
                    json: ["items": .array(page.items.map { .object($0.json) }), "next": page.next.map { .string($0) } ?? .null] as JSONObject)
            }
        }
        try http.route(
            Route(.get, Self.base + "/{id}", right: "installation.read", summary: "One installation.", operation: Operations.show)
        ) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                request.respond(json: try installations.settled(try installations.known(request.parameter("id") ?? "")).json)
            }
        }
        var goOn = Route(
            .post, Self.base + "/{id}/credentials", right: "installation.create",
            summary: "Goes on with an installation that needs its credentials again, or that failed.", operation: Operations.goOn)
        goOn.audit = "installation.continue"
        try http.route(goOn) { request, body in
            Self.answer(request) { () throws(PluginError) in
                let id = request.parameter("id") ?? ""
                let secrets = try Reading.secrets(try Reading.object(body), for: try installations.known(id).plan)
                request.respond(202, json: try installations.goOn(id, secrets, for: request).json)
            }
        }
        var cancel = Route(
            .post, Self.base + "/{id}/cancel", right: "installation.create",
            summary: "Ends an installation; what it has changed on its host is taken back.", operation: Operations.show)
        cancel.audit = "installation.cancel"
        try http.route(cancel) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                request.respond(json: try installations.cancel(request.parameter("id") ?? "", for: request).json)
            }
        }
        var remove = Route(
            .delete, Self.base + "/{id}", right: "installation.create", summary: "Removes the record of an installation that is over.",
            operation: Operations.remove)
        remove.audit = "installation.remove"
        try http.route(remove) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                try installations.remove(request.parameter("id") ?? "")
                request.respond(204)
            }
        }
        try addHostKeys(http)
    }

    /// Each host has an installation and a job of its own. What cannot be accepted is named beside what was.
    private static func accept(
        _ plans: [(plan: Plan, secrets: Secrets)], _ request: Request, _ installations: Installations
    ) {
        var items: [JSONValue] = []
        var refused: [JSONValue] = []
        var first: PluginError?
        for (plan, secrets) in plans {
            do throws(PluginError) {
                items.append(.object(try installations.create(plan, secrets, for: request).json))
            } catch {
                first = first ?? error
                refused.append(["host": .string(plan.destination.name), "code": .string(error.code), "reason": .string(error.text)])
            }
        }
        if items.isEmpty, let first {
            request.problem(first)
        } else {
            request.respond(202, json: ["items": .array(items), "refused": .array(refused)] as JSONObject)
        }
    }

    /// Below a path of its own: ids are the other names there.
    private func addHostKeys(_ http: HTTP) throws(PluginError) {
        let keys = installations.keys
        try http.route(
            Route(
                .get, Self.base + "/host-keys", right: "installation.read",
                summary: "Host keys that were trusted at first use.", operation: Operations.hostKeys)
        ) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                let page = try keys.list(after: request.query("cursor") ?? "")
                request.respond(
                    json: [
                        "items": .array(page.items.map { ["host": .string($0.name), "key": .string($0.key)] }),
                        "next": page.next.map { .string($0) } ?? .null,
                    ] as JSONObject)
            }
        }
        var forget = Route(
            .delete, Self.base + "/host-keys/{host}", right: "installation.create",
            summary: "Forgets the key of HOST:PORT: the next first use trusts what it sees then.", operation: Operations.remove)
        forget.audit = "installation.forget-key"
        try http.route(forget) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                let name = request.parameter("host") ?? ""
                guard try keys.forget(name) else {
                    throw PluginError(.notFound, "no key of \"\(name.prefixed(80))\" is kept; the name is HOST:PORT", code: "not-found", httpStatus: 404)
                }
                request.respond(204)
            }
        }
    }

    private static func limit(_ request: Request) throws(PluginError) -> Int {
        guard let text = request.query("limit") else { return 100 }
        guard let number = Int(text), (1...1_000).contains(number) else { throw Reading.invalid("limit is a whole number from 1 to 1,000") }
        return number
    }

    private static func answer(_ request: Request, _ body: () throws(PluginError) -> Void) {
        do throws(PluginError) { try body() } catch { request.problem(error) }
    }
}
