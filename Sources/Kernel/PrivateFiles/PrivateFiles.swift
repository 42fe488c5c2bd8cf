import AgentProtocol
import JSON
import Synchronization

/// Small files of secret content on clients, in their memory. Functions may be called on any loop.
///
/// The core keeps nothing of them: who places a file keeps its content, places it again when a client is back, and asks
/// what is there (`list`) for proof. A change is recorded in the audit trail before it is sent: client, name, owner and
/// keeper; never content, size or hash.
public final class PrivateFiles: Sendable {
    /// Contents that are on their way, of all clients together.
    static let mostBytes = 64 << 20
    static let most = 16_384

    private struct UnderWay {
        var count = 0
        var bytes = 0
    }

    private let store: Store
    private let clients: Clients
    private let security: Security
    private let underWay = Mutex(UnderWay())

    init(store: Store, clients: Clients, security: Security) {
        self.store = store
        self.clients = clients
        self.security = security
    }

    /// Places a file, or replaces the one with its name as a whole. Returns when it stands on the client: the state is
    /// the proof.
    /// - Throws: 400 `invalid`, 403, 404, 409 `client-offline` and `private-files-unsupported`, 409 with the client's own
    ///   code, 413, 503 `client-busy` and `private-files-busy`, 504 `private-file-timeout`.
    public func put(
        _ order: PrivateFileOrder, content: [UInt8], on client: ClientID, _ principal: Principal
    ) async throws(Problem) -> (file: PrivateFileState, isChanged: Bool) {
        if let fault = order.fault { throw .invalid(fault) }
        guard content.count <= PrivateFileLimits.contentBytes else {
            throw Problem(
                413, "too-large",
                "the content has \(content.count) bytes; at most \(PrivateFileLimits.contentBytes) are allowed")
        }
        var detail: JSONObject = ["keeper": .string(order.keeper), "mode": .string("0" + String(order.mode, radix: 8))]
        if let owner = order.owner { detail["owner"] = .string(owner) }
        if let milliseconds = order.lifetimeMilliseconds { detail["lifetime_ms"] = .integer(Int64(clamping: milliseconds)) }
        if let hook = order.hook.first { detail["hook"] = .string(hook) }
        let (files, isChanged) = try await change(
            .put(order, content: content), bytes: content.count, name: order.name, "private-file.put", detail, client,
            principal)
        guard let file = files.first, file.name == order.name else {
            throw Problem(
                502, "private-file-answer",
                "client \(client) did not say what became of \(order.name); its agent is broken, or lies: reinstall it, or revoke the client")
        }
        return (file, isChanged)
    }

    /// Removes a file of this keeper; also when there is none. Returns whether there was one.
    /// - Throws: as `put`.
    public func remove(
        _ name: String, keeper: String, on client: ClientID, _ principal: Principal
    ) async throws(Problem) -> Bool {
        if let fault = PrivateFileOrder.fault(inName: name) { throw .invalid(fault) }
        return try await change(
            .remove(name: name, keeper: keeper), bytes: 0, name: name, "private-file.remove",
            ["keeper": .string(keeper)], client, principal
        ).isChanged
    }

    /// What this keeper has placed on the client and is there now, with the hash of each.
    /// - Throws: as `put`.
    public func list(keeper: String, on client: ClientID, _ principal: Principal) async throws(Problem) -> [PrivateFileState] {
        try await authorize(.privateFileRead, client, "private-file.list", nil, principal)
        return try await ask(.list(keeper: keeper), bytes: 0, client).files
    }

    // MARK: The way

    private func change(
        _ request: PrivateFileRequest, bytes: Int, name: String, _ action: String, _ detail: JSONObject,
        _ client: ClientID, _ principal: Principal
    ) async throws(Problem) -> (files: [PrivateFileState], isChanged: Bool) {
        try await authorize(.privateFileWrite, client, action, name, principal)
        _ = try link(of: client)
        let audit = AuditRecord(
            principal: principal, action: action, clients: [client], target: name, detail: .object(detail))
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(audit) }
        return try await ask(request, bytes: bytes, client)
    }

    private func ask(
        _ request: PrivateFileRequest, bytes: Int, _ client: ClientID
    ) async throws(Problem) -> (files: [PrivateFileState], isChanged: Bool) {
        let link = try link(of: client)
        let isTaken = underWay.withLock { underWay in
            guard underWay.count < Self.most, underWay.bytes + bytes <= Self.mostBytes else { return false }
            underWay.count += 1
            underWay.bytes += bytes
            return true
        }
        guard isTaken else {
            throw Problem(503, "private-files-busy", "too many private files are on their way to clients", retryAfter: 1)
        }
        let result = await withCheckedContinuation { (continuation: CheckedContinuation<Result<PrivateFileAnswer, Problem>, Never>) in
            link.ask(request) { continuation.resume(returning: $0) }
        }
        underWay.withLock { underWay in
            underWay.count -= 1
            underWay.bytes -= bytes
        }
        switch try result.get() {
        case .done(let files, let isChanged): return (files, isChanged)
        case .refused(let code, let message): throw .conflict(code, "client \(client): \(message)")
        }
    }

    private func link(of client: ClientID) throws(Problem) -> AgentLink {
        guard let link = clients.link(of: client) else {
            throw .conflict("client-offline", "client \(client) is not connected")
        }
        guard link.hasPrivateFiles else {
            throw .conflict(
                "private-files-unsupported", "the agent of client \(client) keeps no private files; install a newer one")
        }
        return link
    }

    private func authorize(
        _ right: Right, _ client: ClientID, _ action: String, _ name: String?, _ principal: Principal
    ) async throws(Problem) {
        guard clients.state(of: client) != nil else { throw .notFound("there is no client \(client)") }
        let scope = security.scope(of: principal, for: right)
        guard try !clients.permits(client, allowed: scope.allowed, denied: scope.denied) else { return }
        let problem = Problem.forbidden("\(principal.id) has no right \"\(right)\" on client \(client)")
        let audit = AuditRecord(
            principal: principal, action: action, clients: [client], target: name, outcome: .refused,
            reason: problem.detail)
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(audit) }
        throw problem
    }
}

extension Right {
    static let privateFileWrite: Right = "private-file.write"
    static let privateFileRead: Right = "private-file.read"
}
