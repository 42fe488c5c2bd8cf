import AgentProtocol
import JSON

/// An upgrade as it is asked for: the arguments of its job. Everything that is not given has the value that stands here.
public struct UpgradeRequest: Sendable {
    public enum Selection: Sendable {
        case selector(Selector, text: String)
        case clients([ClientID])
    }

    static let maximumClients = 10_000

    public var release: ReleaseID
    public var selection: Selection
    /// Clients of the first wave: those of the upgrade that meet this, or so many of them.
    public var canarySelector: Selector?
    public var canary = 0
    /// Size of each wave after that; `nil`: all the rest is one wave.
    public var wave: Int?
    /// Most clients in the middle of their upgrade at a time.
    public var parallel: Int?
    /// Failures that are tolerated; one more stops the rest.
    public var failures = 0
    public var onlineWithinSeconds = 60
    public var settleSeconds = 3
    /// How long an absent client is waited for when its turn has come.
    public var waitSeconds = 60
    public var answerSeconds = 900

    /// - Throws: 400 with the member that is wrong.
    public init(_ json: JSONValue) throws(Problem) {
        guard let object = json.object else { throw .invalid("the arguments of an upgrade are an object") }
        for member in object where !Self.members.contains(member.key) {
            throw .invalid(
                "unknown member \"\(member.key.prefix(64))\"; known are \(Self.members.joined(separator: ", "))",
                pointer: "/\(member.key.prefix(64))")
        }
        guard let release = json["release"]?.string.flatMap({ ReleaseID($0) }) else {
            throw .invalid("\"release\" is no release id (26 characters, the first 0 to 7)", pointer: "/release")
        }
        self.release = release
        selection = try Self.selection(json)
        if let text = json["canary_selector"]?.string { canarySelector = try Selector(parsing: text) }
        canary = try Self.number(json, "canary", 0...Self.maximumClients) ?? canary
        guard canary == 0 || canarySelector == nil else {
            throw .invalid("give either \"canary\" or \"canary_selector\"", pointer: "/canary")
        }
        wave = try Self.number(json, "wave", 1...Self.maximumClients)
        parallel = try Self.number(json, "parallel", 1...Self.maximumClients)
        failures = try Self.number(json, "failures", 0...Self.maximumClients) ?? failures
        onlineWithinSeconds = try Self.number(json, "online_within_s", UpgradeOrder.onlineWithin) ?? onlineWithinSeconds
        settleSeconds = try Self.number(json, "settle_s", UpgradeOrder.settle) ?? settleSeconds
        waitSeconds = try Self.number(json, "wait_s", 0...86_400) ?? waitSeconds
        answerSeconds = try Self.number(json, "answer_within_s", 10...86_400) ?? answerSeconds
        guard answerSeconds > onlineWithinSeconds + settleSeconds else {
            throw .invalid(
                "\"answer_within_s\" has to be more than \"online_within_s\" and \"settle_s\" together",
                pointer: "/answer_within_s")
        }
    }

    static let members = [
        "release", "selector", "clients", "canary", "canary_selector", "wave", "parallel", "failures", "online_within_s",
        "settle_s", "wait_s", "answer_within_s",
    ]

    private static func selection(_ json: JSONValue) throws(Problem) -> Selection {
        switch (json["selector"]?.string, json["clients"]?.array) {
        case (let text?, nil): return .selector(try Selector(parsing: text), text: text)
        case (nil, let list?):
            guard (1...maximumClients).contains(list.count) else {
                throw .invalid("\"clients\" names 1 to \(maximumClients) clients", pointer: "/clients")
            }
            var clients: [ClientID] = []
            var seen: Set<ClientID> = []
            for (index, item) in list.enumerated() {
                guard let id = item.string.flatMap({ ClientID($0) }) else {
                    throw .invalid("this is no client id", pointer: "/clients/\(index)")
                }
                if seen.insert(id).inserted { clients.append(id) }
            }
            return .clients(clients)
        default: throw .invalid("give either \"selector\" or \"clients\"", pointer: "/selector")
        }
    }

    private static func number(_ json: JSONValue, _ name: String, _ range: ClosedRange<Int>) throws(Problem) -> Int? {
        guard let value = json[name], !value.isNull else { return nil }
        guard let number = value.integer, range.contains(Int(clamping: number)) else {
            throw .invalid(
                "\"\(name)\" is a whole number from \(range.lowerBound) to \(range.upperBound)", pointer: "/\(name)")
        }
        return Int(number)
    }

    var limits: UpgradeRunStateMachine.Limits {
        .init(waitMilliseconds: UInt64(waitSeconds) * 1_000, answerMilliseconds: UInt64(answerSeconds) * 1_000)
    }

    /// Sizes of the waves for so many clients, `first` of them in the first.
    func waves(_ count: Int, first: Int) -> [Int] {
        var waves = first > 0 ? [first] : []
        if let wave { waves += Array(repeating: wave, count: max(0, count - first) / wave + 1) }
        return waves
    }
}
