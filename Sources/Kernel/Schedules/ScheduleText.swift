import JSON

/// A definition as JSON: the same members in a request, in an answer and in the store.
extension ScheduleDefinition {
    static let timings = ["cron", "at", "at_ms"]

    /// - Throws: 400 with the member that is wrong. What the members may be is otherwise checked by `Schedules`.
    public init(json: JSONValue) throws(Problem) {
        let request = try JobRequest(work: json)
        let timing: ScheduleTiming
        let given = Self.timings.filter { !(json[$0] ?? .null).isNull }
        guard given.count == 1 else {
            throw .invalid(
                "a schedule has exactly one of \"cron\", \"at\" and \"at_ms\"; "
                    + (given.isEmpty ? "none is there" : "there are " + given.joined(separator: " and ")),
                pointer: "/" + (given.last ?? "cron"))
        }
        if let cron = json["cron"]?.string {
            timing = .cron(try CronExpression(cron))
        } else if let text = json["at"]?.string {
            timing = .local(text)
        } else {
            timing = .at(UInt64(clamping: json["at_ms"]?.integer ?? 0))
        }
        self.init(kind: request.kind, arguments: request.arguments, timing: timing)
        description = json["description"]?.string ?? ""
        priority = request.priority
        timeoutMilliseconds = request.timeoutMilliseconds
        retry = request.retry
        deadlineMilliseconds = try JobRequest.milliseconds(json["deadline_s"], "/deadline_s")
        if let zone = json["zone"]?.string { self.zone = zone }
        startsAt = json["starts_ms"]?.integer.map { UInt64(clamping: $0) }
        endsAt = json["ends_ms"]?.integer.map { UInt64(clamping: $0) }
        jitterMilliseconds = try JobRequest.milliseconds(json["jitter_s"], "/jitter_s") ?? 0
        overlap = try Self.choice(json["overlap"], "/overlap") ?? overlap
        missed = try Self.choice(json["missed"], "/missed") ?? missed
        if let limit = json["missed_limit"]?.integer { missedLimit = Int(clamping: limit) }
        graceMilliseconds = try JobRequest.milliseconds(json["grace_s"], "/grace_s") ?? graceMilliseconds
        isEnabled = json["enabled"]?.bool ?? true
    }

    private static func choice<Choice: RawRepresentable & CaseIterable>(
        _ value: JSONValue?, _ pointer: String
    ) throws(Problem) -> Choice? where Choice.RawValue == String {
        guard let text = value?.string else { return nil }
        guard let choice = Choice(rawValue: text) else {
            let all = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw .invalid("\"\(text.prefix(40))\" is none of \(all)", pointer: pointer)
        }
        return choice
    }

    public var json: JSONValue {
        var object: JSONObject = [
            "description": .string(description), "kind": .string(kind), "arguments": arguments,
            "priority": .integer(Int64(priority)),
        ]
        if let timeoutMilliseconds { object["timeout_s"] = .seconds(timeoutMilliseconds) }
        if let retry { object["retry"] = retry.json }
        if let deadlineMilliseconds { object["deadline_s"] = .seconds(deadlineMilliseconds) }
        switch timing {
        case .cron(let expression): object["cron"] = .string(expression.description)
        case .at(let time): object["at_ms"] = .unsigned(time)
        case .local(let text): object["at"] = .string(text)
        }
        object["zone"] = .string(zone)
        if let startsAt { object["starts_ms"] = .unsigned(startsAt) }
        if let endsAt { object["ends_ms"] = .unsigned(endsAt) }
        object["jitter_s"] = .seconds(jitterMilliseconds)
        object["overlap"] = .string(overlap.rawValue)
        object["missed"] = .string(missed.rawValue)
        object["missed_limit"] = .integer(Int64(missedLimit))
        object["grace_s"] = .seconds(graceMilliseconds)
        object["enabled"] = .bool(isEnabled)
        return .object(object)
    }

    /// This with the members of `change`; null takes one away, a new timing replaces the other kinds of it.
    public func changed(by change: JSONObject) throws(Problem) -> ScheduleDefinition {
        var object = json.object ?? [:]
        if change.contains(where: { Self.timings.contains($0.key) && !$0.value.isNull }) {
            for name in Self.timings { object[name] = nil }
        }
        for member in change { object[member.key] = member.value.isNull ? nil : member.value }
        return try ScheduleDefinition(json: .object(object))
    }
}
