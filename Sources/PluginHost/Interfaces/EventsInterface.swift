import CPluginABI
import JSON
import Kernel
import Reactor
import Synchronization

let eventsTable = HostTable(
    cm_events(
        head: head(of: cm_events.self), publish: eventsPublish, subscribe: eventsSubscribe, unsubscribe: eventsUnsubscribe))

extension PluginInstance {
    /// Whether the text is "WORD.rest" with one of the plugin's own words: its id, the last word of it, an area of its routes.
    func owns(_ text: String) -> Bool {
        guard text.utf8.count <= 128,
            text.utf8.allSatisfy({ (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x5F })
        else { return false }
        // The name of a first-party area only with the area itself, which somebody approved.
        let short = CoreAreas.firstParty.contains(note.shortName) ? [] : [note.shortName]
        return ([note.id] + (short + note.routes).filter { !CoreAreas.words.contains($0) }).contains {
            text.hasPrefix($0 + ".") && text.utf8.count > $0.utf8.count + 1
        }
    }
}

private func eventsPublish(
    _ host: OpaquePointer, _ kind: cm_text, _ client: cm_text, _ subject: cm_text, _ data: cm_text
) -> cm_status {
    hostCall(host, .any, "events.publish") { instance in
        guard let kind = kind.string(limit: 128), instance.owns(kind) else {
            instance.misuse("events.publish", "the kind must begin with \"\(instance.id).\" or \"\(instance.note.shortName).\" (the latter unless the core has such events), in [a-z0-9._-]")
            return CM_E_INVALID
        }
        guard let client = client.string(limit: 26), let subject = subject.string(limit: 256), let text = data.bytes(limit: 4_096) else {
            instance.misuse("events.publish", "client over 26 bytes, subject over 256, data over 4,096, or no UTF-8")
            return CM_E_INVALID
        }
        var value = JSONValue.null
        if !text.isEmpty {
            guard let parsed = try? JSONValue(parsing: text, limits: JSONLimits(depth: 16, bytes: 4_096)) else {
                instance.misuse("events.publish", "data is not JSON")
                return CM_E_INVALID
            }
            value = parsed
        }
        var id: ClientID?
        if !client.isEmpty {
            guard let known = ClientID(client), instance.environment.kernel.clients.state(of: known) != nil else { return CM_E_NOT_FOUND }
            id = known
        }
        guard instance.eventLimit.admit(now: unixMilliseconds()).admitted else {
            instance.misuse("events.publish", "more than 1,000 events in one second")
            return CM_E_BUSY
        }
        instance.environment.kernel.events.publish(
            Event(kind: kind, client: id, subject: subject.isEmpty ? nil : subject, data: value))
        return CM_OK
    }
}

/// A reader of the core's ring of events: pulls as fast as the plugin takes them.
private final class Subscription: PluginResource {
    private let kinds: [String]
    private let callbacks: cm_event_callbacks
    private let context: CallbackContext
    private let handover = Handover()
    private let task = Mutex<Task<Void, Never>?>(nil)

    init(_ kinds: [String], _ callbacks: cm_event_callbacks, _ context: CallbackContext) {
        self.kinds = kinds
        self.callbacks = callbacks
        self.context = context
    }

    private func wants(_ kind: String) -> Bool {
        kinds.contains { $0 == "*" || ($0.hasSuffix(".*") ? kind.hasPrefix($0.dropLast()) : kind == $0) }
    }

    func begin(on instance: PluginInstance) {
        let events = instance.environment.kernel.events
        let start = events.end
        let task = instance.environment.loop.spawn { [self] in await run(events, start, instance) }
        self.task.withLock { $0 = task }
        if handover.isClosed { task.cancel() }
    }

    private func run(_ events: Events, _ start: EventCursor, _ instance: PluginInstance) async {
        var position = start
        while !handover.isClosed {
            let page = events.page(after: position, limit: 64)
            let wanted = page.events.filter { wants($0.kind) }
            if page.missed > 0 || !wanted.isEmpty {
                guard await handover.run("event", on: instance, { [self] in tell(page.missed, wanted) }) else {
                    // Its queue is full. The ring goes on; what falls out of it is counted at the next look.
                    await instance.environment.loop.sleep(milliseconds: 50)
                    continue
                }
            }
            position = page.next
            if page.events.isEmpty { await events.wait(after: position, milliseconds: 60_000) }
        }
    }

    /// On the plugin's own thread.
    private func tell(_ missed: UInt64, _ events: [PublishedEvent]) {
        if missed > 0, let function = callbacks.missed { function(context.foreign.pointer, missed) }
        guard let function = callbacks.event else { return }
        for event in events where !handover.isClosed {
            withText(event.kind) { kind in withText(event.json) { function(context.foreign.pointer, kind, $0) } }
        }
    }

    func retire(_: cm_handle, of instance: PluginInstance) {
        handover.close()
        task.withLock { $0 }?.cancel()
        context.end(on: instance)
    }
}

private func eventsSubscribe(
    _ host: OpaquePointer, _ kinds: cm_text, _ callbacks: UnsafePointer<cm_event_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ subscription: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_event_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .own, "events.subscribe", error: error) { instance in
        guard let table, table.event != nil else {
            return error.set(CM_E_INVALID, "plugin-argument", "`event` is not set, or the head of the callbacks is not filled in")
        }
        guard instance.phase != .loading else {
            return error.set(CM_E_STATE, "plugin-phase", "events are subscribed to from `start` on, not in `load`")
        }
        let list = kinds.string(limit: 1_024)?.split(separator: ",").map(String.init) ?? []
        guard (1...64).contains(list.count) else {
            return error.set(CM_E_INVALID, "plugin-argument", "`kinds` is 1 to 64 kinds with commas between, at most 1,024 bytes: \"client.*,job.dead\", or \"*\"")
        }
        guard instance.count(of: Subscription.self) < 64 else {
            return error.set(CM_E_BUSY, "plugin-too-many", "the plugin has 64 subscriptions already")
        }
        let made = Subscription(list, table, ends)
        subscription.pointee = instance.keep(made)
        made.begin(on: instance)
        return CM_OK
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func eventsUnsubscribe(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "events.unsubscribe") { instance in
        guard let subscription = instance.take(handle, Subscription.self) else { return CM_E_NOT_FOUND }
        subscription.retire(handle, of: instance)
        return CM_OK
    }
}
