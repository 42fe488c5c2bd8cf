import JSON

/// Jobs as JSON: the body of a request, and what the API shows.
extension JobRequest {
    /// The body of `POST /api/v1/jobs`, whose shape has been checked; what else there is is left alone.
    public init(json: JSONValue) throws(Problem) {
        try self.init(work: json)
        dueAt = json["run_at_ms"]?.integer.map { UInt64(clamping: $0) }
        deadline = json["deadline_ms"]?.integer.map { UInt64(clamping: $0) }
        if let text = json["parent"]?.string {
            guard let parent = JobID(text) else { throw .invalid("parent is no job id", pointer: "/parent") }
            self.parent = parent
        }
    }

    /// The members that a schedule has as well: `kind`, `arguments`, `priority`, `timeout_s`, `retry`.
    init(work json: JSONValue) throws(Problem) {
        let arguments = json["arguments"] ?? .null
        self.init(json["kind"]?.string ?? "", arguments.isNull ? [:] : arguments)
        priority = Int(json["priority"]?.integer ?? 0)
        timeoutMilliseconds = try Self.milliseconds(json["timeout_s"], "/timeout_s")
        retry = try json["retry"].flatMap { (value) throws(Problem) in try Self.retry(value) }
    }

    private static func retry(_ json: JSONValue) throws(Problem) -> JobRetry? {
        guard !json.isNull else { return nil }
        var retry = JobRetry()
        if let attempts = json["attempts"]?.integer { retry.maximumAttempts = Int(attempts) }
        if let first = try milliseconds(json["first_s"], "/retry/first_s") { retry.firstMilliseconds = first }
        retry.longestMilliseconds = try milliseconds(json["longest_s"], "/retry/longest_s")
            ?? max(retry.longestMilliseconds, retry.firstMilliseconds)
        return retry
    }

    /// Seconds as a request has them.
    static func milliseconds(_ value: JSONValue?, _ pointer: String) throws(Problem) -> UInt64? {
        guard let seconds = value?.number else { return nil }
        guard seconds >= 0, seconds <= 1e9 else {
            throw .invalid("\(seconds) seconds: 0 to 1e9 are allowed", pointer: pointer)
        }
        return UInt64((seconds * 1_000).rounded(.up))
    }
}

extension JobRetry {
    public var json: JSONValue {
        [
            "attempts": .integer(Int64(maximumAttempts)), "first_s": .seconds(firstMilliseconds),
            "longest_s": .seconds(longestMilliseconds),
        ]
    }
}

extension Jobs {
    /// - Parameter isWhole: with arguments, result and what else a list leaves out.
    public func json(_ job: Job, isWhole: Bool) -> JSONValue {
        let machine = job.machine
        var object: JSONObject = [
            "id": .string(job.id.description), "kind": .string(job.kind), "title": .string(job.title),
            "state": .string(machine.state.rawValue), "priority": .integer(Int64(job.priority)),
            "attempt": .integer(Int64(machine.attempt)), "fence": .unsigned(machine.fence),
            "owner": ["kind": .string(job.owner.kind.rawValue), "id": .string(job.owner.id)],
            "created_ms": .unsigned(job.createdAt),
        ]
        if let waits = waitsFor(job) {
            object["waits_for"] = .string(waits)
            object["run_at_ms"] = .unsigned(machine.dueAt)
        }
        if let deadline = machine.deadline { object["deadline_ms"] = .unsigned(deadline) }
        if let started = machine.startedAt { object["started_ms"] = .unsigned(started) }
        if let finished = machine.finishedAt { object["finished_ms"] = .unsigned(finished) }
        if machine.isCancelRequested, !machine.state.isFinal { object["cancel_requested"] = true }
        if !machine.code.isEmpty { object["code"] = .string(machine.code) }
        if !machine.reason.isEmpty { object["reason"] = .string(machine.reason) }
        if let parent = job.parent { object["parent"] = .string(parent.description) }
        if let schedule = job.schedule { object["schedule"] = .string(schedule) }
        if let occurrence = job.occurrence { object["scheduled_ms"] = .unsigned(occurrence) }
        if let progress = job.progress {
            object["progress"] = [
                "done": .unsigned(progress.done), "total": progress.total.map { .unsigned($0) } ?? .null,
                "text": .string(progress.text),
            ]
        }
        guard isWhole else { return .object(object) }
        object["guarantee"] = .string(machine.guarantee.rawValue)
        object["failures"] = .integer(Int64(machine.failures))
        object["interruptions"] = .integer(Int64(machine.interruptions))
        object["timeout_s"] = .seconds(job.timeoutMilliseconds)
        object["retry"] = machine.retry.json
        object["arguments"] = (try? JSONValue(parsing: job.arguments)) ?? .null
        if let checkpoint = job.checkpoint { object["checkpoint_bytes"] = .integer(Int64(checkpoint.count)) }
        if let result = job.result { object["result"] = (try? JSONValue(parsing: result)) ?? .null }
        return .object(object)
    }
}

extension JSONValue {
    static func unsigned(_ value: UInt64) -> JSONValue { .integer(Int64(clamping: value)) }

    /// Whole where it is.
    public static func seconds(_ milliseconds: UInt64) -> JSONValue {
        milliseconds % 1_000 == 0 ? .integer(Int64(clamping: milliseconds / 1_000)) : .number(Double(milliseconds) / 1_000)
    }
}
