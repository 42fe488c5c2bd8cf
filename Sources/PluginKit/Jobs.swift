import CPluginABI
import JSON

/// What a kind of job is.
public struct JobKind: Sendable {
    public enum Guarantee: String, Sendable {
        /// Runs at least once: an attempt that was cut off is followed by another, with the last checkpoint.
        case idempotent
        /// Never starts twice by itself.
        case atMostOnce = "at-most-once"
    }

    /// Begins with the plugin's id, or its last word, and a dot.
    public var name: String
    public var summary: String
    public var guarantee: Guarantee
    public var concurrency: Int?
    public var timeoutSeconds: Int?
    /// How often it is tried, and the first and the longest pause between.
    public var retry: (attempts: Int, firstSeconds: Int, longestSeconds: Int)?
    /// A JSON schema.
    public var arguments: JSONValue?

    public init(_ name: String, summary: String, _ guarantee: Guarantee) {
        self.name = name
        self.summary = summary
        self.guarantee = guarantee
    }

    var specification: [UInt8] {
        var writer = JSONWriter()
        writer.object { writer in
            writer.field("name", name)
            writer.field("summary", summary)
            writer.field("guarantee", guarantee.rawValue)
            writer.field("concurrency", ifPresent: concurrency)
            writer.field("timeout_s", ifPresent: timeoutSeconds)
            if let retry {
                writer.object("retry") {
                    $0.field("attempts", retry.attempts)
                    $0.field("first_s", retry.firstSeconds)
                    $0.field("longest_s", retry.longestSeconds)
                }
            }
            writer.field("arguments", ifPresent: arguments)
        }
        return writer.finish()
    }
}

/// One attempt at a job: a value that may be used from any thread until `succeed`, `fail` or `die`. It is fenced: after
/// its time nothing of it is recorded any more.
public struct JobAttempt: Sendable {
    let table: HostTable<cm_jobs>
    public let handle: UInt64
    public let id: String
    public let number: Int64
    /// Rises with every attempt of any job: give it to outside systems that can refuse an older one.
    public let fence: Int64
    public let arguments: JSONValue
    /// The last one that was kept; empty at first.
    public let checkpoint: [UInt8]

    /// Keeps a checkpoint (64 KiB) and the changes of a store transaction in one commit: both are durable, or neither.
    public func keep(_ checkpoint: [UInt8], with transaction: Store.Transaction? = nil) throws(PluginError) {
        guard let keep = table.functions.checkpoint else { throw .missing("cm.jobs/1 checkpoint") }
        try attempt("cm.jobs/1 checkpoint") { error in
            checkpoint.withBytes { keep(table.context, handle, $0, transaction?.handle ?? CM_NO_HANDLE, error) }
        }
    }

    /// `permille` of the whole, 0 to 1,000.
    @discardableResult
    public func progress(_ permille: UInt32, _ note: String = "") -> Bool {
        guard let progress = table.functions.progress else { return false }
        return note.withText { progress(table.context, handle, permille, $0) } == CM_OK
    }

    /// A line of the job's log, 2 KiB.
    @discardableResult
    public func log(_ line: String) -> Bool {
        guard let log = table.functions.log else { return false }
        return line.withText { log(table.context, handle, $0) } == CM_OK
    }

    /// The functions that end the attempt answer `false` when it is over already.
    @discardableResult
    public func succeed(_ result: JSONValue? = nil) -> Bool { finish(CM_JOB_SUCCEEDED, result, "", "") }

    /// Tried again by the kind's rule.
    @discardableResult
    public func fail(_ code: String, _ reason: String) -> Bool { finish(CM_JOB_FAILED, nil, code, reason) }

    /// Not tried again.
    @discardableResult
    public func die(_ code: String, _ reason: String) -> Bool { finish(CM_JOB_DEAD, nil, code, reason) }

    private func finish(_ outcome: UInt32, _ result: JSONValue?, _ code: String, _ reason: String) -> Bool {
        guard let finish = table.functions.finish else { return false }
        return (result?.serialized() ?? []).withText { result in
            code.withText { code in
                reason.withText { finish(table.context, handle, outcome, result, code, $0) }
            }
        } == CM_OK
    }
}

