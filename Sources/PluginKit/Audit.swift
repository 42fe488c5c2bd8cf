import CPluginABI
import JSON

/// `cm.audit/1`. Being a sink needs the capability "audit.read".
public struct Audit: Sendable {
    let table: HostTable<cm_audit>

    public enum Outcome: UInt32, Sendable {
        case allowed = 0
        case refused, failed
    }

    /// Writes a record and returns when it is durable: before the act is acknowledged. `action` is "area.verb".
    public func write(
        _ action: String, as actor: Actor = .plugin, clients: [String] = [], target: String = "",
        _ outcome: Outcome = .allowed, reason: String = "", detail: JSONObject = [:]
    ) throws(PluginError) {
        guard let write = table.functions.write else { throw .missing("cm.audit/1 write") }
        let detail = detail.isEmpty ? [] : JSONValue.object(detail).serialized()
        try attempt("cm.audit/1 write") { error in
            action.withText { action in
                clients.joined(separator: ",").withText { clients in
                    target.withText { target in
                        reason.withText { reason in
                            detail.withText {
                                write(
                                    table.context, actor.handle, action, clients, target, outcome.rawValue, reason, $0,
                                    error)
                            }
                        }
                    }
                }
            }
        }
    }

    /// Gets every record from the last one that it kept, on the plugin's own thread. `true`: it is kept and does not come
    /// again; `false`: it comes again later.
    public func sink(_ record: @escaping (_ sequence: UInt64, _ record: JSONValue) -> Bool) throws(PluginError) -> Registration {
        guard let sink = table.functions.sink else { throw .missing("cm.audit/1 sink") }
        var callbacks = cm_audit_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_audit_callbacks>.size), revision: 1)
        callbacks.record = auditRecord
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(SinkContext(record)).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.audit/1 sink") { error in sink(table.context, &callbacks, context, &handle, error) }
        return Registration(handle: handle)
    }

    public func removeSink(_ sink: Registration) { _ = table.functions.sink_remove?(table.context, sink.handle) }
}

extension Host {
    public func audit() throws(PluginError) -> Audit { Audit(table: try interface(CM_INTERFACE_AUDIT, cm_audit())) }
}

private final class SinkContext {
    let record: (UInt64, JSONValue) -> Bool
    init(_ record: @escaping (UInt64, JSONValue) -> Bool) { self.record = record }
}

private func auditRecord(_ context: UnsafeMutableRawPointer?, _ sequence: UInt64, _ json: cm_text) -> cm_status {
    var kept = false
    withContext(context, as: SinkContext.self) {
        kept = $0.record(sequence, (try? JSONValue(parsing: String(json))) ?? .null)
    }
    return kept ? CM_OK : CM_E_UNAVAILABLE
}
