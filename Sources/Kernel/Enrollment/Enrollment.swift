import AgentProtocol
import Crypto
import JSON
import Reactor
import Synchronization

/// Who may connect: the registry's side of the handshake. Links ask it (`AgentAuthority`), operators decide through it.
///
/// Every yes is durable before it is said. A no to a stranger is audited once per address, code and minute.
public final class Enrollment: AgentAuthority {
    public let clients: Clients
    public let tokens: EnrollmentTokens
    let store: Store
    let clock: @Sendable () -> UInt64
    let waiting: Mutex<WaitingRoom>
    let refusals = Mutex(RefusalLimiter())
    let turnedAway = Mutex(TurnedAway())
    /// Whether the agent of an older link still proves its key on it, asked within about two seconds.
    let answers: @Sendable (AgentLink) async -> Bool

    /// - Parameters:
    ///   - fingerprint: of the core's identity key, for the text of new tokens.
    ///   - answers: sends a fresh signed challenge over the link; false when it is not answered in time.
    public static func load(
        clients: Clients, fingerprint: @escaping @Sendable () -> String,
        answers: @escaping @Sendable (AgentLink) async -> Bool
    ) async throws(Problem) -> Enrollment {
        let (pending, policy) = try await clients.store.read { (reader) throws(StoreError) in
            (try EnrollmentSchema.loadPending(reader), try EnrollmentPolicy.load(reader))
        }
        return Enrollment(clients, fingerprint, answers, WaitingRoom(pending: pending, policy: policy))
    }

    private init(
        _ clients: Clients, _ fingerprint: @escaping @Sendable () -> String,
        _ answers: @escaping @Sendable (AgentLink) async -> Bool, _ waiting: consuming WaitingRoom
    ) {
        self.answers = answers
        self.clients = clients
        store = clients.store
        clock = clients.clock
        tokens = EnrollmentTokens(store: clients.store, clock: clients.clock, fingerprint: fingerprint)
        self.waiting = Mutex(waiting)
    }

    // MARK: AgentAuthority

    public func linkUp(_ link: AgentLink) { clients.linkUp(link) }
    public func linkDown(_ link: AgentLink, _ end: LinkEnd) { clients.linkDown(link, end) }
    public func heartbeat(_ client: ClientID, _ beat: Beat) { clients.heartbeat(client, beat) }
    public func facts(_ client: ClientID, _ facts: JSONValue) { clients.facts(client, facts) }

    public func admit(_ hello: AgentHello) async -> Admission {
        do throws(Problem) {
            return try await decide(hello)
        } catch {
            // The store is busy, full or stopping: nothing was promised, the agent comes back.
            return .refused(code: "unavailable", message: error.detail)
        }
    }

    private func decide(_ hello: AgentHello) async throws(Problem) -> Admission {
        let key = SHA256.digest(hello.publicKey)
        let now = clock()
        let decision = clients.fleet.withLock { table in
            AdmissionDecision.of(
                key: key, claimed: hello.client, epoch: hello.epoch, bootID: hello.bootID, now: now, in: table)
        }
        switch decision {
        case .reconnect(let client, let olderLink):
            if olderLink, let link = clients.anyLink(of: client), await answers(link) {
                return try await hold(client, hello)
            }
            return try await reconnect(client, hello)
        case .clone(let client): return try await hold(client, hello)
        case .refused(let client, let refusal):
            return try await refuse(hello, refusal.code, refusal.message, client: client)
        case .rekey(let client): return try await rekey(client, hello, key)
        case .enroll:
            if let token = hello.enrollmentToken { return try await enroll(hello, key, token: token) }
            return try await wait(hello, key)
        }
    }

    /// The client's own key again: one small row.
    private func reconnect(_ client: ClientID, _ hello: AgentHello) async throws(Problem) -> Admission {
        let now = clock()
        let end = clients.unwritten.withLock { $0.ends.removeValue(forKey: client) }
        let kept = clients.options.sessionsPerClient
        let outcome: Clients.SessionStart
        do throws(Problem) {
            outcome = try await store.write(bytes: 256) { (transaction) throws(StoreError) in
                try Clients.beginSession(transaction, hello, client, after: end, now: now, keeping: kept)
            }
        } catch {
            if let end { clients.unwritten.withLock { if $0.ends[client] == nil { $0.ends[client] = end } } }
            throw error
        }
        switch outcome {
        case .begun: return admitted(client, hello, now: now)
        case .overtaken: return .refused(code: "fenced", message: "a newer link of this client was accepted")
        case .repeated: return try await hold(client, hello)
        case .forgotten: return .refused(code: "forgotten", message: "the client was forgotten meanwhile")
        }
    }

    /// After the commit that made the epoch durable.
    func admitted(_ client: ClientID, _ hello: AgentHello, now: UInt64) -> Admission {
        clients.noteAdmitted(client, hello, now: now)
        let options = clients.options
        return .accepted(
            AdmittedClient(
                client: client, epoch: hello.epoch, heartbeatSeconds: options.heartbeatSeconds,
                jitterPercent: options.heartbeatJitterPercent))
    }

    /// Says no, and writes it down unless the same was written for this address in this minute.
    func refuse(
        _ hello: AgentHello, _ code: String, _ message: String, client: ClientID? = nil
    ) async throws(Problem) -> Admission {
        let now = clock()
        if let leftOut = refusals.withLock({ $0.note(hello.address, code, now: now) }) {
            let record = AuditRecord(
                principal: Self.principal(hello), action: "client.connect", clients: client.map { [$0] } ?? [],
                outcome: .refused, reason: code,
                detail: ["message": .string(message), "like_it_left_out": .integer(Int64(leftOut))])
            try await store.write { (transaction) throws(StoreError) in try transaction.audit(record) }
        }
        return .refused(code: code, message: message)
    }

    /// The agent as an actor: by the key it has proved, not by the id it claims.
    static func principal(_ hello: AgentHello) -> Principal {
        Principal(
            kind: .agent, id: SHA256.digest(hello.publicKey).hex, address: hello.address,
            correlation: hello.correlation)
    }

    /// Starts the minute's look at who has waited too long; it ends with the loop.
    public func start(on loop: EventLoop) {
        loop.spawn { [self] in
            while true {
                await loop.sleep(milliseconds: 60_000)
                do throws(Problem) { try await lapse() } catch {
                    // The store is busy or full: the next minute looks again.
                }
            }
        }
    }

    /// Drops those that have waited too long.
    public func lapse() async throws(Problem) {
        let now = clock()
        let (old, waiters) = waiting.withLock { room in
            let old = room.pending.lapse(now: now)
            room.dropStrayHellos()
            return (old, old.compactMap { room.takeWaiter($0.id) })
        }
        for waiter in waiters { waiter.resume(returning: .lapsed) }
        let before = now - min(now, PendingEnrollments.milliseconds)
        try await store.write { (transaction) throws(StoreError) in
            try transaction.run("DELETE FROM enrollments WHERE coalesce(rejected_ms, asked_ms) < ?", before)
        }
        for entry in old {
            clients.publish(RegistryEvent("enrollment.lapsed", nil, ["enrollment": .string(entry.id.description)]))
        }
    }
}
