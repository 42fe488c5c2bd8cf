import AgentProtocol

/// Upgrades on a session's link: frames to the executor, its news to frames.
extension AgentSession: UpgradeObserver {
    private var hasUpgrades: Bool { features.contains(Feature.upgrade) }

    /// After the reports of what runs.
    func beginUpgrades() {
        guard hasUpgrades, let upgradeExecutor else { return }
        upgradeExecutor.observer = self
        upgradeExecutor.linkUp()
    }

    /// The link has ended.
    func leaveUpgrades() {
        guard let upgradeExecutor, upgradeExecutor.observer != nil else { return }
        upgradeExecutor.observer = nil
        upgradeExecutor.linkLost()
    }

    func receiveUpgrade(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard hasUpgrades, let upgradeExecutor else {
            throw WireError(.unexpected, "upgrades are not among the features of this link")
        }
        switch header.kind {
        case .upgrade: upgradeExecutor.start(try UpgradeOrder(reading: payload))
        case .upgradeForgotten: upgradeExecutor.forget(try UpgradeFrames.id(reading: payload))
        default:
            let (upgrade, range) = try UpgradeFrames.data(reading: payload)
            guard upgradeExecutor.received(upgrade, at: header.offset, payload.extracting(range)) else {
                throw WireError(.wrongOffset, "a piece of a release at \(header.offset) that was not asked for")
            }
        }
    }

    public func upgradeReported(_ report: UpgradeReport) {
        guard phase == .online else { return }
        write { $0.frame(.upgrade, payload: report.payload) }
    }

    public func upgradeWants(_ upgrade: UpgradeID, from offset: UInt64, count: UInt64) {
        guard phase == .online else { return }
        write { $0.releaseRequest(upgrade, from: offset, count: count) }
    }
}
