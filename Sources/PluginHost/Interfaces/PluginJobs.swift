import CPluginABI
import JSON
import Kernel
import Reactor
import Synchronization

/// What a plugin says of one of its job kinds (`cm_jobs.kind_add`), checked.
struct JobKindSpecification: Sendable {
    let name: String
    private let summary: String
    let guarantee: JobGuarantee
    private let concurrency: Int
    private let timeoutMilliseconds: UInt64
    private let retry: JobRetry
    private let arguments: JSONSchema?

    private static let form: JSONValue = [
        "type": "object", "required": ["name", "guarantee"], "additionalProperties": false,
        "properties": [
            "name": ["type": "string"], "summary": ["type": "string", "maxLength": 256],
            "guarantee": ["enum": ["idempotent", "at-most-once"]],
            "concurrency": ["type": "integer", "minimum": 1, "maximum": 256],
            "timeout_s": ["type": "number", "minimum": 1, "maximum": 604_800],
            "retry": [
                "type": "object", "additionalProperties": false,
                "properties": [
                    "attempts": ["type": "integer", "minimum": 1, "maximum": 100],
                    "first_s": ["type": "number", "minimum": 0.1, "maximum": 86_400],
                    "longest_s": ["type": "number", "minimum": 0.1, "maximum": 604_800],
                ],
            ],
            "arguments": ["type": "object"],
        ],
    ]

    init(parsing text: [UInt8], of instance: PluginInstance) throws(Problem) {
        let json = try JobBody.checked(text, Self.form, "specification")
        name = json["name"]?.string ?? ""
        guard instance.owns(name), name.utf8.count <= 64 else {
            throw Problem(400, "plugin-argument", "\"name\" must begin with \"\(instance.id).\" or \"\(instance.note.shortName).\" and have at most 64 characters in [a-z0-9._-]")
        }
        summary = json["summary"]?.string ?? ""
        guarantee = JobGuarantee(rawValue: json["guarantee"]?.string ?? "") ?? .atMostOnce
        concurrency = Int(json["concurrency"]?.integer ?? 8)
        timeoutMilliseconds = JobBody.milliseconds(json["timeout_s"]) ?? 3_600_000
        var retry = JobRetry()
        if let attempts = json["retry"]?["attempts"]?.integer { retry.maximumAttempts = Int(attempts) }
        if let first = JobBody.milliseconds(json["retry"]?["first_s"]) { retry.firstMilliseconds = first }
        retry.longestMilliseconds = max(
            retry.firstMilliseconds, JobBody.milliseconds(json["retry"]?["longest_s"]) ?? retry.longestMilliseconds)
        self.retry = retry
        do throws(JSONSchema.Fault) {
            arguments = try json["arguments"].map { (schema) throws(JSONSchema.Fault) in try JSONSchema(schema) }
        } catch {
            throw Problem(400, "plugin-argument", "\"arguments\" of \(name): \(error)")
        }
    }

    func kind(_ made: PluginJobKind, _ instance: PluginInstance) -> JobKind {
        let title = summary
        var kind = JobKind(name, summary, guarantee, check: { _, _ in title }, work: .delegated { made.begin($0) })
        if let arguments { kind.arguments = .schema(arguments) }
        kind.owner = instance.id
        kind.instance = instance.generation
        kind.concurrency = concurrency
        kind.timeoutMilliseconds = timeoutMilliseconds
        kind.retry = retry
        kind.cancel = { made.cancel($0) }
        return kind
    }
}

