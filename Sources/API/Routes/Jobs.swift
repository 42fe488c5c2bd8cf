import JSON
import Kernel
import Web

extension Right {
    public static let readJobs: Right = "job.read"
    /// The kind asks for more: a command for `command.run` where it then runs.
    public static let createJobs: Right = "job.create"
    public static let cancelJobs: Right = "job.cancel"
}

/// Makes commands and templates job kinds of this core. Before `Kernel.start`.
public func registerCommandJobs(_ kernel: Kernel) throws(Problem) {
    let kinds = CommandJobs(
        jobs: kernel.jobs, commands: kernel.commands, security: kernel.security, arguments: CommandReading.schema.document
    ) { (body) throws(Problem) in
        try CommandReading.request(body, idempotencyKey: nil)
    }
    try kinds.register()
}

/// `/api/v1/jobs`: durable work, what became of it, and what can be run.
public func jobRoutes(_ jobs: Jobs) -> [Route] {
    [
        Route(
            .get, "/api/v1/jobs", right: .readJobs, "Jobs, newest first.",
            query: [
                Reading.limit, Reading.cursor,
                .query("state", .choice(JobState.allCases.map(\.rawValue), "Only those in this state.")),
                .query("kind", .string("Only those of this kind.", length: 1...64)),
                .query("schedule", .string("Only those of this schedule.", length: 1...64)),
                .query("parent", .string("Only children of this job.", length: 26...26)),
            ],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(JobWriting.schema))]
        ) { (request) async throws(Problem) in
            try await jobPage(request, jobs, schedule: request.query["schedule"])
        },
        Route(
            .post, "/api/v1/jobs", right: .createJobs,
            "Accepts a job. The header Idempotency-Key makes a repeated request safe.",
            body: .json(JobReading.schema),
            answers: [Route.Answer(201, "Durable; it runs when its time has come.", JobWriting.schema)]
        ) { (request) async throws(Problem) in
            var job = try JobRequest(json: request.json)
            job.idempotencyKey = JobReading.key(request)
            let made = try await jobs.create(job, by: request.principal)
            return .created(jobs.json(made, isWhole: true), at: "/api/v1/jobs/\(made.id)")
        },
        Route(
            .get, "/api/v1/jobs/kinds", right: .readJobs, "What can be run as a job.",
            answers: [Route.Answer(200, "All kinds.", CommandWriting.pageSchema(JobWriting.kindSchema))]
        ) { (_) async throws(Problem) in .json(.page(jobs.kinds.map(JobWriting.kind), next: nil)) },
        Route(
            .get, "/api/v1/jobs/{id}", right: .readJobs, "One job with its arguments and result.",
            answers: [Route.Answer(200, "The job.", JobWriting.schema)]
        ) { (request) async throws(Problem) in
            .json(jobs.json(try await jobs.get(try id(request)), isWhole: true))
        },
        Route(
            .get, "/api/v1/jobs/{id}/logs", right: .readJobs, "What its attempts had to say, oldest first; the newest lines are kept.",
            query: [
                Reading.limit,
                .query("cursor", .string("`next` of the page before: only lines after it.", length: 1...20)),
            ],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(JobWriting.lineSchema))]
        ) { (request) async throws(Problem) in
            var after: UInt64 = 0
            if let cursor = request.query["cursor"] {
                guard let sequence = UInt64(cursor) else { throw .invalid("this is no cursor of this list") }
                after = sequence
            }
            let limit = Reading.limit(request)
            let lines = try await jobs.logs(try id(request), after: after, limit: limit)
            return .json(
                .page(lines.map(JobWriting.line), next: lines.count == limit ? lines.last.map { String($0.sequence) } : nil))
        },
        Route(
            .post, "/api/v1/jobs/{id}/cancel", right: .cancelJobs,
            "Ends a job and its children: waiting ones at once, running ones are asked to. May be repeated.",
            answers: [Route.Answer(200, "How many jobs were asked.", .object([.required("cancelled", .integer())]))]
        ) { (request) async throws(Problem) in
            .json(["cancelled": .integer(Int64(try await jobs.cancel(try id(request), by: request.principal)))])
        },
        Route(
            .post, "/api/v1/jobs/{id}/retry", right: .createJobs,
            "Puts a dead or cancelled job in again, in the name of its owner. It may repeat what an earlier attempt did.",
            answers: [Route.Answer(200, "The job, waiting.", JobWriting.schema)]
        ) { (request) async throws(Problem) in
            .json(jobs.json(try await jobs.retry(try id(request), by: request.principal), isWhole: true))
        },
    ]
}

func jobPage(_ request: Request, _ jobs: Jobs, schedule: String?) async throws(Problem) -> Response {
    var query = JobQuery()
    query.limit = Reading.limit(request)
    if let cursor = request.query["cursor"] {
        guard let id = JobID(cursor) else { throw .invalid("this is no cursor of this list") }
        query.before = id
    }
    query.state = request.query["state"].flatMap { JobState(rawValue: $0) }
    query.kind = request.query["kind"]
    query.schedule = schedule
    if let parent = request.query["parent"] {
        guard let id = JobID(parent) else { throw .invalid("parent is no job id") }
        query.parent = id
    }
    let page = try await jobs.list(query)
    return .json(
        .page(
            page.map { jobs.json($0, isWhole: false) },
            next: page.count == query.limit ? page.last?.id.description : nil))
}

