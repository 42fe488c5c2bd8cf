import JSON

/// A host as somebody wants to reach it.
struct Destination: Sendable, Equatable {
    var host: String
    var port: Int
    var user: String
    /// As it was given: {"known_hosts"}, {"fingerprint"} or {"trust_first_use"}.
    var hostKey: JSONObject

    var json: JSONObject {
        [
            "host": .string(host), "port": .integer(Int64(port)), "user": .string(user), "host_key": .object(hostKey),
        ]
    }

    init(host: String, port: Int, user: String, hostKey: JSONObject) {
        self.host = host
        self.port = port
        self.user = user
        self.hostKey = hostKey
    }

    init?(_ json: JSONValue) {
        guard let host = json["host"]?.string, let port = json["port"]?.integer, let user = json["user"]?.string,
            let hostKey = json["host_key"]?.object
        else { return nil }
        self.init(host: host, port: Int(port), user: user, hostKey: hostKey)
    }

    /// Under which its key is kept after a first use.
    var name: String { "\(host):\(port)" }
}

/// Everything about one installation but what is secret: it is kept in the store.
struct Plan: Sendable, Equatable {
    var action: Action
    var destination: Destination
    var jump: Destination?
    /// What `cm-agent run --server` gets.
    var server: String
    var labels: [(String, String)] = []
    var facts: [(String, String)] = []
    /// The agent runs as this user, confined; `nil`: as root.
    var runAs: String?
    /// PEM of the public key whose releases the agent takes, fixed with its first installation.
    var releaseKey: String?
    var waitSeconds: Int

    static func == (a: Plan, b: Plan) -> Bool { a.json == b.json }

    var json: JSONObject {
        var object: JSONObject = [
            "action": .string(action.rawValue), "destination": .object(destination.json), "server": .string(server),
            "labels": Self.object(labels), "facts": Self.object(facts), "wait_s": .integer(Int64(waitSeconds)),
        ]
        if let jump { object["jump"] = .object(jump.json) }
        if let runAs { object["run_as"] = .string(runAs) }
        if let releaseKey { object["release_key"] = .string(releaseKey) }
        return object
    }

    init(action: Action, destination: Destination, jump: Destination?, server: String, waitSeconds: Int) {
        self.action = action
        self.destination = destination
        self.jump = jump
        self.server = server
        self.waitSeconds = waitSeconds
    }

    init?(_ json: JSONValue) {
        guard let action = json["action"]?.string.flatMap({ Action(rawValue: $0) }),
            let destination = json["destination"].flatMap({ Destination($0) }), let server = json["server"]?.string,
            let wait = json["wait_s"]?.integer
        else { return nil }
        self.init(
            action: action, destination: destination, jump: json["jump"].flatMap { Destination($0) }, server: server,
            waitSeconds: Int(wait))
        labels = Self.pairs(json["labels"])
        facts = Self.pairs(json["facts"])
        runAs = json["run_as"]?.string
        releaseKey = json["release_key"]?.string
    }

    static func pairs(_ value: JSONValue?) -> [(String, String)] {
        (value?.object ?? [:]).compactMap { member in member.value.string.map { (member.key, $0) } }
    }

    private static func object(_ pairs: [(String, String)]) -> JSONValue {
        .object(JSONObject(pairs.map { ($0.0, .string($0.1)) }))
    }
}

/// What is secret of one installation; in memory only.
struct Secrets: Sendable {
    var host = Credentials()
    var jump = Credentials()

    mutating func wipe() {
        host.wipe()
        jump.wipe()
    }
}
