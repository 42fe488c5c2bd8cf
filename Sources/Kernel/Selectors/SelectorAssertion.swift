extension Selector {
    /// The first thing that it asks besides what operators assert, as it is written (`fact.os`, `state`, `name`, `group`); `nil`: it
    /// asks for labels and ids alone.
    ///
    /// Facts are what a machine says about itself, state is what it does, names may come from it, and a group's selector may ask
    /// for all of that: none of them may decide who gets a secret.
    public var firstUnasserted: String? { Self.firstUnasserted(root) }

    private static func firstUnasserted(_ node: Node) -> String? {
        switch node {
        case .everything, .client: return nil
        case .present(let key), .matches(let key, _), .compares(let key, _):
            return switch key {
            case .label, .id: nil
            case .fact(let path): "fact." + path
            case .name: "name"
            case .state: "state"
            case .group: "group"
            }
        case .not(let node): return firstUnasserted(node)
        case .all(let nodes), .any(let nodes):
            for node in nodes { if let found = firstUnasserted(node) { return found } }
            return nil
        }
    }
}