private func id(_ request: Request) throws(Problem) -> JobID {
    guard let id = JobID(request["id"]) else {
        throw .invalid("'\(request["id"].prefix(64))' is no job id (26 characters, the first 0 to 7)")
    }
    return id
}

/// What jobs and schedules have in common in a request.
enum JobReading {
    private static let kind = Schema.string("See /api/v1/jobs/kinds.", length: 1...64)
    static let members: [Schema.Member] = [.required("kind", kind)] + others
    static let optionalMembers: [Schema.Member] = [.optional("kind", kind)] + others
    private static let others: [Schema.Member] = [
        .optional("arguments", .map(.any(), "For the kind; those of `command` and `template` are the body of POST /api/v1/commands.")),
        .optional("priority", .integer("Higher ones go first; default 0.", in: -100...100)),
        .optional("timeout_s", .number("Of one attempt; default: the kind's.")),
        .optional(
            "retry",
            .object([
                .optional("attempts", .integer("Failures that end it.", in: 1...100)),
                .optional("first_s", .number("Pause after the first failure; doubles with each.")),
                .optional("longest_s", .number("No pause is longer.")),
            ], "Default: the kind's. Interruptions do not count.")),
    ]
    static let schema = Schema.object(
        members + [
            .optional("run_at_ms", .integer("Not before this (Unix milliseconds); default: at once.")),
            .optional("deadline_ms", .integer("Not after this (Unix milliseconds).")),
            .optional("parent", .string("A job that this one belongs to.", length: 26...26)),
        ])

    static func key(_ request: Request) -> IdempotencyKey? {
        request.headers["idempotency-key"].map { IdempotencyKey(key: $0, request: request.body) }
    }
}

/// Jobs as JSON.
enum JobWriting {
    static func kind(_ kind: JobKind) -> JSONValue {
        [
            "name": .string(kind.name), "summary": .string(kind.summary), "owner": .string(kind.owner),
            "guarantee": .string(kind.guarantee.rawValue), "concurrency": .integer(Int64(kind.concurrency)),
            "timeout_s": .seconds(kind.timeoutMilliseconds), "retry": kind.retry.json,
            "rights": .array(kind.rights.map { .string($0.rawValue) }), "arguments": kind.arguments.json ?? .bool(true),
        ]
    }

    static func line(_ line: JobLogLine) -> JSONValue {
        [
            "sequence": .milliseconds(line.sequence), "time_ms": .milliseconds(line.milliseconds),
            "attempt": .integer(Int64(line.attempt)), "level": .string(line.level.rawValue), "text": .string(line.text),
        ]
    }

    // MARK: For the document

    static let schema = Schema.object([
        .required("id", .string()), .required("kind", .string()), .required("title", .string("What it does, in one line.")),
        .required("state", .choice(JobState.allCases.map(\.rawValue))), .required("priority", .integer(in: -100...100)),
        .required("attempt", .integer("Attempts begun.")), .required("fence", .integer("Fencing number of the newest one.")),
        .required("owner", .any("In whose name, and with whose rights, it runs.")), .required("created_ms", .integer()),
        .optional("waits_for", .choice(["time", "children", "kind", "place"], "While it waits.")),
        .optional("run_at_ms", .integer()), .optional("deadline_ms", .integer()), .optional("started_ms", .integer()),
        .optional("finished_ms", .integer()), .optional("cancel_requested", .boolean()),
        .optional("code", .string("Why it failed, for machines.")), .optional("reason", .string("The same for people.")),
        .optional("parent", .string()), .optional("schedule", .string()),
        .optional("scheduled_ms", .integer("The time of the schedule that it runs for.")),
        .optional("progress", .any("done, total, text.")), .optional("guarantee", .choice(JobGuarantee.allCases.map(\.rawValue))),
        .optional("failures", .integer("Attempts that failed since it was last put in by a person.")),
        .optional("interruptions", .integer("Attempts that a crash or a restart cut off since then.")),
        .optional("timeout_s", .number()), .optional("retry", .any()), .optional("arguments", .any()),
        .optional("result", .any()), .optional("checkpoint_bytes", .integer("What the next attempt goes on from.")),
    ])
    static let kindSchema = Schema.object([
        .required("name", .string()), .required("summary", .string()), .required("owner", .string("core, or a plugin's id.")),
        .required("guarantee", .choice(JobGuarantee.allCases.map(\.rawValue))),
        .required("concurrency", .integer("Attempts at a time.")), .required("timeout_s", .number()), .required("retry", .any()),
        .required("rights", .array(.string("Rights that it takes to have it run, besides job.create or schedule.edit."))),
        .required("arguments", .any("What it takes, as a JSON Schema (true: anything).")),
    ])
    static let lineSchema = Schema.object([
        .required("sequence", .integer()), .required("time_ms", .integer()), .required("attempt", .integer()),
        .required("level", .choice(JobLogLine.Level.allCases.map(\.rawValue))), .required("text", .string()),
    ])
}
