import AgentProtocol

/// Who may run what where: roles, policy and the stop switch by security, the fleet by the registry.
///
/// A selector means the clients of it on which the principal may run this; named clients are all or nothing.
struct CommandAdmission: CommandAuthority {
    let clients: Clients
    let security: Security

    func admit(_ proposal: CommandProposal, _ principal: Principal) async throws(Problem) -> [ClientID] {
        let scope = try security.commandScope(principal, PolicySubject(proposal.invocation))
        let admitted: [ClientID]
        switch proposal.selection {
        case .selector(let text):
            // Clients out of service are not meant by a selector; named by id they are refused by name.
            admitted = try clients.select(Selector(parsing: text), allowed: scope.allowed, denied: scope.denied)
                .filter { outOfService($0) == nil }
        case .clients(let named):
            for id in named {
                guard let state = clients.state(of: id) else { throw .notFound("there is no client \(id)") }
                try require(id, within: scope, principal)
                if state == .revoked { throw .conflict("client-revoked", "client \(id) is out of service") }
            }
            admitted = named
        }
        for id in admitted { try security.spend(client: id) }
        return admitted
    }

    private func require(_ id: ClientID, within scope: AccessScope, _ principal: Principal) throws(Problem) {
        guard !scope.isEverything else { return }
        for selector in scope.denied where try clients.matches(selector, id) {
            throw .forbidden("\(principal.id) may not run this on client \(id)")
        }
        for selector in scope.allowed where try clients.matches(selector, id) { return }
        throw .forbidden("\(principal.id) may not run this on client \(id)")
    }

    func outOfService(_ client: ClientID) -> String? {
        guard let state = clients.state(of: client) else { return "client-forgotten" }
        return state == .revoked ? "client-revoked" : nil
    }
}
