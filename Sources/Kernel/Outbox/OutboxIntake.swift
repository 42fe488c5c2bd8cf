import JSON
import Reactor

/// A message on its way into the outbox.
private struct NewDelivery: Sendable {
    var webhook: String
    var kind: String
    var body: [UInt8]
}

extension Outbox {
    // MARK: Events

    /// Stores what webhooks want of the live events, in their order. While nobody wants any, nothing wakes for them.
    func storeEvents(on loop: EventLoop, _ log: @Sendable (Problem) -> Void) async {
        var position: EventCursor?
        while !isStopping {
            guard let first = eventHooks().map(\.eventsAfter).min() else {
                position = nil
                await eventWakeup.wait(milliseconds: 60_000, on: loop)
                continue
            }
            let reached = position ?? EventCursor(run: events.run, sequence: first)
            position = reached
            await events.wait(after: reached, milliseconds: 5_000)
            let page = events.page(after: reached)
            guard !page.events.isEmpty || page.missed > 0 else { continue }
            do throws(Problem) {
                try await store(page)
                position = page.next
            } catch {
                // The ring keeps the events meanwhile; what it loses is counted as missed.
                log(error)
                await loop.sleep(milliseconds: 1_000)
            }
        }
    }

    private func eventHooks() -> [Entry] {
        state.withLock { state in
            state.entries.values.filter { $0.webhook.isEnabled && $0.webhook.source == .events }
        }
    }

    private func store(_ page: Events.Page) async throws(Problem) {
        var new: [NewDelivery] = []
        var dropped: [String: Int] = [:]
        for hook in eventHooks() {
            var room = limits.waiting - hook.waiting
            if page.missed > 0 { dropped[hook.webhook.id] = Int(clamping: page.missed) }
            for event in page.events where event.sequence > hook.eventsAfter && wants(hook.webhook, event) {
                if room > 0 {
                    new.append(NewDelivery(webhook: hook.webhook.id, kind: event.kind, body: event.json))
                    room -= 1
                } else {
                    dropped[hook.webhook.id, default: 0] += 1
                }
            }
        }
        guard !new.isEmpty || !dropped.isEmpty else { return }
        try await insert(new, dropped: dropped)
    }

    private func wants(_ webhook: Webhook, _ event: PublishedEvent) -> Bool {
        // Its own dead letters would come back to it as messages, for ever.
        guard webhook.wants(kind: event.kind), event.subject != webhook.id else { return false }
        guard let selector = webhook.selector, let client = event.client else { return true }
        return matches(selector, client)
    }

    // MARK: Audit records

    /// Stores what webhooks want of the audit trail; each has its own position in it.
    func storeAuditRecords(on loop: EventLoop, _ log: @Sendable (Problem) -> Void) async {
        while !isStopping {
            let hooks = state.withLock { state in
                state.entries.values.filter { $0.webhook.isEnabled && $0.webhook.source == .audit }
            }
            var moved = false
            for hook in hooks where hook.waiting < 16 && hook.auditPosition < audit.newest {
                do throws(Problem) {
                    try await storeRecords(hook)
                    moved = true
                } catch {
                    log(error)
                }
            }
            if !moved { await auditWakeup.wait(milliseconds: hooks.isEmpty ? 60_000 : 500, on: loop) }
        }
    }

    private func storeRecords(_ hook: Entry) async throws(Problem) {
        let page = try await audit.lines(after: hook.auditPosition, limit: limits.recordsPerMessage)
        let end = page.reached
        let wanted = page.lines.filter { hook.webhook.wants(kind: $0.entry.action) }
        var new: [NewDelivery] = []
        if !wanted.isEmpty {
            var writer = JSONWriter()
            writer.object { writer in
                writer.key("records")
                writer.array { writer in for line in wanted { line.write(to: &writer) } }
            }
            new = [NewDelivery(webhook: hook.webhook.id, kind: "audit.records", body: writer.finish())]
        }
        try await insert(new, auditPosition: (hook.webhook.id, end))
        state.withLock { $0.entries[hook.webhook.id]?.auditPosition = end }
    }

    // MARK: Storing

    private func insert(
        _ new: [NewDelivery], dropped: [String: Int] = [:], auditPosition: (webhook: String, sequence: UInt64)? = nil
    ) async throws(Problem) {
        let now = unixMilliseconds()
        let bytes = new.reduce(256) { $0 + $1.body.count + 128 }
        try await store.write(bytes: bytes) { (transaction) throws(StoreError) in
            for delivery in new {
                // The webhook may have been deleted meanwhile.
                try transaction.run(
                    """
                    INSERT INTO deliveries (webhook, kind, body, created_ms, attempts, next_ms, last_error)
                    SELECT id, ?, ?, ?, 0, ?, '' FROM webhooks WHERE id = ?
                    """, delivery.kind, delivery.body, now, now, delivery.webhook)
            }
            for (webhook, count) in dropped {
                try transaction.run("UPDATE webhooks SET dropped = dropped + ? WHERE id = ?", count, webhook)
            }
            if let auditPosition {
                try transaction.run(
                    "UPDATE webhooks SET audit_position = ? WHERE id = ?", auditPosition.sequence, auditPosition.webhook)
            }
        }
        guard !new.isEmpty else { return }
        state.withLock { state in
            for delivery in new { state.entries[delivery.webhook]?.waiting += 1 }
        }
        deliveryWakeup.signal()
    }
}
