import CPluginABI
import Kernel

/// Whoever acts in the name of a principal: requests, WebSockets, job attempts.
protocol ActingResource: Sendable {
    var principal: Principal { get }
    /// The principal with the rights that he has now.
    func present(_ kernel: Kernel) throws(Problem) -> Principal
}

extension ActingResource {
    func present(_ kernel: Kernel) throws(Problem) -> Principal {
        let principal = principal
        guard kernel.security.isLive(principal) else {
            throw .forbidden("the session or token of \(principal.id) has ended")
        }
        return principal
    }
}

/// In whose name a plugin asks for something.
struct Actor: Sendable {
    let principal: Principal
    /// The plugin in its own name.
    let isPlugin: Bool

    /// The plugin wants something that is about the core as a whole.
    func require(_ right: Right, _ kernel: Kernel) throws(Problem) {
        guard kernel.security.grants(principal, right) else {
            throw .forbidden("this needs the right \"\(right)\", which \(principal.id) does not have")
        }
    }

    /// He has the right on this client; one that he may not even see is not found. As the API does it.
    func require(_ right: Right, on client: ClientID, _ kernel: Kernel) async throws(Problem) {
        if try has(right, on: client, kernel) { return }
        guard try has(.seeClients, on: client, kernel) else { throw .notFound("there is no client \(client)") }
        try await kernel.clients.recordRefusal(of: right, on: client, to: principal)
        throw .forbidden("no role of \(principal.id) grants \"\(right)\" on client \(client)")
    }

    private func has(_ right: Right, on client: ClientID, _ kernel: Kernel) throws(Problem) -> Bool {
        let scope = kernel.security.scope(of: principal, for: right)
        return try kernel.clients.permits(client, allowed: scope.allowed, denied: scope.denied)
    }
}

extension Right {
    /// The right of GET /api/v1/clients/{id}.
    static let seeClients: Right = "client.read"
}

extension Capability {
    /// What the plugin may do in its own name: its principal is an administrator whose scope is these rights and no others.
    var rights: [Right] {
        switch self {
        case .clientsRead: ["client.read"]
        case .clientsWrite: ["client.label"]
        case .commands: ["command.run", "command.shell", "command.read", "command.cancel", "output.read", "template.read", "template.run"]
        case .channels: ["terminal.open", "terminal.read"]
        case .files: ["file.read", "file.write", "transfer.create", "transfer.read", "transfer.cancel"]
        case .enrollment: ["enrollment-token.create", "enrollment-token.revoke"]
        case .privateFiles: ["private-file.write", "private-file.read"]
        case .jobs: ["job.create", "job.read", "job.cancel"]
        case .http, .events, .store, .auditWrite, .inline, .secrets, .auditRead, .outputFilter: []
        }
    }
}

extension PluginInstance {
    /// Who acts when the plugin does in its own name: "plugin:ID" in the audit trail. The command policy names it by that id
    /// where it is to be allowed less.
    func principal(correlation: String = "") -> Principal {
        Principal(
            kind: .system, id: "plugin:" + id, roles: ["administrator"],
            scopes: grants.sorted { $0.rawValue < $1.rawValue }.flatMap(\.rights), correlation: correlation)
    }

    /// The `actor` of a call.
    /// - Throws: 410 `plugin-handle` for a handle that stands for nobody now; 403 when his session has ended.
    func actor(_ handle: cm_handle) throws(Problem) -> Actor {
        guard handle != CM_NO_HANDLE else { return Actor(principal: principal(), isPlugin: true) }
        guard let acting = acting(handle) else {
            throw Problem(410, "plugin-handle", "`actor` is no live request, WebSocket or job attempt; CM_NO_HANDLE is the plugin itself")
        }
        let principal = try acting.present(environment.kernel)
        // A job that the plugin itself has asked for is nobody else.
        return Actor(principal: principal, isPlugin: principal.kind == .system)
    }
}
