import JSON
import PluginKit
import Synchronization

/// All installations: records in the store, secrets in memory, runs on workers. Any thread.
final class Installations: Sendable {
    static let kindName = "ssh-installer.run"
    static let maximumRecords = 10_000

    private struct State: Sendable {
        /// Ids of all records, the oldest first.
        var ids: [String] = []
        /// By installation; there for as long as its job is.
        var secrets: [String: Secrets] = [:]
        /// By "host:port": nobody works twice on one host at the same time.
        var busy: [String: String] = [:]
        /// By installation.
        var running: [String: Running] = [:]
    }

    private struct Running: Sendable {
        let attempt: UInt64
        let watch: Watch
        let rollbackWatch: Watch
    }

    let settings: Settings
    let keys: HostKeys
    private let store: Store
    private let jobs: Jobs
    private let events: Events
    private let audit: Audit
    private let crypto: Crypto
    private let executor: Executor
    private let world: Surroundings
    private let workers: Workers
    private let log: Log
    private let state = Mutex(State())
    /// An upgrade or a switch-off: what is cut off now needs its credentials again.
    private let isLeaving = Atomic(false)

    init(_ host: Host, _ settings: Settings) throws(PluginError) {
        self.settings = settings
        store = try host.store()
        keys = HostKeys(store: store)
        jobs = try host.jobs()
        events = try host.events()
        audit = try host.audit()
        crypto = try host.crypto()
        executor = try host.executor()
        log = host.log
        world = Surroundings(
            enrollment: try host.enrollment(), clients: try host.clients(), executor: executor, settings: settings, keys: keys)
        workers = Workers(limit: settings.parallel)
        try offer()
    }

    private func offer() throws(PluginError) {
        var kind = JobKind(Self.kindName, summary: "Installs, upgrades, repairs or removes the agent on one host over SSH.", .idempotent)
        kind.concurrency = settings.parallel
        kind.timeoutSeconds = 1_800
        // What failed is tried again by an operator, who knows why: each attempt reaches into a foreign machine.
        kind.retry = (attempts: 1, firstSeconds: 1, longestSeconds: 1)
        kind.arguments = [
            "type": "object", "required": ["installation"], "additionalProperties": false,
            "properties": ["installation": ["type": "string", "maxLength": 64]],
        ]
        try jobs.kind(kind, cancel: { [self] in cancel(attempt: $0) }, run: { [self] in begin($0) })
    }

    // MARK: Records

    private static func key(_ id: String) -> String { "installation/" + id }

    /// In `start`: what earlier processes and versions have left.
    func restore() throws(PluginError) {
        var ids: [String] = []
        var after = ""
        while true {
            let page = try store.list(prefix: "installation/", after: after)
            ids += page.items.map { String($0.dropFirst("installation/".count)) }
            guard let next = page.next else { break }
            after = next
        }
        state.withLock { $0.ids = ids }
        // Written, but its job never was: the process ended in between.
        for id in ids.suffix(1_000) {
            guard var record = try get(id), record.state == .waiting, record.job.isEmpty else { continue }
            try change(&record, .foundNoCredentials)
        }
    }

    func get(_ id: String) throws(PluginError) -> Installation? {
        try store.get(Self.key(id)).flatMap { Installation(stored: $0) }
    }

    /// Newest first, at most `limit`, older than `before`.
    func list(before: String?, limit: Int) throws(PluginError) -> (items: [Installation], next: String?) {
        let ids = state.withLock { state in
            Array(state.ids.reversed().drop { id in before.map { id >= $0 } ?? false }.prefix(limit + 1))
        }
        var items: [Installation] = []
        for id in ids.prefix(limit) { if let record = try get(id) { items.append(try settled(record)) } }
        return (items, ids.count > limit ? ids[limit - 1] : nil)
    }

    /// A job that ended without us (cancelled before it began, say) takes its installation with it.
    func settled(_ record: Installation) throws(PluginError) -> Installation {
        guard !record.state.isOver, record.state != .needsCredentials, !record.job.isEmpty,
            state.withLock({ $0.running[record.id] == nil }), let job = try? jobs.get(record.job)
        else { return record }
        var record = record
        switch job["state"]?.string {
        case "cancelled":
            let isWaiting = record.state == .waiting
            if isWaiting { try end(&record, .cancelled, Failure.cancelled) }
        case "dead":
            try end(&record, .failed, Failure(job["code"]?.string ?? "job-ended", job["reason"]?.string ?? "its job has ended"))
        default: break
        }
        return record
    }

