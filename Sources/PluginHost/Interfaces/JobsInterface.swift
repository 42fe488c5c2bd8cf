import CPluginABI
import JSON
import Kernel

let jobsTable = HostTable(
    cm_jobs(
        head: head(of: cm_jobs.self), kind_add: jobsKindAdd, kind_remove: jobsKindRemove, submit: jobsSubmit,
        cancel: jobsCancel, get: jobsGet, checkpoint: jobsCheckpoint, progress: jobsProgress, log: jobsLog,
        finish: jobsFinish))

private let kindsPerPlugin = 64
private let jobBytes = 128 << 10
private let logLineBytes = 2_048

// MARK: Kinds

private func jobsKindAdd(
    _ host: OpaquePointer, _ specification: cm_text, _ callbacks: UnsafePointer<cm_job_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ kind: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_job_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .own, "jobs.kind_add", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let table, table.run != nil else {
                throw Problem(400, "plugin-argument", "`run` is not set, or the head of the callbacks is not filled in")
            }
            guard instance.phase == .loading else {
                return error.set(CM_E_STATE, "plugin-phase", "job kinds are registered in `load`, so that they come and go in one step")
            }
            guard instance.count(of: PluginJobKind.self) < kindsPerPlugin else {
                throw Problem(429, "plugin-too-many", "a plugin may have \(kindsPerPlugin) job kinds")
            }
            guard let text = specification.bytes(limit: 65_536) else {
                throw Problem(413, "plugin-argument", "`specification` has more than 65,536 bytes")
            }
            let described = try JobKindSpecification(parsing: text, of: instance)
            let made = PluginJobKind(table, ends, described.guarantee, instance)
            let handle = instance.keep(made)
            guard instance.pending.add(described.kind(made, instance), handle) else {
                instance.forget(handle)
                throw Problem(409, "plugin-kind-taken", "the plugin has registered the kind \"\(described.name)\" already")
            }
            kind.pointee = handle
            return CM_OK
        }
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func jobsKindRemove(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .own, "jobs.kind_remove") { instance in
        guard let kind = instance.take(handle, PluginJobKind.self) else { return CM_E_NOT_FOUND }
        let name = instance.pending.jobKind(handle)?.name
        kind.retire(handle, of: instance)
        if let name, instance.phase == .running {
            let (jobs, id) = (instance.environment.kernel.jobs, instance.id)
            instance.environment.loop.spawn {
                await jobs.unregister(name, owner: id, reason: "the plugin \(id) has taken its kind away")
            }
        }
        return CM_OK
    }
}

// MARK: Jobs

extension PluginInstance {
    /// In its own name a plugin works with jobs of its own kinds; what others offer, it has run in somebody's name.
    fileprivate func requireOwn(_ kind: String) throws(Problem) {
        guard environment.kernel.jobs.kinds.contains(where: { $0.name == kind && $0.owner == id }) else {
            throw .forbidden("\"\(kind.prefix(64))\" is no job kind of \(id) that is offered now: in its own name a plugin works with its own kinds")
        }
    }
}

private func jobID(_ text: cm_text) throws(Problem) -> JobID {
    guard let text = text.string(limit: 64), let id = JobID(text) else {
        throw Problem(400, "plugin-argument", "`id` is no job id (26 characters, the first 0 to 7)")
    }
    return id
}

private func jobsSubmit(
    _ host: OpaquePointer, _ handle: cm_handle, _ job: cm_text, _ id: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "jobs.submit", error: error) { instance in
        if let status = requireRoom(id, idBytes, error) { return status }
        return answering(error) { () throws(Problem) in
            guard let text = job.bytes(limit: jobBytes) else { throw Problem(413, "plugin-argument", "`job` has more than \(jobBytes) bytes") }
            let request = try JobBody.request(text)
            let actor = try instance.actor(handle)
            let lease = instance.resource(handle, JobAttempt.self)?.lease
            let kernel = instance.environment.kernel
            try actor.require("job.create", kernel)
            if actor.isPlugin { try instance.requireOwn(request.kind) }
            let made = try instance.waitForKernel { () async throws(Problem) -> Job in
                guard let lease, request.parent == lease.job else {
                    return try await kernel.jobs.create(request, by: actor.principal)
                }
                return try await kernel.jobs.createChild(request, of: lease, by: actor.principal)
            }
            return id.fill(made.id.description)
        }
    }
}

private func jobsCancel(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "jobs.cancel", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try jobID(id)
            let kernel = instance.environment.kernel
            try actor.require("job.cancel", kernel)
            let job = try instance.waitForKernel { () async throws(Problem) in try await kernel.jobs.get(number) }
            if actor.isPlugin { try instance.requireOwn(job.kind) }
            _ = try instance.waitForKernel { () async throws(Problem) in try await kernel.jobs.cancel(number, by: actor.principal) }
            return CM_OK
        }
    }
}

