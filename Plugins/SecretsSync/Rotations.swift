import JSON
import PluginKit

/// Rotations: each is a job, and a record that says how far it is, so that it goes on after a restart. On the plugin's own
/// thread.
final class Rotations {
    struct Rotation {
        var id: String
        var secret: String
        var version: Int
        /// The one that was current, and is again when it goes wrong.
        var old: Int
        var by: String
        var startedAt: UInt64
        var endedAt: UInt64?
        var job = ""
        var machine: RotationStateMachine
    }

    private let host: Host
    private let executor: Executor
    private let store: Store
    private let jobs: Jobs
    private let audit: Audit
    private let vault: Vault
    private let deliveries: Deliveries
    /// The newest of each secret.
    private var table: [String: Rotation] = [:]
    private var running: [String: JobAttempt] = [:]
    private var timer: Registration?
    private var isQuiet = false

    static let kind = "secrets-sync.rotate"
    private static let lookMilliseconds: UInt64 = 250

    init(_ host: Host, _ vault: Vault, _ deliveries: Deliveries) throws(PluginError) {
        self.host = host
        executor = try host.executor()
        store = try host.store()
        jobs = try host.jobs()
        audit = try host.audit()
        self.vault = vault
        self.deliveries = deliveries
        var kind = JobKind(Self.kind, summary: "Rotates a secret in two phases; begun by POST /api/v1/secrets/{name}/rotate.", .idempotent)
        kind.concurrency = 16
        kind.timeoutSeconds = 604_800
        kind.arguments = [
            "type": "object", "required": ["secret", "rotation"], "additionalProperties": false,
            "properties": ["secret": ["type": "string"], "rotation": ["type": "string"]],
        ]
        try jobs.kind(kind, cancel: { [self] handle in cancelled(handle) }, run: { [self] attempt in run(attempt) })
    }

    private static func key(_ secret: String) -> String { "rotation/" + secret }

    func restore() throws(PluginError) {
        table = [:]
        try store.each(prefix: "rotation/") { (key, bytes) throws(PluginError) in
            let secret = String(key.dropFirst("rotation/".count))
            if let record = try? JSONValue(parsing: bytes), let rotation = Rotation(secret, record) { table[secret] = rotation }
        }
    }

    func find(_ secret: String) -> Rotation? { table[secret] }

    /// While it is under way nobody else changes what is current.
    func requireNone(_ secret: String) throws(PluginError) {
        guard let rotation = table[secret], !rotation.machine.isOver else { return }
        // Its job may be gone, by an operator's hand or with the time that it had.
        let state = try? jobs.get(rotation.job)["state"]?.string
        if let state, ["succeeded", "dead", "cancelled"].contains(state), running[secret] == nil { return try abandon(rotation) }
        throw .conflict("rotation-underway", "a rotation of \"\(secret)\" to version \(rotation.version) is under way (job \(rotation.job))")
    }

    private func abandon(_ rotation: Rotation) throws(PluginError) {
        var rotation = rotation
        guard let action = rotation.machine.cancel(now: executor.now) else { return }
        try act(action, rotation)
        rotation.endedAt = executor.now
        try write(rotation)
    }

    func forget(_ secret: String) throws(PluginError) {
        guard table[secret] != nil else { return }
        try store.transaction { (transaction) throws(PluginError) in try transaction.remove(Self.key(secret)) }
        table[secret] = nil
    }

    /// Returns when record and job are durable.
    func begin(_ secret: String, to version: Int, _ rule: RotationStateMachine.Rule, by: String) throws(PluginError) -> Rotation {
        try requireNone(secret)
        let known = try vault.secret(secret)
        guard known.version(version) != nil else { throw .unknown("the secret \"\(secret)\" has no version \(version)") }
        guard version != known.current else { throw .conflict("version-current", "version \(version) of \"\(secret)\" is the current one") }
        guard known.current != 0 else { throw .conflict("no-current-version", "\"\(secret)\" has no current version yet; activate one") }
        let now = executor.now
        var rotation = Rotation(
            id: try newID(), secret: secret, version: version, old: known.current, by: by, startedAt: now,
            machine: RotationStateMachine(rule, now: now))
        rotation.job = try jobs.submit([
            "kind": .string(Self.kind), "idempotency_key": .string(rotation.id),
            "arguments": ["secret": .string(secret), "rotation": .string(rotation.id)],
        ])
        // The job cannot run before this thread is free: it finds the record.
        try write(rotation)
        return rotation
    }