/// Bodies of requests for jobs, as plugins send them.
enum JobBody {
    private static let form: JSONValue = [
        "type": "object", "required": ["kind"], "additionalProperties": false,
        "properties": [
            "kind": ["type": "string", "maxLength": 64], "arguments": ["type": ["object", "null"]],
            "priority": ["type": "integer", "minimum": -100, "maximum": 100], "timeout_s": ["type": "number"],
            "retry": [
                "type": ["object", "null"], "additionalProperties": false,
                "properties": [
                    "attempts": ["type": "integer", "minimum": 1, "maximum": 100], "first_s": ["type": "number"],
                    "longest_s": ["type": "number"],
                ],
            ],
            "run_at_ms": ["type": ["integer", "null"]], "deadline_ms": ["type": ["integer", "null"]],
            "parent": ["type": "string"], "idempotency_key": ["type": "string", "maxLength": 128],
        ],
    ]

    static func request(_ text: [UInt8]) throws(Problem) -> JobRequest {
        let json = try checked(text, form, "job")
        var request = try JobRequest(json: json)
        if let key = json["idempotency_key"]?.string { request.idempotencyKey = IdempotencyKey(key: key, request: text) }
        return request
    }

    static func checked(_ text: [UInt8], _ form: JSONValue, _ name: String) throws(Problem) -> JSONValue {
        guard let json = try? JSONValue(parsing: text, limits: JSONLimits(depth: 32, bytes: 256 << 10)) else {
            throw Problem(400, "plugin-argument", "`\(name)` is not JSON")
        }
        do throws(JSONSchema.Fault) {
            try JSONSchema(form).check(json)
        } catch {
            throw Problem(400, "plugin-argument", "`\(name)`: \(error)", pointer: error.pointer)
        }
        return json
    }

    static func milliseconds(_ value: JSONValue?) -> UInt64? { value?.number.map { UInt64(($0 * 1_000).rounded(.up)) } }
}

/// A kind under its handle, with the attempts of it that the plugin works on.
final class PluginJobKind: PluginResource {
    let callbacks: cm_job_callbacks
    let context: CallbackContext
    let guarantee: JobGuarantee
    fileprivate let instance: PluginInstance
    /// By fencing number.
    private let attempts = Mutex<[UInt64: cm_handle]>([:])

    init(_ callbacks: cm_job_callbacks, _ context: CallbackContext, _ guarantee: JobGuarantee, _ instance: PluginInstance) {
        self.callbacks = callbacks
        self.context = context
        self.guarantee = guarantee
        self.instance = instance
    }

    /// Any thread; returns at once.
    func begin(_ lease: JobLease) {
        guard let function = callbacks.run else { return }
        let attempt = JobAttempt(lease, self, instance)
        let handle = instance.keep(attempt)
        attempts.withLock { $0[lease.fence] = handle }
        let job: JSONValue = [
            "id": .string(lease.job.description), "attempt": .integer(Int64(lease.attempt)),
            "fence": .integer(Int64(clamping: lease.fence)), "arguments": lease.arguments,
        ]
        let text = job.serialized()
        let isTaken = instance.call("run") { [self] in
            guard instance.resource(handle, JobAttempt.self) != nil else { return }
            withText(text) { job in withBytes(lease.checkpoint ?? []) { function(context.foreign.pointer, handle, job, $0) } }
        }
        if !isTaken, instance.take(handle, JobAttempt.self) != nil {
            attempt.finish(.notBegun(reason: "the plugin \(instance.id) has too much to do, or has stopped"), on: instance)
        }
    }

    /// Asks for the end of one attempt. Returns at once.
    func cancel(_ lease: JobLease) {
        guard let handle = attempts.withLock({ $0[lease.fence] }) else { return }
        ask(handle)
        // When its grace is over the core has ended it, whatever the plugin does.
        let (instance, loop) = (instance, instance.environment.loop)
        loop.onLoop {
            loop.schedule(
                Timer { instance.resource(handle, JobAttempt.self)?.drop(handle, of: instance) },
                afterMilliseconds: JobAttempt.graceMilliseconds + 1_000)
        }
    }

    fileprivate func ask(_ handle: cm_handle) {
        guard let function = callbacks.cancel else { return }
        instance.callAlways("cancel") { [self] in
            if instance.resource(handle, JobAttempt.self) != nil { function(context.foreign.pointer, handle) }
        }
    }

