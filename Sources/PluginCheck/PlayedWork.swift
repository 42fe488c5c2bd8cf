import CPluginABI
import JSON

// cm.jobs, cm.events, cm.store and cm.audit of the played core.

// MARK: cm.jobs/1

func jobsKindAdd(
    _ context: Context, _ specification: cm_text, _ callbacks: UnsafePointer<cm_job_callbacks>, _ own: Opaque,
    _ kind: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.jobs/1 kind_add"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_job_callbacks>.size, function)
    func refuse(_ status: cm_status, _ text: String) -> cm_status {
        callbacks.pointee.destroy?(own)
        return fail(status, error, text)
    }
    if let status = host.enter(function, .own) { return refuse(status, "played refusal") }
    let json = host.json(specification, function)
    let name = json["name"]?.string ?? ""
    var faults: [String] = []
    if !isOfPlugin(host, name) { faults.append("its name begins neither with the plugin's id nor with its last word and a dot") }
    if !["idempotent", "at-most-once"].contains(json["guarantee"]?.string) { faults.append("\"guarantee\" is missing or unknown") }
    if json["summary"]?.string == nil { faults.append("no \"summary\"") }
    if callbacks.pointee.run == nil { faults.append("no callback run") }
    guard faults.isEmpty else {
        host.misuse("\(function) \(name): " + faults.joined(separator: ", "))
        return refuse(CM_E_INVALID, faults.joined(separator: ", "))
    }
    kind.pointee = host.register(
        .init(
            kind: .job, name: "job \(name)", context: own, destroy: callbacks.pointee.destroy,
            callbacks: .job(callbacks.pointee)))
    return CM_OK
}

/// Names of jobs begin with the plugin's id, or its last word, and a dot.
private func isOfPlugin(_ host: PlayedHost, _ name: String) -> Bool {
    let last = host.note.id.split(separator: ".").last ?? ""
    return name.hasPrefix(host.note.id + ".") || name.hasPrefix(last + ".")
}

/// Events and audit records may also begin with an area of the plugin's routes.
private func isOfArea(_ host: PlayedHost, _ name: String) -> Bool {
    host.note.routes.contains { name.hasPrefix($0 + ".") }
}

func jobsKindRemove(_ context: Context, _ kind: UInt64) -> cm_status {
    guard let host = core(context, "cm.jobs/1 kind_remove") else { return CM_E_INVALID }
    if let status = host.enter("cm.jobs/1 kind_remove", .own, canFail: false) { return status }
    return host.forget(kind, .job, "cm.jobs/1 kind_remove")
}

func jobsSubmit(_ context: Context, _ actor: UInt64, _ job: cm_text, _ id: CBuffer, _ error: CError) -> cm_status {
    guard let host = core(context, "cm.jobs/1 submit") else { return CM_E_INVALID }
    if let status = host.enter("cm.jobs/1 submit", .wait) { return fail(status, error, "played refusal") }
    if host.json(job, "cm.jobs/1 submit").object == nil { host.misuse("cm.jobs/1 submit: the job is no JSON object") }
    return host.put(Array("check-job".utf8), id, "cm.jobs/1 submit")
}

func jobsCancel(_ context: Context, _ actor: UInt64, _ id: cm_text, _ error: CError) -> cm_status {
    guard let host = core(context, "cm.jobs/1 cancel") else { return CM_E_INVALID }
    return fail(host.enter("cm.jobs/1 cancel", .wait) ?? CM_E_NOT_FOUND, error, "no such job")
}

func jobsGet(_ context: Context, _ actor: UInt64, _ id: cm_text, _ json: CBuffer, _ error: CError) -> cm_status {
    guard let host = core(context, "cm.jobs/1 get") else { return CM_E_INVALID }
    return fail(host.enter("cm.jobs/1 get", .wait) ?? CM_E_NOT_FOUND, error, "no such job")
}

