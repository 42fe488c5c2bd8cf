import JSON
import Kernel
import Web

/// Makes upgrades a job kind of this core. Before `Kernel.start`.
public func registerUpgradeJobs(_ kernel: Kernel) throws(Problem) {
    try kernel.upgrades.register(arguments: UpgradeReading.schema.document)
}

/// `/api/v1/upgrades`: agents replaced by a release, wave by wave. An upgrade is a job and has its id.
public func upgradeRoutes(_ upgrades: Upgrades, _ jobs: Jobs, _ clients: Clients, scope: @escaping ClientScope) -> [Route] {
    let one = [Route.Answer(200, "The upgrade.", UpgradeWriting.schema)]
    func control(_ verb: String, _ summary: String, _ isPaused: Bool) -> Route {
        Route(
            .post, "/api/v1/upgrades/{id}/\(verb)", right: .runUpgrades, summary, answers: one
        ) { (request) async throws(Problem) in
            let id = try UpgradeReading.id(request)
            try await upgrades.requireAll(id, for: request.principal)
            try await upgrades.pause(id, isPaused, by: request.principal)
            return .json(UpgradeWriting.json(try await upgrades.get(id), jobs))
        }
    }
    return releaseRoutes(upgrades) + [
        Route(
            .get, "/api/v1/upgrades", right: .readUpgrades, "Upgrades, newest first.",
            query: [Reading.limit, Reading.cursor],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(UpgradeWriting.schema))]
        ) { (request) async throws(Problem) in
            var before: JobID?
            if let cursor = request.query["cursor"] {
                before = JobID(cursor)
                if before == nil { throw .invalid("this is no cursor of this list") }
            }
            let limit = Reading.limit(request)
            let page = try await upgrades.list(before: before, limit: limit)
            return .json(
                .page(
                    page.map { UpgradeWriting.json($0, jobs) },
                    next: page.count == limit ? page.last?.job.id.description : nil))
        },
        Route(
            .post, "/api/v1/upgrades", right: .runUpgrades,
            "Starts an upgrade of the clients that are meant, as a job. The header Idempotency-Key makes a repeated request safe.",
            body: .json(UpgradeReading.schema),
            answers: [Route.Answer(201, "Durable; it begins at once.", UpgradeWriting.schema)]
        ) { (request) async throws(Problem) in
            var job = JobRequest("upgrade", request.json)
            job.idempotencyKey = JobReading.key(request)
            let made = try await jobs.create(job, by: request.principal)
            return .created(UpgradeWriting.json(try await upgrades.get(made.id), jobs), at: "/api/v1/upgrades/\(made.id)")
        },
        Route(
            .get, "/api/v1/upgrades/{id}", right: .readUpgrades, "One upgrade with the number of its clients in each state.",
            answers: one
        ) { (request) async throws(Problem) in
            .json(UpgradeWriting.json(try await upgrades.get(try UpgradeReading.id(request)), jobs))
        },
        Route(
            .get, "/api/v1/upgrades/{id}/clients", right: .readUpgrades,
            "Its clients, in the order of their turns, as far as one may see them.",
            query: [
                Reading.limit, .query("cursor", .string("`next` of the page before.", length: 1...10)),
                .query("state", .choice(UpgradeTargetState.allCases.map(\.rawValue), "Only those in this state.")),
            ],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(UpgradeWriting.clientSchema))]
        ) { (request) async throws(Problem) in
            var from = 0
            if let cursor = request.query["cursor"] {
                guard let place = Int(cursor), place >= 0 else { throw .invalid("this is no cursor of this list") }
                from = place
            }
            let limit = Reading.limit(request)
            let page = try await upgrades.clients(
                of: try UpgradeReading.id(request), from: from,
                state: request.query["state"].flatMap { UpgradeTargetState(rawValue: $0) }, limit: limit)
            let (allowed, denied) = scope(request.principal, .readUpgrades)
            let seen = Set(try clients.narrow(page.map(\.client), allowed: allowed, denied: denied).permitted)
            return .json(
                .page(
                    page.filter { seen.contains($0.client) }.map(UpgradeWriting.client),
                    next: page.count == limit ? page.last.map { String($0.place + 1) } : nil))
        },
        control("pause", "Nobody else gets the release until it is resumed; who has it goes on.", true),
        control("resume", "Goes on with a paused upgrade.", false),
        Route(
            .post, "/api/v1/upgrades/{id}/cancel", right: .runUpgrades,
            "Nobody else gets the release; it is over when those that have it have come to their end.", answers: one
        ) { (request) async throws(Problem) in
            let id = try UpgradeReading.id(request)
            _ = try await upgrades.get(id)
            try await upgrades.requireAll(id, for: request.principal)
            try await jobs.cancel(id, by: request.principal)
            return .json(UpgradeWriting.json(try await upgrades.get(id), jobs))
        },
    ]
}

