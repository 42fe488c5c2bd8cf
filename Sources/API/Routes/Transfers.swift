import JSON
import Kernel
import Web

/// `/api/v1/transfers`: files and trees between the store and clients. See Docs/files.md.
public func transferRoutes(_ transfers: Transfers) -> [Route] {
    [
        Route(
            .get, "/api/v1/transfers", right: .readTransfers, "Transfers, newest first.",
            query: [
                Reading.limit, Reading.cursor,
                .query("state", .choice(TransferState.allCases.map(\.rawValue), "Only those in this state.")),
                .query("client", .string("Only those of this client.", length: 26...26)),
                .query("group", .string("Only those of one request.", length: 26...26)),
            ],
            answers: [
                Route.Answer(
                    200, "A page. It may hold few items and still have a next one.",
                    CommandWriting.pageSchema(TransferReading.shown))
            ]
        ) { (request) async throws(Problem) in
            var query = TransferQuery()
            query.limit = Reading.limit(request)
            query.before = try TransferReading.id(request.query["cursor"], "cursor")
            query.state = request.query["state"].flatMap { TransferState(rawValue: $0) }
            query.group = try TransferReading.id(request.query["group"], "group")
            if let text = request.query["client"] {
                guard let id = ClientID(text) else { throw .invalid("client is no client id") }
                query.client = id
            }
            let page = try await transfers.list(query, request.principal)
            return .json(.page(page.items.map(\.json), next: page.next?.description))
        },
        Route(
            .post, "/api/v1/transfers", right: .createTransfers,
            "Moves a file or a tree between the store and clients: one transfer for each client. The header Idempotency-Key makes a repeated request safe.",
            body: .json(TransferReading.schema),
            answers: [
                Route.Answer(201, "Durable; they run by themselves.", TransferReading.created),
                Route.Answer(200, "The same request was accepted before; so it stands now.", TransferReading.created),
            ]
        ) { (request) async throws(Problem) in
            var order = try TransferReading.request(request.json)
            order.idempotencyKey = JobReading.key(request)
            let made = try await transfers.create(order, by: request.principal)
            let group = made.transfers.first?.transfer.group.description ?? ""
            let answer: JSONValue = [
                "group": .string(group), "count": .integer(Int64(made.transfers.count)),
                "items": .array(made.transfers.prefix(1_000).map(\.json)),
            ]
            return made.isNew ? .created(answer, at: "/api/v1/transfers?group=\(group)") : .json(answer)
        },
        Route(
            .get, "/api/v1/transfers/{id}", right: .readTransfers, "One transfer, with its rate and the time left while it runs.",
            answers: [Route.Answer(200, "The transfer.", TransferReading.shown)]
        ) { (request) async throws(Problem) in
            .json(try await transfers.get(try TransferReading.id(request), request.principal).json)
        },
        act("pause", "Stops a transfer where it is; what the far end has is kept. May be repeated.") {
            (id, principal) async throws(Problem) in try await transfers.pause(id, by: principal)
        },
        act("resume", "Lets a paused transfer go on from what the far end has. May be repeated.") {
            (id, principal) async throws(Problem) in try await transfers.resume(id, by: principal)
        },
        act("cancel", "Ends a transfer: nothing of it stays, and what it would have replaced does.") {
            (id, principal) async throws(Problem) in try await transfers.cancel(id, by: principal)
        },
    ]
}

private func act(
    _ verb: String, _ summary: String,
    _ body: @escaping @Sendable (TransferID, Principal) async throws(Problem) -> TransferView
) -> Route {
    Route(
        .post, "/api/v1/transfers/{id}/\(verb)", right: .cancelTransfers, summary,
        answers: [Route.Answer(200, "The transfer.", TransferReading.shown)]
    ) { (request) async throws(Problem) in
        .json(try await body(try TransferReading.id(request), request.principal).json)
    }
}

enum TransferReading {
    static let schema = Schema.object(members)
    /// A plugin has no header to put the key in.
    static let pluginSchema = Schema.object(
        members + [.optional("idempotency_key", .string("The same key again: the same transfer.", length: 1...128))])

    private static let members: [Schema.Member] = [
        .required("direction", .choice(["push", "pull"], "push: store to client; pull: client to store.")),
        .optional("selector", .string("Which clients; those that you may use for this.", length: 1...SelectorSyntax.maximumLength)),
        .optional("clients", .array(.string(length: 26...26), count: 1...TransferRequest.maximumTargets)),
        .required("path", .string("On the client; absolute.", length: 1...4_096)),
        .optional("file", .string("Push: the file of the store.", length: 26...26)),
        .optional("url", .string("In place of the store: a push comes from this https:// URL, a pull goes to it by PUT. It is a secret: its query is kept in memory only and shown nowhere.", length: 1...8_192)),
        .optional("size", .integer("With url, push: what the server has to announce.", in: 0...Int64.max)),
        .optional("sha256", .string("With url: the hash that the bytes have to have, in hex.", length: 64...64)),
        .optional("form", .choice(["file", "tree"], "Default: what the stored file is; a pull's is file.")),
        .optional("name", .string("Pull: what it is called in the store; default: the last part of the path.", length: 1...255)),
        .optional("mode", .integer("Push: permission bits; default: those of the file that it replaces, else 0644.", in: 0...4_095)),
        .optional("modified_ns", .integer("Push: the time of the file, nanoseconds since 1970.", in: Int64.min...Int64.max)),
        .optional("replace", .boolean("Push: a file that is there is replaced (default).")),
        .optional("make_parents", .boolean("Push: missing directories are made.")),
        .optional("links", .choice(["keep", "skip"], "Symbolic links of a tree; default: keep.")),
        .optional("rate_limit", .integer("Bytes per second at most; 0: none of its own.", in: 0...1 << 40)),
        .optional("offline", .choice(["queue", "fail"], "When a client is not connected; default: queue.")),
        .optional("within_s", .integer("It fails when it is not over by then; default: a day.", in: 1...2_592_000)),
    ]

