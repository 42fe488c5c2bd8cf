import CPluginABI
import JSON

/// `cm.events/1`.
public struct Events: Sendable {
    let table: HostTable<cm_events>

    /// `kind` begins with the plugin's id, or its last word, and a dot. `.busy`: over 1,000 a second.
    @discardableResult
    public func publish(
        _ kind: String, client: String = "", subject: String = "", _ data: JSONObject = [:]
    ) throws(PluginError) -> Sent {
        guard let publish = table.functions.publish else { throw .missing("cm.events/1 publish") }
        let text = JSONValue.object(data).serialized()
        let status = kind.withText { kind in
            client.withText { client in
                subject.withText { subject in text.withText { publish(table.context, kind, client, subject, $0) } }
            }
        }
        guard status == CM_OK || status == CM_E_BUSY else { throw .failed(status, "cm.events/1 publish") }
        return Sent(status)
    }

    /// Hears of events of these kinds ("client.*" is an area, "*" everything) on the plugin's own thread. `missed`: the
    /// plugin was too slow, and this many events fell out before it got them.
    public func subscribe(
        _ kinds: [String], missed: @escaping (UInt64) -> Void = { _ in },
        _ event: @escaping (_ kind: String, _ event: JSONValue) -> Void
    ) throws(PluginError) -> Registration {
        guard let subscribe = table.functions.subscribe else { throw .missing("cm.events/1 subscribe") }
        var callbacks = cm_event_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_event_callbacks>.size), revision: 1)
        callbacks.event = eventCame
        callbacks.missed = eventsMissed
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(EventContext(event, missed)).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.events/1 subscribe") { error in
            kinds.joined(separator: ",").withText { subscribe(table.context, $0, &callbacks, context, &handle, error) }
        }
        return Registration(handle: handle)
    }

    public func unsubscribe(_ subscription: Registration) {
        _ = table.functions.unsubscribe?(table.context, subscription.handle)
    }
}

extension Host {
    public func events() throws(PluginError) -> Events { Events(table: try interface(CM_INTERFACE_EVENTS, cm_events())) }
}

private final class EventContext {
    let event: (String, JSONValue) -> Void
    let missed: (UInt64) -> Void

    init(_ event: @escaping (String, JSONValue) -> Void, _ missed: @escaping (UInt64) -> Void) {
        self.event = event
        self.missed = missed
    }
}

private func eventCame(_ context: UnsafeMutableRawPointer?, _ kind: cm_text, _ json: cm_text) {
    withContext(context, as: EventContext.self) { $0.event(String(kind), (try? JSONValue(parsing: String(json))) ?? .null) }
}

private func eventsMissed(_ context: UnsafeMutableRawPointer?, _ count: UInt64) {
    withContext(context, as: EventContext.self) { $0.missed(count) }
}
