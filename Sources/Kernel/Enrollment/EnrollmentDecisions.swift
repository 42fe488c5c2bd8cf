import AgentProtocol
import Crypto
import JSON

/// What operators decide about machines that wait.
extension Enrollment {
    /// Oldest first.
    public func pending() -> [PendingEnrollment] {
        waiting.withLock { room in room.pending.entries.values.sorted { $0.id < $1.id } }
    }

    public func pending(_ id: EnrollmentID) -> PendingEnrollment? {
        waiting.withLock { $0.pending.entries[id] }
    }

    /// Makes the machine a client; its waiting link is accepted.
    /// - Throws: 404; `invalid`; 409 `registry-full` or `key-known`.
    public func approve(
        _ id: EnrollmentID, name: String = "", labels: [String: String] = [:], by principal: Principal
    ) async throws(Problem) -> ClientID {
        try ClientEdit(name: name, labels: labels.mapValues { $0 }).check()
        guard let entry = pending(id) else { throw Self.unknown(id) }
        guard clients.count < clients.options.maximumClients else {
            throw .conflict("registry-full", "the registry has its \(clients.options.maximumClients) clients already")
        }
        let now = clock()
        let client = newClientID(now: now)
        let hello = AgentHello(waiting: entry, correlation: principal.correlation)
        try await store.write(bytes: 1_024) { (transaction) throws(StoreError) in
            guard try transaction.exists("SELECT 1 FROM enrollments WHERE id = ? AND rejected_ms IS NULL", id) else {
                throw .refused(Self.unknown(id))
            }
            if let known = try Self.client(transaction, key: entry.key) {
                throw .refused(.conflict("key-known", "the key belongs to client \(known) already"))
            }
            try Self.insert(
                transaction, client, hello, entry.key, labels: labels, name: name, by: principal.id, now: now)
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "enrollment.approve", clients: [client], target: id.description,
                    detail: ["fingerprint": .string(entry.fingerprint)]))
        }
        takeIn(client, hello, entry.key, labels: labels, name: name, now: now)
        waiting.withLock { $0.takeWaiter(id) }?.resume(returning: .approved)
        clients.publish(RegistryEvent("enrollment.approved", client, ["enrollment": .string(id.description)]))
        return client
    }

    /// Closes the waiting link; the key is told so for a day.
    public func reject(_ id: EnrollmentID, reason: String, by principal: Principal) async throws(Problem) {
        guard let entry = pending(id) else { throw Self.unknown(id) }
        let now = clock()
        try await store.write(bytes: 512) { (transaction) throws(StoreError) in
            guard
                try transaction.run(
                    "UPDATE enrollments SET rejected_ms = ?, rejected_reason = ? WHERE id = ? AND rejected_ms IS NULL",
                    now, reason, id) > 0
            else { throw .refused(Self.unknown(id)) }
            try transaction.run(
                """
                DELETE FROM enrollments WHERE id IN
                    (SELECT id FROM enrollments WHERE rejected_ms IS NOT NULL ORDER BY rejected_ms DESC LIMIT -1 OFFSET ?)
                """, PendingEnrollments.maximumRejected)
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "enrollment.reject", target: id.description, reason: reason,
                    detail: ["fingerprint": .string(entry.fingerprint)]))
        }
        let waiter = waiting.withLock { room in
            room.pending.remove(id)
            room.pending.noteRejected(entry.key, at: now)
            _ = room.takeHello(id)
            return room.takeWaiter(id)
        }
        waiter?.resume(returning: .rejected(reason))
        clients.publish(RegistryEvent("enrollment.rejected", nil, ["enrollment": .string(id.description)]))
    }

    // MARK: The waiting link

    public func verdict(enrollment: String) async -> Admission? {
        guard let id = EnrollmentID(enrollment) else { return nil }
        let ticket = waiting.withLock { $0.newTicket() }
        let verdict = await withTaskCancellationHandler {
            await withUnsafeContinuation { (waiter: PendingWaiter) in
                let isCancelled = Task.isCancelled
                let (old, decided) = waiting.withLock { room -> (PendingWaiter?, PendingVerdict?) in
                    if isCancelled { return (nil, .lapsed) }
                    if room.pending.entries[id] != nil { return (room.wait(id, ticket, waiter), nil) }
                    // Decided between the answer to the hello and now.
                    guard let hello = room.hello(id) else { return (nil, .lapsed) }
                    let isRejected = room.pending.offer(SHA256.digest(hello.publicKey), from: hello.address) == .rejected
                    return (nil, isRejected ? .rejected("") : .approved)
                }
                old?.resume(returning: .lapsed)
                if let decided { waiter.resume(returning: decided) }
            }
        } onCancel: {
            waiting.withLock { $0.takeWaiter(id, ticket) }?.resume(returning: .lapsed)
        }
        switch verdict {
        case .lapsed: return nil
        case .rejected(let reason):
            return .refused(
                code: "enrollment-rejected",
                message: reason.isEmpty ? "an operator rejected this machine" : "an operator rejected this machine: \(reason)")
        case .approved:
            guard let hello = waiting.withLock({ $0.takeHello(id) }) else { return nil }
            let admission = await admit(hello)
            if case .pending = admission { return nil }
            return admission
        }
    }

    // MARK: Policy

    public var policy: EnrollmentPolicy { waiting.withLock { $0.policy } }

    /// Switches auto-approval. Machines that wait already go on waiting for an operator.
    public func setPolicy(_ policy: EnrollmentPolicy, by principal: Principal) async throws(Problem) {
        try ClientEdit.check(labels: policy.labels.mapValues { $0 })
        let now = clock()
        try await store.write(bytes: 512) { (transaction) throws(StoreError) in
            try transaction.run(
                "INSERT OR REPLACE INTO enrollment_policy VALUES (1, ?, ?, ?, ?)", policy.autoApprove,
                EnrollmentSchema.text(policy.labels), now, principal.id)
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "enrollment-policy.update",
                    detail: ["auto_approve": .bool(policy.autoApprove)]))
        }
        waiting.withLock { $0.policy = policy }
    }

    private static func unknown(_ id: EnrollmentID) -> Problem { .notFound("no enrollment \(id) waits for approval") }
}

extension AgentHello {
    /// As much as the waiting room knows, to make a client of it.
    fileprivate init(waiting entry: PendingEnrollment, correlation: String) {
        self.init(
            publicKey: entry.publicKey, client: nil, enrollmentToken: nil, bootID: entry.bootID, epoch: 0,
            agentVersion: entry.agentVersion, hostname: entry.hostname, succession: nil, address: entry.address,
            correlation: correlation)
    }
}
