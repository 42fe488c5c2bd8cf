import CPluginABI
import Glibc
import JSON

// cm.log, cm.config, cm.services, cm.metrics, cm.crypto and cm.executor of the played core, and interface_get.

typealias Context = OpaquePointer
typealias CError = UnsafeMutablePointer<cm_error>?
typealias CBuffer = UnsafeMutablePointer<cm_buffer>
typealias Opaque = UnsafeMutableRawPointer?

/// The state behind `host->context`; another first argument is a misuse.
func core(_ context: Context, _ function: StaticString) -> PlayedHost? {
    guard let played else { return nil }
    guard context == playedContext else {
        played.misuse("\(function): its first argument is not host->context")
        return nil
    }
    return played
}

/// An address that nothing else has; never read.
nonisolated(unsafe) let playedContext = OpaquePointer(UnsafeMutablePointer<UInt64>.allocate(capacity: 1))

func hostInterfaceGet(
    _ context: Context, _ identifier: cm_text, _ minimum: UInt32, _ table: UnsafeMutablePointer<UnsafeRawPointer?>,
    _ error: CError
) -> cm_status {
    guard let host = core(context, "interface_get") else { return CM_E_INVALID }
    if let status = host.enter("interface_get", .any) { return fail(status, error, "played refusal") }
    table.pointee = nil
    let name = host.text(identifier, "interface_get")
    guard let found = PlayedTables.shared.tables[name] else { return fail(CM_E_NOT_FOUND, error, "no interface \(name)") }
    if let capability = found.capability, !capability.contains(where: host.note.capabilities.contains) {
        host.misuse("interface_get \(name): the note does not ask for the capability \(capability.joined(separator: " or "))")
        return fail(CM_E_DENIED, error, "\(name) is not granted")
    }
    if found.size < Int(minimum) { return fail(CM_E_UNSUPPORTED, error, "\(name) has \(found.size) bytes") }
    table.pointee = UnsafeRawPointer(found.pointer)
    return CM_OK
}

// MARK: cm.log/1

func logWrite(_ context: Context, _ level: UInt32, _ event: cm_text, _ fields: cm_text) -> cm_status {
    guard let host = core(context, "cm.log/1 write") else { return CM_E_INVALID }
    if let status = host.enter("cm.log/1 write", .any) { return status }
    if level > CM_LOG_ERROR { host.misuse("cm.log/1 write: level \(level)") }
    if host.text(event, "cm.log/1 write").isEmpty { host.misuse("cm.log/1 write: an empty event") }
    if fields.size > 0, host.json(fields, "cm.log/1 write").object == nil {
        host.misuse("cm.log/1 write: fields are no JSON object")
    }
    return event.size + fields.size > 4096 ? CM_E_TOO_LARGE : CM_OK
}

func logIsEnabled(_ context: Context, _ level: UInt32) -> Int32 {
    guard let host = core(context, "cm.log/1 is_enabled") else { return 0 }
    return host.enter("cm.log/1 is_enabled", .any, canFail: false) == nil ? 1 : 0
}

// MARK: cm.config/1: an empty section

func configRead(_ context: Context, _ json: CBuffer) -> cm_status {
    guard let host = core(context, "cm.config/1 read") else { return CM_E_INVALID }
    return host.enter("cm.config/1 read", .any) ?? host.put(Array("{}".utf8), json, "cm.config/1 read")
}

func configGet(_ context: Context, _ pointer: cm_text, _ text: CBuffer) -> cm_status {
    guard let host = core(context, "cm.config/1 get") else { return CM_E_INVALID }
    if let status = host.enter("cm.config/1 get", .any) { return status }
    if !host.text(pointer, "cm.config/1 get").hasPrefix("/") { host.misuse("cm.config/1 get: no JSON pointer") }
    text.pointee.size = 0
    return CM_E_NOT_FOUND
}

// MARK: cm.services/1

func servicesPublish(
    _ context: Context, _ service: cm_text, _ table: UnsafePointer<cm_head>, _ tableContext: Opaque, _ error: CError
) -> cm_status {
    guard let host = core(context, "cm.services/1 publish") else { return CM_E_INVALID }
    if let status = host.enter("cm.services/1 publish", .own) { return fail(status, error, "played refusal") }
    let name = host.text(service, "cm.services/1 publish")
    guard host.note.provides.contains(name) else {
        host.misuse("cm.services/1 publish: \(name) is not in the note's \"provides\"")
        return fail(CM_E_DENIED, error, "\(name) is not in the note")
    }
    if table.pointee.size < UInt32(MemoryLayout<cm_head>.size) {
        host.misuse("cm.services/1 publish: the head of \(name) says \(table.pointee.size) bytes")
    }
    let isNew = host.with { state in
        guard !state.published.contains(where: { $0.service == name && !$0.isWithdrawn }) else { return false }
        state.published.append(.init(service: name, table: UnsafeRawPointer(table), context: tableContext))
        return true
    }
    return isNew ? CM_OK : fail(CM_E_EXISTS, error, "\(name) is published already")
}

