import JSON
import PluginKit

/// `/api/v1/secrets`: secrets, their versions and rotations. A value goes out by one route alone.
struct SecretRoutes {
    let host: Host
    let vault: Vault
    let assignments: Assignments
    let deliveries: Deliveries
    let rotations: Rotations
    let sources: Sources

    static let base = "/api/v1/secrets"
    static let one = base + "/{name}"
    /// A value of 64 KiB as JSON text, each byte escaped, and the rest.
    static let bodyBytes = 512 << 10

    func add() throws(PluginError) {
        let http = try host.http()
        try addSecrets(http)
        try addVersions(http)
        try addRotations(http)
    }

    private func addSecrets(_ http: HTTP) throws(PluginError) {
        try http.route(
            Route(.get, Self.base, right: "secrets.list", summary: "Secrets, without values.", operation: Operations.secrets)
        ) { [self] request, _ in
            Self.answer(request) { () throws(PluginError) in
                let (limit, cursor) = try Self.page(request)
                let rest = vault.all.filter { $0.name > cursor }
                let items = rest.prefix(limit)
                request.respond(
                    json: [
                        "items": .array(items.map { .object(shown($0)) }),
                        "next": rest.count > limit ? items.last.map { .string($0.name) } ?? .null : .null,
                    ] as JSONObject)
            }
        }
        try http.route(Self.bodied(.post, Self.base, "secrets.write", "Makes a secret.", Operations.create)) { [self] request, body in
            Self.answer(request) { () throws(PluginError) in request.respond(201, json: shown(try create(request, body))) }
        }
        try http.route(Route(.get, Self.one, right: "secrets.list", summary: "One secret, without values.", operation: Operations.secret)) { [self] request, _ in
            Self.answer(request) { () throws(PluginError) in request.respond(json: shown(try secret(request))) }
        }
        try http.route(Self.bodied(.patch, Self.one, "secrets.write", "Changes what is said about a secret.", Operations.change)) { [self] request, body in
            Self.answer(request) { () throws(PluginError) in
                try change(request, body)
                request.respond(json: shown(try secret(request)))
            }
        }
        try http.route(
            Route(.delete, Self.one, right: "secrets.write", summary: "Destroys a secret; its files on clients go.", operation: Operations.remove)
        ) { [self] request, _ in
            Self.answer(request) { () throws(PluginError) in
                let name = try secret(request).name
                try rotations.requireNone(name)
                let ids = assignments.of(name).map(\.id)
                try audited("secrets.remove", request, name, ["assignments": .integer(Int64(ids.count))]) { () throws(PluginError) in
                    try assignments.forget(ids)
                    try rotations.forget(name)
                    try vault.remove(name)
                }
                deliveries.reconcileSoon()
                request.respond(204)
            }
        }
        try http.route(
            Route(.post, Self.one + "/refresh", right: "secrets.write", summary: "Asks the source now.", operation: Operations.refresh)
        ) { [self] request, _ in
            Self.answer(request) { () throws(PluginError) in
                let secret = try secret(request)
                guard secret.source != nil else { throw .conflict("no-source", "\"\(secret.name)\" has no source") }
                sources.refreshSoon(secret.name)
                request.respond(202, json: shown(secret))
            }
        }
    }

    private func addVersions(_ http: HTTP) throws(PluginError) {
        try http.route(Self.bodied(.post, Self.one + "/versions", "secrets.write", "Adds a version.", Operations.add)) { [self] request, body in
            Self.answer(request) { () throws(PluginError) in
                let secret = try secret(request)
                let body = try Body(body, members: ["value", "value_base64", "activate"])
                guard let value = try body.value() else { throw .invalid("\"value\" or \"value_base64\" is missing") }
                let isCurrent = try body.flag("activate") ?? true
                if isCurrent { try rotations.requireNone(secret.name) }
                try add(value, secret, isCurrent: isCurrent, request)
                request.respond(201, json: shown(try self.secret(request)))
            }
        }
        try http.route(
            Route(
                .get, Self.one + "/versions/{version}/value", right: "secrets.reveal", summary: "The value in clear; leaves an audit record.",
                operation: Operations.value)
        ) { [self] request, _ in
            Self.answer(request) { () throws(PluginError) in
                let secret = try secret(request)
                let version = try version(request, secret)
                let value = try vault.value(secret.name, version)
                try host.audit().write("secrets.reveal", as: .request(request), target: secret.name, detail: ["version": .integer(Int64(version))])
                let member: (String, JSONValue) = String(validating: value, as: UTF8.self).map { ("value", .string($0)) }
                    ?? ("value_base64", .string(Base64.encode(value)))
                let answer = JSONValue.object(
                    JSONObject([("name", .string(secret.name)), ("version", .integer(Int64(version))), member]))
                request.respond(
                    200, headers: [("content-type", "application/json"), ("cache-control", "no-store")], body: answer.serialized())
            }
        }
        try http.route(
            Route(.delete, Self.one + "/versions/{version}", right: "secrets.write", summary: "Destroys a version that nobody is to have.", operation: Operations.removeVersion)
        ) { [self] request, _ in
            Self.answer(request) { () throws(PluginError) in
                let secret = try secret(request)
                let version = try version(request, secret)
                if rotations.find(secret.name)?.version == version { try rotations.requireNone(secret.name) }
                try audited("secrets.remove-version", request, secret.name, ["version": .integer(Int64(version))]) { () throws(PluginError) in
                    try vault.remove(secret.name, version: version)
                }
                request.respond(204)
            }
        }
        try http.route(Self.bodied(.post, Self.one + "/activate", "secrets.write", "Makes a version the current one at once.", Operations.activate)) { [self] request, body in
            Self.answer(request) { () throws(PluginError) in
                let secret = try secret(request)
                let body = try Body(body, members: ["version"])
                guard let number = try body.number("version", 1...Int.max) else { throw .invalid("\"version\" is missing") }
                guard secret.version(number) != nil else { throw .unknown("the secret \"\(secret.name)\" has no version \(number)") }
                try rotations.requireNone(secret.name)
                try audited("secrets.activate", request, secret.name, ["version": .integer(Int64(number))]) { () throws(PluginError) in
                    try vault.change(secret.name) { $0.current = number }
                }
                deliveries.reconcileSoon()
                request.respond(json: shown(try self.secret(request)))
            }
        }
    }

