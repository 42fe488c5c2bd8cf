import Kernel
import Web

/// Commands as requests may see them: a principal sees a command when he may see at least one of its clients, and of
/// its targets only those.
struct CommandAccess: Sendable {
    let commands: Commands
    let clients: Clients
    let scope: ClientScope

    private func isEverything(_ scope: (allowed: [Selector], denied: [Selector])) -> Bool {
        AccessScope(allowed: scope.allowed, denied: scope.denied).isEverything
    }

    /// Whether the principal has the right on each of these clients. Clients that were forgotten are seen only by those
    /// who see all.
    func permitted(
        _ named: @autoclosure () -> [ClientID], _ right: Right, _ principal: Principal
    ) throws(Problem) -> (ClientID) -> Bool {
        let scope = scope(principal, right)
        if isEverything(scope) { return { _ in true } }
        let ids = named()
        if ids.count == 1 {
            let isAllowed = try clients.permits(ids[0], allowed: scope.allowed, denied: scope.denied)
            return { _ in isAllowed }
        }
        let allowed = Set(try clients.narrow(ids, allowed: scope.allowed, denied: scope.denied).permitted)
        return { allowed.contains($0) }
    }

    private func mayBeSeen(_ detail: CommandDetail, _ right: Right, _ principal: Principal) async throws(Problem) -> Bool {
        if isEverything(scope(principal, right)) { return true }
        let views = try await commands.targets(detail, from: 0, limit: Commands.pageTargets, withOutput: false)
        let permitted = try permitted(views.map(\.client), right, principal)
        return views.contains { permitted($0.client) }
    }

    /// The command of the path, if the principal has the right on any of its clients; else it is not found.
    func detail(_ request: Request, _ right: Right) async throws(Problem) -> CommandDetail {
        guard let id = CommandID(request["id"]) else {
            throw .invalid("'\(request["id"].prefix(64))' is no command id (26 characters, the first 0 to 7)")
        }
        let detail = try await commands.get(id)
        guard try await mayBeSeen(detail, right, request.principal) else { throw Problem(404, "command-unknown", "there is no command \(id)") }
        return detail
    }

    /// The target of the path, if the principal has the right on its client.
    func target(_ request: Request, _ right: Right) async throws(Problem) -> (CommandID, ClientID) {
        guard let id = CommandID(request["id"]), let client = ClientID(request["client"]) else {
            throw .invalid("the path needs the ids of a command and of a client, 26 characters each")
        }
        guard try permitted([client], right, request.principal)(client) else {
            if try permitted([client], .readClients, request.principal)(client) {
                try await clients.recordRefusal(of: right, on: client, to: request.principal)
                throw .forbidden("no role of \(request.principal.id) grants \"\(right)\" on client \(client)")
            }
            throw Problem(404, "target-unknown", "command \(id) was not for client \(client)")
        }
        return (id, client)
    }

    /// The wanted clients of a command (all without a list) on which the principal has the right; `nil`: all.
    func narrowed(
        _ detail: CommandDetail, _ wanted: [ClientID]?, _ right: Right, _ principal: Principal
    ) async throws(Problem) -> [ClientID]? {
        if isEverything(scope(principal, right)) { return wanted }
        var ids = wanted ?? []
        if wanted == nil {
            var from = 0
            while from < detail.summary.targetCount {
                let page = try await commands.targets(detail, from: from, limit: Commands.pageTargets, withOutput: false)
                guard !page.isEmpty else { break }
                ids += page.map(\.client)
                from += page.count
            }
        }
        let permitted = try permitted(ids, right, principal)
        return ids.filter(permitted)
    }

    func visible(_ items: [CommandSummary], _ principal: Principal) async throws(Problem) -> [CommandSummary] {
        if isEverything(scope(principal, .readCommands)) { return items }
        var visible: [CommandSummary] = []
        for item in items where try await mayBeSeen(try await commands.get(item.id), .readCommands, principal) {
            visible.append(item)
        }
        return visible
    }

    /// The answer to a submit: output only of clients whose output the principal may read.
    func response(_ answer: CommandAnswer, _ request: Request) throws(Problem) -> Response {
        let permitted = try permitted(answer.targets.map(\.client), .readOutput, request.principal)
        let bytes = CommandWriting.answer(answer, showsOutput: permitted)
        var response = Response.json(bytes: bytes, status: answer.isNew ? 201 : 200)
        let id = answer.id.text
        response.headers.add("location", "/api/v1/commands/", plain: id.span)
        return response
    }
}
