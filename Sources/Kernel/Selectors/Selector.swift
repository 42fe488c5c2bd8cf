import AgentProtocol

/// A condition on clients: `env=prod,role in (db,cache),!canary`, `fact.cores>=4 or state=offline`, a bare client id,
/// `*`. An immutable value; parsing is bounded (`SelectorSyntax`).
///
/// Grammar, loosest binding first:
/// ```
/// selector    := conjunction { "or" conjunction }
/// conjunction := unary { ("," | "and") unary }
/// unary       := ("!" | "not") unary | "(" selector ")" | condition
/// condition   := "*" | "all" | client-id
///              | key                                        it is there
///              | key ("=" | "==" | "!=") value               globs: * and ?
///              | key ("<" | "<=" | ">" | ">=") value         numbers, sizes (8G), versions
///              | key ["not"] "in" "(" value { "," value } ")"
/// key         := label | "label." label | "fact." path | "state" | "group" | "name" | "id"
/// value       := bare word | "quoted text, taken literally"
/// ```
/// `!=` and `not in` also hold for clients that do not have the key at all. A fact that is a list holds for `=` when
/// one of its elements does.
public struct Selector: Sendable, Hashable, CustomStringConvertible {
    /// As it was written.
    public let text: String
    let root: Node

    /// - Throws: `selector-invalid` (400), which names the position and what would be right there.
    public init(parsing text: String) throws(Problem) {
        var parser = try SelectorParser(text)
        root = try parser.parse()
        self.text = text
    }

    private init(text: String, root: Node) {
        self.text = text
        self.root = root
    }

    /// Every client.
    public static let everything = Selector(text: "*", root: .everything)

    /// Exactly this client.
    public static func client(_ id: ClientID) -> Selector {
        Selector(text: id.description, root: .client(id))
    }

    public var description: String { text }

    /// The one client that the selector names, if it is a bare id.
    public var singleClient: ClientID? {
        if case .client(let id) = root { id } else { nil }
    }

    /// Names of the groups that it refers to itself (not those inside these groups).
    public var groups: Set<String> {
        var names: Set<String> = []
        root.collectGroups(into: &names)
        return names
    }

    public static func == (a: Selector, b: Selector) -> Bool { a.root == b.root }
    public func hash(into hasher: inout Hasher) { hasher.combine(root) }

    /// What a selector asks of a client: one of these per kind of key.
    enum Key: Sendable, Hashable {
        case label(String)
        /// Path inside the reported facts, joined by dots, as in `os.name`.
        case fact(String)
        case name
        case state
        case group
        case id
    }

    indirect enum Node: Sendable, Hashable {
        case everything
        case client(ClientID)
        case present(Key)
        /// One of the patterns matches one of the key's values.
        case matches(Key, [Pattern])
        case compares(Key, Comparison)
        case not(Node)
        /// All of them; never empty.
        case all([Node])
        /// At least one of them; never empty.
        case any([Node])

        func collectGroups(into names: inout Set<String>) {
            switch self {
            case .matches(.group, let patterns):
                for pattern in patterns { names.insert(pattern.text) }
            case .not(let node): node.collectGroups(into: &names)
            case .all(let nodes), .any(let nodes):
                for node in nodes { node.collectGroups(into: &names) }
            case .everything, .client, .present, .matches, .compares: break
            }
        }
    }
}

/// One client as a selector looks at it.
public protocol SelectorView {
    var id: ClientID { get }
    var state: ClientState { get }
    /// The display name; empty if it has none.
    var name: String { get }
    func label(_ key: String) -> String?
    /// Values of a fact by its path; more than one for a list, none if it was not reported.
    func facts(_ path: String) -> [String]
    func isMember(ofGroup name: String) -> Bool
}

extension Selector {
    /// Whether the client meets the condition. Work is bounded by the selector's terms times the client's values.
    public func matches(_ view: some SelectorView) -> Bool { Self.matches(root, view) }

    private static func matches(_ node: Node, _ view: some SelectorView) -> Bool {
        switch node {
        case .everything: true
        case .client(let id): view.id == id
        case .present(let key): has(key, view) { _ in true }
        case .matches(.group, let patterns): patterns.contains { view.isMember(ofGroup: $0.text) }
        case .matches(let key, let patterns): has(key, view) { value in patterns.contains { $0.matches(value) } }
        case .compares(let key, let comparison): has(key, view) { comparison.holds(for: $0) }
        case .not(let node): !matches(node, view)
        case .all(let nodes): nodes.allSatisfy { matches($0, view) }
        case .any(let nodes): nodes.contains { matches($0, view) }
        }
    }

    private static func has(_ key: Key, _ view: some SelectorView, _ test: (String) -> Bool) -> Bool {
        switch key {
        case .label(let key): view.label(key).map(test) ?? false
        case .fact(let path): view.facts(path).contains(where: test)
        case .name: !view.name.isEmpty && test(view.name)
        case .state: test(view.state.rawValue)
        case .id: test(view.id.description)
        case .group: false
        }
    }
}
