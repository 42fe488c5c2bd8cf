import AgentProtocol
import Crypto
import JSON
import Reactor

extension Outbox {
    /// - Returns: the webhook as the API shows it, and its secret, which is shown this once.
    public func create(_ change: WebhookChange, by principal: Principal) async throws(Problem) -> (JSONValue, secret: String) {
        try change.check()
        guard let name = change.name else { throw .invalid("a webhook needs a name", pointer: "/name") }
        guard let url = change.url else { throw .invalid("a webhook needs a url", pointer: "/url") }
        guard state.withLock({ $0.entries.count }) < limits.webhooks else {
            throw .conflict("too-many", "there are \(limits.webhooks) webhooks already: delete one first")
        }
        let now = unixMilliseconds()
        let id = Identifier<ClientKind>(
            milliseconds: now, random: (Random.uint64(), Random.uint64())).description.lowercased()
        let webhook = Webhook(
            id: id, name: name, url: url, source: change.source ?? .events, kinds: change.kinds ?? ["*"],
            selector: change.selector.flatMap { $0.isEmpty ? nil : $0 }, isEnabled: change.isEnabled ?? true,
            createdMilliseconds: now, createdBy: principal.id)
        let secret = change.secret ?? Hex.encode(Random.bytes(32))
        let sealed = try safe.seal(Array(secret.utf8), name: "webhook:\(id)")
        // An audit webhook begins with the record of its own making.
        let position = try await store.write { (transaction) throws(StoreError) in
            let record = try transaction.audit(AuditRecord(
                principal: principal, action: "webhook.create", target: id, detail: Self.detail(webhook)))
            try transaction.run(
                """
                INSERT INTO webhooks (id, name, url, source, kinds, selector, enabled, secret, created_ms, created_by, audit_position)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """, id, name, url, webhook.source.rawValue, webhook.kinds.joined(separator: " "), webhook.selector,
                webhook.isEnabled, sealed, now, principal.id, record - 1)
            return record - 1
        }
        let newest = events.end.sequence
        state.withLock {
            $0.entries[id] = Entry(
                webhook: webhook, secret: Array(secret.utf8), auditPosition: position, eventsAfter: newest)
        }
        auditWakeup.signal()
        eventWakeup.signal()
        return (try await get(id), secret)
    }

    public func update(_ id: String, _ change: WebhookChange, by principal: Principal) async throws(Problem) -> JSONValue {
        try change.check()
        var webhook = try require(id).webhook
        if let source = change.source, source != webhook.source {
            throw .invalid("the source of a webhook cannot change: make another one", pointer: "/source")
        }
        if let name = change.name { webhook.name = name }
        if let url = change.url { webhook.url = url }
        if let kinds = change.kinds { webhook.kinds = kinds }
        if let selector = change.selector { webhook.selector = selector.isEmpty ? nil : selector }
        if let isEnabled = change.isEnabled { webhook.isEnabled = isEnabled }
        let changed = webhook
        let secret = change.secret.map { Array($0.utf8) }
        var sealed: [UInt8]?
        if let secret { sealed = try safe.seal(secret, name: "webhook:\(id)") }
        let newSecret = sealed
        try await store.write { (transaction) throws(StoreError) in
            let count = try transaction.run(
                """
                UPDATE webhooks SET name = ?, url = ?, kinds = ?, selector = ?, enabled = ?, secret = coalesce(?, secret)
                WHERE id = ?
                """, changed.name, changed.url, changed.kinds.joined(separator: " "), changed.selector,
                changed.isEnabled, newSecret, id)
            guard count == 1 else { throw .refused(Self.missing(id)) }
            var detail = Self.detail(changed)
            if newSecret != nil { detail = ["webhook": detail, "secret": "changed"] }
            try transaction.audit(AuditRecord(
                principal: principal, action: "webhook.change", target: id, detail: detail))
        }
        let newest = events.end.sequence
        state.withLock { state in
            if state.entries[id]?.webhook.isEnabled == false { state.entries[id]?.eventsAfter = newest }
            state.entries[id]?.webhook = changed
            if let secret { state.entries[id]?.secret = secret }
        }
        deliveryWakeup.signal()
        auditWakeup.signal()
        eventWakeup.signal()
        return try await get(id)
    }

    /// Brings the webhooks' secrets under the present master key. Safe to repeat: what is sealed as it should be stays.
    public func sealSecrets() async throws(Problem) {
        let rows = try await store.read { (reader) throws(StoreError) in
            try reader.all("SELECT id, secret FROM webhooks") { (row) throws(StoreError) in (row.text(0), row.bytes(1)) }
        }
        for (id, sealed) in rows {
            let name = "webhook:\(id)"
            let opened = try safe.open(sealed, name: name)
            guard opened.isStale || (!safe.isSealing && sealed.first != 0) else { continue }
            let again = try safe.seal(opened.secret, name: name)
            // A secret that was changed meanwhile was sealed under the present key already.
            try await store.write { (transaction) throws(StoreError) in
                try transaction.run("UPDATE webhooks SET secret = ? WHERE id = ? AND secret = ?", again, id, sealed)
            }
        }
    }

