import AgentProtocol
import JSON

/// What a policy looks at: never a shell's text, which no pattern can judge, but whether there is a shell at all.
public enum PolicySubject: Sendable, Equatable {
    case argv([String])
    /// A shell line, or a script body: anything may happen in it. Needs the right `command.shell` besides.
    case shell

    public init(_ invocation: Invocation) {
        switch invocation {
        case .argv(let argv): self = .argv(argv)
        case .shell, .script: self = .shell
        }
    }
}

/// One line of the command policy: which commands, by whom, on which clients, yes or no.
public struct PolicyRule: Sendable, Hashable {
    public enum Match: Sendable, Hashable {
        /// Any argv and any shell.
        case anything
        case shell
        /// Element by element; see `ArgvPattern`.
        case argv(ArgvPattern)
        /// Allowing a level allows what lies below it; denying a level denies what lies above it.
        case preset(CommandLevel)
    }

    public var id: String
    public var effect: RoleRule.Effect
    public var match: Match
    /// Empty: any role.
    public var roles: [String]
    /// Principal ids; empty: anybody.
    public var users: [String]
    public var selector: Selector

    public init(
        id: String, _ effect: RoleRule.Effect, _ match: Match, roles: [String] = [], users: [String] = [],
        on selector: Selector = .everything
    ) {
        self.id = id
        self.effect = effect
        self.match = match
        self.roles = roles
        self.users = users
        self.selector = selector
    }

    func concerns(_ principal: Principal) -> Bool {
        (roles.isEmpty || roles.contains { principal.roles.contains($0) })
            && (users.isEmpty || users.contains(principal.id))
    }

    func matches(_ subject: PolicySubject) -> Bool {
        switch (match, subject) {
        case (.anything, _): true
        case (.shell, .shell): true
        case (.argv(let pattern), .argv(let argv)): pattern.matches(argv, isDeny: effect == .deny)
        case (.preset(let level), .argv(let argv)):
            effect == .allow
                ? CommandLevel(of: argv, isDeny: false) <= level : CommandLevel(of: argv, isDeny: true) >= level
        // A shell can do whatever the highest level can.
        case (.preset(let level), .shell): effect == .deny || level == .restricted
        case (.shell, .argv), (.argv, .shell): false
        }
    }
}

/// `["systemctl", "status", "*"]`: one glob per argument; a last element `...` stands for any further arguments.
///
/// The program is compared strictly where a rule allows (a bare name means that name found in the agent's own search path
/// or in a system directory, never a program of that name elsewhere) and broadly where it denies (any path that ends in
/// the name).
public struct ArgvPattern: Sendable, Hashable {
    public let elements: [String]
    private let patterns: [Pattern]
    private let isOpen: Bool

    public init(_ elements: [String]) throws(Problem) {
        guard (1...64).contains(elements.count), elements.first != "...", !elements.contains(where: { $0.utf8.count > 1_024 }),
            !elements.dropLast().contains("...")
        else {
            throw .invalid("an argv rule has 1 to 64 elements; \"...\" may only be the last of several")
        }
        self.elements = elements
        isOpen = elements.last == "..."
        patterns = (isOpen ? elements.dropLast() : elements[...]).map { Pattern($0) }
    }

    func matches(_ argv: [String], isDeny: Bool) -> Bool {
        guard let program = argv.first, let first = patterns.first,
            isOpen ? argv.count >= patterns.count : argv.count == patterns.count
        else { return false }
        let isSameProgram = first.text.utf8.contains(0x2F)
            ? first.matches(program) && (isDeny || !ProgramName.hasDotSegment(program))
            : ProgramName(program, isDeny: isDeny).map { first.matches($0.name) } ?? false
        return isSameProgram && zip(patterns, argv).dropFirst().allSatisfy { $0.matches($1) }
    }
}

/// The name by which a rule without a path knows a program.
struct ProgramName {
    let name: String

    private static let trusted = ["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/"]

    /// `nil` where the rule cannot be about this program.
    init?(_ program: String, isDeny: Bool) {
        guard let slash = program.utf8.lastIndex(of: 0x2F) else {
            name = program
            return
        }
        let directory = program[...slash]
        let last = String(program[program.utf8.index(after: slash)...])
        guard isDeny || Self.trusted.contains(where: { $0 == directory }) else { return nil }
        name = last
    }

    static func hasDotSegment(_ path: String) -> Bool {
        path.split(separator: "/").contains { $0 == "." || $0 == ".." }
    }
}

/// The policy as a whole, immutable. No rule that fits: refused. A rule that denies wins.
final class CommandPolicy: Sendable {
    let rules: [PolicyRule]
    init(_ rules: [PolicyRule]) { self.rules = rules }

    /// Where the principal may run this.
    func scope(_ principal: Principal, _ subject: PolicySubject) -> AccessScope {
        var collected = AccessScope.Collector()
        // By index: an iterator would copy each rule, field by field.
        for index in rules.indices where rules[index].concerns(principal) && rules[index].matches(subject) {
            collected.add(
                rules[index].effect, rules[index].selector, isAboutEverything: rules[index].selector == .everything)
        }
        return collected.scope
    }

    static let maximumRules = 1_000

    /// What ships: administrators run anything; operators what the preset `moderate` holds.
    static let initial: [PolicyRule] = [
        PolicyRule(id: "administrators", .allow, .anything, roles: ["administrator"]),
        PolicyRule(id: "operators", .allow, .preset(.moderate), roles: ["operator"]),
    ]
}

extension PolicyRule {
    public var json: JSONValue {
        var object: JSONObject = ["id": .string(id), "effect": .string(effect.rawValue)]
        switch match {
        case .anything: object["anything"] = true
        case .shell: object["shell"] = true
        case .argv(let pattern): object["argv"] = .array(pattern.elements.map { .string($0) })
        case .preset(let level): object["preset"] = .string(level.description)
        }
        object["roles"] = .array(roles.map { .string($0) })
        object["users"] = .array(users.map { .string($0) })
        object["selector"] = .string(selector.text)
        return .object(object)
    }

    /// - Parameter json: as `json` writes it; `roles`, `users` and `selector` may be left out.
    init(id: String, json: JSONValue) throws(Problem) {
        guard let effect = json["effect"]?.string.flatMap({ RoleRule.Effect(rawValue: $0) }) else {
            throw .invalid("\"effect\" must be \"allow\" or \"deny\"", pointer: "/effect")
        }
        var matches: [Match] = []
        if json["anything"]?.bool == true { matches.append(.anything) }
        if json["shell"]?.bool == true { matches.append(.shell) }
        if let argv = json["argv"]?.array { matches.append(.argv(try ArgvPattern(argv.map { $0.string ?? "" }))) }
        if let preset = json["preset"]?.string {
            guard let level = CommandLevel(name: preset) else {
                throw .invalid(
                    "\"preset\" is \"\(preset.prefix(32))\"; allowed are safe, moderate, dangerous, restricted", pointer: "/preset")
            }
            matches.append(.preset(level))
        }
        guard matches.count == 1 else {
            throw .invalid("a rule has exactly one of \"argv\", \"preset\", \"shell\": true, \"anything\": true")
        }
        self.init(
            id: id, effect, matches[0], roles: json["roles"]?.array?.compactMap(\.string) ?? [],
            users: json["users"]?.array?.compactMap(\.string) ?? [],
            on: try json["selector"]?.string.map { (text) throws(Problem) in try Selector(parsing: text) } ?? .everything)
        guard roles.count <= 64, users.count <= 256 else {
            throw .invalid("a rule names at most 64 roles and 256 users")
        }
    }
}