    private func addRotations(_ http: HTTP) throws(PluginError) {
        try http.route(
            Self.bodied(.post, Self.one + "/rotate", "secrets.write", "Rotates to a new version in two phases, as a job.", Operations.rotate)
        ) { [self] request, body in
            Self.answer(request) { () throws(PluginError) in
                let rotation = try rotate(request, body)
                var answer = rotation.record
                answer["secret"] = .string(rotation.secret)
                request.respond(202, json: answer)
            }
        }
        try http.route(
            Route(.get, Self.one + "/rotation", right: "secrets.list", summary: "The newest rotation of a secret.", operation: Operations.rotation)
        ) { [self] request, _ in
            Self.answer(request) { () throws(PluginError) in
                let secret = try secret(request)
                guard let rotation = rotations.find(secret.name) else { throw .unknown("\"\(secret.name)\" was not rotated yet") }
                request.respond(json: rotation.record)
            }
        }
    }

    // MARK: Acts

    private static let createMembers: Set<String> = ["name", "summary", "shared", "value", "value_base64", "source", "refresh_s"]

    private func create(_ request: Request, _ bytes: RawSpan) throws(PluginError) -> Secret {
        let body = try Body(bytes, members: Self.createMembers)
        guard let name = try body.text("name", limit: Secret.nameBytes), Secret.isName(name) else {
            throw .invalid(
                "\"name\" must have 1 to \(Secret.nameBytes) of a-z 0-9 . _ -, the first no dot and no dash, and be none of \(Secret.takenNames.sorted().joined(separator: ", "))")
        }
        let value = try body.value()
        let now = try host.executor().now
        var secret = Secret(name: name, createdAt: now)
        secret.summary = try body.text("summary", limit: 512) ?? ""
        secret.isShared = try body.flag("shared") ?? false
        if let reference = try body.text("source", limit: 256) {
            guard !reference.isEmpty else { throw .invalid("\"source\" must be a reference that the source knows") }
            secret.source = Secret.Source(reference: reference, refreshSeconds: try body.number("refresh_s", 5...604_800) ?? 300)
        } else if body.has("refresh_s") {
            throw .invalid("\"refresh_s\" belongs to \"source\"")
        }
        guard (value == nil) != (secret.source == nil) else {
            throw .invalid("give one of \"value\", \"value_base64\" and \"source\"")
        }
        var detail: JSONObject = ["shared": .bool(secret.isShared)]
        if let value { detail["bytes"] = .integer(Int64(value.count)) }
        if let source = secret.source { detail["source"] = .string(source.reference) }
        try audited("secrets.create", request, name, detail) { () throws(PluginError) in
            try vault.create(secret, value: value, by: request.actor, now: now)
        }
        if secret.source != nil { sources.refreshSoon(name) }
        return try vault.secret(name)
    }

    private func change(_ request: Request, _ bytes: RawSpan) throws(PluginError) {
        let secret = try secret(request)
        let body = try Body(bytes, members: ["summary", "shared", "refresh_s"])
        let summary = try body.text("summary", limit: 512)
        let isShared = try body.flag("shared")
        let refresh = try body.number("refresh_s", 5...604_800)
        guard refresh == nil || secret.source != nil else { throw .conflict("no-source", "\"\(secret.name)\" has no source") }
        var detail: JSONObject = [:]
        if let isShared { detail["shared"] = .bool(isShared) }
        try audited("secrets.change", request, secret.name, detail) { () throws(PluginError) in
            try vault.change(secret.name) { (secret) throws(PluginError) in
                secret.summary = summary ?? secret.summary
                secret.isShared = isShared ?? secret.isShared
                if let refresh { secret.source?.refreshSeconds = refresh }
            }
        }
    }

