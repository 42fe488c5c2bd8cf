import AgentProtocol

/// When a held terminal ends, and how everything that belongs to it is ended. No I/O; times are monotonic milliseconds.
///
/// Whatever the cause (an order, a limit of time, the program's own end), nothing of the session may be left: what is
/// there is asked to go and, after the grace, killed. Only then the end is recorded. After it the holder stays for a
/// while so that the last output can be fetched.
struct TerminalHolderStateMachine: Equatable {
    enum Input: Equatable {
        case ended(HolderStateMachine.Ending)
        case outputEnded
        case cancel
        /// Input came.
        case input
        /// A core is there, or is away.
        case core(Bool)
        /// The end is recorded at the core.
        case forget
        /// Also said at the deadline that `nextDeadline` names. `isAnythingLeft`: a process of the session besides its
        /// leader, asked for only while `asksForRest` is true. `isBlocked`: output waits because its reader is slow.
        case time(isAnythingLeft: Bool, isBlocked: Bool)
    }

    enum Action: Equatable {
        case terminate
        case kill
        /// Reap the leader and record the end.
        case record(Outcome)
        /// Leave.
        case leave
    }

    /// How long the output of a program that has ended is waited for.
    static let drainMilliseconds: UInt64 = 1_000
    static let checkMilliseconds: UInt64 = 20
    /// How long an end that the core has not acknowledged keeps its output.
    static let lingerMilliseconds: UInt64 = 600_000

    private enum Cause: Equatable { case timedOut, cancelled }

    private let grace: UInt64
    private let idle: UInt64?
    private let orphan: UInt64
    private let endAt: UInt64?
    private var idleAt: UInt64?
    private var orphanAt: UInt64?
    private var cause: Cause?
    private var ending: HolderStateMachine.Ending?
    private var killAt: UInt64?
    private var isKilled = false
    private var isOutputOpen = true
    private var drainUntil: UInt64?
    private var endedAt: UInt64 = 0
    private var checkAt: UInt64?
    private var leaveAt: UInt64?
    private(set) var isRecorded = false
    private(set) var isOver = false

    init(startedAt now: UInt64, grace: UInt64, maximum: UInt64?, idle: UInt64?, orphan: UInt64) {
        self.grace = min(grace, 60_000)
        self.idle = idle
        self.orphan = orphan
        endAt = maximum.map { Self.after(now, $0) }
        idleAt = idle.map { Self.after(now, $0) }
    }

    private static func after(_ now: UInt64, _ wait: UInt64) -> UInt64 {
        let (sum, isTooLate) = now.addingReportingOverflow(wait)
        return isTooLate ? .max : sum
    }

    /// Whether the next `time` needs to know what is left of the session.
    var asksForRest: Bool { checkAt != nil && !isRecorded }

    /// When `time` has to be said at the latest; `nil`: never.
    var nextDeadline: UInt64? {
        if isOver { return nil }
        if isRecorded { return leaveAt }
        var deadline: UInt64?
        func consider(_ time: UInt64?) { if let time { deadline = min(deadline ?? .max, time) } }
        if cause == nil, ending == nil {
            consider(endAt)
            consider(idleAt)
            consider(orphanAt)
        }
        if !isKilled { consider(killAt) }
        consider(checkAt)
        if checkAt == nil { consider(drainUntil) }
        return deadline
    }

    mutating func receive(_ input: Input, now: UInt64) -> [Action] {
        guard !isOver else { return [] }
        switch input {
        case .input:
            idleAt = idle.map { Self.after(now, $0) }
            return []
        case .core(let isThere):
            if isThere { orphanAt = nil } else if orphanAt == nil { orphanAt = Self.after(now, orphan) }
            return []
        case .cancel: return end(.cancelled, now)
        case .outputEnded:
            isOutputOpen = false
            return isRecorded ? [] : recordIfComplete(now)
        case .ended(let how):
            guard ending == nil else { return [] }
            ending = how
            endedAt = now
            drainUntil = now + Self.drainMilliseconds
            checkAt = now
            guard killAt == nil else { return [] }
            killAt = Self.after(now, grace)
            return [.terminate]
        case .forget:
            guard isRecorded else { return end(.cancelled, now) }
            isOver = true
            return [.leave]
        case .time(let isAnythingLeft, let isBlocked):
            if isBlocked, drainUntil != nil, now < endedAt + Self.lingerMilliseconds {
                drainUntil = now + Self.drainMilliseconds
            }
            return time(isAnythingLeft, now)
        }
    }

    private mutating func time(_ isAnythingLeft: Bool, _ now: UInt64) -> [Action] {
        if isRecorded {
            guard let leaveAt, now >= leaveAt else { return [] }
            isOver = true
            return [.leave]
        }
        var actions: [Action] = []
        for limit in [endAt, idleAt, orphanAt] {
            if let limit, now >= limit { actions += end(.timedOut, now) }
        }
        if let killAt, now >= killAt, !isKilled {
            isKilled = true
            actions.append(.kill)
        }
        if let at = checkAt, now >= at, ending != nil {
            // What was killed is gone within the next look or two; what cannot be killed must not hold up the end.
            let isDone = !isAnythingLeft || (isKilled && now >= (killAt ?? now) + Self.drainMilliseconds)
            checkAt = isDone ? nil : now + Self.checkMilliseconds
            if isDone { killAt = nil }
        }
        return actions + recordIfComplete(now)
    }

    private mutating func end(_ cause: Cause, _ now: UInt64) -> [Action] {
        guard self.cause == nil, ending == nil else { return [] }
        self.cause = cause
        killAt = Self.after(now, grace)
        return [.terminate]
    }

    private mutating func recordIfComplete(_ now: UInt64) -> [Action] {
        guard !isRecorded, let ending, checkAt == nil else { return [] }
        if isOutputOpen, let drainUntil, now < drainUntil { return [] }
        isRecorded = true
        leaveAt = Self.after(now, Self.lingerMilliseconds)
        switch (cause, ending) {
        case (.timedOut, _): return [.record(.timedOut)]
        case (.cancelled, _): return [.record(.cancelled)]
        case (nil, .exited(let code)): return [.record(.exited(code: code))]
        case (nil, .signaled(let signal)): return [.record(.signaled(signal: signal))]
        }
    }
}
