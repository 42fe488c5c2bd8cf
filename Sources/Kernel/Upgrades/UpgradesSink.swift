import AgentProtocol
import Reactor

/// Where an agent's link says how its upgrade goes: implemented by `Upgrades`. Called on the link's loop.
protocol UpgradeSink: Sendable {
    /// Once after each accept, for agents that can be upgraded.
    func ready(_ link: AgentLink)
    func reported(_ link: AgentLink, _ report: UpgradeReport)
    /// The agent asks for a piece of the release's file. Answered once, with `link.sendRelease` or `link.releaseUnavailable`; the
    /// next piece is asked for afterwards, so that pieces go out in the order of the requests.
    func wanted(_ link: AgentLink, _ upgrade: UpgradeID, from offset: UInt64, count: Int)
}

extension Upgrades: UpgradeSink {
    /// An order that got lost with the last link, or with the last core, is given again; the agent knows those that it has.
    func ready(_ link: AgentLink) {
        let (order, ids): (UpgradeOrder?, [UpgradeID]) = state.withLock { state in
            let own = state.first { $0.value.machine.isUnderWay(link.client) }
            return (own?.value.order, Array(state.keys))
        }
        if let order { link.upgrade(order) }
        // Somebody's turn may have waited for this.
        for id in ids { wake(id) }
    }

    func reported(_ link: AgentLink, _ report: UpgradeReport) {
        let now = now()
        let (isKnown, isFinal) = state.withLock { state -> (Bool, Bool) in
            guard state[report.upgrade] != nil else { return (false, false) }
            let isOurs = state[report.upgrade]?.machine.reported(report, by: link.client, now: now) ?? false
            return (isOurs, state[report.upgrade]?.machine.target(of: link.client)?.machine.state.isFinal ?? false)
        }
        guard isKnown else { return reportedLate(link, report) }
        // Acknowledged when it is written down; one that was before is acknowledged again there too.
        wake(report.upgrade)
        if isFinal, report.progress.isFinal { acknowledgeIfWritten(link, report) }
    }

    /// Its upgrade is over: one that was given up as silent is set right, and the agent may forget.
    private func reportedLate(_ link: AgentLink, _ report: UpgradeReport) {
        EventLoop.current?.spawn { [self] in
            do throws(Problem) {
                let now = now()
                let isOver = try await store.write { (transaction) throws(StoreError) in
                    try Self.setRight(link.client, report, now: now, transaction)
                }
                // One that is about to be taken up again asks by itself.
                if isOver { link.forgetUpgrade(report.upgrade) }
            } catch { self.report(error) }
        }
    }

    /// - Returns: false when the upgrade is not over.
    private static func setRight(
        _ client: ClientID, _ report: UpgradeReport, now: UInt64, _ transaction: borrowing Transaction
    ) throws(StoreError) -> Bool {
        if let upgrade = try UpgradeRows.load(report.upgrade, transaction), upgrade.finishedAt == nil { return false }
        for (place, target) in try UpgradeRows.targets(of: report.upgrade, transaction) where target.client == client {
            var target = target
            guard report.progress.isFinal,
                target.machine.apply(.reported(report.progress, code: report.code, message: report.message), now: now)
            else { break }
            try UpgradeRows.insert(target, place, of: report.upgrade, transaction)
            break
        }
        return true
    }

    /// The word got lost that the end is written down.
    private func acknowledgeIfWritten(_ link: AgentLink, _ report: UpgradeReport) {
        EventLoop.current?.spawn { [self] in
            let isWritten = try? await store.read { (reader) throws(StoreError) in
                try UpgradeRows.targets(of: report.upgrade, reader).contains {
                    $0.target.client == link.client && $0.target.machine.state.isFinal
                }
            }
            if isWritten ?? false { link.forgetUpgrade(report.upgrade) }
        }
    }

    func wanted(_ link: AgentLink, _ upgrade: UpgradeID, from offset: UInt64, count: Int) {
        let file = state.withLock { state -> FileReader? in
            guard let running = state[upgrade], running.machine.isUnderWay(link.client) else { return nil }
            return running.file
        }
        guard let file else { return link.releaseUnavailable(count) }
        EventLoop.current?.spawn { [self] in
            do throws(Problem) {
                link.sendRelease(upgrade, from: offset, try await file.read(at: offset, count: count), for: count)
            } catch {
                link.releaseUnavailable(count)
                report(error)
            }
        }
    }
}