    private func newID() throws(PluginError) -> String { try identifier(executor.now, host) }

    private func write(_ rotation: Rotation) throws(PluginError) {
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.put(Self.key(rotation.secret), JSONValue.object(rotation.record).serialized())
        }
        table[rotation.secret] = rotation
    }

    // MARK: The job

    private func run(_ attempt: JobAttempt) {
        guard let secret = attempt.arguments["secret"]?.string, let rotation = table[secret], rotation.id == attempt.arguments["rotation"]?.string
        else {
            attempt.die("rotation-unknown", "there is no such rotation: POST /api/v1/secrets/{name}/rotate begins one")
            return
        }
        guard !rotation.machine.isOver else {
            end(attempt, rotation)
            return
        }
        running[secret] = attempt
        do throws(PluginError) {
            if let entry = rotation.machine.entry { try act(entry, rotation) }
            attempt.log("\(rotation.machine.phase.rawValue): version \(rotation.version)")
            if timer == nil {
                timer = try executor.timer(after: Self.lookMilliseconds, every: Self.lookMilliseconds) { [self] in look() }
            }
        } catch {
            running[secret] = nil
            attempt.fail("rotation-interrupted", error.text)
        }
    }

    private func look() {
        guard !isQuiet, !deliveries.isStale else { return }
        for (secret, attempt) in running { look(secret, attempt) }
        if running.isEmpty, let timer {
            executor.cancel(timer)
            self.timer = nil
        }
    }

    private func standing(_ rotation: Rotation) -> Standing {
        switch rotation.machine.phase {
        case .staging: deliveries.standing(rotation.secret, .next, rotation.version)
        case .returning: deliveries.standing(rotation.secret, .current, rotation.old)
        default: deliveries.standing(rotation.secret, .current, rotation.version)
        }
    }

    private func look(_ secret: String, _ attempt: JobAttempt) {
        guard var rotation = table[secret] else { return }
        let standing = standing(rotation)
        report(rotation, standing, attempt)
        guard let action = rotation.machine.look(standing, now: executor.now) else { return }
        step(action, &rotation, attempt)
    }

    private func step(_ action: RotationStateMachine.Action, _ rotation: inout Rotation, _ attempt: JobAttempt) {
        do throws(PluginError) {
            if rotation.machine.isOver { rotation.endedAt = executor.now }
            // First the record: after a crash between the two `entry` does the rest.
            try write(rotation)
            try act(action, rotation)
            attempt.log(rotation.machine.reason.isEmpty ? rotation.machine.phase.rawValue : "\(rotation.machine.phase.rawValue): \(rotation.machine.reason)")
            if rotation.machine.isOver {
                running[rotation.secret] = nil
                end(attempt, rotation)
            }
        } catch {
            // The store is full or away: the next look tries again, from what is written.
            host.log.error("secrets.rotation-stuck", ["secret": .string(rotation.secret), "reason": .string(error.text)])
        }
    }

    private func act(_ action: RotationStateMachine.Action, _ rotation: Rotation) throws(PluginError) {
        guard action != .record, action != .finish, vault.find(rotation.secret) != nil else { return }
        try vault.change(rotation.secret) { (secret) throws(PluginError) in
            switch action {
            case .stage: secret.next = rotation.version
            case .takeOver: (secret.current, secret.next, secret.previous) = (rotation.version, nil, rotation.old)
            case .goBack: (secret.current, secret.next, secret.previous) = (rotation.old, nil, nil)
            case .retire: (secret.next, secret.previous) = (nil, nil)
            case .finish, .record: break
            }
        }
        deliveries.reconcileSoon()
    }

    private func report(_ rotation: Rotation, _ standing: Standing, _ attempt: JobAttempt) {
        let share = standing.total == 0 ? 0 : 450 * standing.applied / standing.total
        let note = "\(rotation.machine.phase.rawValue): \(standing.applied) of \(standing.total), \(standing.failed) failed, \(standing.offline) offline"
        switch rotation.machine.phase {
        case .staging: attempt.progress(UInt32(share), note)
        case .switching: attempt.progress(UInt32(450 + share), note)
        case .overlap: attempt.progress(950, note)
        case .returning, .succeeded, .failed: attempt.progress(900, note)
        }
    }

    private func end(_ attempt: JobAttempt, _ rotation: Rotation) {
        let machine = rotation.machine
        let standing = standing(rotation)
        let detail: JSONObject = [
            "secret": .string(rotation.secret), "by": .string(rotation.by), "version": .integer(Int64(rotation.version)), "old": .integer(Int64(rotation.old)),
            "applied": .integer(Int64(standing.applied)), "failed": .integer(Int64(standing.failed)),
            "offline": .integer(Int64(standing.offline)),
        ]
        let isGood = machine.phase == .succeeded && machine.code.isEmpty
        do throws(PluginError) {
            try audit.write(
                "secrets.rotate-end", target: rotation.secret, isGood ? .allowed : .failed, reason: machine.code, detail: detail)
        } catch {
            host.log.error("secrets.audit-failed", ["reason": .string(error.text)])
        }
        if isGood { attempt.succeed(.object(detail)) } else { attempt.die(machine.code.isEmpty ? "rotation-failed" : machine.code, machine.reason) }
    }

    /// An operator's cancel, or the plugin goes: the next version goes on with what is written.
    private func cancelled(_ handle: UInt64) {
        guard let (secret, attempt) = running.first(where: { $0.value.handle == handle }), var rotation = table[secret] else { return }
        guard !isQuiet else {
            running[secret] = nil
            attempt.fail("rotation-interrupted", "the plugin is stopping")
            return
        }
        guard let action = rotation.machine.cancel(now: executor.now) else { return }
        step(action, &rotation, attempt)
    }

    func quiesce() { isQuiet = true }
    func resume() { isQuiet = false }
}

