import AgentProtocol
import Crypto
import JSON

/// First contacts and changes of keys.
extension Enrollment {
    private enum TokenOutcome: Sendable {
        case enrolled(ClientID, labels: [String: String])
        /// The key belongs to a client since a moment: the same token gives the same answer.
        case known(ClientID)
        case rekeyed(ClientID, Clients.Stored)
        case refused(code: String, message: String)
    }

    /// A token's use and what it brings about are one transaction.
    /// - Parameter client: the id that the machine claims although its key is another.
    func enroll(
        _ hello: AgentHello, _ key: SHA256.Digest, token text: String, claimed: ClientID? = nil
    ) async throws(Problem) -> Admission {
        guard let hash = EnrollmentToken(text)?.secretHash else {
            return try await refuse(hello, "token-invalid", "an enrollment token has the form cmt1.SECRET.FINGERPRINT")
        }
        guard clients.count < clients.options.maximumClients else { return try await refuseFull(hello) }
        let now = clock()
        let id = newClientID(now: now)
        let kept = clients.options.sessionsPerClient
        let outcome = try await store.write(bytes: 1_024) { (transaction) throws(StoreError) -> TokenOutcome in
            let found = try EnrollmentTokens.find(transaction, hash: hash)
            if let claimed, found?.client != claimed {
                return .refused(
                    code: "key-mismatch",
                    message: "the key is not the one of client \(claimed), and the token was not made for that client")
            }
            guard let token = found else {
                return .refused(code: "token-invalid", message: "the core does not know this enrollment token")
            }
            if let known = try Self.client(transaction, key: key) {
                // A claimed id that is not the key's own was refused before the commit.
                return .known(known)
            }
            switch token.state(now: now) {
            case .active: break
            case .expired: return .refused(code: "token-expired", message: "the enrollment token has expired")
            case .revoked: return .refused(code: "token-revoked", message: "the enrollment token was revoked")
            case .usedUp:
                return .refused(code: "token-used-up", message: "the enrollment token has no use left")
            }
            try transaction.run("UPDATE enrollment_tokens SET used = used + 1 WHERE id = ?", token.id)
            let principal = Self.principal(hello)
            if let client = token.client {
                guard let stored = try Self.changeKey(transaction, client, hello, key, now: now, keeping: kept) else {
                    throw .refused(Problem(403, "revoked", "the client is revoked or forgotten"))
                }
                try transaction.audit(
                    AuditRecord(
                        principal: principal, action: "client.rekey", clients: [client], target: token.id.description,
                        detail: ["by": "token"]))
                return .rekeyed(client, stored)
            }
            try Self.insert(transaction, id, hello, key, labels: token.labels, by: "token \(token.id)", now: now)
            _ = try Clients.beginSession(transaction, hello, id, after: nil, now: now, keeping: kept)
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "client.enroll", clients: [id], target: token.id.description,
                    detail: ["by": "token", "hostname": .string(hello.hostname)]))
            return .enrolled(id, labels: token.labels)
        }
        switch outcome {
        case .refused(let code, let message): return try await refuse(hello, code, message, client: claimed)
        case .known(let client): return try await admitKnown(client, hello)
        case .rekeyed(let client, let stored):
            takeOverKey(stored, of: client)
            return admitted(client, hello, now: now)
        case .enrolled(let client, let labels):
            takeIn(client, hello, key, labels: labels, name: "", now: now)
            return admitted(client, hello, now: now)
        }
    }

    /// A new key under the id of a known client: its old key must say so, or a token that was made for it.
    func rekey(
        _ client: ClientID, _ hello: AgentHello, _ key: SHA256.Digest
    ) async throws(Problem) -> Admission {
        if let statement = hello.succession, let succession = try? SuccessionStatement(text: statement) {
            let old = try await store.read { (reader) throws(StoreError) in
                try reader.first("SELECT public_key FROM clients WHERE id = ?", client) { $0.bytes(0) }
            }
            if let old, succession.isValid(client: client, registeredKey: old, presentedKey: hello.publicKey) {
                return try await succeed(client, hello, key, from: SHA256.digest(old))
            }
        }
        if let token = hello.enrollmentToken {
            return try await enroll(hello, key, token: token, claimed: client)
        }
        return try await refuse(
            hello, "key-mismatch", "the key is not the one of client \(client)", client: client)
    }

    private func succeed(
        _ client: ClientID, _ hello: AgentHello, _ key: SHA256.Digest, from old: SHA256.Digest
    ) async throws(Problem) -> Admission {
        let now = clock()
        let kept = clients.options.sessionsPerClient
        let outcome = try await store.write(bytes: 1_024) { (transaction) throws(StoreError) -> Clients.Stored? in
            // Held back or revoked: whoever has the old key must not get out of it by making a new one.
            guard let stored = try Clients.stored(transaction, client), stored.key == old, !stored.isHeldBack,
                stored.revokedAt == nil
            else { return nil }
            let after = try Self.changeKey(transaction, client, hello, key, now: now, keeping: kept)
            try transaction.audit(
                AuditRecord(
                    principal: Self.principal(hello), action: "client.rekey", clients: [client],
                    detail: ["by": "succession", "old": .string(old.hex)]))
            return after
        }
        guard let outcome else {
            return try await refuse(
                hello, "key-mismatch", "client \(client) cannot take a new key now", client: client)
        }
        takeOverKey(outcome, of: client)
        return admitted(client, hello, now: now)
    }

    /// No token: auto-approval if an operator switched it on, else the waiting room.
    func wait(_ hello: AgentHello, _ key: SHA256.Digest) async throws(Problem) -> Admission {
        let now = clock()
        let entry = PendingEnrollment(
            id: EnrollmentID(milliseconds: now, random: (Random.uint64(), Random.uint64())), key: key,
            publicKey: hello.publicKey, address: hello.address, hostname: hello.hostname,
            agentVersion: hello.agentVersion, bootID: hello.bootID, askedAt: now)
        let (policy, offer) = waiting.withLock { room in
            let offer = room.pending.offer(key, from: hello.address)
            guard !room.policy.autoApprove || offer == .rejected else { return (room.policy, offer) }
            switch offer {
            case .free:
                room.pending.add(entry)
                room.note(hello, for: entry.id)
            case .waiting(let id): room.note(hello, for: id)
            case .rejected, .full, .addressFull: break
            }
            return (room.policy, offer)
        }
        if policy.autoApprove, offer != .rejected { return try await approveBySelf(hello, key, policy) }
        switch offer {
        case .waiting(let id): return .pending(enrollment: id.description, fingerprint: key.hex)
        case .rejected:
            return try await refuse(hello, "enrollment-rejected", "an operator rejected this machine")
        case .full:
            return try await refuse(
                hello, "pending-full", "\(PendingEnrollments.maximum) machines wait for approval already")
        case .addressFull:
            return try await refuse(
                hello, "pending-too-many-from-address",
                "\(PendingEnrollments.maximumPerAddress) machines of this address wait for approval already")
        case .free: break
        }
        do throws(Problem) {
            try await store.write(bytes: 512) { (transaction) throws(StoreError) in
                try transaction.run(
                    "INSERT OR REPLACE INTO enrollments VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)", entry.id, key.bytes,
                    entry.publicKey, entry.address, entry.hostname, entry.agentVersion, entry.bootID, now)
                try transaction.audit(
                    AuditRecord(
                        principal: Self.principal(hello), action: "enrollment.ask", target: entry.id.description,
                        detail: ["hostname": .string(hello.hostname)]))
            }
        } catch {
            waiting.withLock { room in
                room.pending.remove(entry.id)
                _ = room.takeHello(entry.id)
            }
            throw error
        }
        clients.publish(
            RegistryEvent(
                "enrollment.pending", nil,
                [
                    "enrollment": .string(entry.id.description), "fingerprint": .string(key.hex),
                    "hostname": .string(hello.hostname), "address": .string(hello.address),
                ]))
        return .pending(enrollment: entry.id.description, fingerprint: key.hex)
    }

    private func approveBySelf(
        _ hello: AgentHello, _ key: SHA256.Digest, _ policy: EnrollmentPolicy
    ) async throws(Problem) -> Admission {
        guard clients.count < clients.options.maximumClients else { return try await refuseFull(hello) }
        let now = clock()
        let id = newClientID(now: now)
        let kept = clients.options.sessionsPerClient
        let known = try await store.write(bytes: 1_024) { (transaction) throws(StoreError) -> ClientID? in
            if let known = try Self.client(transaction, key: key) { return known }
            try Self.insert(transaction, id, hello, key, labels: policy.labels, by: "auto-approve", now: now)
            _ = try Clients.beginSession(transaction, hello, id, after: nil, now: now, keeping: kept)
            try transaction.audit(
                AuditRecord(
                    principal: Self.principal(hello), action: "client.enroll", clients: [id],
                    detail: ["by": "auto-approve", "hostname": .string(hello.hostname)]))
            return nil
        }
        if let known { return try await admitKnown(known, hello) }
        takeIn(id, hello, key, labels: policy.labels, name: "", now: now)
        return admitted(id, hello, now: now)
    }

    /// A key that became a client between the first look and the commit.
    private func admitKnown(_ client: ClientID, _ hello: AgentHello) async throws(Problem) -> Admission {
        guard let row = clients.fleet.withLock({ $0.row(of: client) }) else {
            return .refused(code: "unavailable", message: "the client is being enrolled by another link: try again")
        }
        if row.state == .revoked {
            return try await refuse(hello, "revoked", "the client is revoked", client: client)
        }
        return .refused(code: "unavailable", message: "the client was enrolled by another link: try again")
    }

    private func refuseFull(_ hello: AgentHello) async throws(Problem) -> Admission {
        try await refuse(
            hello, "registry-full", "the registry has its \(clients.options.maximumClients) clients already")
    }

    // MARK: Rows

    func newClientID(now: UInt64) -> ClientID {
        ClientID(milliseconds: now, random: (Random.uint64(), Random.uint64()))
    }

    static func client(
        _ transaction: borrowing Transaction, key: SHA256.Digest
    ) throws(StoreError) -> ClientID? {
        try transaction.first("SELECT id FROM clients WHERE fingerprint = ?", key.bytes) { (row) throws(StoreError) in
            row.identifier(0, ClientKind.self)
        } ?? nil
    }

    static func insert(
        _ transaction: borrowing Transaction, _ id: ClientID, _ hello: AgentHello, _ key: SHA256.Digest,
        labels: [String: String], name: String = "", by: String, now: UInt64
    ) throws(StoreError) {
        try transaction.run(
            "INSERT INTO clients VALUES (?, ?, ?, ?, '', '{}', ?, ?, NULL, NULL, NULL, '', 1)", id, hello.publicKey,
            key.bytes, name, now, by)
        _ = try Clients.change(transaction, id, [:], labels.mapValues { $0 })
        try transaction.run("DELETE FROM enrollments WHERE fingerprint = ?", key.bytes)
    }

    /// Gives the client a new key and lifts what was held against the old one. The old key is unknown from then on.
    /// - Returns: `nil` if the client is revoked or forgotten.
    private static func changeKey(
        _ transaction: borrowing Transaction, _ client: ClientID, _ hello: AgentHello, _ key: SHA256.Digest, now: UInt64,
        keeping kept: Int
    ) throws(StoreError) -> Clients.Stored? {
        guard var stored = try Clients.stored(transaction, client), stored.revokedAt == nil else { return nil }
        stored.revision += 1
        stored.key = key
        stored.isHeldBack = false
        stored.excludedBoots = []
        try transaction.run(
            """
            UPDATE clients SET public_key = ?, fingerprint = ?, contenders = NULL, excluded_boots = '', revision = ?
            WHERE id = ?
            """, hello.publicKey, key.bytes, stored.revision, client)
        try transaction.run("DELETE FROM enrollments WHERE fingerprint = ?", key.bytes)
        _ = try Clients.beginSession(
            transaction, hello, client, after: nil, now: now, keeping: kept, withNewKey: true)
        return stored
    }

    // MARK: Memory

    /// After the commit: the client is in the registry, its key no longer waits.
    func takeIn(
        _ id: ClientID, _ hello: AgentHello, _ key: SHA256.Digest, labels: [String: String], name: String, now: UInt64
    ) {
        clients.fleet.withLock { table in
            guard table.slot(of: id) == nil else { return }
            let slot = table.insert(
                FleetTable.Row(
                    id: id, key: key, state: .offline, stateSince: now, enrolledAt: now, lastSeen: now, revision: 1,
                    epoch: 0, address: hello.address, agentVersion: hello.agentVersion))
            table.setName(name, of: slot)
            table.setLabels(labels, of: slot)
        }
        waiting.withLock { _ = $0.pending.remove(key: key) }
        clients.publish(
            RegistryEvent(
                "client.enrolled", id, ["hostname": .string(hello.hostname), "address": .string(hello.address)]))
    }

    /// After the commit: a link that proved the old key has no right any more.
    private func takeOverKey(_ stored: Clients.Stored, of client: ClientID) {
        clients.resetEpoch(of: client)
        let link = clients.takeOver(stored, of: client)
        waiting.withLock { _ = $0.pending.remove(key: stored.key) }
        link?.close(LinkEnd(code: "fenced", detail: "the client has a new key"))
        clients.publish(RegistryEvent("client.rekeyed", client, ["fingerprint": .string(stored.key.hex)]))
    }
}
