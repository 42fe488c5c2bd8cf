import AgentProtocol

/// The watcher's view of a new program on trial, as a value: it has to report itself online with the identity of this
/// machine in time, and then to keep running for a while. Times are milliseconds of a steady clock.
struct TrialStateMachine: Sendable, Equatable {
    enum Input: Sendable, Equatable {
        /// It says that a core has accepted it as this client.
        case online(String)
        /// Its process has ended: how, in words.
        case ended(String)
        case time
        /// Somebody wants this agent to stop.
        case stopWanted
    }

    enum Verdict: Sendable, Equatable {
        case good
        case bad(code: String, message: String)
        /// Not its fault: the agent is to end.
        case stopped
    }

    /// Client id that it has to have; `nil`: this machine has none yet, which no upgrade order can have reached.
    let client: String?
    private let startedAt: UInt64
    private let onlineBy: UInt64
    private let settle: UInt64
    private var settledAt: UInt64?
    private(set) var verdict: Verdict?

    init(client: String?, startedAt: UInt64, onlineWithin: UInt64, settle: UInt64) {
        self.client = client
        self.startedAt = startedAt
        onlineBy = startedAt + onlineWithin
        self.settle = settle
    }

    /// When time itself decides something.
    var deadline: UInt64 { settledAt ?? onlineBy }

    mutating func apply(_ input: Input, now: UInt64) {
        guard verdict == nil else { return }
        switch input {
        case .online(let id):
            guard id == client else {
                verdict = .bad(
                    code: "trial-identity", message: "the new program came online as \(id), not as \(client ?? "nobody")")
                return
            }
            // Said again after each reconnect; the first counts.
            if settledAt == nil { settledAt = now + settle }
            if settle == 0 { verdict = .good }
        case .ended(let how):
            let after = now - min(now, startedAt)
            verdict = .bad(
                code: "trial-ended",
                message: "the new program \(how) after \(after) ms"
                    + (settledAt == nil ? ", before it came online" : ", after it had come online"))
        case .time:
            guard now >= deadline else { return }
            if settledAt != nil {
                verdict = .good
            } else {
                verdict = .bad(
                    code: "trial-not-online",
                    message: "the new program did not come online in \((onlineBy - startedAt) / 1_000) s")
            }
        case .stopWanted: verdict = .stopped
        }
    }
}
