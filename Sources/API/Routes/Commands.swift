import JSON
import Kernel
import Web

extension Right {
    public static let runCommands: Right = "command.run"
    public static let readCommands: Right = "command.read"
    public static let cancelCommands: Right = "command.cancel"
    public static let readOutput: Right = "output.read"
}

/// `/api/v1/commands`: running things on clients, and what became of it.
public func commandRoutes(
    _ commands: Commands, _ clients: Clients, scope: @escaping ClientScope
) -> [Route] {
    let access = CommandAccess(commands: commands, clients: clients, scope: scope)
    return runRoutes(access) + lookRoutes(access) + outputRoutes(access) + [watchRoute(access)]
}

private func runRoutes(_ access: CommandAccess) -> [Route] {
    let commands = access.commands
    return [
        Route(
            .post, "/api/v1/commands", right: .runCommands,
            "Runs a command on clients. The header Idempotency-Key makes a repeated request safe.",
            body: .jsonReadByHandler(CommandReading.schema, limit: 4 << 20),
            answers: [
                Route.Answer(201, "Accepted and durable; with wait_s also the results so far.", CommandWriting.answerSchema),
                Route.Answer(200, "The same request was accepted before.", CommandWriting.answerSchema),
            ]
        ) { (request) async throws(Problem) in
            let command = try CommandReading.request(request.body, idempotencyKey: request.headers["idempotency-key"])
            let answer = try await commands.run(command, request.principal)
            return try access.response(answer, request)
        },
        Route(
            .post, "/api/v1/commands/{id}/cancel", right: .cancelCommands,
            "Ends the unfinished targets: waiting ones at once, running ones with TERM and then KILL. May be repeated.",
            body: .json(.object([.optional("clients", .array(.string(length: 26...26), "Only these."))])),
            answers: [Route.Answer(200, "How many targets were asked to end.", .object([.required("cancelled", .integer())]))]
        ) { (request) async throws(Problem) in
            let detail = try await access.detail(request, .cancelCommands)
            var wanted: [ClientID]?
            if let list = request.json["clients"]?.array {
                var ids: [ClientID] = []
                for (index, item) in list.enumerated() {
                    guard let id = item.string.flatMap({ ClientID($0) }) else {
                        throw .invalid("this is no client id", pointer: "/clients/\(index)")
                    }
                    ids.append(id)
                }
                wanted = ids
            }
            let permitted = try await access.narrowed(detail, wanted, .cancelCommands, request.principal)
            let count = try await commands.cancel(detail.summary.id, clients: permitted, request.principal)
            return .json(["cancelled": .integer(Int64(count))])
        },
        Route(
            .post, "/api/v1/commands/{id}/rerun", right: .runCommands,
            "Runs a command again for those of its targets that ended in one of these ways.",
            body: .json(
                .object([
                    .required(
                        "outcomes", .array(.choice(FinalState.allCases.map(\.name)), "Which targets.", count: 1...10)),
                    .optional("wait_s", .number("Wait so long for the end.")),
                ])),
            answers: [Route.Answer(201, "A new command.", CommandWriting.answerSchema)]
        ) { (request) async throws(Problem) in
            let detail = try await access.detail(request, .readCommands)
            let outcomes = Set((request.json["outcomes"]?.array ?? []).compactMap { $0.string.flatMap { FinalState(name: $0) } })
            let wait = request.json["wait_s"]?.number ?? 0
            guard wait >= 0, wait <= 3_600 else { throw .invalid("wait_s is \(wait), 0 to 3600 are allowed", pointer: "/wait_s") }
            let milliseconds = UInt64(wait * 1_000)
            let key = request.headers["idempotency-key"].map { IdempotencyKey(key: $0, request: request.body) }
            let acceptance = try await commands.rerun(
                detail.summary.id, outcomes: outcomes, waitMilliseconds: milliseconds, idempotencyKey: key, request.principal)
            return try access.response(
                try await commands.answer(acceptance, waitMilliseconds: milliseconds), request)
        },
    ]
}