/// `cm.jobs/1`.
public struct Jobs: Sendable {
    let table: HostTable<cm_jobs>

    /// Offers a kind, in `load`. `run` returns soon and ends the attempt from wherever it likes; `cancel` hears that an
    /// attempt is to end: cancelled, out of time, or the plugin quiesces, which it has heard of before then.
    @discardableResult
    public func kind(
        _ kind: JobKind, cancel: @escaping (UInt64) -> Void = { _ in }, run: @escaping (JobAttempt) -> Void
    ) throws(PluginError) -> Registration {
        guard let add = table.functions.kind_add else { throw .missing("cm.jobs/1 kind_add") }
        var callbacks = cm_job_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_job_callbacks>.size), revision: 1)
        callbacks.run = jobRun
        callbacks.cancel = jobCancel
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(JobContext(table, run, cancel)).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.jobs/1 kind_add") { error in
            kind.specification.withText { add(table.context, $0, &callbacks, context, &handle, error) }
        }
        return Registration(handle: handle)
    }

    /// Jobs of the kind wait until somebody offers it again.
    public func remove(_ kind: Registration) throws(PluginError) {
        guard let remove = table.functions.kind_remove else { throw .missing("cm.jobs/1 kind_remove") }
        try check(remove(table.context, kind.handle), "cm.jobs/1 kind_remove")
    }

    /// `job` is the body of POST /api/v1/jobs; answers its id when it is durable.
    public func submit(_ job: JSONObject, as actor: Actor = .plugin) throws(PluginError) -> String {
        guard let submit = table.functions.submit else { throw .missing("cm.jobs/1 submit") }
        let text = JSONValue.object(job).serialized()
        return try readText("cm.jobs/1 submit") { buffer, error in
            text.withText { submit(table.context, actor.handle, $0, buffer, error) }
        }
    }

    public func cancel(_ id: String, as actor: Actor = .plugin) throws(PluginError) {
        guard let cancel = table.functions.cancel else { throw .missing("cm.jobs/1 cancel") }
        try attempt("cm.jobs/1 cancel") { error in id.withText { cancel(table.context, actor.handle, $0, error) } }
    }

    /// The job as GET /api/v1/jobs/{id} shows it.
    public func get(_ id: String, as actor: Actor = .plugin) throws(PluginError) -> JSONValue {
        guard let get = table.functions.get else { throw .missing("cm.jobs/1 get") }
        return try readJSON("cm.jobs/1 get") { buffer, error in
            id.withText { get(table.context, actor.handle, $0, buffer, error) }
        }
    }
}

extension Host {
    public func jobs() throws(PluginError) -> Jobs { Jobs(table: try interface(CM_INTERFACE_JOBS, cm_jobs())) }
}

private final class JobContext {
    let table: HostTable<cm_jobs>
    let run: (JobAttempt) -> Void
    let cancel: (UInt64) -> Void

    init(_ table: HostTable<cm_jobs>, _ run: @escaping (JobAttempt) -> Void, _ cancel: @escaping (UInt64) -> Void) {
        self.table = table
        self.run = run
        self.cancel = cancel
    }
}

private func jobRun(_ context: UnsafeMutableRawPointer?, _ attempt: UInt64, _ job: cm_text, _ checkpoint: cm_bytes) {
    withContext(context, as: JobContext.self) { kind in
        let description = (try? JSONValue(parsing: String(job))) ?? .null
        kind.run(
            JobAttempt(
                table: kind.table, handle: attempt, id: description["id"]?.string ?? "",
                number: description["attempt"]?.integer ?? 0, fence: description["fence"]?.integer ?? 0,
                arguments: description["arguments"] ?? .null, checkpoint: [UInt8](checkpoint)))
    }
}

private func jobCancel(_ context: UnsafeMutableRawPointer?, _ attempt: UInt64) {
    withContext(context, as: JobContext.self) { $0.cancel(attempt) }
}
