/// What of the fleet a principal may touch with one right: the clients that match one of `allowed` and none of `denied`.
public struct AccessScope: Sendable, Equatable {
    public var allowed: [Selector]
    public var denied: [Selector]

    public static let nothing = AccessScope(allowed: [], denied: [])
    public static let everything = AccessScope(allowed: [.everything], denied: [])

    public init(allowed: [Selector], denied: [Selector]) {
        self.allowed = allowed.contains(.everything) ? [.everything] : allowed
        self.denied = denied
        if denied.contains(.everything) {
            self.allowed = []
            self.denied = []
        }
    }

    public var isNothing: Bool { allowed.isEmpty }
    /// No client needs to be looked at.
    public var isEverything: Bool { denied.isEmpty && allowed.count == 1 && allowed[0] == .everything }

    public func allows(_ view: some SelectorView) -> Bool {
        allowed.contains { $0.matches(view) } && !denied.contains { $0.matches(view) }
    }

    /// Puts a scope together from rules; the common case, a rule over everything and none that denies, allocates nothing.
    struct Collector {
        private var allowed: [Selector] = []
        private var denied: [Selector] = []
        private var allowsEverything = false
        private var deniesEverything = false

        mutating func add(_ effect: RoleRule.Effect, _ selector: Selector, isAboutEverything: Bool) {
            switch (effect, isAboutEverything) {
            case (.allow, true): allowsEverything = true
            case (.deny, true): deniesEverything = true
            case (.allow, false): if !allowed.contains(selector) { allowed.append(selector) }
            case (.deny, false): if !denied.contains(selector) { denied.append(selector) }
            }
        }

        var scope: AccessScope {
            if deniesEverything { return .nothing }
            if allowsEverything, denied.isEmpty { return .everything }
            return AccessScope(allowed: allowsEverything ? [.everything] : allowed, denied: denied)
        }
    }

    /// Clients that both scopes allow.
    public func intersected(with other: AccessScope) throws(Problem) -> AccessScope {
        if other.isEverything { return self }
        if isEverything { return other }
        if other.allowed == [.everything] { return AccessScope(allowed: allowed, denied: denied + other.denied) }
        if allowed == [.everything] { return AccessScope(allowed: other.allowed, denied: denied + other.denied) }
        guard allowed.count * other.allowed.count <= 256 else {
            throw Problem(500, "scope-too-wide", "too many role and policy rules meet in one request; write fewer of them")
        }
        var both: [Selector] = []
        for mine in allowed {
            for theirs in other.allowed {
                both.append(mine == theirs ? mine : try Selector(parsing: "(\(mine.text)),(\(theirs.text))"))
            }
        }
        return AccessScope(allowed: both, denied: denied + other.denied)
    }
}

/// All roles of the core, immutable: a change makes a new table.
final class RoleTable: Sendable {
    let roles: [String: Role]
    /// The rules alone. They are walked over by index: an iterator would copy each, field by field.
    private let rules: [String: [RoleRule]]
    /// Roles that allow everything and deny nothing; few, and what most principals of programs have.
    private let unrestricted: [String]

    init(_ own: some Sequence<Role>) {
        var roles = Dictionary(uniqueKeysWithValues: Role.builtIn.map { ($0.name, $0) })
        for role in own where roles[role.name] == nil { roles[role.name] = role }
        self.roles = roles
        rules = roles.mapValues(\.rules)
        unrestricted = roles.values.filter(\.isUnrestricted).map(\.name)
    }

    /// Answered without a look at rules.
    private func isUnrestricted(_ principal: Principal) -> Bool {
        principal.scopes == nil && principal.roles.count == 1 && unrestricted.contains(principal.roles[0])
    }

    /// Whether any role gives the right at all. For a right over clients: on some client.
    func grants(_ principal: Principal, _ right: Right) -> Bool {
        if isUnrestricted(principal) { return true }
        guard Self.isInScope(principal, right) else { return false }
        var isAllowed = false
        for name in principal.roles {
            guard let rules = rules[name] else { continue }
            for index in rules.indices where rules[index].matches(right) {
                switch rules[index].effect {
                case .deny: if rules[index].isAboutEverything { return false }
                case .allow: if rules[index].isAboutEverything || right.isAboutClients { isAllowed = true }
                }
            }
        }
        return isAllowed
    }

    func scope(_ principal: Principal, _ right: Right) -> AccessScope {
        if isUnrestricted(principal) { return .everything }
        guard Self.isInScope(principal, right) else { return .nothing }
        var collected = AccessScope.Collector()
        for name in principal.roles {
            guard let rules = rules[name] else { continue }
            for index in rules.indices where rules[index].matches(right) {
                collected.add(rules[index].effect, rules[index].selector, isAboutEverything: rules[index].isAboutEverything)
            }
        }
        return collected.scope
    }

    func allows(_ principal: Principal, _ right: Right, on view: some SelectorView) -> Bool {
        guard Self.isInScope(principal, right) else { return false }
        var isAllowed = false
        for name in principal.roles {
            for rule in roles[name]?.rules ?? [] where rule.matches(right) && rule.selector.matches(view) {
                if rule.effect == .deny { return false }
                isAllowed = true
            }
        }
        return isAllowed
    }

    /// A token may be narrower than its roles. Scopes are written like actions.
    private static func isInScope(_ principal: Principal, _ right: Right) -> Bool {
        guard let scopes = principal.scopes else { return true }
        return scopes.contains { scope in
            let text = scope.rawValue
            if text == right.rawValue || text == "*" { return true }
            return text.hasSuffix(".*") && right.rawValue.hasPrefix(text.dropLast())
        }
    }
}
