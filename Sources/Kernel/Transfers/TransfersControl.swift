import AgentProtocol
import Reactor
import System

/// What operators do to a transfer that is under way, and what time does.
extension Transfers {
    /// Stops it where it is; what the far end has is kept. May be repeated.
    public func pause(_ id: TransferID, by principal: Principal) async throws(Problem) -> TransferView {
        let live = try await authorize(id, principal)
        if live.transfer.state != .paused {
            try await change(live, .pause, "transfer.pause", principal)
            stopFlow(live, .pause)
        }
        return live.view
    }

    /// Lets a paused one go on. May be repeated.
    public func resume(_ id: TransferID, by principal: Principal) async throws(Problem) -> TransferView {
        let live = try await authorize(id, principal)
        if live.transfer.state == .paused {
            try await change(live, .resume, "transfer.resume", principal)
            state.withLock { $0.queue.append(id) }
            schedule()
        }
        return live.view
    }

    /// Ends it: nothing of it is kept at either side, the old file stays.
    public func cancel(_ id: TransferID, by principal: Principal) async throws(Problem) -> TransferView {
        let live = try await authorize(id, principal)
        let now = unixMilliseconds()
        guard let ended = live.apply(.cancel, now: now) else {
            throw .conflict("transfer-over", "transfer \(id) is over, or just ends")
        }
        stopFlow(live, .cancel)
        // Should the disk refuse the word of it, it goes on after a restart, as it had never been said.
        try await record(ended, by: principal)
        await settle(live, ended)
        return TransferView(transfer: ended)
    }

    private func change(
        _ live: LiveTransfer, _ event: TransferStateMachine.Event, _ action: String, _ principal: Principal
    ) async throws(Problem) {
        guard let changed = live.apply(event, now: unixMilliseconds()) else {
            throw .conflict("transfer-over", "transfer \(live.id) is over, or just ends")
        }
        let audit = AuditRecord(principal: principal, action: action, clients: [live.client], target: "\(live.id)")
        try await store.write { (transaction) throws(StoreError) in
            guard try TransferRows.save(changed, transaction) else { return }
            _ = try transaction.audit(audit)
        }
        killPoint("transfer.changed")
        tell("transfer.\(changed.state == .paused ? "paused" : "resumed")", changed)
    }

    private func stopFlow(_ live: LiveTransfer, _ stop: TransferStop) {
        let link = live.change { state -> AgentLink? in
            defer { state.link = nil }
            return state.link
        }
        // One that is not under way, paused for example, is kept by its client all the same.
        (link ?? clients.link(of: live.client))?.reach { $0.stopTransfer(live, stop) }
    }

    /// The client was revoked or forgotten.
    public func clientGone(_ client: ClientID, code: String) async {
        let own = state.withLock { state in state.live.values.filter { $0.client == client } }
        for live in own { await giveUp(live, code, "client \(client) is no longer in the registry, or was revoked") }
    }

    private func giveUp(_ live: LiveTransfer, _ code: String, _ reason: String) async {
        guard !live.transfer.machine.isEnding, let ended = live.apply(.failed(code: code, reason: reason), now: unixMilliseconds()) else { return }
        stopFlow(live, .cancel)
        do throws(Problem) {
            try await record(ended)
            await settle(live, ended)
        } catch { report(error) }
    }

    // MARK: Regular work

    func start(on loop: EventLoop) {
        state.withLock { $0.home = loop }
        loop.spawn { [self] in
            // Ends with the loop: a timer of a loop that has stopped never fires.
            while !state.withLock({ $0.isStopped }) {
                await loop.sleep(milliseconds: 5_000)
                await tick(now: unixMilliseconds())
            }
        }
    }

    func tick(now: UInt64) async {
        let (late, unrecorded) = state.withLock { state in
            (
                state.live.values.filter { $0.transfer.deadline <= now && !$0.transfer.state.isFinal },
                state.unrecorded.compactMap { id, ending in state.live[id].map { ($0, ending) } }
            )
        }
        for (live, ending) in unrecorded {
            let (attempt, link) = live.change { ($0.attempt, $0.link) }
            guard attempt == ending.attempt else {
                // The client has been heard again since, and says it anew.
                state.withLock { $0.unrecorded[live.id] = nil }
                continue
            }
            guard await finish(live, ending.attempt, ending.end, number: ending.number) else { continue }
            link?.reach { $0.acknowledgeTransfer(ending.number) }
        }
        for live in late { await giveUp(live, "transfer-late", "it was not over by its deadline") }
        await removeOld(now: now)
        schedule()
    }

    private func removeOld(now: UInt64) async {
        let days = UInt64(settings.integer(.transferRetentionDays))
        guard now > days * 86_400_000 else { return }
        let before = now - days * 86_400_000
        do throws(Problem) {
            let isDue = try await store.read { (reader) throws(StoreError) in
                try reader.exists("SELECT 1 FROM transfers WHERE finished_ms < ?", before)
            }
            guard isDue else { return }
            try await store.write { (transaction) throws(StoreError) in
                try transaction.run(
                    "DELETE FROM transfers WHERE id IN (SELECT id FROM transfers WHERE finished_ms < ? LIMIT 1000)", before)
            }
        } catch { report(error) }
    }

    /// After the links are closed: waits until what had come is put away, for a moment.
    func settleAll(on loop: EventLoop?) async {
        for _ in 0..<100 where state.withLock({ $0.runningCount > 0 }) { await loop?.sleep(milliseconds: 20) }
    }
}
