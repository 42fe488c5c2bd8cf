import AgentProtocol

/// Answers selectors from the indexes: each condition becomes a bitmap of slots, and bitmaps are combined.
extension FleetTable {
    /// Values that one selection may hold against patterns and comparisons. Keeps a selector full of globs over a key
    /// with a value per client from holding the registry's lock for long.
    static let maximumWork = 2_000_000
    /// Groups inside groups.
    static let maximumGroupDepth = 8

    struct Work {
        var left = FleetTable.maximumWork
        var groups: [String] = []
    }

    /// - Throws: `group-unknown`, `group-cycle` (400), `selector-too-expensive` (422).
    func select(_ selector: Selector) throws(Problem) -> SlotSet {
        var work = Work()
        return try select(selector.root, &work)
    }

    private func select(_ node: Selector.Node, _ work: inout Work) throws(Problem) -> SlotSet {
        switch node {
        case .everything: return live
        case .client(let id): return SlotSet(slot(of: id).map { [$0] } ?? [])
        case .present(let key): return try search(key, &work) { _ in true }
        case .compares(let key, let comparison): return try search(key, &work) { comparison.holds(for: $0) }
        case .matches(let key, let patterns):
            var found = SlotSet()
            for pattern in patterns { try unite(&found, key, pattern, &work) }
            return found
        case .not(let node):
            var found = live
            found.subtract(try select(node, &work))
            return found
        case .all(let nodes):
            // All of them are evaluated even when nothing is left, so that an unknown group is always an error.
            var found = live
            for node in nodes { found.formIntersection(try select(node, &work)) }
            return found
        case .any(let nodes):
            var found = SlotSet()
            for node in nodes { found.formUnion(try select(node, &work)) }
            return found
        }
    }

    private func unite(
        _ found: inout SlotSet, _ key: Selector.Key, _ pattern: Pattern, _ work: inout Work
    ) throws(Problem) {
        switch key {
        case .state:
            for state in ClientState.allCases where pattern.matches(state.rawValue) {
                found.formUnion(slots(in: state))
            }
        case .group:
            found.formUnion(try members(ofGroup: pattern.text, &work))
        case .id where !pattern.isGlob:
            if let slot = ClientID(pattern.text).flatMap({ self.slot(of: $0) }) { found.insert(slot) }
        case .label, .fact, .name, .id:
            if !pattern.isGlob, let number = number(of: key) {
                terms.posting(number, pattern.text).formUnion(into: &found)
            } else {
                found.formUnion(try search(key, &work) { pattern.matches($0) })
            }
        }
    }

    /// The clients with a value of the key that passes the test.
    private func search(
        _ key: Selector.Key, _ work: inout Work, _ test: (String) -> Bool
    ) throws(Problem) -> SlotSet {
        var found = SlotSet()
        if case .id = key {
            try spend(count, &work)
            live.forEach { slot in
                if let row = rows[Int(slot)], test(row.id.description) { found.insert(slot) }
            }
        } else if let number = number(of: key) {
            try spend(terms.valueCount(number), &work)
            terms.formUnion(of: number, into: &found, where: test)
        }
        return found
    }

    /// The key's number, if any client has it.
    private func number(of key: Selector.Key) -> UInt32? {
        switch key {
        case .label(let key): terms.number(.label, key)
        case .fact(let path): terms.number(.fact, path)
        case .name: terms.number(.name, "")
        case .state, .group, .id: nil
        }
    }

    private func members(ofGroup name: String, _ work: inout Work) throws(Problem) -> SlotSet {
        guard let selector = groups[name] else { throw Self.unknownGroup(name) }
        guard !work.groups.contains(name), work.groups.count < Self.maximumGroupDepth else {
            throw Self.groupCycle(work.groups + [name])
        }
        work.groups.append(name)
        defer { work.groups.removeLast() }
        return try select(selector.root, &work)
    }

    static func unknownGroup(_ name: String) -> Problem {
        Problem(400, "group-unknown", "the selector names the group '\(name)', which does not exist")
    }

    static func groupCycle(_ path: [String]) -> Problem {
        Problem(
            400, "group-cycle",
            "a group refers to itself or lies more than \(maximumGroupDepth) groups deep: "
                + path.joined(separator: " → "))
    }

    private func spend(_ amount: Int, _ work: inout Work) throws(Problem) {
        work.left -= amount
        guard work.left >= 0 else {
            throw Problem(
                422, "selector-too-expensive",
                "the selector would compare more than \(Self.maximumWork) values; use fewer globs and comparisons, or labels")
        }
    }
}
