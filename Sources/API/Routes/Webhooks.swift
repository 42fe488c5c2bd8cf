import JSON
import Kernel
import Web

extension Right {
    public static let readWebhooks: Right = "webhook.read"
    /// Lets the core call any address that it can reach.
    public static let writeWebhooks: Right = "webhook.write"
}

/// `/api/v1/webhooks`: who is told, and what could not be told.
public func webhookRoutes(_ outbox: Outbox) -> [Route] {
    let members: [Schema.Member] = [
        .optional("kinds", .array(.string(length: 1...100), "Event kinds or audit actions: `client.offline`, `client.*`, `*`.", count: 1...64)),
        .optional("selector", .string("Only events of clients that it selects.", length: 0...4_096)),
        .optional("enabled", .boolean()),
        .optional("secret", .string("Signs the messages; made by the core when it is left out.", length: 16...256)),
    ]
    let source = Schema.choice(
        Webhook.Source.allCases.map(\.rawValue), "`events`: live, told while fresh. `audit`: every record, in batches.")
    let creation = Schema.object(
        [
            .required("name", .string(length: 1...100)), .required("url", .string(length: 1...2_048)),
            .optional("source", source),
        ] + members)
    let update = Schema.object(
        [.optional("name", .string(length: 1...100)), .optional("url", .string(length: 1...2_048))] + members)
    return [
        Route(
            .get, "/api/v1/webhooks", right: .readWebhooks, "All webhooks with their counts; secrets are not shown.",
            answers: [
                Route.Answer(
                    200, "Webhooks.",
                    .object([.required("items", .array(webhookSchema)), .optional("next", .string())]))
            ]
        ) { (_) async throws(Problem) in .json(["items": .array(try await outbox.list()), "next": .null]) },
        Route(
            .post, "/api/v1/webhooks", right: .writeWebhooks, "Makes a webhook. The answer shows its secret this once.",
            body: .json(creation), answers: [Route.Answer(201, "The webhook.", webhookSchema)]
        ) { (request) async throws(Problem) in
            let (shown, secret) = try await outbox.create(change(request.json), by: request.principal)
            var object = shown.object ?? [:]
            object["secret"] = .string(secret)
            return .created(.object(object), at: "/api/v1/webhooks/\(shown["id"]?.string ?? "")")
        },
        Route(
            .get, "/api/v1/webhooks/{id}", right: .readWebhooks, "One webhook.",
            answers: [Route.Answer(200, "The webhook.", webhookSchema)]
        ) { (request) async throws(Problem) in .json(try await outbox.get(request["id"])) },
        Route(
            .patch, "/api/v1/webhooks/{id}", right: .writeWebhooks, "Changes what is given.", body: .json(update),
            answers: [Route.Answer(200, "The webhook.", webhookSchema)]
        ) { (request) async throws(Problem) in
            .json(try await outbox.update(request["id"], change(request.json), by: request.principal))
        },
        Route(
            .delete, "/api/v1/webhooks/{id}", right: .writeWebhooks, "Deletes it with what it has not been told yet.",
            answers: [Route.Answer(204, "Deleted.")]
        ) { (request) async throws(Problem) in
            try await outbox.delete(request["id"], by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/webhooks/{id}/test", right: .writeWebhooks, "Sends it a message of kind `webhook.test`.",
            answers: [Route.Answer(202, "Stored for delivery.")]
        ) { (request) async throws(Problem) in
            try await outbox.test(request["id"], by: request.principal)
            return .json(["stored": true], status: 202)
        },
        Route(
            .get, "/api/v1/webhooks/{id}/dead-letters", right: .readWebhooks,
            "Messages that were given up, newest first; the last thousand are kept.",
            query: [
                .query("cursor", .string("`next` of the page before.", length: 1...20)),
                .query("limit", .integer("Items of one page.", in: 1...500)),
            ],
            answers: [
                Route.Answer(
                    200, "Messages.",
                    .object([.required("items", .array(deadLetterSchema)), .optional("next", .string())]))
            ]
        ) { (request) async throws(Problem) in
            let (items, next) = try await outbox.deadLetters(
                request["id"], before: request.query["cursor"].flatMap { Int64($0) },
                limit: Int(request.query.integer("limit") ?? 100))
            let shown: [JSONValue] = items.map { item in
                [
                    "id": .integer(item.id), "kind": .string(item.kind),
                    "created_ms": .integer(Int64(clamping: item.createdMilliseconds)),
                    "attempts": .integer(Int64(item.attempts)), "last_error": .string(item.lastError),
                    "body": (try? JSONValue(parsing: item.body)) ?? .null,
                ]
            }
            return .json(["items": .array(shown), "next": next.map { .string(String($0)) } ?? .null])
        },
        Route(
            .post, "/api/v1/webhooks/{id}/retry", right: .writeWebhooks, "Tries dead letters again: one, or all of them.",
            body: .json(.object([.optional("delivery", .integer("A dead letter's id.", in: 1...Int64.max))])),
            answers: [Route.Answer(202, "How many.", .object([.required("count", .integer())]))]
        ) { (request) async throws(Problem) in
            let count = try await outbox.retry(
                request["id"], delivery: request.json["delivery"]?.integer, by: request.principal)
            return .json(["count": .integer(Int64(count))], status: 202)
        },
    ]
}

private func change(_ json: JSONValue) -> WebhookChange {
    var change = WebhookChange()
    change.name = json["name"]?.string
    change.url = json["url"]?.string
    change.source = json["source"]?.string.flatMap { Webhook.Source(rawValue: $0) }
    change.kinds = json["kinds"]?.array.map { $0.compactMap(\.string) }
    change.selector = json["selector"]?.string
    change.isEnabled = json["enabled"]?.bool
    change.secret = json["secret"]?.string
    return change
}

private let webhookSchema = Schema.object([
    .required("id", .string()), .required("name", .string()), .required("url", .string()),
    .required("source", .choice(Webhook.Source.allCases.map(\.rawValue))), .required("kinds", .array(.string())),
    .optional("selector", .string()), .required("enabled", .boolean()), .required("created_ms", .integer()),
    .required("created_by", .string()), .required("waiting", .integer("Messages not delivered yet.")),
    .required("dead", .integer("Messages that were given up.")), .required("delivered", .integer()),
    .required("dropped", .integer("Events that found the queue full.")), .optional("last_delivered_ms", .integer()),
    .required("last_error", .string()), .optional("secret", .string("Only in the answer that makes it.")),
])

private let deadLetterSchema = Schema.object([
    .required("id", .integer()), .required("kind", .string()), .required("created_ms", .integer()),
    .required("attempts", .integer()), .required("last_error", .string()), .required("body", .any()),
])