    /// Its undelivered messages go with it.
    public func delete(_ id: String, by principal: Principal) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            guard try transaction.run("DELETE FROM webhooks WHERE id = ?", id) == 1 else {
                throw .refused(Self.missing(id))
            }
            let lost = try transaction.run("DELETE FROM deliveries WHERE webhook = ?", id)
            try transaction.audit(AuditRecord(
                principal: principal, action: "webhook.delete", target: id,
                detail: ["undelivered": .integer(Int64(lost))]))
        }
        state.withLock { _ = $0.entries.removeValue(forKey: id) }
    }

    /// Stores one message of kind `webhook.test` for it.
    public func test(_ id: String, by principal: Principal) async throws(Problem) {
        _ = try require(id)
        let now = unixMilliseconds()
        let body = JSONValue.object([
            "kind": "webhook.test", "time_ms": .integer(Int64(clamping: now)), "subject": .string(id),
        ]).serialized()
        try await store.write { (transaction) throws(StoreError) in
            try transaction.run(
                """
                INSERT INTO deliveries (webhook, kind, body, created_ms, attempts, next_ms, last_error)
                VALUES (?, 'webhook.test', ?, ?, 0, ?, '')
                """, id, body, now, now)
            try transaction.audit(AuditRecord(principal: principal, action: "webhook.test", target: id))
        }
        state.withLock { $0.entries[id]?.waiting += 1 }
        deliveryWakeup.signal()
    }

    public func list() async throws(Problem) -> [JSONValue] {
        try await show("ORDER BY id", [])
    }

    public func get(_ id: String) async throws(Problem) -> JSONValue {
        guard let shown = try await show("WHERE id = ?", [.text(id)]).first else { throw Self.missing(id) }
        return shown
    }

    private func show(_ condition: String, _ values: [StoreCell]) async throws(Problem) -> [JSONValue] {
        let query = StoreQuery(
            """
            SELECT id, name, url, source, kinds, selector, enabled, created_ms, created_by, dropped, delivered,
                last_delivered_ms, last_error,
                (SELECT count(*) FROM deliveries WHERE webhook = webhooks.id AND next_ms IS NOT NULL),
                (SELECT count(*) FROM deliveries WHERE webhook = webhooks.id AND next_ms IS NULL)
            FROM webhooks \(condition)
            """, values)
        return try await store.read { (reader) throws(StoreError) in
            try reader.all(query) { (row) throws(StoreError) in
                guard var object = Self.detail(Self.webhook(row)).object else { return .null }
                object["id"] = .string(row.text(0))
                object["created_ms"] = .integer(row.integer(7))
                object["created_by"] = .string(row.text(8))
                object["waiting"] = .integer(row.integer(13))
                object["dead"] = .integer(row.integer(14))
                object["delivered"] = .integer(row.integer(10))
                object["dropped"] = .integer(row.integer(9))
                if let last = row.optionalInteger(11) { object["last_delivered_ms"] = .integer(last) }
                object["last_error"] = .string(row.text(12))
                return .object(object)
            }
        }
    }

    private static func detail(_ webhook: Webhook) -> JSONValue {
        var object: JSONObject = [
            "name": .string(webhook.name), "url": .string(webhook.url), "source": .string(webhook.source.rawValue),
            "kinds": .array(webhook.kinds.map { .string($0) }), "enabled": .bool(webhook.isEnabled),
        ]
        if let selector = webhook.selector { object["selector"] = .string(selector) }
        return .object(object)
    }

    /// Dead letters, newest first.
    /// - Parameter before: the id of the last one of the page before.
    public func deadLetters(
        _ id: String, before: Int64? = nil, limit: Int = 100
    ) async throws(Problem) -> (items: [WebhookDelivery], next: Int64?) {
        _ = try require(id)
        let limit = min(max(limit, 1), 500)
        let items = try await store.read { (reader) throws(StoreError) in
            try reader.all(
                """
                SELECT id, webhook, kind, body, created_ms, attempts, last_error FROM deliveries
                WHERE webhook = ? AND next_ms IS NULL AND id < ? ORDER BY id DESC LIMIT ?
                """, id, before ?? .max, limit
            ) { (row) throws(StoreError) in Self.delivery(row) }
        }
        return (items, items.count == limit ? items.last?.id : nil)
    }

    /// Gives dead letters another full round of attempts.
    /// - Parameter delivery: `nil`: all of them.
    /// - Returns: how many.
    public func retry(_ id: String, delivery: Int64? = nil, by principal: Principal) async throws(Problem) -> Int {
        _ = try require(id)
        let now = unixMilliseconds()
        let count = try await store.write { (transaction) throws(StoreError) in
            let count = try transaction.run(
                """
                UPDATE deliveries SET next_ms = ?, attempts = 0
                WHERE webhook = ? AND next_ms IS NULL AND (?3 IS NULL OR id = ?3)
                """, now, id, delivery)
            if delivery != nil && count == 0 {
                throw .refused(.notFound("webhook \(id) has no dead letter \(delivery ?? 0)"))
            }
            try transaction.audit(AuditRecord(
                principal: principal, action: "webhook.retry", target: id, detail: ["count": .integer(Int64(count))]))
            return count
        }
        state.withLock { $0.entries[id]?.waiting += count }
        deliveryWakeup.signal()
        return count
    }

    private func require(_ id: String) throws(Problem) -> Entry {
        guard let entry = state.withLock({ $0.entries[id] }) else { throw Self.missing(id) }
        return entry
    }

    private static func missing(_ id: String) -> Problem { .notFound("there is no webhook \"\(AuditLimits.cut(id))\"") }
}
