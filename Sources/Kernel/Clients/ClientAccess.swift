import AgentProtocol

/// One row of the table as a selector looks at it.
///
/// Made by `FleetTable.matches` only, after all groups of the selector were found to exist and to form no circle.
private struct FleetView: SelectorView {
    let table: FleetTable
    let row: FleetTable.Row
    var id: ClientID { row.id }
    var state: ClientState { row.state }
    var name: String { table.name(of: row) }
    func label(_ key: String) -> String? { table.label(key, of: row) }
    func facts(_ path: String) -> [String] { table.facts(path, of: row) }
    func isMember(ofGroup name: String) -> Bool { table.groups[name].map { $0.matches(self) } ?? false }
}

extension FleetTable {
    func label(_ key: String, of row: Row) -> String? {
        guard let number = terms.number(.label, key) else { return nil }
        return row.labels.first { terms.isOf($0, number) }.map { terms.value(of: $0) }
    }

    func facts(_ path: String, of row: Row) -> [String] {
        guard let number = terms.number(.fact, path) else { return [] }
        return row.facts.filter { terms.isOf($0, number) }.map { terms.value(of: $0) }
    }

    /// Looks at one client, without the indexes: for checks of single clients on the way of a command.
    /// - Throws: `group-unknown`, `group-cycle`: a rule that names a lost group must not silently allow or deny.
    func matches(_ selector: Selector, _ row: Row) throws(Problem) -> Bool {
        if selector == .everything { return true }
        var path: [String] = []
        try checkGroups(of: selector, &path)
        return selector.matches(FleetView(table: self, row: row))
    }

    private func checkGroups(of selector: Selector, _ path: inout [String]) throws(Problem) {
        for name in selector.groups {
            guard let group = groups[name] else { throw Self.unknownGroup(name) }
            guard !path.contains(name), path.count < Self.maximumGroupDepth else { throw Self.groupCycle(path + [name]) }
            path.append(name)
            try checkGroups(of: group, &path)
            path.removeLast()
        }
    }

    func permits(_ row: Row, allowed: [Selector], denied: [Selector]) throws(Problem) -> Bool {
        var isAllowed = false
        for selector in allowed where !isAllowed { isAllowed = try matches(selector, row) }
        guard isAllowed else { return false }
        for selector in denied where try matches(selector, row) { return false }
        return true
    }
}

extension Clients {
    /// Writes down that somebody who signed in was refused an act on a client.
    public func recordRefusal(of right: Right, on id: ClientID, to principal: Principal) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            _ = try transaction.audit(
                AuditRecord(
                    principal: principal, action: right.rawValue, clients: [id], outcome: .refused,
                    reason: "no role grants the right on this client"))
        }
    }

    /// Whether the client meets one of `allowed` and none of `denied`; false for a client that does not exist.
    /// - Throws: as `select`.
    public func permits(_ id: ClientID, allowed: [Selector], denied: [Selector]) throws(Problem) -> Bool {
        try fleet.withLock { (table) throws(Problem) in
            guard let row = table.row(of: id) else { return false }
            return try table.permits(row, allowed: allowed, denied: denied)
        }
    }

    /// Sorts a list of ids into those that exist and are allowed, those that are not allowed and those that do not
    /// exist, each in the order given.
    public func narrow(
        _ ids: [ClientID], allowed: [Selector], denied: [Selector]
    ) throws(Problem) -> (permitted: [ClientID], refused: [ClientID], unknown: [ClientID]) {
        try fleet.withLock { (table) throws(Problem) in
            // Many at once are looked up in the indexes' answer, few are looked at one by one.
            let set = ids.count > 64 ? try table.select(.everything, allowed: allowed, denied: denied) : nil
            var sorted: (permitted: [ClientID], refused: [ClientID], unknown: [ClientID]) = ([], [], [])
            for id in ids {
                guard let slot = table.slot(of: id), let row = table.row(slot) else {
                    sorted.unknown.append(id)
                    continue
                }
                let isPermitted =
                    if let set { set.contains(slot) } else {
                        try table.permits(row, allowed: allowed, denied: denied)
                    }
                if isPermitted { sorted.permitted.append(id) } else { sorted.refused.append(id) }
            }
            return sorted
        }
    }
}