    fileprivate func forget(_ lease: JobLease) { attempts.withLock { $0[lease.fence] = nil } }

    func retire(_ handle: cm_handle, of instance: PluginInstance) {
        instance.pending.removeJobKind(handle)
        context.end(on: instance)
    }
}

/// One attempt that the plugin works on; whoever takes it out of the instance's resources ends it, once.
final class JobAttempt: PluginResource, ActingResource {
    /// `JobKind.cancelGraceMilliseconds` as it is by default.
    static let graceMilliseconds: UInt64 = 30_000
    private static let waitingLines = 64

    let lease: JobLease
    private let kind: PluginJobKind
    private let lines = Atomic<Int>(0)
    private let isOver = Atomic<Bool>(false)

    init(_ lease: JobLease, _ kind: PluginJobKind, _ instance: PluginInstance) {
        self.lease = lease
        self.kind = kind
        instance.underway.add(1, ordering: .acquiringAndReleasing)
    }

    var principal: Principal { Principal(kind: lease.owner.kind, id: lease.owner.id, correlation: lease.job.description) }

    /// The owner with the rights that he has now; a plugin that owns its job has its own.
    func present(_ kernel: Kernel) throws(Problem) -> Principal {
        let own = kind.instance.principal(correlation: lease.job.description)
        if lease.owner.kind == .system, lease.owner.id == own.id { return own }
        return try kernel.jobs.principal(of: lease)
    }

    /// The plugin quiesces.
    func ask(_ handle: cm_handle) { kind.ask(handle) }

    /// The line is written soon, in order; CM_E_BUSY when 64 wait.
    func log(_ line: String, on instance: PluginInstance) -> cm_status {
        guard lines.add(1, ordering: .relaxed).newValue <= Self.waitingLines else {
            lines.subtract(1, ordering: .relaxed)
            return CM_E_BUSY
        }
        let jobs = instance.environment.kernel.jobs
        instance.environment.loop.spawn { [self] in
            do throws(Problem) {
                try await jobs.log(lease, .info, line)
            } catch {
                instance.accounting.errors.wrappingAdd(1, ordering: .relaxed)
            }
            lines.subtract(1, ordering: .relaxed)
        }
        return CM_OK
    }

    /// Writes down how it ended; a full disk delays that and does not lose it while this process lives.
    func finish(_ outcome: JobOutcome, on instance: PluginInstance) {
        let (jobs, loop) = (instance.environment.kernel.jobs, instance.environment.loop)
        // What an idempotent attempt could not do because its version is on its way out, the next version does.
        let isLeaving = instance.phase != .running && instance.phase != .starting
        loop.spawn { [self] in
            var outcome = outcome
            if isLeaving, case .failed(_, let reason, .ifIdempotent) = outcome, kind.guarantee == .idempotent {
                outcome = .notBegun(reason: reason.isEmpty ? "its plugin went away" : reason)
            }
            while true {
                do throws(Problem) {
                    try await jobs.finish(lease, outcome)
                    break
                } catch {
                    if error.code == "job-fenced" { break }
                    await loop.sleep(milliseconds: 1_000)
                }
            }
            leave(instance)
        }
    }

    /// The core has ended it; the plugin's handle is dead.
    func drop(_ handle: cm_handle, of instance: PluginInstance) {
        if instance.take(handle, JobAttempt.self) != nil { leave(instance) }
    }

    private func leave(_ instance: PluginInstance) {
        guard !isOver.exchange(true, ordering: .acquiringAndReleasing) else { return }
        kind.forget(lease)
        instance.underway.subtract(1, ordering: .acquiringAndReleasing)
    }

    /// The plugin is over; `endAttempts` tells the jobs.
    func retire(_: cm_handle, of instance: PluginInstance) { leave(instance) }
}
