import AgentProtocol

/// When a held program's end is complete, and what a cancel or a timeout does about it. No I/O; times are monotonic
/// milliseconds.
///
/// The first cause wins: a cancel after the timeout does not rename the end. After a cancel or timeout the whole
/// process group has to be gone; after a normal end what runs on in the background (a daemon) is left alone, and its
/// open output is read for `drainMilliseconds` at most.
struct HolderStateMachine: Equatable {
    enum Input: Equatable {
        case ended(Ending)
        case streamEnded(OutputStream)
        case cancel
        /// Also said at the deadline that `nextDeadline` names. `groupExists`: some process of the group is there.
        case time(groupExists: Bool)
    }

    enum Ending: Equatable {
        case exited(Int32)
        case signaled(Int32)
    }

    enum Action: Equatable {
        case terminateGroup
        case killGroup
        case finish(Outcome)
    }

    enum Cause: Equatable { case timedOut, cancelled }

    /// How long output of background processes is waited for after the end of the program.
    static let drainMilliseconds: UInt64 = 1_000
    /// How often the group is looked at after a cancel or timeout.
    static let groupCheckMilliseconds: UInt64 = 10

    private let grace: UInt64
    private var timeoutAt: UInt64?
    private var cause: Cause?
    private var killAt: UInt64?
    private var killed = false
    private var ending: Ending?
    private var drainUntil: UInt64?
    private var open: Set<OutputStream> = [.standardOutput, .standardError]
    private var groupCheckAt: UInt64?
    private(set) var finished = false

    init(startedAt now: UInt64, timeout: UInt64?, grace: UInt64) {
        self.grace = grace
        timeoutAt = timeout.map { now.addingReportingOverflow($0).partialValue }
        if let at = timeoutAt, at < now { timeoutAt = nil }
    }

    /// When `time` has to be said at the latest; `nil`: never.
    var nextDeadline: UInt64? {
        if finished { return nil }
        var deadlines: [UInt64] = []
        if ending == nil, cause == nil, let timeoutAt { deadlines.append(timeoutAt) }
        if let killAt, !killed { deadlines.append(killAt) }
        if let drainUntil { deadlines.append(drainUntil) }
        if let groupCheckAt { deadlines.append(groupCheckAt) }
        return deadlines.min()
    }

    mutating func receive(_ input: Input, now: UInt64) -> [Action] {
        guard !finished else { return [] }
        switch input {
        case .cancel:
            return end(because: .cancelled, now)
        case .streamEnded(let stream):
            open.remove(stream)
            return finishIfComplete(now, groupExists: true)
        case .ended(let ending):
            self.ending = ending
            drainUntil = now + Self.drainMilliseconds
            if cause != nil { groupCheckAt = now }
            return finishIfComplete(now, groupExists: true)
        case .time(let groupExists):
            var actions: [Action] = []
            if let timeoutAt, now >= timeoutAt, ending == nil { actions += end(because: .timedOut, now) }
            if let killAt, now >= killAt, !killed {
                killed = true
                drainUntil = ending == nil ? nil : now + Self.drainMilliseconds
                actions.append(.killGroup)
            }
            return actions + finishIfComplete(now, groupExists: groupExists)
        }
    }

    private mutating func end(because cause: Cause, _ now: UInt64) -> [Action] {
        guard self.cause == nil, ending == nil else { return [] }
        self.cause = cause
        killAt = now.addingReportingOverflow(grace).overflow ? .max : now + grace
        return [.terminateGroup]
    }

    private mutating func finishIfComplete(_ now: UInt64, groupExists: Bool) -> [Action] {
        guard let ending else { return [] }
        if cause != nil, !killed {
            // Stragglers get the rest of the grace.
            if groupExists {
                groupCheckAt = now + Self.groupCheckMilliseconds
                drainUntil = now + Self.drainMilliseconds
                return []
            }
            groupCheckAt = nil
        }
        if !open.isEmpty, let drainUntil, now < drainUntil { return [] }
        finished = true
        switch cause {
        case .timedOut: return [.finish(.timedOut)]
        case .cancelled: return [.finish(.cancelled)]
        case nil:
            switch ending {
            case .exited(let code): return [.finish(.exited(code: code))]
            case .signaled(let signal): return [.finish(.signaled(signal: signal))]
            }
        }
    }
}
