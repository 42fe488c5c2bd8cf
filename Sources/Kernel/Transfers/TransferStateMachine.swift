/// How far a transfer is. Names as the API has them.
public enum TransferState: String, Sendable, CaseIterable {
    /// For its client, or for a place.
    case waiting
    case running
    case paused
    case succeeded
    case failed
    case cancelled

    public var isFinal: Bool {
        switch self {
        case .waiting, .running, .paused: false
        case .succeeded, .failed, .cancelled: true
        }
    }
}

/// What may happen to a transfer and what becomes of it then. A value; no I/O. Times in Unix milliseconds.
public struct TransferStateMachine: Sendable, Equatable {
    enum Event: Sendable, Equatable {
        /// It has a place, and its order is on its way.
        case started
        /// Link or core went away, or there was no room at the client.
        case interrupted
        case pause
        case resume
        case cancel
        /// It has come to its end; that is being written down, and nobody can stop it any more.
        case ending
        case succeeded
        case failed(code: String, reason: String)
    }

    public private(set) var state = TransferState.waiting
    public private(set) var isEnding = false
    /// Why it is not succeeded; empty for none.
    public private(set) var code = ""
    public private(set) var reason = ""
    public private(set) var startedAt: UInt64?
    public private(set) var finishedAt: UInt64?

    init() {}

    init(state: TransferState, code: String, reason: String, startedAt: UInt64?, finishedAt: UInt64?) {
        self.state = state
        self.code = code
        self.reason = reason
        self.startedAt = startedAt
        self.finishedAt = finishedAt
    }

    /// - Returns: false when this cannot happen in the present state; nothing has changed then.
    mutating func apply(_ event: Event, now: UInt64) -> Bool {
        switch (state, event) {
        case (.waiting, .started):
            state = .running
            startedAt = startedAt ?? now
        case (.running, .interrupted):
            state = .waiting
            isEnding = false
        case (.waiting, .pause): state = .paused
        case (.running, .pause) where !isEnding: state = .paused
        case (.paused, .resume): state = .waiting
        case (.waiting, .cancel), (.paused, .cancel): end(.cancelled, now)
        case (.running, .cancel) where !isEnding: end(.cancelled, now)
        case (.running, .ending) where !isEnding: isEnding = true
        // One that is over on the client can be heard of again after the core lost the word of it.
        case (.running, .succeeded): end(.succeeded, now)
        case (.running, .failed(let code, let reason)), (.waiting, .failed(let code, let reason)),
            (.paused, .failed(let code, let reason)):
            self.code = code
            self.reason = reason
            end(.failed, now)
        default: return false
        }
        return true
    }

    private mutating func end(_ state: TransferState, _ now: UInt64) {
        self.state = state
        isEnding = false
        finishedAt = now
    }
}
