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
    public var isEverything: Bool { denied.isEmpty && allowed == [.everything] }

    public func allows(_ view: some SelectorView) -> Bool {
        allowed.contains { $0.matches(view) } && !denied.contains { $0.matches(view) }
    }

    /// Clients that both scopes allow.
    public func intersected(with other: AccessScope) throws(Problem) -> AccessScope {
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

    init(_ own: some Sequence<Role>) {
        var roles = Dictionary(uniqueKeysWithValues: Role.builtIn.map { ($0.name, $0) })
        for role in own where roles[role.name] == nil { roles[role.name] = role }
        self.roles = roles
    }

    /// Whether any role gives the right at all. For a right over clients: on some client.
    func grants(_ principal: Principal, _ right: Right) -> Bool {
        guard Self.isInScope(principal, right) else { return false }
        var isAllowed = false
        for name in principal.roles {
            guard let role = roles[name] else { continue }
            for rule in role.rules where rule.matches(right) {
                switch rule.effect {
                case .deny: if rule.isAboutEverything { return false }
                case .allow: if right.isAboutClients || rule.isAboutEverything { isAllowed = true }
                }
            }
        }
        return isAllowed
    }

    func scope(_ principal: Principal, _ right: Right) -> AccessScope {
        guard Self.isInScope(principal, right) else { return .nothing }
        var allowed: [Selector] = []
        var denied: [Selector] = []
        for name in principal.roles {
            for rule in roles[name]?.rules ?? [] where rule.matches(right) {
                if rule.effect == .allow {
                    if !allowed.contains(rule.selector) { allowed.append(rule.selector) }
                } else if !denied.contains(rule.selector) {
                    denied.append(rule.selector)
                }
            }
        }
        return AccessScope(allowed: allowed, denied: denied)
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
