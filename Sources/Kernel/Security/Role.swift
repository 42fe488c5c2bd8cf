import JSON

/// A right or a family of rights: `command.run`, `command.*`, `*`.
public struct RightPattern: Sendable, Hashable, CustomStringConvertible {
    private enum Form: Hashable {
        case everything
        /// With its dot: `command.`
        case area(String)
        case exact(String)
    }
    private let form: Form
    public let description: String

    /// - Throws: 400 when it is none of the three forms.
    public init(_ text: String) throws(Problem) {
        let isPlain = (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x2A }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        if text == "*" {
            form = .everything
        } else if isPlain, parts.count >= 2, parts.last == "*", parts.dropLast().allSatisfy({ !$0.isEmpty && !$0.contains("*") }) {
            form = .area(String(text.dropLast()))
        } else if isPlain, parts.count >= 2, parts.allSatisfy({ !$0.isEmpty && !$0.contains("*") }) {
            form = .exact(text)
        } else {
            throw .invalid("\"\(text.prefix(64))\" is not an action; write \"area.verb\", \"area.*\" or \"*\"")
        }
        description = text
    }

    var isEverything: Bool { form == .everything }

    public func matches(_ right: Right) -> Bool {
        switch form {
        case .everything: true
        case .area(let prefix): right.rawValue.hasPrefix(prefix)
        case .exact(let text): right.rawValue == text
        }
    }
}

/// One line of a role: these actions, on these clients, yes or no.
public struct RoleRule: Sendable, Hashable {
    public enum Effect: String, Sendable { case allow, deny }
    public let effect: Effect
    public let actions: [RightPattern]
    public let selector: Selector
    /// Known once, because it is asked for in each request.
    let isAboutEverything: Bool

    public init(_ effect: Effect, _ actions: [RightPattern], on selector: Selector = .everything) {
        self.effect = effect
        self.actions = actions
        self.selector = selector
        isAboutEverything = selector == .everything
    }

    func matches(_ right: Right) -> Bool {
        // By index: an iterator would copy each pattern.
        for index in actions.indices where actions[index].matches(right) { return true }
        return false
    }
}

/// Actions times selectors. What no rule allows is denied; a rule that denies wins over all that allow.
public struct Role: Sendable, Hashable {
    public let name: String
    public let summary: String
    public let rules: [RoleRule]
    /// Comes with the program and cannot be changed.
    public let isBuiltIn: Bool

    public init(name: String, summary: String, rules: [RoleRule], isBuiltIn: Bool = false) {
        self.name = name
        self.summary = summary
        self.rules = rules
        self.isBuiltIn = isBuiltIn
    }

    static let maximumRules = 256

    /// Allows every right on every client, and denies none.
    var isUnrestricted: Bool {
        rules.allSatisfy { $0.effect == .allow }
            && rules.contains { $0.isAboutEverything && $0.actions.contains(where: \.isEverything) }
    }

    public var rulesJSON: JSONValue {
        .array(
            rules.map { rule in
                [
                    "effect": .string(rule.effect.rawValue),
                    "actions": .array(rule.actions.map { .string($0.description) }),
                    "selector": .string(rule.selector.text),
                ]
            })
    }

    /// - Parameter json: as `rulesJSON` writes it; `selector` may be left out and means every client.
    static func rules(from json: JSONValue) throws(Problem) -> [RoleRule] {
        guard let list = json.array, list.count <= maximumRules else {
            throw .invalid("\"rules\" must be an array of at most \(maximumRules) rules", pointer: "/rules")
        }
        var rules: [RoleRule] = []
        for (index, item) in list.enumerated() {
            guard let effect = item["effect"]?.string.flatMap({ RoleRule.Effect(rawValue: $0) }) else {
                throw .invalid("\"effect\" must be \"allow\" or \"deny\"", pointer: "/rules/\(index)/effect")
            }
            guard let actions = item["actions"]?.array, (1...64).contains(actions.count) else {
                throw .invalid("\"actions\" must be an array of 1 to 64 actions", pointer: "/rules/\(index)/actions")
            }
            var patterns: [RightPattern] = []
            for action in actions { patterns.append(try RightPattern(action.string ?? "")) }
            let selector = try item["selector"]?.string.map { (text) throws(Problem) in try Selector(parsing: text) }
            rules.append(RoleRule(effect, patterns, on: selector ?? .everything))
        }
        return rules
    }
}
