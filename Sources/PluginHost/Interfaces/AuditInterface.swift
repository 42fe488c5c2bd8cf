import CPluginABI
import JSON
import Kernel
import Reactor
import Synchronization

let auditTable = HostTable(
    cm_audit(head: head(of: cm_audit.self), write: auditWrite, sink: auditSink, sink_remove: auditSinkRemove))

private func auditWrite(
    _ host: OpaquePointer, _ actor: cm_handle, _ action: cm_text, _ clients: cm_text, _ target: cm_text, _ outcome: UInt32,
    _ reason: cm_text, _ detail: cm_text, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "audit.write", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            guard let action = action.string(limit: 128), instance.owns(action) else {
                throw Problem(400, "plugin-argument", "`action` must begin with \"\(instance.id).\" or an area of the plugin's routes and a dot: no plugin writes in the core's name")
            }
            guard let target = target.string(limit: 1_024) else { throw .text("target", atMost: 1_024) }
            guard let reason = reason.string(limit: 1_024) else { throw .text("reason", atMost: 1_024) }
            let outcomes: [AuditRecord.Outcome] = [.allowed, .refused, .failed]
            guard outcome < outcomes.count else { throw Problem(400, "plugin-argument", "`outcome` is \(outcome); it is CM_AUDIT_ALLOWED, _REFUSED or _FAILED") }
            guard let list = clients.string(limit: 27_000) else { throw .text("clients", atMost: 27_000) }
            var ids: [ClientID] = []
            for text in list.split(separator: ",") {
                guard let id = ClientID(text) else { throw Problem(400, "plugin-argument", "`clients`: \"\(text.prefix(64))\" is no client id") }
                ids.append(id)
            }
            // Whoever it names as the actor, the trail says which plugin wrote it.
            var said: JSONObject = ["plugin": .string(instance.id)]
            guard let text = detail.bytes(limit: 16_000) else { throw .text("detail", atMost: 16_000) }
            if !text.isEmpty {
                guard let value = try? JSONValue(parsing: text, limits: JSONLimits(depth: 16, bytes: 16_000)) else {
                    throw Problem(400, "plugin-argument", "`detail` is not JSON")
                }
                said["detail"] = value
            }
            let record = AuditRecord(
                principal: actor.principal, action: action, clients: ids, target: target.isEmpty ? nil : target,
                outcome: outcomes[Int(outcome)], reason: reason, detail: .object(said))
            let store = instance.environment.kernel.store
            try instance.waitForKernel { () async throws(Problem) in
                try await store.write(bytes: 1_024 + text.count) { (transaction) throws(StoreError) in
                    _ = try transaction.audit(record)
                }
            }
            return CM_OK
        }
    }
}

/// Copies the trail to a plugin: in order, at least once, from its own durable position.
private final class PluginAuditSink: PluginResource {
    private let callbacks: cm_audit_callbacks
    private let context: CallbackContext
    private let handover = Handover()

    init(_ callbacks: cm_audit_callbacks, _ context: CallbackContext) {
        self.callbacks = callbacks
        self.context = context
    }

    private static let batch = 64
    private static let firstPause: UInt64 = 250

    func begin(on instance: PluginInstance) {
        let kernel = instance.environment.kernel
        instance.environment.loop.spawn { [self] in await run(kernel, instance) }
    }

    private func run(_ kernel: Kernel, _ instance: PluginInstance) async {
        var position: UInt64?
        var pause = Self.firstPause
        while !handover.isClosed {
            do throws(Problem) {
                let known: UInt64
                if let position { known = position } else { known = try await stored(kernel.store, instance.id) }
                position = known
                if kernel.audit.newest > known {
                    let reached = try await copy(kernel, after: known, instance)
                    if reached > known {
                        position = reached
                        pause = Self.firstPause
                        continue
                    }
                    // It did not want the next one: later, and ever later.
                    pause = min(pause * 2, 60_000)
                }
            } catch {
                pause = min(pause * 2, 60_000)
            }
            await instance.environment.loop.sleep(milliseconds: pause)
        }
    }

    /// - Returns: the last record that it kept, durably noted.
    private func copy(_ kernel: Kernel, after position: UInt64, _ instance: PluginInstance) async throws(Problem) -> UInt64 {
        let page = try await kernel.audit.lines(after: position, limit: Self.batch)
        let offered = Offered(page.lines)
        if !page.lines.isEmpty { _ = await handover.run("record", on: instance) { [self] in offer(offered) } }
        let count = offered.kept.withLock { $0 }
        let reached = count == page.lines.count ? page.reached : count > 0 ? page.lines[count - 1].entry.sequence : position
        guard reached > position else { return position }
        let id = instance.id
        try await kernel.store.write { (transaction) throws(StoreError) in
            _ = try transaction.run("INSERT OR REPLACE INTO plugin_audit_positions VALUES (?, ?)", id, reached)
        }
        return reached
    }

    /// Records on their way, and how many of them the plugin kept.
    private final class Offered: Sendable {
        let lines: [AuditLine]
        let kept = Mutex(0)
        init(_ lines: [AuditLine]) { self.lines = lines }
    }

    /// On the plugin's own thread.
    private func offer(_ offered: Offered) {
        guard let function = callbacks.record else { return }
        for line in offered.lines where !handover.isClosed {
            var writer = JSONWriter(reserving: 512)
            line.write(to: &writer)
            let status = withText(writer.finish()) { function(context.foreign.pointer, line.entry.sequence, $0) }
            guard status == CM_OK else { return }
            offered.kept.withLock { $0 += 1 }
        }
    }

    private func stored(_ store: Store, _ id: String) async throws(Problem) -> UInt64 {
        try await store.read { (reader) throws(StoreError) in
            try reader.first("SELECT sequence FROM plugin_audit_positions WHERE plugin = ?", id) { (row) throws(StoreError) in
                row.unsigned(0)
            } ?? 0
        }
    }

    func retire(_: cm_handle, of instance: PluginInstance) {
        handover.close()
        context.end(on: instance)
    }
}

private func auditSink(
    _ host: OpaquePointer, _ callbacks: UnsafePointer<cm_audit_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ sink: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_audit_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .own, "audit.sink", error: error) { instance in
        guard let table, table.record != nil else {
            return error.set(CM_E_INVALID, "plugin-argument", "`record` is not set, or the head of the callbacks is not filled in")
        }
        guard instance.grants.contains(.auditRead) else {
            return error.set(CM_E_DENIED, "plugin-not-granted", "a sink of the audit trail needs the capability \"\(Capability.auditRead.rawValue)\"", http: 403)
        }
        guard instance.phase != .loading else {
            return error.set(CM_E_STATE, "plugin-phase", "the audit trail is read from `start` on, not in `load`")
        }
        guard instance.count(of: PluginAuditSink.self) == 0 else {
            return error.set(CM_E_EXISTS, "plugin-too-many", "the plugin has a sink already, and one position", http: 409)
        }
        let made = PluginAuditSink(table, ends)
        sink.pointee = instance.keep(made)
        made.begin(on: instance)
        return CM_OK
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func auditSinkRemove(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "audit.sink_remove") { instance in
        guard let sink = instance.take(handle, PluginAuditSink.self) else { return CM_E_NOT_FOUND }
        sink.retire(handle, of: instance)
        return CM_OK
    }
}