private enum UpgradeReading {
    static let schema = Schema.object([
        .required("release", .string("Id of a release.", length: 26...26)),
        .optional("selector", .string(length: 1...SelectorSyntax.maximumLength)),
        .optional("clients", .array(.string(length: 26...26), count: 1...10_000)),
        .optional("canary", .integer("So many clients are the first wave; 0 by default.", in: 0...10_000)),
        .optional("canary_selector", .string("Those that meet this are the first wave.", length: 1...SelectorSyntax.maximumLength)),
        .optional("wave", .integer("Size of each further wave; without it, all the rest is one.", in: 1...10_000)),
        .optional("parallel", .integer("Most clients in the middle of their upgrade; without it, the whole wave.", in: 1...10_000)),
        .optional("failures", .integer("Failures that are tolerated, one more stops the rest; 0 by default.", in: 0...10_000)),
        .optional("online_within_s", .integer("The new program has to be online so soon; 60 by default.", in: 5...3_600)),
        .optional("settle_s", .integer("And to keep running so long after that; 3 by default.", in: 0...600)),
        .optional("wait_s", .integer("How long an absent client is waited for when its turn has come; 60 by default.", in: 0...86_400)),
        .optional("answer_within_s", .integer("A client that says nothing for so long has failed; 900 by default.", in: 10...86_400)),
    ])

    static func id(_ request: Request) throws(Problem) -> JobID {
        guard let id = JobID(request["id"]) else {
            throw .invalid("'\(request["id"].prefix(64))' is no upgrade id (26 characters, the first 0 to 7)")
        }
        return id
    }
}

private enum UpgradeWriting {
    static func json(_ upgrade: Upgrades.Summary, _ jobs: Jobs) -> JSONValue {
        var object = jobs.json(upgrade.job, isWhole: true).object ?? [:]
        for member in ["kind", "priority", "guarantee", "retry", "timeout_s", "fence", "failures", "interruptions", "result"] {
            object[member] = nil
        }
        if let version = upgrade.version { object["version"] = .string(version) }
        object["paused"] = .bool(upgrade.isPaused)
        object["clients"] = .object(upgrade.counts)
        return .object(object)
    }

    static func client(_ client: Upgrades.Client) -> JSONValue {
        var object: JSONObject = [
            "client": .string(client.client.description), "state": .string(client.state.rawValue),
            "changed_ms": .milliseconds(client.changedAt),
        ]
        if !client.code.isEmpty { object["code"] = .string(client.code) }
        if !client.message.isEmpty { object["message"] = .string(client.message) }
        return .object(object)
    }

    static let schema = Schema.object([
        .required("id", .string("Also that of its job.")), .required("title", .string()),
        .required("state", .choice(JobState.allCases.map(\.rawValue), "Of the job; dead: it failed or was stopped.")),
        .optional("version", .string("That it brings, once it has begun.")), .required("paused", .boolean()),
        .required("clients", .map(.integer(), "How many are in each state, once it has begun.")),
        .optional("code", .string("Why it failed, for machines.")), .optional("reason", .string("The same for people.")),
        .required("attempt", .integer()), .required("owner", .any()), .required("created_ms", .integer()),
        .optional("started_ms", .integer()), .optional("finished_ms", .integer()), .optional("progress", .any()),
        .optional("arguments", .any()), .optional("cancel_requested", .boolean()), .optional("waits_for", .string()),
        .optional("run_at_ms", .integer()), .optional("deadline_ms", .integer()), .optional("parent", .string()),
        .optional("schedule", .string()), .optional("scheduled_ms", .integer()), .optional("checkpoint_bytes", .integer()),
    ])
    static let clientSchema = Schema.object([
        .required("client", .string()), .required("state", .choice(UpgradeTargetState.allCases.map(\.rawValue))),
        .required("changed_ms", .integer()), .optional("code", .string("Why it did not go well, for machines.")),
        .optional("message", .string("The same for people.")),
    ])
}
