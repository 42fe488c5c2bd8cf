import JSON

/// One host's installation as it is kept in the store and shown. Holds nothing secret.
struct Installation: Sendable {
    let id: String
    let plan: Plan
    /// Who asked for it: a principal's id.
    var owner: String
    var state = InstallationState.waiting
    /// What it is doing, or did last.
    var step = ""
    var job = ""
    var client: String?
    /// Fingerprint of the key that the host showed.
    var hostKey: String?
    /// Of the agent's program that was put there.
    var version: String?
    var code: String?
    var reason: String?
    /// The enrollment token that it has made, until that is used or ended.
    var token: String?
    var createdAt: UInt64
    var startedAt: UInt64?
    var endedAt: UInt64?

    init(id: String, plan: Plan, owner: String, now: UInt64) {
        self.id = id
        self.plan = plan
        self.owner = owner
        createdAt = now
    }

    /// What is shown.
    var json: JSONObject {
        var object: JSONObject = [
            "id": .string(id), "action": .string(plan.action.rawValue), "host": .string(plan.destination.host),
            "port": .integer(Int64(plan.destination.port)), "user": .string(plan.destination.user),
            "state": .string(state.rawValue), "step": .string(step), "job": .string(job), "owner": .string(owner),
            "server": .string(plan.server), "created_ms": .integer(Int64(clamping: createdAt)),
        ]
        if let jump = plan.jump { object["jump"] = .string("\(jump.user)@\(jump.name)") }
        if let client { object["client"] = .string(client) }
        if let hostKey { object["host_key"] = .string(hostKey) }
        if let version { object["agent_version"] = .string(version) }
        if let code { object["code"] = .string(code) }
        if let reason { object["reason"] = .string(reason) }
        if let startedAt { object["started_ms"] = .integer(Int64(clamping: startedAt)) }
        if let endedAt { object["ended_ms"] = .integer(Int64(clamping: endedAt)) }
        return object
    }

    /// What is kept.
    var stored: [UInt8] {
        var object = json
        object["plan"] = .object(plan.json)
        if let token { object["token"] = .string(token) }
        return JSONValue.object(object).serialized()
    }

    init?(stored bytes: [UInt8]) {
        guard let json = try? JSONValue(parsing: bytes), let id = json["id"]?.string, let plan = json["plan"].flatMap({ Plan($0) }),
            let owner = json["owner"]?.string, let state = json["state"]?.string.flatMap({ InstallationState(rawValue: $0) })
        else { return nil }
        self.init(id: id, plan: plan, owner: owner, now: UInt64(clamping: json["created_ms"]?.integer ?? 0))
        self.state = state
        step = json["step"]?.string ?? ""
        job = json["job"]?.string ?? ""
        client = json["client"]?.string
        hostKey = json["host_key"]?.string
        version = json["agent_version"]?.string
        code = json["code"]?.string
        reason = json["reason"]?.string
        token = json["token"]?.string
        startedAt = json["started_ms"]?.integer.map { UInt64(clamping: $0) }
        endedAt = json["ended_ms"]?.integer.map { UInt64(clamping: $0) }
    }
}