    private func save(_ record: Installation) throws(PluginError) {
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.put(Self.key(record.id), record.stored)
        }
        _ = try? events.publish(
            "installations.changed", client: record.client ?? "", subject: record.id,
            ["state": .string(record.state.rawValue), "host": .string(record.plan.destination.host), "step": .string(record.step)])
    }

    private func change(_ record: inout Installation, _ event: InstallationState.Event) throws(PluginError) {
        guard let next = record.state.after(event) else {
            throw PluginError(
                .state, "the installation is \(record.state.rawValue): this is not possible now", code: "installation-state", httpStatus: 409)
        }
        record.state = next
        try save(record)
    }

    private func end(_ record: inout Installation, _ event: InstallationState.Event, _ failure: Failure?) throws(PluginError) {
        record.code = failure?.code
        record.reason = failure?.text
        record.endedAt = executor.now
        release(record)
        try change(&record, event)
    }

    /// Its secrets are gone, and its host is free.
    private func release(_ record: Installation) {
        state.withLock { state in
            state.secrets[record.id]?.wipe()
            state.secrets[record.id] = nil
            if state.busy[record.plan.destination.name] == record.id { state.busy[record.plan.destination.name] = nil }
        }
    }

    // MARK: What operators ask for

    /// Rises with time, so that ids sort by age: 10 characters of milliseconds, 16 random ones (Crockford's base 32).
    private func newID() throws(PluginError) -> String {
        let digits = Array("0123456789ABCDEFGHJKMNPQRSTVWXYZ".utf8)
        var time = executor.now
        var text: [UInt8] = []
        for _ in 0..<10 {
            text.append(digits[Int(time & 31)])
            time >>= 5
        }
        text.reverse()
        text += try crypto.random(16).map { digits[Int($0 & 31)] }
        return String(decoding: text, as: UTF8.self)
    }

    /// Accepts one installation in the name of `request`'s principal: its record and its job are durable when this returns.
    func create(_ plan: Plan, _ secrets: Secrets, for request: Request) throws(PluginError) -> Installation {
        var record = Installation(id: try newID(), plan: plan, owner: request.actor, now: executor.now)
        try makeRoom()
        try occupy(record, secrets)
        do throws(PluginError) {
            try save(record)
            state.withLock { $0.ids.append(record.id) }
            try submit(&record, request)
        } catch {
            release(record)
            try? forget([record.id])
            throw error
        }
        return record
    }

    /// Once more, with credentials: after a restart that took them, or after a failure.
    func goOn(_ id: String, _ secrets: Secrets, for request: Request) throws(PluginError) -> Installation {
        var record = try known(id)
        guard record.state.after(.accepted) == .waiting, record.state != .waiting else {
            throw PluginError(
                .state, "the installation is \(record.state.rawValue): credentials are taken when it needs them, and after a failure",
                code: "installation-state", httpStatus: 409)
        }
        try occupy(record, secrets)
        do throws(PluginError) {
            (record.code, record.reason, record.endedAt, record.job) = (nil, nil, nil, "")
            record.owner = request.actor
            try change(&record, .accepted)
            try submit(&record, request)
        } catch {
            try? end(&record, .failed, Failure(error.code.isEmpty ? "core" : error.code, error.text))
            throw error
        }
        return record
    }

    private func submit(_ record: inout Installation, _ request: Request) throws(PluginError) {
        record.job = try jobs.submit(
            ["kind": .string(Self.kindName), "arguments": ["installation": .string(record.id)]], as: .request(request))
        // The job may have begun on its own thread's turn only after this one: nobody else has changed the record.
        try save(record)
    }

    private func occupy(_ record: Installation, _ secrets: Secrets) throws(PluginError) {
        let name = record.plan.destination.name
        let holder = state.withLock { state -> String? in
            if let holder = state.busy[name] { return holder }
            state.busy[name] = record.id
            state.secrets[record.id] = secrets
            return nil
        }
        guard let holder else { return }
        throw PluginError(.exists, "installation \(holder) is at work on \(name) already", code: "host-busy", httpStatus: 409)
    }

    func cancel(_ id: String, for request: Request) throws(PluginError) -> Installation {
        var record = try settled(try known(id))
        guard !record.state.isOver else { return record }
        if record.state != .needsCredentials, !record.job.isEmpty { try jobs.cancel(record.job, as: .request(request)) }
        if record.state == .needsCredentials || (record.state == .waiting && state.withLock { $0.running[id] == nil }) {
            try end(&record, .cancelled, .cancelled)
        }
        return record
    }

    /// Removes the record of one that is over.
    func remove(_ id: String) throws(PluginError) {
        let record = try settled(try known(id))
        guard record.state.isOver || record.state == .needsCredentials else {
            throw PluginError(.state, "the installation is \(record.state.rawValue): cancel it first", code: "installation-state", httpStatus: 409)
        }
        try forget([id])
    }

    func known(_ id: String) throws(PluginError) -> Installation {
        guard id.utf8.count == 26, let record = try get(id) else {
            throw PluginError(.notFound, "there is no installation \"\(id.prefixed(64))\"", code: "not-found", httpStatus: 404)
        }
        return record
    }

    private func forget(_ ids: [String]) throws(PluginError) {
        try store.transaction { (transaction) throws(PluginError) in
            for id in ids { try transaction.remove(Self.key(id)) }
        }
        let gone = Set(ids)
        state.withLock { $0.ids.removeAll { gone.contains($0) } }
    }

    /// The oldest that is over makes room for a new one.
    private func makeRoom() throws(PluginError) {
        let ids = state.withLock { $0.ids }
        guard ids.count >= Self.maximumRecords else { return }
        for id in ids.prefix(256) {
            guard let record = try get(id), !record.state.isOver else { continue }
            return try forget([id])
        }
        throw PluginError(
            .unavailable, "there are \(Self.maximumRecords) installations, and the oldest are not over: end or remove some",
            code: "installations-full", httpStatus: 507)
    }

    /// Regularly: what is over for longer than it is kept.
    func sweep() {
        let limit = executor.now - min(executor.now, settings.retentionDays * 86_400_000)
        var old: [String] = []
        for id in state.withLock({ $0.ids.prefix(500) }) {
            guard let record = try? get(id), record.createdAt < limit else { break }
            if record.state.isOver || record.state == .needsCredentials { old.append(id) }
        }
        guard !old.isEmpty else { return }
        do throws(PluginError) { try forget(old) } catch { log.warning("installations.sweep-failed", ["reason": .string(error.text)]) }
    }

    // MARK: Runs

    /// On the plugin's own thread, as the core calls it; returns soon.
    private func begin(_ attempt: JobAttempt) {
        do throws(PluginError) {
            guard let id = attempt.arguments["installation"]?.string, var record = try get(id) else {
                attempt.die("not-found", "the installation has been removed")
                return
            }
            guard let secrets = state.withLock({ $0.secrets[id] }) else { return try withoutSecrets(attempt, &record) }
            record.job = attempt.id
            record.startedAt = executor.now
            try change(&record, .begun)
            let running = Running(attempt: attempt.handle, watch: Watch(), rollbackWatch: Watch())
            state.withLock { $0.running[id] = running }
            let started = workers.start { [self, record] in work(attempt, record, secrets, running) }
            guard !started else { return }
            state.withLock { $0.running[id] = nil }
            try end(&record, .failed, Failure("busy", "no thread is free, or the plugin stops"))
            attempt.die("busy", "no thread is free, or the plugin stops")
        } catch {
            attempt.fail("core", error.text)
        }
    }

    private func withoutSecrets(_ attempt: JobAttempt, _ record: inout Installation) throws(PluginError) {
        if let token = record.token {
            try? world.enrollment.revokeToken(token, as: .job(attempt))
            record.token = nil
        }
        let reason = "a restart took the credentials, which are nowhere but in memory: give them again (POST /api/v1/installations/\(record.id)/credentials)"
        if record.state.after(.foundNoCredentials) != nil {
            (record.code, record.reason) = ("credentials-needed", reason)
            try change(&record, .foundNoCredentials)
        }
        attempt.die("credentials-needed", reason)
    }

    /// On a worker.
    private func work(_ attempt: JobAttempt, _ record: Installation, _ secrets: Secrets, _ running: Running) {
        let run = Run(attempt, record, secrets, world, watch: running.watch, rollbackWatch: running.rollbackWatch) { [self] record in
            // What is shown while it runs; the end is what has to be written.
            _ = try? save(record)
        }
        let failure = run.perform()
        var record = run.record
        state.withLock { $0.running[record.id] = nil }
        do throws(PluginError) {
            try audit.write(
                "installations.\(record.plan.action.rawValue)", as: .job(attempt), clients: record.client.map { [$0] } ?? [],
                target: record.plan.destination.name, failure == nil ? .allowed : .failed, reason: (failure?.text ?? "").prefixed(1_000),
                detail: ["installation": .string(record.id), "host_key": .string(record.hostKey ?? "")])
            if let failure, running.watch.isCancelled, isLeaving.load(ordering: .acquiring) {
                // The next version runs the job again, without its credentials.
                attempt.fail("interrupted", failure.text.prefixed(1_000))
                release(record)
                return
            }
            try end(&record, failure == nil ? .succeeded : running.watch.isCancelled ? .cancelled : .failed, failure)
        } catch {
            log.error("installations.end-lost", ["installation": .string(record.id), "reason": .string(error.text)])
            release(record)
        }
        if let failure {
            attempt.die(failure.code, failure.text.prefixed(1_000))
        } else {
            attempt.succeed(.object(record.json))
        }
    }

    private func cancel(attempt: UInt64) {
        state.withLock { state in state.running.values.first { $0.attempt == attempt } }?.watch.cancel()
    }

    func leave() { isLeaving.store(true, ordering: .releasing) }
    func stay() { isLeaving.store(false, ordering: .releasing) }

    /// Ends all runs, each with its host as it was before; returns when their threads are over.
    func stop() {
        leave()
        workers.close()
        let running = state.withLock { Array($0.running.values) }
        for run in running { run.watch.cancel() }
        let deadline = Deadline(seconds: 15)
        let patience = Watch()
        while !workers.isIdle, !deadline.isOver { _ = try? patience.wait(-1, 0, until: deadline, atMost: 20) }
        for run in running { run.rollbackWatch.cancel() }
        workers.join()
        state.withLock { state in
            for id in state.secrets.keys { state.secrets[id]?.wipe() }
            state.secrets = [:]
        }
    }
}