func servicesWithdraw(_ context: Context, _ service: cm_text) -> cm_status {
    guard let host = core(context, "cm.services/1 withdraw") else { return CM_E_INVALID }
    if let status = host.enter("cm.services/1 withdraw", .own) { return status }
    let name = host.text(service, "cm.services/1 withdraw")
    return host.with { state in
        guard let index = state.published.firstIndex(where: { $0.service == name && !$0.isWithdrawn }) else {
            return CM_E_NOT_FOUND
        }
        state.published[index].isWithdrawn = true
        return CM_OK
    }
}

func servicesAcquire(
    _ context: Context, _ service: cm_text, _ minimum: UInt32, _ callbacks: UnsafePointer<cm_lease_callbacks>?,
    _ own: Opaque, _ lease: UnsafeMutablePointer<cm_lease>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.services/1 acquire"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let callbacks { host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_lease_callbacks>.size, function) }
    func refuse(_ status: cm_status, _ text: String) -> cm_status {
        callbacks?.pointee.destroy?(own)
        return fail(status, error, text)
    }
    if let status = host.enter(function, .own) { return refuse(status, "played refusal") }
    let name = host.text(service, function)
    if host.with({ $0.phase == .loading }) { host.misuse("\(function) \(name) in load; services are acquired from start on") }
    guard host.note.requires.contains(name) || host.note.wants.contains(name) else {
        host.misuse("\(function): \(name) is neither in the note's \"requires\" nor in its \"wants\"")
        return refuse(CM_E_DENIED, "\(name) is not in the note")
    }
    if lease.pointee.head.size < UInt32(MemoryLayout<cm_lease>.size) {
        host.misuse("\(function): the lease's head says \(lease.pointee.head.size) bytes; the caller sets it")
    }
    guard let found = host.with({ state in state.foreign.first { $0.service == name } }) else {
        return refuse(CM_E_NOT_FOUND, "nobody provides \(name) here; give its plugin with --with FILE")
    }
    let size = found.table.load(as: cm_head.self).size
    guard size >= minimum else { return refuse(CM_E_UNSUPPORTED, "\(name) has \(size) bytes, \(minimum) are wanted") }
    // For good: whoever misuses a dead lease still reads it.
    let valid = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
    valid.initialize(to: 1)
    lease.pointee.handle = host.register(
        .init(
            kind: .lease, name: "lease of \(name)", context: own, destroy: callbacks?.pointee.destroy,
            callbacks: .lease(callbacks?.pointee ?? cm_lease_callbacks(), valid)))
    lease.pointee.table = found.table
    lease.pointee.context = found.context
    lease.pointee.valid = UnsafePointer(valid)
    return CM_OK
}

func servicesRelease(_ context: Context, _ lease: UInt64) -> cm_status {
    guard let host = core(context, "cm.services/1 release") else { return CM_E_INVALID }
    if let status = host.enter("cm.services/1 release", .any, canFail: false) { return status }
    return host.forget(lease, .lease, "cm.services/1 release")
}

func servicesWatch(
    _ context: Context, _ service: cm_text, _ callbacks: UnsafePointer<cm_service_callbacks>, _ own: Opaque,
    _ handle: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.services/1 watch"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_service_callbacks>.size, function)
    if let status = host.enter(function, .own) {
        callbacks.pointee.destroy?(own)
        return fail(status, error, "played refusal")
    }
    let name = host.text(service, function)
    handle.pointee = host.register(
        .init(
            kind: .watch, name: "watch of \(name)", context: own, destroy: callbacks.pointee.destroy,
            callbacks: .watch(callbacks.pointee), pattern: name))
    return CM_OK
}

func servicesUnwatch(_ context: Context, _ handle: UInt64) -> cm_status {
    guard let host = core(context, "cm.services/1 unwatch") else { return CM_E_INVALID }
    if let status = host.enter("cm.services/1 unwatch", .any, canFail: false) { return status }
    return host.forget(handle, .watch, "cm.services/1 unwatch")
}