private func jobsGet(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ json: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "jobs.get", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try jobID(id)
            let kernel = instance.environment.kernel
            try actor.require("job.read", kernel)
            let job = try instance.waitForKernel { () async throws(Problem) in try await kernel.jobs.get(number) }
            if actor.isPlugin { try instance.requireOwn(job.kind) }
            return error.fill(json, kernel.jobs.json(job, isWhole: true).serialized())
        }
    }
}

// MARK: Attempts

private func withAttempt(
    _ host: OpaquePointer, _ handle: cm_handle, _ tag: CallTag, _ function: StaticString,
    _ error: UnsafeMutablePointer<cm_error>?, _ body: (JobAttempt, PluginInstance) throws(Problem) -> cm_status
) -> cm_status {
    hostCall(host, tag, function, error: error) { instance in
        guard let attempt = instance.resource(handle, JobAttempt.self) else {
            return error.set(CM_E_GONE, "plugin-handle", "the attempt is over", http: 410)
        }
        do throws(Problem) {
            return try body(attempt, instance)
        } catch let problem {
            guard problem.code == "job-fenced" else { return error.set(problem) }
            // The core has ended it: its time was over, or the job went on without it.
            attempt.drop(handle, of: instance)
            return error.set(CM_E_GONE, problem.code, problem.detail, http: problem.status)
        }
    }
}

private func jobsCheckpoint(
    _ host: OpaquePointer, _ attempt: cm_handle, _ checkpoint: cm_bytes, _ transaction: cm_handle,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    withAttempt(host, attempt, .wait, "jobs.checkpoint", error) { (attempt, instance) throws(Problem) in
        let jobs = instance.environment.kernel.jobs
        guard let bytes = checkpoint.array(limit: jobs.limits.checkpointBytes) else {
            throw Problem(413, "plugin-argument", "`checkpoint` has more than \(jobs.limits.checkpointBytes) bytes")
        }
        guard transaction != CM_NO_HANDLE else {
            try instance.waitForKernel { () async throws(Problem) in try await jobs.checkpoint(attempt.lease, bytes) }
            return CM_OK
        }
        guard let changes = instance.take(transaction, StoreTransaction.self) else {
            throw Problem(410, "plugin-handle", "there is no such transaction: it was committed or discarded")
        }
        let side = try instance.storeSide(changes)
        try instance.waitForKernel { () async throws(Problem) in
            try await jobs.checkpoint(attempt.lease, bytes, side: side.body)
        }
        return CM_OK
    }
}

private func jobsProgress(_ host: OpaquePointer, _ attempt: cm_handle, _ permille: UInt32, _ note: cm_text) -> cm_status {
    withAttempt(host, attempt, .any, "jobs.progress", nil) { (attempt, instance) throws(Problem) in
        guard permille <= 1_000, let note = note.string(limit: 1_024) else { return CM_E_INVALID }
        try instance.environment.kernel.jobs.progress(
            attempt.lease, JobProgress(done: UInt64(permille), total: 1_000, text: note))
        return CM_OK
    }
}

private func jobsLog(_ host: OpaquePointer, _ attempt: cm_handle, _ line: cm_text) -> cm_status {
    withAttempt(host, attempt, .any, "jobs.log", nil) { (attempt, instance) throws(Problem) in
        guard let line = line.string(limit: logLineBytes), !line.isEmpty else { return CM_E_INVALID }
        return attempt.log(line, on: instance)
    }
}

private func jobsFinish(
    _ host: OpaquePointer, _ handle: cm_handle, _ outcome: UInt32, _ result: cm_text, _ code: cm_text, _ reason: cm_text
) -> cm_status {
    withAttempt(host, handle, .any, "jobs.finish", nil) { (_, instance) throws(Problem) in
        let limit = instance.environment.kernel.jobs.limits.resultBytes
        guard let text = result.bytes(limit: limit) else { return CM_E_TOO_LARGE }
        guard text.isEmpty || (try? JSONValue(parsing: text, limits: JSONLimits(depth: 32, bytes: limit))) != nil else {
            instance.misuse("jobs.finish", "the result is not JSON")
            return CM_E_INVALID
        }
        guard let code = code.string(limit: 64), let reason = reason.string(limit: 1_024) else { return CM_E_INVALID }
        let named = code.isEmpty ? "plugin" : code
        let end: JobOutcome
        switch outcome {
        case UInt32(CM_JOB_SUCCEEDED): end = .succeeded(result: text.isEmpty ? nil : text)
        case UInt32(CM_JOB_FAILED): end = .failed(code: named, reason: reason, again: .ifIdempotent)
        case UInt32(CM_JOB_DEAD): end = .failed(code: named, reason: reason, again: .never)
        default: return CM_E_INVALID
        }
        guard let attempt = instance.take(handle, JobAttempt.self) else { return CM_E_GONE }
        attempt.finish(end, on: instance)
        return CM_OK
    }
}
