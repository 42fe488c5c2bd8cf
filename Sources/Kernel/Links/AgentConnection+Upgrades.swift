import AgentProtocol

/// Upgrades on one link: frames of the agent to the kernel, wishes of the kernel to frames.
extension AgentConnection {
    func receiveUpgrade(_ link: AgentLink, _ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard link.hasUpgrades, let upgrades = endpoint.upgrades else {
            throw WireError(.unexpected, "upgrades are not among the features of this link")
        }
        guard header.kind == .releaseRequest else {
            return upgrades.reported(link, try UpgradeReport(reading: payload))
        }
        let (upgrade, count) = try UpgradeFrames.request(reading: payload)
        // Each order that is repeated lets the agent ask once more for what it has not got.
        guard releaseBytesOwed + count <= 4 * Int(WireLimits.releaseWindowBytes) else {
            throw WireError(
                .creditExceeded, "\(releaseBytesOwed + count) bytes of a release are asked for at once")
        }
        releaseBytesOwed += count
        upgrades.wanted(link, upgrade, from: header.offset, count: count)
    }

    func upgrade(_ order: UpgradeOrder) {
        guard isActive else { return }
        write { $0.frame(.upgrade, payload: order.payload) }
    }

    func forgetUpgrade(_ upgrade: UpgradeID) {
        guard isActive else { return }
        write { $0.upgradeForgotten(upgrade) }
    }

    func sendRelease(_ upgrade: UpgradeID, from offset: UInt64, _ bytes: [UInt8], for count: Int) {
        releaseUnavailable(count)
        guard isActive else { return }
        write { $0.releaseData(upgrade, from: offset, bytes) }
    }

    func releaseUnavailable(_ count: Int) { releaseBytesOwed = max(0, releaseBytesOwed - count) }
}

extension AgentLink {
    /// The agent is to replace its program. It knows an order that it has.
    func upgrade(_ order: UpgradeOrder) { reach { $0.upgrade(order) } }

    /// Its end is written down, or nobody wants it any more.
    func forgetUpgrade(_ upgrade: UpgradeID) { reach { $0.forgetUpgrade(upgrade) } }

    /// In answer to a request for `count` bytes.
    func sendRelease(_ upgrade: UpgradeID, from offset: UInt64, _ bytes: [UInt8], for count: Int) {
        reach { $0.sendRelease(upgrade, from: offset, bytes, for: count) }
    }

    /// A request is not answered.
    func releaseUnavailable(_ count: Int) { reach { $0.releaseUnavailable(count) } }
}
