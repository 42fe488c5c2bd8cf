import JSON

/// What happened and who is told: audit, events, webhooks; and the settings of the running core.
extension Verb {
    private static let auditFilters: [VerbFlag] = [
        .query("actor", "NAME", "User, token, ISSUER#SUBJECT or part of the core."),
        .query("action", "ACTION", "Such as command.submit, or command.* for an area."),
        .query("target", "NAME", "What it was done to."), .query("client", "ID", "On this client."),
        .query("outcome", "OUTCOME", "allowed, refused or failed."), .query("correlation", "ID", "Of this request."),
        .query("address", "ADDRESS", "From this address."),
        .query("since-ms", "TIME", "Unix milliseconds, inclusive.", .integer),
        .query("until-ms", "TIME", "Unix milliseconds, exclusive.", .integer),
    ]
    private static let eventFilters: [VerbFlag] = [
        .query("kind", "KIND", "Such as client.offline, or client.* for an area; repeat for more.", .list),
        .query("client", "ID", "Only events of this client."),
    ]
    private static let auditColumns: [Column] = ["sequence", "time_ms", "actor", "address", "action", "outcome", "target", "clients"]

    static let trail: [Verb] = [
        .list("audit list", "/api/v1/audit", "Audit records, newest first.", auditColumns, flags: auditFilters),
        follow("audit tail", "/api/v1/audit/tail", "New audit records as they are written.", flags: auditFilters),
        .change(
            "GET", "audit export", "/api/v1/audit/export", "The trail as JSON lines with its signed checkpoints.",
            flags: [.query("from", "N", "First record that is wanted.", .integer)], .text),
        .show("audit archive", "/api/v1/audit/archive", "How far the trail is archived in an object store, and what is in the way."),
        .change("POST", "audit verify", "/api/v1/audit/verify", "Checks the whole trail, hash by hash."),
        .list(
            "events list", "/api/v1/events/recent", "The last events that are still held.",
            ["time_ms", "kind", "client", "subject", "data"], flags: eventFilters, paged: false),
        follow("events follow", "/api/v1/events", "Events as they happen.", flags: eventFilters),
        .list(
            "webhooks list", "/api/v1/webhooks", "All webhooks.",
            ["id", "name", "enabled", "source", "kinds", "url", "waiting", "dead", "last_error"], paged: false),
        .show("webhooks show ID", "/api/v1/webhooks/{ID}", "One webhook."),
        .change(
            "POST", "webhooks create NAME URL", "/api/v1/webhooks", "Makes a webhook; its secret is shown once.",
            flags: [.body("source", "events|audit", "What it tells; events by default.")] + webhookFlags),
        .change(
            "PATCH", "webhooks set ID", "/api/v1/webhooks/{ID}", "Changes what is given.",
            flags: [.body("name", "TEXT", "Name."), .body("url", "URL", "Where it tells.")] + webhookFlags),
        .delete("webhooks delete ID", "/api/v1/webhooks/{ID}", "Deletes a webhook with what it has not been told."),
        .change(
            "POST", "webhooks test ID", "/api/v1/webhooks/{ID}/test", "Sends it a message of kind webhook.test.",
            .done("stored for delivery")),
        .list(
            "webhooks dead-letters ID", "/api/v1/webhooks/{ID}/dead-letters", "Messages that were given up, newest first.",
            ["id", "kind", "created_ms", "attempts", "last_error"], paged: false),
        .change(
            "POST", "webhooks retry ID", "/api/v1/webhooks/{ID}/retry", "Tries dead letters again.",
            flags: [.body("delivery", "ID", "Only this one.", .integer)]),
        .list(
            "settings list", "/api/v1/settings", "What can be changed while the core runs.",
            ["name", "value", "default", "minimum", "maximum", "summary"], paged: false),
        .show("settings show NAME", "/api/v1/settings/{NAME}", "One setting."),
        Verb(
            "settings set NAME VALUE", "Changes a setting at once and durably; VALUE is JSON, or plain text.",
            calls: ["PUT /api/v1/settings/{NAME}"],
            .program { (invocation) async throws(OperatorError) in
                let text = invocation.operand("VALUE") ?? ""
                let value = (try? JSONValue(parsing: text)) ?? .string(text)
                var request = APIRequest("PUT", "/api/v1/settings/" + APIRequest.encoded(invocation.operand("NAME") ?? ""))
                request.body = JSONValue.object(["value": value]).serialized()
                invocation.session.showRecord(try await invocation.core.call(request))
                return .success
            }),
        .change("DELETE", "settings reset NAME", "/api/v1/settings/{NAME}", "Goes back to the default."),
    ]

    private static let webhookFlags: [VerbFlag] = [
        .body("kind", "KIND", "Such as client.offline, client.* or *; repeat for more.", .list, as: "kinds"),
        .body("selector", "SELECTOR", "Only events of these clients."),
        .body("enabled", "true|false", "Whether it is told.", .boolean),
        .body("secret", "TEXT", "Signs the messages; made by the core when left out."),
    ]

    /// A verb that prints server-sent events until it is interrupted.
    private static func follow(_ usage: String, _ path: String, _ summary: String, flags: [VerbFlag]) -> Verb {
        Verb(
            usage, summary, flags: flags, calls: ["GET \(path)"],
            .program { (invocation) async throws(OperatorError) in try await invocation.followEvents(path) })
    }
}

extension Invocation {
    /// One line per event: its JSON with `--output json`, else time, kind and the rest.
    func followEvents(_ path: String) async throws(OperatorError) -> Outcome {
        var request = try request(method: "GET", path: path)
        let core = try core
        var stream = EventStreamStateMachine()
        var isInterrupted = false
        session.interrupts.handler = {
            isInterrupted = true
            core.transport.interrupt()
        }
        defer { session.interrupts.handler = nil }
        var failures: UInt64 = 0
        while !isInterrupted {
            stream.restart()
            request.headers = [(name: "accept", value: "text/event-stream")]
            if let id = stream.lastID { request.headers.append((name: "last-event-id", value: id)) }
            do throws(OperatorError) {
                let response = try await core.transport.stream(request) { piece throws(OperatorError) in
                    failures = 0
                    guard let events = stream.feed(piece) else { throw OperatorError(.remoteFailure, "an event is too long") }
                    for event in events { show(event) }
                }
                guard (200..<300).contains(response.status) else { throw core.failure(response, of: request) }
            } catch {
                guard !isInterrupted else { break }
                failures += 1
                guard error.status == .unreachable, failures < 8 else { throw error }
            }
            if !isInterrupted { await session.pause(100 << min(failures, 5)) }
        }
        return .success
    }

    private func show(_ event: EventStreamStateMachine.Event) {
        let data = try? JSONValue(parsing: event.data)
        if session.isJSON {
            console.print(data?.description ?? JSONValue.string(String(decoding: event.data, as: UTF8.self)).description)
        } else if event.name == "open" {
            return  // only says that the stream stands
        } else if let object = data?.object {
            let time = Table.cell(object["time_ms"] ?? .null, member: "time_ms")
            var rest = object
            rest["time_ms"] = nil
            rest["kind"] = nil
            console.print("\(time)  \(Table.printable(event.name))  \(Table.cell(.object(rest)))")
        } else {
            console.print(Table.printable(event.name + "  " + String(decoding: event.data, as: UTF8.self)))
        }
    }
}
