import JSON
import Kernel
import Web

extension Right {
    public static let readSchedules: Right = "schedule.read"
    /// The kind of what is scheduled asks for more, then and at each run.
    public static let editSchedules: Right = "schedule.edit"
}

/// `/api/v1/schedules`: jobs that are put in at their times.
public func scheduleRoutes(_ schedules: Schedules) -> [Route] {
    let jobs = schedules.jobs
    return [
        Route(
            .get, "/api/v1/schedules", right: .readSchedules, "Schedules by name.",
            query: [
                Reading.limit, Reading.cursor,
                .query("kind", .string("Only those that run this kind of job.", length: 1...64)),
            ],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(ScheduleWriting.schema))]
        ) { (request) async throws(Problem) in
            let limit = Reading.limit(request)
            let page = try await schedules.list(
                after: request.query["cursor"], kind: request.query["kind"], limit: limit)
            return .json(
                .page(
                    page.map { ScheduleWriting.schedule($0, schedules) }, next: page.count == limit ? page.last?.name : nil))
        },
        Route(
            .post, "/api/v1/schedules", right: .editSchedules,
            "Makes a schedule. Its runs go in the name of whoever made it, with the rights that he has then.",
            body: .json(ScheduleReading.creation),
            answers: [Route.Answer(201, "The schedule.", ScheduleWriting.schema)]
        ) { (request) async throws(Problem) in
            let made = try await schedules.create(
                request.json["name"]?.string ?? "", try ScheduleDefinition(json: request.json), by: request.principal)
            return .created(ScheduleWriting.schedule(made, schedules), at: "/api/v1/schedules/\(made.name)")
                .tagged(made.entityTag)
        },
        Route(
            .get, "/api/v1/schedules/{name}", right: .readSchedules, "One schedule.",
            answers: [Route.Answer(200, "The schedule.", ScheduleWriting.schema)]
        ) { (request) async throws(Problem) in
            let schedule = try await schedules.get(request["name"])
            return .json(ScheduleWriting.schedule(schedule, schedules)).tagged(schedule.entityTag)
        },
        Route(
            .patch, "/api/v1/schedules/{name}", right: .editSchedules,
            "Changes what is given; null goes back to the default. With If-Match only if nobody else has. Whoever changes more than \"enabled\" and \"description\" owns it from then on.",
            body: .json(ScheduleReading.update), answers: [Route.Answer(200, "The schedule.", ScheduleWriting.schema)]
        ) { (request) async throws(Problem) in
            let schedule = try await schedules.change(
                request["name"], request.json.object ?? [:], by: request.principal,
                ifRevision: try Reading.revision(request))
            return .json(ScheduleWriting.schedule(schedule, schedules)).tagged(schedule.entityTag)
        },
        Route(
            .delete, "/api/v1/schedules/{name}", right: .editSchedules,
            "Deletes it. Runs that are under way go on; see their jobs.", answers: [Route.Answer(204, "Deleted.")]
        ) { (request) async throws(Problem) in
            try await schedules.delete(request["name"], by: request.principal)
            return .empty
        },
        Route(
            .post, "/api/v1/schedules/{name}/run", right: .editSchedules,
            "Puts in a run now, in the name of its owner; its times stay. The header Idempotency-Key makes a repeated request safe.",
            answers: [Route.Answer(201, "The job of the run.", JobWriting.schema)]
        ) { (request) async throws(Problem) in
            let key = request.headers["idempotency-key"].map {
                IdempotencyKey(key: $0, request: Array("run \(request["name"])".utf8))
            }
            let job = try await schedules.runNow(request["name"], key: key, by: request.principal)
            return .created(jobs.json(job, isWhole: true), at: "/api/v1/jobs/\(job.id)")
        },
        Route(
            .get, "/api/v1/schedules/{name}/upcoming", right: .readSchedules,
            "Its times to come, without jitter; none while it is off.",
            query: [.query("limit", .integer("How many.", in: 1...100))],
            answers: [Route.Answer(200, "Times.", CommandWriting.pageSchema(ScheduleWriting.timeSchema))]
        ) { (request) async throws(Problem) in
            let times = try await schedules.upcoming(
                request["name"], count: Int(request.query.integer("limit") ?? 10))
            return .json(.page(times.map { ScheduleWriting.time($0.time, offset: $0.offset) }, next: nil))
        },
        Route(
            .get, "/api/v1/schedules/{name}/runs", right: .readJobs,
            "The jobs of its runs, newest first, as long as jobs are kept.",
            query: [
                Reading.limit, Reading.cursor,
                .query("state", .choice(JobState.allCases.map(\.rawValue), "Only those in this state.")),
            ],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(JobWriting.schema))]
        ) { (request) async throws(Problem) in
            let schedule = try await schedules.get(request["name"])
            return try await jobPage(request, jobs, schedule: schedule.name)
        },
    ]
}

