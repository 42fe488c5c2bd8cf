/// What may happen to a job and what becomes of it then. A value; no I/O. Times in Unix milliseconds.
public struct JobStateMachine: Sendable, Equatable {
    enum Event: Sendable, Equatable {
        case started(fence: UInt64)
        case succeeded
        case failed(code: String, reason: String, again: JobOutcome.Again)
        /// The attempt was written down, but certainly nothing of it was begun.
        case notBegun(reason: String)
        case afterChildren
        case childrenEnded
        /// The core, or the plugin of the kind, went away while it ran.
        case interrupted(reason: String)
        /// Somebody wants its end.
        case cancel
        /// The attempt has ended because somebody wanted it.
        case cancelled
        case deadlinePassed
        /// An operator says so, after a look at what happened.
        case retried
    }

    public let guarantee: JobGuarantee
    public let retry: JobRetry
    let maximumInterruptions: Int
    public private(set) var state = JobState.waiting
    /// Not before this.
    public private(set) var dueAt: UInt64
    public private(set) var deadline: UInt64?
    /// Attempts begun so far.
    public private(set) var attempt = 0
    /// Of the newest attempt.
    public private(set) var fence: UInt64 = 0
    /// Since it was last put in by a person.
    public private(set) var failures = 0
    public private(set) var interruptions = 0
    public private(set) var isCancelRequested = false
    public private(set) var waitsForChildren = false
    /// Why it is not succeeded: stable code and text; empty for none.
    public private(set) var code = ""
    public private(set) var reason = ""
    public private(set) var startedAt: UInt64?
    public private(set) var finishedAt: UInt64?

    init(
        _ guarantee: JobGuarantee, _ retry: JobRetry, dueAt: UInt64, deadline: UInt64?, maximumInterruptions: Int = 20
    ) {
        self.guarantee = guarantee
        self.retry = retry
        self.dueAt = dueAt
        self.deadline = deadline
        self.maximumInterruptions = maximumInterruptions
    }

    /// - Parameter random: from 0 up to but not including 1, for the pause before another attempt.
    /// - Returns: false when this cannot happen in the present state; nothing has changed then.
    mutating func apply(_ event: Event, now: UInt64, random: Double) -> Bool {
        switch (state, event) {
        case (.waiting, .started(let fence)):
            guard !waitsForChildren, fence > self.fence else { return false }
            state = .running
            attempt += 1
            self.fence = fence
            startedAt = now
            code = ""
            reason = ""
        case (.running, .succeeded):
            end(.succeeded, now)
        case (.running, .failed(let code, let reason, let again)):
            failures += 1
            guard !isCancelRequested else {
                end(.cancelled, now, code, reason)
                break
            }
            let mayRun = again == .nothingWasDone || (again == .ifIdempotent && guarantee == .idempotent)
            guard mayRun, failures < retry.maximumAttempts else {
                end(.dead, now, code, reason)
                break
            }
            wait(until: now + retry.pause(afterFailures: failures, random: random), now, code, reason)
        case (.running, .afterChildren):
            if isCancelRequested {
                end(.cancelled, now)
            } else {
                wait(until: now, now, "", "")
                waitsForChildren = true
            }
        case (.waiting, .childrenEnded):
            guard waitsForChildren else { return false }
            waitsForChildren = false
            dueAt = now
        case (.running, .interrupted(let reason)):
            interruptions += 1
            if isCancelRequested {
                end(.cancelled, now, "interrupted", reason)
            } else if guarantee == .atMostOnce {
                end(.dead, now, "interrupted", reason)
            } else {
                goOn(now, random, reason)
            }
        case (.running, .notBegun(let reason)):
            interruptions += 1
            if isCancelRequested {
                end(.cancelled, now, "cancelled", reason)
            } else {
                goOn(now, random, reason)
            }
        case (.waiting, .cancel):
            end(.cancelled, now, "cancelled", "cancelled before it ran")
        case (.running, .cancel):
            guard !isCancelRequested else { return false }
            isCancelRequested = true
        case (.running, .cancelled):
            end(.cancelled, now, "cancelled", "")
        case (.waiting, .deadlinePassed), (.running, .deadlinePassed):
            guard let deadline, deadline <= now else { return false }
            end(.dead, now, "deadline-passed", "it was not done by its deadline")
        case (.dead, .retried), (.cancelled, .retried):
            state = .waiting
            dueAt = now
            deadline = nil
            failures = 0
            interruptions = 0
            isCancelRequested = false
            finishedAt = nil
        default:
            return false
        }
        return true
    }

    /// After an interruption.
    private mutating func goOn(_ now: UInt64, _ random: Double, _ reason: String) {
        guard interruptions <= maximumInterruptions else {
            end(.dead, now, "interrupted-too-often", "\(interruptions) attempts were interrupted; the last: \(reason)")
            return
        }
        // The first ones go on at once; what takes the core down again and again must not do so without a pause.
        let pause = interruptions <= 2 ? 0 : retry.pause(afterFailures: interruptions - 2, random: random)
        wait(until: now + pause, now, "interrupted", reason)
    }

    private mutating func end(_ state: JobState, _ now: UInt64, _ code: String = "", _ reason: String = "") {
        self.state = state
        self.code = code
        self.reason = reason
        finishedAt = now
        waitsForChildren = false
    }

    /// A pause that would end after the deadline ends the job now.
    private mutating func wait(until due: UInt64, _ now: UInt64, _ code: String, _ reason: String) {
        if let deadline, due >= deadline {
            end(.dead, now, code.isEmpty ? "deadline-passed" : code, reason.isEmpty ? "no time was left" : reason)
        } else {
            state = .waiting
            dueAt = due
            self.code = code
            self.reason = reason
        }
    }
}

extension JobStateMachine {
    /// The parts that change, while they are read back from the store.
    struct Stored {
        var state = JobState.waiting
        var attempt = 0
        var fence: UInt64 = 0
        var failures = 0
        var interruptions = 0
        var isCancelRequested = false
        var waitsForChildren = false
        var code = ""
        var reason = ""
        var startedAt: UInt64?
        var finishedAt: UInt64?
    }

    mutating func restore(_ stored: Stored) {
        state = stored.state
        attempt = stored.attempt
        fence = stored.fence
        failures = stored.failures
        interruptions = stored.interruptions
        isCancelRequested = stored.isCancelRequested
        waitsForChildren = stored.waitsForChildren
        code = stored.code
        reason = stored.reason
        startedAt = stored.startedAt
        finishedAt = stored.finishedAt
    }
}