extension Rotations.Rotation {
    var record: JSONObject {
        var record: JSONObject = [
            "id": .string(id), "version": .integer(Int64(version)), "old": .integer(Int64(old)), "by": .string(by), "job": .string(job),
            "started_ms": .integer(Int64(clamping: startedAt)), "phase": .string(machine.phase.rawValue),
            "since_ms": .integer(Int64(clamping: machine.since)), "percent": .integer(Int64(machine.rule.percent)),
            "timeout_s": .integer(Int64(machine.rule.timeoutMilliseconds / 1_000)),
            "overlap_s": .integer(Int64(machine.rule.overlapMilliseconds / 1_000)), "count_offline": .bool(machine.rule.countsOffline),
        ]
        if let endedAt { record["ended_ms"] = .integer(Int64(clamping: endedAt)) }
        if !machine.code.isEmpty {
            record["code"] = .string(machine.code)
            record["reason"] = .string(machine.reason)
        }
        return record
    }

    init?(_ secret: String, _ record: JSONValue) {
        guard let id = record["id"]?.string, let version = record["version"]?.integer, let old = record["old"]?.integer,
            let phase = record["phase"]?.string.flatMap({ RotationStateMachine.Phase(rawValue: $0) })
        else { return nil }
        self.id = id
        self.secret = secret
        self.version = Int(clamping: version)
        self.old = Int(clamping: old)
        by = record["by"]?.string ?? ""
        job = record["job"]?.string ?? ""
        startedAt = UInt64(clamping: record["started_ms"]?.integer ?? 0)
        endedAt = record["ended_ms"]?.integer.map { UInt64(clamping: $0) }
        let rule = RotationStateMachine.Rule(
            percent: Int(clamping: record["percent"]?.integer ?? 100),
            timeoutMilliseconds: UInt64(clamping: record["timeout_s"]?.integer ?? 600) * 1_000,
            overlapMilliseconds: UInt64(clamping: record["overlap_s"]?.integer ?? 0) * 1_000,
            countsOffline: record["count_offline"]?.bool ?? false)
        machine = RotationStateMachine(
            rule, phase: phase, since: UInt64(clamping: record["since_ms"]?.integer ?? 0), code: record["code"]?.string ?? "",
            reason: record["reason"]?.string ?? "")
    }
}

/// An id that grows with time: ids of one thing sort by age.
func identifier(_ now: UInt64, _ host: Host) throws(PluginError) -> String {
    let time = String(now, radix: 36)
    let noise = try host.crypto().random(5).map { byte in
        let text = String(byte, radix: 16)
        return text.utf8.count == 1 ? "0" + text : text
    }.joined()
    return time + noise
}