/// What a schedule may be asked to be. `ScheduleDefinition` reads it and `Schedules` checks the values.
private enum ScheduleReading {
    static let name = Schema.Member.required(
        "name", .string("1 to 64 of a-z, 0-9, -, . and _.", length: 1...64))
    static let timing: [Schema.Member] = [
        .optional("cron", .string("minute hour day-of-month month day-of-week, or @hourly, @daily, @weekly, @monthly, @yearly.", length: 1...256)),
        .optional("at", .string("Once, when the clock of \"zone\" shows this: 2026-03-29T02:30.", length: 16...19)),
        .optional("at_ms", .integer("Once, at this time (Unix milliseconds).")),
        .optional("zone", .string("A time zone such as Europe/Berlin; default UTC.", length: 1...64)),
        .optional("starts_ms", .integer("No times before this (Unix milliseconds).")),
        .optional("ends_ms", .integer("No times after this (Unix milliseconds).")),
        .optional("jitter_s", .number("Each time is put off by chance, up to this; default 0.")),
        .optional("overlap", .choice(ScheduleOverlap.allCases.map(\.rawValue), "When the run before has not ended; default skip.")),
        .optional("missed", .choice(ScheduleMissed.allCases.map(\.rawValue), "Times that nobody could run, such as while the core was down; default once.")),
        .optional("missed_limit", .integer("How many runs missed = all makes up for; default 10.", in: 1...100)),
        .optional("grace_s", .number("A time that is acted upon later than this is a missed one; default 60.")),
        .optional("deadline_s", .number("How long a run may take in all, from when it is put in.")),
        .optional("description", .string(length: 0...1_024)),
        .optional("enabled", .boolean("Default true.")),
    ]
    static let creation = Schema.object([name] + JobReading.members + timing)
    static let update = Schema.object(JobReading.optionalMembers + timing)
}

/// Schedules as JSON.
private enum ScheduleWriting {
    static func schedule(_ schedule: Schedule, _ schedules: Schedules) -> JSONValue {
        var object: JSONObject = ["name": .string(schedule.name), "title": .string(schedule.title)]
        for member in schedule.definition.json.object ?? [:] { object[member.key] = member.value }
        object["state"] = .string(
            !schedule.definition.isEnabled ? "off" : schedule.hasEnded ? "ended" : "active")
        if let waits = schedules.waitsFor(schedule) { object["waits_for"] = .string(waits) }
        object["owner"] = ["kind": .string(schedule.owner.kind.rawValue), "id": .string(schedule.owner.id)]
        if let next = schedule.machine.next { object["next_ms"] = .milliseconds(next) }
        if !schedule.machine.backlog.isEmpty {
            object["waiting_ms"] = .array(schedule.machine.backlog.map { .milliseconds($0) })
        }
        object["runs"] = .milliseconds(schedule.runs)
        object["skips"] = .milliseconds(schedule.skips)
        if let last = schedule.lastRunAt { object["last_run_ms"] = .milliseconds(last) }
        if let skip = schedule.lastSkip {
            object["last_skip"] = [
                "reason": .string(skip.reason.rawValue), "first_ms": .milliseconds(skip.first),
                "last_ms": .milliseconds(skip.last),
            ]
        }
        object["created_ms"] = .milliseconds(schedule.createdAt)
        object["created_by"] = .string(schedule.createdBy)
        object["changed_ms"] = .milliseconds(schedule.changedAt)
        object["revision"] = .milliseconds(schedule.revision)
        return .object(object)
    }

    static func time(_ time: UInt64, offset: Int64) -> JSONValue {
        ["time_ms": .milliseconds(time), "local": .string(ScheduleTime.text(time, offset: offset))]
    }

    // MARK: For the document

    static let schema = Schema.object([
        .required("name", .string()), .required("title", .string("What a run does, in one line.")),
        .required("kind", .string()), .required("arguments", .any()), .required("priority", .integer(in: -100...100)),
        .optional("timeout_s", .number()), .optional("retry", .any()), .optional("deadline_s", .number()),
        .optional("cron", .string()), .optional("at", .string()), .optional("at_ms", .integer()),
        .required("zone", .string()), .optional("starts_ms", .integer()), .optional("ends_ms", .integer()),
        .required("jitter_s", .number()), .required("overlap", .choice(ScheduleOverlap.allCases.map(\.rawValue))),
        .required("missed", .choice(ScheduleMissed.allCases.map(\.rawValue))), .required("missed_limit", .integer()),
        .required("grace_s", .number()), .required("description", .string()), .required("enabled", .boolean()),
        .required("state", .choice(["active", "off", "ended"])),
        .optional("waits_for", .choice(["kind"], "Nobody runs its kind of job now.")),
        .required("owner", .any("In whose name, and with whose rights, its runs go.")),
        .optional("next_ms", .integer("Its next time.")),
        .optional("waiting_ms", .array(.integer("Times whose runs wait for the run before them."))),
        .required("runs", .integer("Runs put in so far.")), .required("skips", .integer("Times, or spans of times, without a run.")),
        .optional("last_run_ms", .integer("The newest time with a run.")),
        .optional(
            "last_skip",
            .object([
                .required("reason", .choice(["missed", "overlap"])), .required("first_ms", .integer()),
                .required("last_ms", .integer()),
            ])),
        .required("created_ms", .integer()), .required("created_by", .string()), .required("changed_ms", .integer()),
        .required("revision", .integer()),
    ])
    static let timeSchema = Schema.object([
        .required("time_ms", .integer()), .required("local", .string("What the clock of its zone shows then (RFC 3339).")),
    ])
}