/// A live attempt, else the status that says why not.
private func attempt(_ host: PlayedHost, _ handle: UInt64, _ function: StaticString) -> cm_status? {
    guard let task = host.with({ $0.tasks[handle] }) else {
        host.misuse("\(function): no attempt \(handle)")
        return CM_E_GONE
    }
    guard task.isOver else { return nil }
    host.misuse("\(function): the attempt of \(task.name) has ended already")
    return CM_E_GONE
}

func jobsCheckpoint(
    _ context: Context, _ handle: UInt64, _ checkpoint: cm_bytes, _ transaction: UInt64, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.jobs/1 checkpoint"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) ?? attempt(host, handle, function) { return fail(status, error, "no checkpoint") }
    if transaction != CM_NO_HANDLE, !host.with({ $0.transactions.remove(transaction) != nil }) {
        host.misuse("\(function): no transaction \(transaction)")
        return fail(CM_E_NOT_FOUND, error, "no such transaction")
    }
    return checkpoint.size > 65_536 ? fail(CM_E_TOO_LARGE, error, "more than 64 KiB") : CM_OK
}

func jobsProgress(_ context: Context, _ handle: UInt64, _ permille: UInt32, _ note: cm_text) -> cm_status {
    let function: StaticString = "cm.jobs/1 progress"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? attempt(host, handle, function) { return status }
    if permille > 1000 { host.misuse("\(function): \(permille) permille") }
    _ = host.text(note, function)
    return CM_OK
}

func jobsLog(_ context: Context, _ handle: UInt64, _ line: cm_text) -> cm_status {
    let function: StaticString = "cm.jobs/1 log"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? attempt(host, handle, function) { return status }
    return host.text(line, function).utf8.count > 2048 ? CM_E_TOO_LARGE : CM_OK
}

func jobsFinish(
    _ context: Context, _ handle: UInt64, _ outcome: UInt32, _ result: cm_text, _ code: cm_text, _ reason: cm_text
) -> cm_status {
    let function: StaticString = "cm.jobs/1 finish"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? attempt(host, handle, function) { return status }
    if outcome > CM_JOB_DEAD { host.misuse("\(function): outcome \(outcome)") }
    if result.size > 0 { _ = host.json(result, function) }
    if outcome != CM_JOB_SUCCEEDED, host.text(code, function).isEmpty { host.misuse("\(function): a failure without a code") }
    _ = host.text(reason, function)
    host.with { $0.tasks[handle]?.isOver = true }
    return CM_OK
}

// MARK: cm.events/1

func eventsPublish(
    _ context: Context, _ kind: cm_text, _ client: cm_text, _ subject: cm_text, _ data: cm_text
) -> cm_status {
    let function: StaticString = "cm.events/1 publish"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) { return status }
    let name = host.text(kind, function)
    guard isOfPlugin(host, name) || isOfArea(host, name) else {
        host.misuse("\(function): \(name) begins neither with the plugin's id, nor with its last word or an area of its routes and a dot")
        return CM_E_INVALID
    }
    if data.size > 0 { _ = host.json(data, function) }
    return data.size > 4096 ? CM_E_TOO_LARGE : CM_OK
}

func eventsSubscribe(
    _ context: Context, _ kinds: cm_text, _ callbacks: UnsafePointer<cm_event_callbacks>, _ own: Opaque,
    _ subscription: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.events/1 subscribe"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_event_callbacks>.size, function)
    if let status = host.enter(function, .own) {
        callbacks.pointee.destroy?(own)
        return fail(status, error, "played refusal")
    }
    let name = host.text(kinds, function)
    if name.isEmpty { host.misuse("\(function): no kinds") }
    subscription.pointee = host.register(
        .init(
            kind: .subscription, name: "events \(name)", context: own, destroy: callbacks.pointee.destroy,
            callbacks: .events(callbacks.pointee)))
    return CM_OK
}

func eventsUnsubscribe(_ context: Context, _ subscription: UInt64) -> cm_status {
    guard let host = core(context, "cm.events/1 unsubscribe") else { return CM_E_INVALID }
    if let status = host.enter("cm.events/1 unsubscribe", .any, canFail: false) { return status }
    return host.forget(subscription, .subscription, "cm.events/1 unsubscribe")
}

// MARK: cm.store/1: memory for as long as the check runs

