import AgentProtocol

/// Pieces of a release that an agent has asked for, in order: they are answered in that order, one after the other.
struct ReleaseRequests {
    /// Each order that is repeated lets the agent ask once more for what it has not got.
    static let bytes = 4 * Int(WireLimits.releaseWindowBytes)
    static let count = bytes / Int(ReleaseFetchStateMachine.pieceBytes)

    struct Request: Equatable {
        let upgrade: UpgradeID
        let offset: UInt64
        let count: Int
    }
    private var waiting: [Request] = []
    private var bytesOwed = 0
    private var isReading = false

    /// False: more than may be.
    mutating func append(_ request: Request) -> Bool {
        guard waiting.count < Self.count, bytesOwed + request.count <= Self.bytes else { return false }
        waiting.append(request)
        bytesOwed += request.count
        return true
    }

    /// The next one to be read, if nothing is being read.
    mutating func next() -> Request? {
        guard !isReading, !waiting.isEmpty else { return nil }
        isReading = true
        return waiting.removeFirst()
    }

    mutating func answered(_ count: Int) {
        isReading = false
        bytesOwed -= count
    }
}

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
        guard releaseRequests.append(ReleaseRequests.Request(upgrade: upgrade, offset: header.offset, count: count)) else {
            throw WireError(
                .creditExceeded,
                "more than \(ReleaseRequests.bytes) bytes or \(ReleaseRequests.count) pieces of a release are asked for at once")
        }
        readRelease(link, upgrades)
    }

    private func readRelease(_ link: AgentLink, _ upgrades: any UpgradeSink) {
        guard let request = releaseRequests.next() else { return }
        upgrades.wanted(link, request.upgrade, from: request.offset, count: request.count)
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
        if isActive { write { $0.releaseData(upgrade, from: offset, bytes) } }
        releaseUnavailable(count)
    }

    func releaseUnavailable(_ count: Int) {
        releaseRequests.answered(count)
        if isActive, let link, let upgrades = endpoint.upgrades { readRelease(link, upgrades) }
    }
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
