import AgentProtocol

/// Where one client stands in an upgrade.
public enum UpgradeTargetState: String, Sendable, CaseIterable {
    /// For its turn, or for its client to connect.
    case waiting
    /// The order is on its way.
    case sent
    case receiving
    case staged
    /// The new program runs on trial.
    case restarted
    /// The new program is in place and online.
    case online
    /// The old program runs again.
    case rolledBack = "rolled-back"
    /// The old program never stopped, or nobody knows.
    case failed
    /// It never got the order.
    case skipped

    public var isFinal: Bool {
        switch self {
        case .online, .rolledBack, .failed, .skipped: true
        case .waiting, .sent, .receiving, .staged, .restarted: false
        }
    }

    /// Uses up the number of failures that an upgrade may have.
    public var countsAsFailure: Bool { self == .rolledBack || self == .failed }
}

/// What may happen to one client of an upgrade, as a value. Times in Unix milliseconds.
struct UpgradeTargetStateMachine: Sendable, Equatable {
    enum Event: Sendable, Equatable {
        case sent
        case reported(UpgradeProgress, code: String, message: String)
        /// It will not get the order.
        case skipped(code: String)
        /// Nothing was heard of it for too long.
        case silent
        /// The job runs again: who has not got the release gets another turn.
        case again
    }

    private(set) var state = UpgradeTargetState.waiting
    private(set) var code = ""
    private(set) var message = ""
    /// When the state was reached.
    private(set) var changedAt: UInt64 = 0

    /// - Returns: false when this cannot happen now, or changes nothing.
    mutating func apply(_ event: Event, now: UInt64) -> Bool {
        switch (state, event) {
        case (.waiting, .sent): go(.sent, now)
        case (.waiting, .skipped(let code)): go(.skipped, now, code)
        case (.sent, .reported(let progress, let code, let message)),
            (.receiving, .reported(let progress, let code, let message)),
            (.staged, .reported(let progress, let code, let message)),
            (.restarted, .reported(let progress, let code, let message)):
            let next = Self.state(progress)
            guard next != state else { return false }
            go(next, now, code, message)
        case (.sent, .silent), (.receiving, .silent), (.staged, .silent), (.restarted, .silent):
            go(.failed, now, "no-answer", "nothing was heard of it after it was \(state.rawValue)")
        case (.failed, .reported(let progress, let code, let message)) where self.code == "no-answer" && progress.isFinal:
            // It was only late.
            go(Self.state(progress), now, code, message)
        case (.rolledBack, .again), (.failed, .again), (.skipped, .again): go(.waiting, now)
        default: return false
        }
        return true
    }

    private mutating func go(_ state: UpgradeTargetState, _ now: UInt64, _ code: String = "", _ message: String = "") {
        self.state = state
        self.code = code
        self.message = message
        changedAt = now
    }

    private static func state(_ progress: UpgradeProgress) -> UpgradeTargetState {
        switch progress {
        case .receiving: .receiving
        case .staged: .staged
        case .restarted: .restarted
        case .online: .online
        case .rolledBack: .rolledBack
        case .failed: .failed
        }
    }

    mutating func restore(state: UpgradeTargetState, code: String, message: String, changedAt: UInt64) {
        (self.state, self.code, self.message, self.changedAt) = (state, code, message, changedAt)
    }
}