private func key(_ host: PlayedHost, _ text: cm_text, _ function: StaticString) -> String? {
    let key = host.text(text, function)
    if (1...512).contains(key.utf8.count) { return key }
    host.misuse("\(function): a key of \(key.utf8.count) bytes; 1 to 512 are allowed")
    return nil
}

func storeGet(_ context: Context, _ name: cm_text, _ value: CBuffer, _ error: CError) -> cm_status {
    let function: StaticString = "cm.store/1 get"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    guard let key = key(host, name, function) else { return fail(CM_E_INVALID, error, "the key") }
    guard let found = host.with({ $0.values[key] }) else { return fail(CM_E_NOT_FOUND, error, "no key \(key)") }
    return host.put(found, value, function)
}

func storeList(
    _ context: Context, _ prefix: cm_text, _ after: cm_text, _ limit: UInt32, _ json: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.store/1 list"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    let start = host.text(prefix, function)
    let last = host.text(after, function)
    let keys = host.with { state in state.values.keys.filter { $0.hasPrefix(start) && $0 > last }.sorted() }
    let page: JSONValue = ["items": .array(keys.prefix(Int(limit)).map { .string($0) }), "next": nil]
    return host.put(page.serialized(), json, function)
}

func storeBegin(_ context: Context, _ transaction: UnsafeMutablePointer<UInt64>) -> cm_status {
    guard let host = core(context, "cm.store/1 begin") else { return CM_E_INVALID }
    if let status = host.enter("cm.store/1 begin", .wait) { return status }
    let handle = host.handle()
    host.with { _ = $0.transactions.insert(handle) }
    transaction.pointee = handle
    return CM_OK
}

private func open(_ host: PlayedHost, _ transaction: UInt64, _ function: StaticString) -> cm_status? {
    if host.with({ $0.transactions.contains(transaction) }) { return nil }
    host.misuse("\(function): no transaction \(transaction); it was ended already, or never begun")
    return CM_E_NOT_FOUND
}

func storePut(_ context: Context, _ transaction: UInt64, _ name: cm_text, _ value: cm_bytes) -> cm_status {
    let function: StaticString = "cm.store/1 put"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) ?? open(host, transaction, function) { return status }
    guard let key = key(host, name, function) else { return CM_E_INVALID }
    let bytes = host.bytes(value, function)
    // Written at once: one plugin, one thread, and nobody looks before the commit.
    host.with { $0.values[key] = bytes }
    return bytes.count > 1 << 20 ? CM_E_TOO_LARGE : CM_OK
}

func storeRemove(_ context: Context, _ transaction: UInt64, _ name: cm_text) -> cm_status {
    let function: StaticString = "cm.store/1 remove"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) ?? open(host, transaction, function) { return status }
    guard let key = key(host, name, function) else { return CM_E_INVALID }
    host.with { $0.values[key] = nil }
    return CM_OK
}

func storeExpect(
    _ context: Context, _ transaction: UInt64, _ name: cm_text, _ exists: UInt32, _ value: cm_bytes
) -> cm_status {
    let function: StaticString = "cm.store/1 expect"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) ?? open(host, transaction, function) { return status }
    return key(host, name, function) == nil ? CM_E_INVALID : CM_OK
}

func storeCommit(_ context: Context, _ transaction: UInt64, _ error: CError) -> cm_status {
    let function: StaticString = "cm.store/1 commit"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) ?? open(host, transaction, function) { return fail(status, error, "no commit") }
    host.with { _ = $0.transactions.remove(transaction) }
    return CM_OK
}

func storeDiscard(_ context: Context, _ transaction: UInt64) -> cm_status {
    let function: StaticString = "cm.store/1 discard"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait, canFail: false) ?? open(host, transaction, function) { return status }
    host.with { _ = $0.transactions.remove(transaction) }
    return CM_OK
}

/// Blobs lie among the values, under a name that no key can have.
private func blob(_ name: String) -> String { "\u{0}blob " + name }