    static let created = Schema.object([
        .required("group", .string("What they have in common.")), .required("count", .integer()),
        .required("items", .array(shown, "The first 1,000 of them.")),
    ])

    static let shown = Schema.object([
        .required("id", .string()), .required("group", .string("The id of the first of its request.")),
        .required("client", .string()), .required("direction", .string()), .required("form", .string()),
        .required("path", .string("On the client.")), .required("name", .string("In the store.")),
        .required("state", .choice(TransferState.allCases.map(\.rawValue))),
        .required("bytes", .integer("That have moved.")), .required("durable", .integer("Of those, what the far end has for good.")),
        .required("owner", .any()), .required("created_ms", .integer()), .required("deadline_ms", .integer()),
        .optional("file", .string("In the store.")),
        .optional("url", .string("In place of the store, without its query.")), .optional("size", .integer()), .optional("sha256", .string()),
        .optional("mode", .integer()), .optional("modified_ns", .integer()), .optional("rate_limit", .integer()),
        .optional("started_ms", .integer()), .optional("finished_ms", .integer()),
        .optional("code", .string("Why it failed, for machines.")), .optional("reason", .string("The same for people.")),
        .optional("entries", .integer("Of a tree.")), .optional("skipped", .integer("Of those, left out.")),
        .optional("rate", .integer("Bytes per second now.")), .optional("seconds_left", .number()),
    ])

    static func id(_ request: Request) throws(Problem) -> TransferID {
        guard let id = TransferID(request["id"]) else {
            throw .invalid("'\(request["id"].prefix(64))' is no transfer id (26 characters, the first 0 to 7)")
        }
        return id
    }

    static func id(_ text: String?, _ name: String) throws(Problem) -> TransferID? {
        guard let text else { return nil }
        guard let id = TransferID(text) else { throw .invalid("\(name) is no transfer id") }
        return id
    }

    /// - Parameter json: checked against `schema`.
    static func request(_ json: JSONValue) throws(Problem) -> TransferRequest {
        let targets: TransferRequest.Targets
        switch (json["selector"]?.string, json["clients"]?.array) {
        case (let text?, nil): targets = .selector(try Selector(parsing: text))
        case (nil, let list?):
            var ids: [ClientID] = []
            for (index, item) in list.enumerated() {
                guard let id = item.string.flatMap({ ClientID($0) }) else {
                    throw .invalid("this is no client id", pointer: "/clients/\(index)")
                }
                if !ids.contains(id) || list.count > 256 { ids.append(id) }
            }
            targets = .clients(list.count > 256 ? Array(Set(ids)).sorted() : ids)
        default: throw .invalid("give either \"selector\" or \"clients\"", pointer: "/selector")
        }
        var request = TransferRequest(
            json["direction"]?.string == "push" ? .push : .pull, targets: targets, path: json["path"]?.string ?? "")
        if let text = json["file"]?.string {
            guard let id = FileID(text) else { throw .invalid("this is no file id", pointer: "/file") }
            request.file = id
        }
        if let address = json["url"]?.string {
            request.url = try TransferURL(
                address: address, size: json["size"]?.integer.map { UInt64($0) }, sha256: json["sha256"]?.string)
        }
        guard request.url != nil || json["sha256"] == nil && json["size"] == nil else {
            throw .invalid("\"size\" and \"sha256\" belong to a \"url\"", pointer: "/url")
        }
        request.form = json["form"]?.string.flatMap { TransferForm(rawValue: $0) }
        request.name = json["name"]?.string
        request.mode = json["mode"]?.integer.map { UInt16(clamping: $0) }
        request.modified = json["modified_ns"]?.integer
        request.replaces = json["replace"]?.bool ?? true
        request.makesParents = json["make_parents"]?.bool ?? false
        request.links = json["links"]?.string.flatMap { LinkPolicy(rawValue: $0) } ?? .keep
        request.rate = json["rate_limit"]?.integer.map { UInt64($0) } ?? 0
        request.offline = json["offline"]?.string.flatMap { TransferRequest.Offline(rawValue: $0) } ?? .queue
        if let seconds = json["within_s"]?.integer { request.withinMilliseconds = UInt64(seconds) * 1_000 }
        return request
    }
}