private func lookRoutes(_ access: CommandAccess) -> [Route] {
    let commands = access.commands
    return [
        Route(
            .get, "/api/v1/commands", right: .readCommands, "The history of commands, newest first.",
            query: [
                Reading.limit, Reading.cursor,
                .query("q", .string("Text in what was run or in the selector.", length: 1...200)),
                .query("client", .string("Only those for this client.", length: 26...26)),
                .query("principal", .string("Only those of this principal.", length: 1...256)),
                .query("state", .choice(["running", "finished"])),
                .query("outcome", .choice(FinalState.allCases.map(\.name), "Only those with a target that ended so.")),
                .query("since", .integer("Unix milliseconds.")), .query("until", .integer("Unix milliseconds.")),
            ],
            answers: [
                Route.Answer(
                    200, "A page. With filters it may hold few items and still have a next one.",
                    CommandWriting.pageSchema(CommandWriting.commandSchema))
            ]
        ) { (request) async throws(Problem) in
            var query = CommandQuery()
            query.limit = Reading.limit(request)
            if let cursor = request.query["cursor"] {
                guard let id = CommandID(cursor) else { throw .invalid("this is no cursor of this list") }
                query.before = id
            }
            if let text = request.query["client"] {
                guard let id = ClientID(text) else { throw .invalid("client is no client id") }
                query.client = id
            }
            query.text = request.query["q"]
            query.principal = request.query["principal"]
            query.finished = request.query["state"].map { $0 == "finished" }
            query.outcome = request.query["outcome"].flatMap { FinalState(name: $0) }
            query.since = request.query.integer("since").map { UInt64(clamping: $0) }
            query.until = request.query.integer("until").map { UInt64(clamping: $0) }
            let page = try await commands.list(query)
            let items = try await access.visible(page.items, request.principal)
            var writer = JSONWriter(reserving: 256 + 400 * items.count)
            writer.object { writer in
                writer.array("items") { writer in
                    for item in items { writer.object { writer in CommandWriting.summary(item, &writer) } }
                }
                writer.field("next", page.next?.description)
            }
            return .json(bytes: writer.finish())
        },
        Route(
            .get, "/api/v1/commands/{id}", right: .readCommands, "One command with what was asked for.",
            answers: [Route.Answer(200, "The command.", CommandWriting.commandSchema)]
        ) { (request) async throws(Problem) in
            let detail = try await access.detail(request, .readCommands)
            var writer = JSONWriter(reserving: 512 + detail.shown.count)
            writer.object { writer in
                CommandWriting.summary(detail.summary, &writer)
                writer.field("correlation", detail.correlation)
                writer.key("request")
                writer.raw(detail.shown)
            }
            return .json(bytes: writer.finish())
        },
        Route(
            .get, "/api/v1/commands/{id}/targets", right: .readCommands, "The targets of a command with their states.",
            query: [
                .query("limit", .integer("Targets of one page.", in: 1...10_000)), Reading.cursor,
            ],
            answers: [Route.Answer(200, "A page, in the order of the command.", CommandWriting.pageSchema(CommandWriting.targetSchema))]
        ) { (request) async throws(Problem) in
            let detail = try await access.detail(request, .readCommands)
            var from = 0
            if let cursor = request.query["cursor"] {
                guard let index = Int(cursor), index >= 0 else { throw .invalid("this is no cursor of this list") }
                from = index
            }
            let limit = Int(request.query.integer("limit") ?? 100)
            let views = try await commands.targets(detail, from: from, limit: limit, withOutput: false)
            let permitted = try access.permitted(views.map(\.client), .readCommands, request.principal)
            var writer = JSONWriter(reserving: 64 + 200 * views.count)
            writer.object { writer in
                writer.array("items") { writer in
                    var none = 0
                    for view in views where permitted(view.client) {
                        CommandWriting.target(view, showsOutput: false, &none, &writer)
                    }
                }
                let next = from + views.count
                writer.field("next", next < detail.summary.targetCount && !views.isEmpty ? String(next) : nil)
            }
            return .json(bytes: writer.finish())
        },
        Route(
            .get, "/api/v1/commands/{id}/targets/{client}", right: .readCommands, "One target, without its output.",
            answers: [Route.Answer(200, "The target.", CommandWriting.targetSchema)]
        ) { (request) async throws(Problem) in
            let (id, client) = try await access.target(request, .readCommands)
            let view = try await commands.target(id, of: client)
            var none = 0
            var writer = JSONWriter(reserving: 512)
            CommandWriting.target(view, showsOutput: false, &none, &writer)
            return .json(bytes: writer.finish())
        },
    ]
}
