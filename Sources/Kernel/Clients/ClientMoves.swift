import AgentProtocol
import Transport

/// Where agents are to go. Checked when it is made.
public struct ClientMove: Sendable {
    public let servers: String
    /// Of the core there; `nil`: this core under other addresses.
    public let fingerprint: String?
    public let token: String
    public let withinSeconds: UInt64

    /// Throws `invalid` with the field that is wrong.
    public init(servers: String, fingerprint: String? = nil, token: String? = nil, withinSeconds: Int = 600) throws(Problem) {
        guard servers.utf8.count <= MoveStatement.serversBytes else {
            throw .invalid("the list has \(servers.utf8.count) bytes, at most \(MoveStatement.serversBytes) are allowed", pointer: "/servers")
        }
        do throws(TransportError) { _ = try ServerList(servers) } catch { throw .invalid("\(error)", pointer: "/servers") }
        guard MoveStatement.within.contains(withinSeconds) else {
            throw .invalid("\"within_s\" is \(withinSeconds) and must be from \(MoveStatement.within.lowerBound) to \(MoveStatement.within.upperBound)", pointer: "/within_s")
        }
        var fingerprint = fingerprint
        if let fingerprint {
            guard fingerprint.utf8.count == 64, fingerprint.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
            else { throw .invalid("a fingerprint has 64 hexadecimal digits in lower case", pointer: "/fingerprint") }
        }
        if let token {
            guard let parsed = EnrollmentToken(token) else {
                throw .invalid("the enrollment token has not the form cmt1.SECRET.FINGERPRINT", pointer: "/enrollment_token")
            }
            guard fingerprint == nil || fingerprint == parsed.fingerprint else {
                throw .invalid("the token was made by another core than the one with this fingerprint", pointer: "/fingerprint")
            }
            fingerprint = parsed.fingerprint
        }
        self.servers = servers
        self.fingerprint = fingerprint
        self.token = token ?? ""
        self.withinSeconds = UInt64(withinSeconds)
    }
}

extension Clients {
    /// How long an agent may wait for what runs on it before it leaves for another core.
    static let moveValidSeconds: UInt64 = 3_600

    /// Sends those that are connected to other servers, by a statement of their own that the identity key signs. Each
    /// part of 64 is recorded before it is sent. An agent that the core there does not accept in time comes back.
    /// - Returns: how many were told, and those that were not connected: do it again when they are.
    public func move(
        _ ids: [ClientID], to move: ClientMove, signedBy identity: IdentityService, by principal: Principal,
        selector: String
    ) async throws(Problem) -> (told: Int, absent: [ClientID]) {
        let own = identity.fingerprint
        guard move.token.isEmpty || move.fingerprint != own else {
            throw .invalid("this token is one of this core's own: agents that stay with this core need none", pointer: "/enrollment_token")
        }
        let fingerprint = move.fingerprint ?? own
        var told = 0
        var absent: [ClientID] = []
        var rest = ids[...]
        while !rest.isEmpty {
            let part = rest.prefix(64)
            rest = rest.dropFirst(64)
            let links = part.compactMap { id in anyLink(of: id).map { (id, $0) } }
            absent += part.filter { id in !links.contains { $0.0 == id } }
            guard !links.isEmpty else { continue }
            let record = AuditRecord(
                principal: principal, action: "client.move", clients: links.map(\.0), target: selector,
                detail: [
                    "servers": .string(move.servers), "fingerprint": .string(fingerprint),
                    "within_s": .integer(Int64(move.withinSeconds)),
                ])
            try await store.write(bytes: 4_096) { (transaction) throws(StoreError) in _ = try transaction.audit(record) }
            for (id, link) in links {
                link.move(
                    try MoveStatement(
                        client: id, servers: move.servers, fingerprint: fingerprint, token: move.token,
                        validUntil: clock() / 1_000 + Self.moveValidSeconds, withinSeconds: move.withinSeconds
                    ) { (text) throws(Problem) in try identity.sign(text) })
            }
            told += links.count
        }
        return (told, absent)
    }
}