    @discardableResult
    private func add(_ value: [UInt8], _ secret: Secret, isCurrent: Bool, _ request: Request) throws(PluginError) -> Int {
        guard secret.source == nil else { throw .conflict("secret-has-source", "the values of \"\(secret.name)\" come from a source") }
        let detail: JSONObject = [
            "version": .integer(Int64(secret.nextNumber)), "bytes": .integer(Int64(value.count)), "current": .bool(isCurrent),
        ]
        let now = try host.executor().now
        var number = 0
        try audited("secrets.add", request, secret.name, detail) { () throws(PluginError) in
            number = try vault.add(value, to: secret.name, by: request.actor, now: now, isCurrent: isCurrent)
        }
        if isCurrent { deliveries.reconcileSoon() }
        return number
    }

    private static let rotateMembers: Set<String> = ["value", "value_base64", "version", "percent", "timeout_s", "overlap_s", "count_offline"]

    private func rotate(_ request: Request, _ bytes: RawSpan) throws(PluginError) -> Rotations.Rotation {
        let secret = try secret(request)
        let body = try Body(bytes, members: Self.rotateMembers)
        let value = try body.value()
        let wanted = try body.number("version", 1...Int.max)
        guard (value == nil) != (wanted == nil) else { throw .invalid("give one of \"value\", \"value_base64\" and \"version\"") }
        var rule = RotationStateMachine.Rule()
        rule.percent = try body.number("percent", 1...100) ?? 100
        rule.timeoutMilliseconds = UInt64(try body.number("timeout_s", 1...86_400) ?? 600) * 1_000
        rule.overlapMilliseconds = UInt64(try body.number("overlap_s", 0...86_400) ?? 0) * 1_000
        rule.countsOffline = try body.flag("count_offline") ?? false
        try rotations.requireNone(secret.name)
        guard secret.current != 0 else { throw .conflict("no-current-version", "\"\(secret.name)\" has no current version yet") }
        let version: Int
        if let wanted { version = wanted } else { version = try add(value ?? [], secret, isCurrent: false, request) }
        var rotation: Rotations.Rotation?
        try audited("secrets.rotate", request, secret.name, ["version": .integer(Int64(version)), "percent": .integer(Int64(rule.percent))]) {
            () throws(PluginError) in rotation = try rotations.begin(secret.name, to: version, rule, by: request.actor)
        }
        guard let rotation else { throw PluginError(.internal, "the rotation was not begun") }
        return rotation
    }

    // MARK: Shared

    func shown(_ secret: Secret) -> JSONObject {
        secret.shown(assignments: assignments.of(secret.name).count, sourceState: secret.source == nil ? nil : sources.state(of: secret.name))
    }

    func secret(_ request: Request) throws(PluginError) -> Secret { try vault.secret(request.parameter("name") ?? "") }

    private func version(_ request: Request, _ secret: Secret) throws(PluginError) -> Int {
        let text = request.parameter("version") ?? ""
        let number = text == "current" ? secret.current : Int(text) ?? 0
        guard secret.version(number) != nil else { throw .unknown("the secret \"\(secret.name)\" has no version \"\(text.prefix(20))\"") }
        return number
    }

    /// The record comes first: nothing is done that the trail does not have. What then fails is recorded as well.
    func audited(
        _ action: String, _ request: Request, _ target: String, _ detail: JSONObject, _ act: () throws(PluginError) -> Void
    ) throws(PluginError) {
        let audit = try host.audit()
        try audit.write(action, as: .request(request), target: target, detail: detail)
        do throws(PluginError) {
            try act()
        } catch {
            try? audit.write(action, as: .request(request), target: target, .failed, reason: error.code.isEmpty ? error.text : error.code, detail: detail)
            throw error
        }
    }

    static func bodied(_ method: Route.Method, _ path: String, _ right: String, _ summary: String, _ operation: JSONObject) -> Route {
        var route = Route(method, path, right: right, summary: summary, operation: operation)
        route.bodyLimit = bodyBytes
        return route
    }

    static func page(_ request: Request) throws(PluginError) -> (limit: Int, cursor: String) {
        let cursor = request.query("cursor") ?? ""
        guard let text = request.query("limit") else { return (1_000, cursor) }
        guard let limit = Int(text), (1...1_000).contains(limit) else { throw .invalid("\"limit\" must be a whole number from 1 to 1,000") }
        return (limit, cursor)
    }

    /// Runs `body`; what it throws is the answer.
    static func answer(_ request: Request, _ body: () throws(PluginError) -> Void) {
        do throws(PluginError) {
            try body()
        } catch {
            request.problem(error)
        }
    }
}
