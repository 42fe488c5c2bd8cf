import JSON
import Reactor

extension Outbox {
    /// One message per webhook at a time, in order as long as all goes well; a webhook that hangs delays no other.
    func deliver(on loop: EventLoop, _ log: @escaping @Sendable (Problem) -> Void) async {
        while !isStopping {
            let now = unixMilliseconds()
            var pause: UInt64 = 60_000
            let idle = state.withLock { state in
                state.entries.values.filter { $0.webhook.isEnabled && !$0.isBusy && $0.waiting > 0 }
            }
            for hook in idle {
                do throws(Problem) {
                    guard let (delivery, due) = try await nextDelivery(of: hook.webhook.id) else { continue }
                    guard due <= now else {
                        pause = min(pause, due - now)
                        continue
                    }
                    state.withLock { $0.entries[hook.webhook.id]?.isBusy = true }
                    loop.spawn {
                        await self.attempt(delivery, hook, on: loop, log)
                        self.deliveryWakeup.signal()
                    }
                } catch {
                    log(error)
                    pause = min(pause, 1_000)
                }
            }
            await deliveryWakeup.wait(milliseconds: max(pause, 10), on: loop)
        }
    }

    private func nextDelivery(of webhook: String) async throws(Problem) -> (WebhookDelivery, due: UInt64)? {
        try await store.read { (reader) throws(StoreError) in
            try reader.first(
                """
                SELECT id, webhook, kind, body, created_ms, attempts, last_error, next_ms FROM deliveries
                WHERE webhook = ? AND next_ms IS NOT NULL ORDER BY next_ms, id LIMIT 1
                """, webhook
            ) { (row) throws(StoreError) in (Self.delivery(row), row.unsigned(7)) }
        }
    }

    private func attempt(
        _ delivery: WebhookDelivery, _ hook: Entry, on loop: EventLoop, _ log: @Sendable (Problem) -> Void
    ) async {
        let seconds = unixMilliseconds() / 1_000
        let headers: [(name: String, value: String)] = [
            ("content-type", "application/json"), ("user-agent", "client-manager"),
            ("x-client-manager-delivery", "\(delivery.id)"), ("x-client-manager-kind", delivery.kind),
            ("x-client-manager-attempt", "\(delivery.attempts + 1)"),
            (WebhookSignature.header, WebhookSignature.value(secret: hook.secret, seconds: seconds, body: delivery.body)),
        ]
        var status: Int?
        var failure = ""
        do throws(DeliveryFailure) {
            let answered = try await sender.post(url: hook.webhook.url, headers: headers, body: delivery.body)
            status = answered
            failure = "the endpoint answered \(answered)"
        } catch {
            failure = AuditLimits.cut(error.reason)
        }
        let verdict = DeliverySchedule.verdict(
            attempt: delivery.attempts + 1, status: status, random: Double.random(in: 0..<1))
        while !isStopping {
            do throws(Problem) {
                try await record(verdict, of: delivery, failure)
                break
            } catch {
                // Not recorded (a full disk): it is not sent again before it is, so a stuck disk makes no storm.
                log(error)
                await loop.sleep(milliseconds: 1_000)
            }
        }
        state.withLock { state in
            state.entries[delivery.webhook]?.isBusy = false
            if case .again = verdict { return }
            if let waiting = state.entries[delivery.webhook]?.waiting, waiting > 0 {
                state.entries[delivery.webhook]?.waiting = waiting - 1
            }
        }
        if verdict == .dead {
            events.publish(Event(
                kind: "webhook.dead-letter", subject: delivery.webhook,
                data: ["delivery": .integer(delivery.id), "reason": .string(failure)]))
        }
    }

    private func record(
        _ verdict: DeliverySchedule.Verdict, of delivery: WebhookDelivery, _ failure: String
    ) async throws(Problem) {
        let now = unixMilliseconds()
        let dead = limits.dead
        try await store.write { (transaction) throws(StoreError) in
            switch verdict {
            case .delivered:
                try transaction.run("DELETE FROM deliveries WHERE id = ?", delivery.id)
                try transaction.run(
                    "UPDATE webhooks SET delivered = delivered + 1, last_delivered_ms = ?, last_error = '' WHERE id = ?",
                    now, delivery.webhook)
                return
            case .again(let pause):
                try transaction.run(
                    "UPDATE deliveries SET attempts = attempts + 1, next_ms = ?, last_error = ? WHERE id = ?",
                    now + pause, failure, delivery.id)
            case .dead:
                try transaction.run(
                    "UPDATE deliveries SET attempts = attempts + 1, next_ms = NULL, last_error = ? WHERE id = ?",
                    failure, delivery.id)
                try transaction.run(
                    """
                    DELETE FROM deliveries WHERE webhook = ?1 AND next_ms IS NULL AND id <= (
                        SELECT id FROM deliveries WHERE webhook = ?1 AND next_ms IS NULL
                        ORDER BY id DESC LIMIT 1 OFFSET ?2)
                    """, delivery.webhook, dead)
            }
            try transaction.run("UPDATE webhooks SET last_error = ? WHERE id = ?", failure, delivery.webhook)
        }
    }

    /// Columns `id, webhook, kind, body, created_ms, attempts, last_error`.
    static func delivery(_ row: borrowing Row) -> WebhookDelivery {
        WebhookDelivery(
            id: row.integer(0), webhook: row.text(1), kind: row.text(2), body: row.bytes(3),
            createdMilliseconds: row.unsigned(4), attempts: row.int(5), lastError: row.text(6))
    }
}