func storeBlobAppend(
    _ context: Context, _ name: cm_text, _ bytes: cm_bytes, _ size: UnsafeMutablePointer<UInt64>?, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.store/1 blob_append"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    guard let key = key(host, name, function) else { return fail(CM_E_INVALID, error, "the name") }
    let added = host.bytes(bytes, function)
    let total = host.with { state in
        state.values[blob(key), default: []].append(contentsOf: added)
        return state.values[blob(key)]?.count ?? 0
    }
    size?.pointee = UInt64(total)
    return CM_OK
}

func storeBlobSync(_ context: Context, _ name: cm_text, _ error: CError) -> cm_status {
    storeBlob(context, name, error, "cm.store/1 blob_sync") { _, _ in CM_OK }
}

func storeBlobRead(
    _ context: Context, _ name: cm_text, _ offset: UInt64, _ buffer: CBuffer, _ error: CError
) -> cm_status {
    storeBlob(context, name, error, "cm.store/1 blob_read") { host, content in
        let rest = content.dropFirst(Int(clamping: offset)).prefix(Int(clamping: buffer.pointee.capacity))
        return host.put(Array(rest), buffer, "cm.store/1 blob_read")
    }
}

func storeBlobSize(_ context: Context, _ name: cm_text, _ size: UnsafeMutablePointer<UInt64>) -> cm_status {
    storeBlob(context, name, nil, "cm.store/1 blob_size") { _, content in
        size.pointee = UInt64(content.count)
        return CM_OK
    }
}

func storeBlobRemove(_ context: Context, _ name: cm_text, _ error: CError) -> cm_status {
    storeBlob(context, name, error, "cm.store/1 blob_remove") { host, _ in
        let key = host.text(name, "cm.store/1 blob_remove")
        host.with { $0.values[blob(key)] = nil }
        return CM_OK
    }
}

private func storeBlob(
    _ context: Context, _ name: cm_text, _ error: CError, _ function: StaticString,
    _ body: (PlayedHost, [UInt8]) -> cm_status
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    guard let key = key(host, name, function) else { return fail(CM_E_INVALID, error, "the name") }
    guard let content = host.with({ $0.values[blob(key)] }) else { return fail(CM_E_NOT_FOUND, error, "no blob \(key)") }
    return body(host, content)
}

// MARK: cm.audit/1

func auditWrite(
    _ context: Context, _ actor: UInt64, _ action: cm_text, _ clients: cm_text, _ target: cm_text, _ outcome: UInt32,
    _ reason: cm_text, _ detail: cm_text, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.audit/1 write"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    let name = host.text(action, function)
    if !isOfPlugin(host, name), !isOfArea(host, name) {
        host.misuse("\(function): the action \(name) begins neither with the plugin's id, nor with its last word or an area of its routes and a dot")
    }
    if outcome > CM_AUDIT_FAILED { host.misuse("\(function): outcome \(outcome)") }
    if detail.size > 0 { _ = host.json(detail, function) }
    return CM_OK
}

func auditSink(
    _ context: Context, _ callbacks: UnsafePointer<cm_audit_callbacks>, _ own: Opaque,
    _ sink: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.audit/1 sink"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_audit_callbacks>.size, function)
    func refuse(_ status: cm_status, _ text: String) -> cm_status {
        callbacks.pointee.destroy?(own)
        return fail(status, error, text)
    }
    if let status = host.enter(function, .own) { return refuse(status, "played refusal") }
    guard host.note.capabilities.contains("audit.read") else {
        host.misuse("\(function): the note does not ask for the capability audit.read")
        return refuse(CM_E_DENIED, "audit.read is not granted")
    }
    sink.pointee = host.register(
        .init(
            kind: .sink, name: "audit sink", context: own, destroy: callbacks.pointee.destroy,
            callbacks: .sink(callbacks.pointee)))
    return CM_OK
}

func auditSinkRemove(_ context: Context, _ sink: UInt64) -> cm_status {
    guard let host = core(context, "cm.audit/1 sink_remove") else { return CM_E_INVALID }
    if let status = host.enter("cm.audit/1 sink_remove", .any, canFail: false) { return status }
    return host.forget(sink, .sink, "cm.audit/1 sink_remove")
}