// MARK: cm.metrics/1

func metricsDefine(
    _ context: Context, _ kind: UInt32, _ name: cm_text, _ help: cm_text, _ metric: UnsafeMutablePointer<UInt64>,
    _ error: CError
) -> cm_status {
    let function: StaticString = "cm.metrics/1 define"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .own) { return fail(status, error, "played refusal") }
    let text = host.text(name, function)
    if text.isEmpty || !text.utf8.allSatisfy({ (0x61...0x7A).contains($0) || $0 == 0x5F }) {
        host.misuse("\(function): the name \"\(text)\" is not [a-z_]")
        return fail(CM_E_INVALID, error, "the name \"\(text)\" is not [a-z_]")
    }
    if kind > CM_METRIC_HISTOGRAM { host.misuse("\(function): kind \(kind)") }
    metric.pointee = host.register(.init(kind: .metric, name: text, context: nil, destroy: nil))
    return CM_OK
}

func metricsAdd(_ context: Context, _ metric: UInt64, _ value: Double) -> cm_status {
    metricsTouch(context, metric, "cm.metrics/1 add")
}

func metricsSet(_ context: Context, _ metric: UInt64, _ value: Double) -> cm_status {
    metricsTouch(context, metric, "cm.metrics/1 set")
}

private func metricsTouch(_ context: Context, _ metric: UInt64, _ function: StaticString) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any, canFail: false) { return status }
    guard host.with({ $0.registrations[metric]?.kind == .metric }) else {
        host.misuse("\(function): no metric \(metric)")
        return CM_E_NOT_FOUND
    }
    return CM_OK
}

// MARK: cm.crypto/1: the shapes alone; nothing here is secret

func cryptoRandom(_ context: Context, _ data: UnsafeMutablePointer<UInt8>, _ count: UInt64) -> cm_status {
    guard let host = core(context, "cm.crypto/1 random") else { return CM_E_INVALID }
    if let status = host.enter("cm.crypto/1 random", .any) { return status }
    for index in 0..<Int(count) { data[index] = .random(in: 0...255) }
    return CM_OK
}

func cryptoSHA256(_ context: Context, _ data: cm_bytes, _ digest: UnsafeMutablePointer<UInt8>) -> cm_status {
    guard let host = core(context, "cm.crypto/1 sha256") else { return CM_E_INVALID }
    return host.enter("cm.crypto/1 sha256", .any) ?? playedDigest(host, [data], digest)
}

func cryptoHMAC(
    _ context: Context, _ key: cm_bytes, _ data: cm_bytes, _ code: UnsafeMutablePointer<UInt8>
) -> cm_status {
    guard let host = core(context, "cm.crypto/1 hmac_sha256") else { return CM_E_INVALID }
    return host.enter("cm.crypto/1 hmac_sha256", .any) ?? playedDigest(host, [key, data], code)
}

/// 32 bytes that depend on the input. The check has no cryptography: no plugin may rely on the value here.
private func playedDigest(_ host: PlayedHost, _ parts: [cm_bytes], _ out: UnsafeMutablePointer<UInt8>) -> cm_status {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for part in parts { for byte in host.bytes(part, "cm.crypto/1") { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 } }
    for index in 0..<32 {
        out[index] = UInt8(truncatingIfNeeded: hash >> 56)
        hash = (hash ^ UInt64(index)) &* 0x100_0000_01B3
    }
    return CM_OK
}

func cryptoSeal(
    _ context: Context, _ label: cm_text, _ secret: cm_bytes, _ sealed: CBuffer, _ error: CError
) -> cm_status { cryptoTurn(context, label, secret, sealed, error, "cm.crypto/1 seal") }

func cryptoUnseal(
    _ context: Context, _ label: cm_text, _ sealed: cm_bytes, _ secret: CBuffer, _ error: CError
) -> cm_status { cryptoTurn(context, label, sealed, secret, error, "cm.crypto/1 unseal") }

private func cryptoTurn(
    _ context: Context, _ label: cm_text, _ input: cm_bytes, _ output: CBuffer, _ error: CError, _ function: StaticString
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) { return fail(status, error, "played refusal") }
    _ = host.text(label, function)
    guard host.note.capabilities.contains("secrets") else {
        host.misuse("\(function): the note does not ask for the capability secrets")
        return fail(CM_E_DENIED, error, "secrets are not granted")
    }
    return host.put(host.bytes(input, function).map { $0 ^ 0xA5 }, output, function)
}

