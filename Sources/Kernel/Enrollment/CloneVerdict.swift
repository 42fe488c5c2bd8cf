import AgentProtocol
import Crypto
import JSON

/// Two machines with one key: both are held back from work, and named, until an operator decides.
extension Enrollment {
    /// How an operator ends it.
    public enum Resolution: String, Sendable, CaseIterable {
        /// One of the machines is the client, the others are ruled out.
        case replace
        /// The same, and a token for one of the others to become a client of its own.
        case split
        /// Nobody with the old key is trusted: a token gives the machine that uses it a new key and the id.
        case rekey
    }

    /// Writes the verdict down, closes the present link and refuses the newcomer.
    func hold(_ client: ClientID, _ hello: AgentHello) async throws(Problem) -> Admission {
        let now = clock()
        let present = clients.fleet.withLock { $0.row(of: client)?.link } != nil
        let stored = try await store.write(bytes: 2_048) { (transaction) throws(StoreError) -> Clients.Stored? in
            guard var stored = try Clients.stored(transaction, client), !stored.isHeldBack else { return nil }
            stored.revision += 1
            stored.isHeldBack = true
            let known = try transaction.first(
                "SELECT epoch, address, boot_id, agent_version, connected_ms FROM client_links WHERE client = ?", client
            ) { (row) throws(StoreError) -> JSONValue in
                [
                    "role": present ? "connected" : "last-known", "epoch": .integer(row.integer(0)),
                    "address": .string(row.text(1)), "boot_id": .string(row.text(2)),
                    "agent_version": .string(row.text(3)), "seen_ms": .integer(row.integer(4)),
                ]
            }
            let newcomer: JSONValue = [
                "role": "newcomer", "epoch": .integer(Int64(clamping: hello.epoch)),
                "address": .string(hello.address), "boot_id": .string(hello.bootID),
                "agent_version": .string(hello.agentVersion), "hostname": .string(hello.hostname),
                "seen_ms": .integer(Int64(clamping: now)),
            ]
            let contenders = JSONValue.array((known.map { [$0] } ?? []) + [newcomer])
            try transaction.run(
                "UPDATE clients SET contenders = ?, revision = ? WHERE id = ?",
                String(decoding: contenders.serialized(), as: UTF8.self), stored.revision, client)
            try transaction.audit(
                AuditRecord(
                    principal: Self.principal(hello), action: "client.hold", clients: [client], outcome: .refused,
                    reason: Clients.heldBack.code, detail: ["contenders": contenders]))
            return stored
        }
        if let stored {
            let link = clients.takeOver(stored, of: client)
            link?.close(Clients.heldBack)
            clients.publish(RegistryEvent("client.held-back", client, ["address": .string(hello.address)]))
        }
        return .refused(code: Clients.heldBack.code, message: Clients.heldBack.detail)
    }

    /// Ends a clone verdict.
    /// - Parameter boot: which machine keeps the id, by its boot id among the contenders; not for `.rekey`.
    /// - Returns: the text of a token for `.rekey` (bound to the client) and `.split` (makes a new client).
    /// - Throws: 404; 409 `not-held-back`; `invalid` if the boot id does not tell the machines apart.
    public func resolve(
        _ client: ClientID, _ resolution: Resolution, keeping boot: String?, by principal: Principal
    ) async throws(Problem) -> String? {
        guard let known = clients.get(client) else { throw Clients.unknown(client) }
        guard known.isHeldBack else { throw .conflict("not-held-back", "client \(client) is not held back") }
        let lifetime = 86_400
        if resolution == .rekey {
            return try await tokens.create(
                description: "re-key of \(client)", lifetime: lifetime, uses: 1, client: client, by: principal
            ).text
        }
        guard let boot else {
            throw .invalid(
                "'\(resolution.rawValue)' needs the boot id of the machine that keeps the id", pointer: "/boot_id")
        }
        let stored = try await store.write(bytes: 1_024) { (transaction) throws(StoreError) in
            try Self.keep(transaction, client, boot, resolution, by: principal)
        }
        clients.resetEpoch(of: client)
        clients.takeOver(stored, of: client)
        clients.publish(RegistryEvent("client.resolved", client, ["resolution": .string(resolution.rawValue)]))
        guard resolution == .split else { return nil }
        return try await tokens.create(
            description: "split from \(client)", labels: stored.labels, lifetime: lifetime, uses: 1, by: principal
        ).text
    }

    private static func keep(
        _ transaction: borrowing Transaction, _ client: ClientID, _ boot: String, _ resolution: Resolution,
        by principal: Principal
    ) throws(StoreError) -> Clients.Stored {
        guard var stored = try Clients.stored(transaction, client) else { throw .refused(Clients.unknown(client)) }
        let text = try transaction.first("SELECT contenders FROM clients WHERE id = ?", client) {
            (row) throws(StoreError) in row.optionalText(0)
        } ?? nil
        guard let text, let contenders = (try? JSONValue(parsing: text))?.array else {
            throw .refused(.conflict("not-held-back", "client \(client) is not held back"))
        }
        let boots = Set(contenders.compactMap { $0["boot_id"]?.string })
        guard boots.contains(boot), boots.count > 1 else {
            throw .refused(
                .invalid(
                    boots.count < 2
                        ? "both machines report the boot id \(boots.first ?? ""): use 'rekey'"
                        : "the boot id '\(boot)' is none of \(boots.sorted().joined(separator: ", "))",
                    pointer: "/boot_id"))
        }
        stored.revision += 1
        stored.isHeldBack = false
        stored.excludedBoots = boots.subtracting([boot]).sorted()
        try transaction.run(
            "UPDATE clients SET contenders = NULL, excluded_boots = ?, revision = ? WHERE id = ?",
            ClientsSchema.text(ofBoots: stored.excludedBoots), stored.revision, client)
        // The machine that stays may be the restored one, with the lower epoch.
        try transaction.run("UPDATE client_links SET epoch = 0 WHERE client = ?", client)
        try transaction.audit(
            AuditRecord(
                principal: principal, action: "client.resolve", clients: [client],
                detail: ["resolution": .string(resolution.rawValue), "kept_boot_id": .string(boot)]))
        return stored
    }
}
