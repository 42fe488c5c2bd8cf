import AgentProtocol
import Crypto
import JSON
import Reactor
import Synchronization

/// Webhooks: what is to be told is stored first, then delivered, signed, retried with back-off, and given up for an
/// operator to see. Any thread.
///
/// An event is kept from the moment it stands in the outbox, a few milliseconds after it happened; audit records are
/// never left out, because each webhook has a position in the trail that moves in the transaction that stores the
/// message.
public final class Outbox: Sendable {
    struct Limits: Sendable {
        var webhooks = 100
        /// Undelivered messages per webhook; events beyond it are counted as dropped, audit records wait in the trail.
        var waiting = 10_000
        var dead = 1_000
        var recordsPerMessage = 100
    }
    /// What the tasks of the outbox know about one webhook.
    struct Entry: Sendable {
        var webhook: Webhook
        var secret: [UInt8]
        var auditPosition: UInt64
        /// The newest event when it was made or switched on: it gets what comes after.
        var eventsAfter: UInt64
        var waiting = 0
        var isBusy = false
    }
    struct State: ~Copyable {
        var entries: [String: Entry] = [:]
        var stopping = false
    }
    /// Whether a selector selects a client; stands for the registry.
    public typealias Matcher = @Sendable (_ selector: String, ClientID) -> Bool

    let store: Store
    let events: Events
    let audit: Audit
    let safe: KeySafe
    let sender: any WebhookSender
    let matches: Matcher
    let limits: Limits
    let state = Mutex(State())
    let deliveryWakeup = Wakeup()
    let auditWakeup = Wakeup()
    let eventWakeup = Wakeup()

    public static func load(
        store: Store, events: Events, audit: Audit, safe: KeySafe, sender: any WebhookSender,
        matches: @escaping Matcher
    ) async throws(Problem) -> Outbox {
        try await load(
            store: store, events: events, audit: audit, safe: safe, sender: sender, matches: matches, limits: Limits())
    }

    static func load(
        store: Store, events: Events, audit: Audit, safe: KeySafe, sender: any WebhookSender,
        matches: @escaping Matcher, limits: Limits
    ) async throws(Problem) -> Outbox {
        let outbox = Outbox(store, events, audit, safe, sender, matches, limits)
        let rows = try await store.read { (reader) throws(StoreError) in
            try reader.all("""
                SELECT id, name, url, source, kinds, selector, enabled, created_ms, created_by, secret, audit_position,
                    (SELECT count(*) FROM deliveries WHERE webhook = webhooks.id AND next_ms IS NOT NULL)
                FROM webhooks
                """) { (row) throws(StoreError) in
                (Self.webhook(row), row.bytes(9), row.unsigned(10), row.int(11))
            }
        }
        for (webhook, sealed, position, waiting) in rows {
            let secret = try safe.open(sealed, name: "webhook:\(webhook.id)").secret
            outbox.state.withLock {
                $0.entries[webhook.id] = Entry(
                    webhook: webhook, secret: secret, auditPosition: position, eventsAfter: 0,
                    waiting: waiting)
            }
        }
        return outbox
    }

    private init(
        _ store: Store, _ events: Events, _ audit: Audit, _ safe: KeySafe, _ sender: any WebhookSender,
        _ matches: @escaping Matcher, _ limits: Limits
    ) {
        self.store = store
        self.events = events
        self.audit = audit
        self.safe = safe
        self.sender = sender
        self.matches = matches
        self.limits = limits
    }

    /// Starts storing and delivering, with the events from now on, until `stop`.
    public func start(on loop: EventLoop, log: @escaping @Sendable (Problem) -> Void = { _ in }) {
        let newest = events.end.sequence
        state.withLock { state in
            for id in state.entries.keys { state.entries[id]?.eventsAfter = newest }
        }
        loop.spawn { await self.storeEvents(on: loop, log) }
        loop.spawn { await self.storeAuditRecords(on: loop, log) }
        loop.spawn { await self.deliver(on: loop, log) }
    }

    /// What is stored stays for the next start. Before the store is closed.
    public func stop() {
        state.withLock { $0.stopping = true }
        deliveryWakeup.signal()
        auditWakeup.signal()
        eventWakeup.signal()
    }

    var isStopping: Bool { state.withLock { $0.stopping } }

    /// Columns `id, name, url, source, kinds, selector, enabled, created_ms, created_by`.
    static func webhook(_ row: borrowing Row) -> Webhook {
        Webhook(
            id: row.text(0), name: row.text(1), url: row.text(2), source: Webhook.Source(rawValue: row.text(3)) ?? .events,
            kinds: row.text(4).split(separator: " ").map(String.init), selector: row.optionalText(5),
            isEnabled: row.bool(6), createdMilliseconds: row.unsigned(7), createdBy: row.text(8))
    }
}