func cryptoEncrypt(
    _ context: Context, _ key: cm_bytes, _ associated: cm_bytes, _ plain: cm_bytes, _ encrypted: CBuffer, _ error: CError
) -> cm_status { cipherTurn(context, key, associated, plain, encrypted, error, "cm.crypto/1 encrypt") }

func cryptoDecrypt(
    _ context: Context, _ key: cm_bytes, _ associated: cm_bytes, _ encrypted: cm_bytes, _ plain: CBuffer, _ error: CError
) -> cm_status { cipherTurn(context, key, associated, encrypted, plain, error, "cm.crypto/1 decrypt") }

private func cipherTurn(
    _ context: Context, _ key: cm_bytes, _ associated: cm_bytes, _ input: cm_bytes, _ output: CBuffer, _ error: CError,
    _ function: StaticString
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) { return fail(status, error, "played refusal") }
    if host.bytes(key, function).count != 32 { host.misuse("\(function): the key has not 32 bytes") }
    _ = host.bytes(associated, function)
    return host.put(host.bytes(input, function).map { $0 ^ 0xA5 }, output, function)
}

// MARK: cm.executor/1

func executorPost(_ context: Context, _ function: cm_function?, _ destroy: cm_function?, _ own: Opaque) -> cm_status {
    guard let host = core(context, "cm.executor/1 post") else { return CM_E_INVALID }
    if let status = host.enter("cm.executor/1 post", .any) {
        destroy?(own)
        return status
    }
    host.post(.init(function: function, destroy: destroy, context: own))
    return CM_OK
}

func executorBlocking(_ context: Context, _ function: cm_function?, _ destroy: cm_function?, _ own: Opaque) -> cm_status {
    guard let host = core(context, "cm.executor/1 blocking") else { return CM_E_INVALID }
    if let status = host.enter("cm.executor/1 blocking", .any) {
        destroy?(own)
        return status
    }
    host.with { $0.workers += 1 }
    let work = Unmanaged.passRetained(WorkerBox(.init(function: function, destroy: destroy, context: own)))
    var thread = pthread_t()
    if pthread_create(&thread, nil, runWorker, work.toOpaque()) == 0 {
        pthread_detach(thread)
        return CM_OK
    }
    work.release()
    host.with { $0.workers -= 1 }
    destroy?(own)
    return CM_E_BUSY
}

private final class WorkerBox {
    let work: PlayedHost.Work
    init(_ work: PlayedHost.Work) { self.work = work }
}

private func runWorker(_ raw: Opaque) -> Opaque {
    guard let raw else { return nil }
    let work = Unmanaged<WorkerBox>.fromOpaque(raw).takeRetainedValue().work
    work.function?(work.context)
    work.destroy?(work.context)
    played?.with { $0.workers -= 1 }
    return nil
}

func executorTimer(
    _ context: Context, _ delay: UInt64, _ interval: UInt64, _ function: cm_function?, _ destroy: cm_function?,
    _ own: Opaque, _ timer: UnsafeMutablePointer<UInt64>
) -> cm_status {
    guard let host = core(context, "cm.executor/1 timer") else { return CM_E_INVALID }
    if let status = host.enter("cm.executor/1 timer", .any) {
        destroy?(own)
        return status
    }
    timer.pointee = host.register(
        .init(
            kind: .timer, name: "timer of \(delay) ms", context: own, destroy: destroy,
            callbacks: function.map { .timer($0) } ?? .none))
    return CM_OK
}

func executorTimerCancel(_ context: Context, _ timer: UInt64) -> cm_status {
    guard let host = core(context, "cm.executor/1 timer_cancel") else { return CM_E_INVALID }
    if let status = host.enter("cm.executor/1 timer_cancel", .any, canFail: false) { return status }
    let found = host.with { state -> PlayedHost.Registration? in
        guard state.registrations[timer]?.kind == .timer else { return nil }
        return state.registrations.removeValue(forKey: timer)
    }
    guard let found else { return CM_E_NOT_FOUND }
    host.post(.init(function: nil, destroy: found.destroy, context: found.context))
    return CM_OK
}

func executorNow(_ context: Context) -> UInt64 {
    guard let host = core(context, "cm.executor/1 now_ms") else { return 0 }
    _ = host.enter("cm.executor/1 now_ms", .any, canFail: false)
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
}

func executorIsOwnThread(_ context: Context) -> Int32 {
    guard let host = core(context, "cm.executor/1 is_own_thread") else { return 0 }
    return pthread_equal(pthread_self(), host.own) != 0 ? 1 : 0
}
