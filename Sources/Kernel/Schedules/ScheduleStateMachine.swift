/// Which times of a schedule get a run, and when. A value; no I/O. Times in Unix milliseconds.
///
/// What it decides and the jobs that follow from it are one commit, so each time is decided once.
public struct ScheduleStateMachine: Sendable, Equatable {
    struct Rules: Sendable {
        var overlap: ScheduleOverlap
        var missed: ScheduleMissed
        var missedLimit: Int
        var graceMilliseconds: UInt64

        init(_ definition: ScheduleDefinition) {
            overlap = definition.overlap
            missed = definition.missed
            missedLimit = definition.missedLimit
            graceMilliseconds = definition.graceMilliseconds
        }
    }

    /// Times that passed without a run.
    public struct Skip: Sendable, Equatable {
        public enum Reason: String, Sendable {
            /// Nobody could run it in time.
            case missed
            /// The run before it had not ended.
            case overlap
        }
        public var reason: Reason
        public var first: UInt64
        public var last: UInt64
    }

    /// The times that have come since the last look, and the one that follows.
    struct Arrival: Sendable, Equatable {
        /// Oldest first, at least one; more than `missedLimit` where there were more.
        var newest: [UInt64]
        /// Nothing came before these.
        var isAll: Bool
        var following: UInt64?
        /// When the following one is acted upon.
        var followingDue: UInt64?
    }

    struct Decision: Sendable, Equatable {
        /// Times whose runs are put in now.
        var runs: [UInt64] = []
        var skips: [Skip] = []
    }

    /// The next time; `nil`: there is none, or the schedule is off.
    public private(set) var next: UInt64?
    /// When it is acted upon: with its jitter.
    private(set) var due: UInt64?
    /// Times whose runs wait for the end of the run before, oldest first.
    public private(set) var backlog: [UInt64]

    init(next: UInt64? = nil, due: UInt64? = nil, backlog: [UInt64] = []) {
        self.next = next
        self.due = due
        self.backlog = backlog
    }

    /// On, with other times, or off (`nil`). What waited for the run before it waits no longer.
    mutating func restart(next: UInt64?, due: UInt64?) {
        self.next = next
        self.due = due
        backlog = []
    }

    /// The times that have come get their runs, or none.
    /// - Parameter isBusy: a run has not ended.
    mutating func arrive(_ arrival: Arrival, now: UInt64, isBusy: Bool, rules: Rules) -> Decision {
        guard let next, let due else { return Decision() }
        self.next = arrival.following
        self.due = arrival.followingDue
        func isLate(_ time: UInt64) -> Bool {
            now > (time == next ? max(due, time) : time) + rules.graceMilliseconds
        }
        let newest = arrival.newest
        let isAnyMissed = !arrival.isAll || newest.first.map(isLate) ?? false
        var wanted = newest[...]
        if isAnyMissed {
            switch rules.missed {
            case .skip: wanted = newest.drop(while: isLate)
            case .once: wanted = newest.suffix(1)
            case .all: break
            }
        }
        wanted = wanted.suffix(rules.missedLimit)

        var decision = Decision()
        if wanted.count < newest.count || !arrival.isAll {
            let last = newest.prefix(newest.count - wanted.count).last ?? next
            decision.skips.append(Skip(reason: .missed, first: next, last: last))
        }
        for time in wanted {
            let mayWait = isAnyMissed && rules.missed == .all
                ? backlog.count < rules.missedLimit : rules.overlap == .queue && backlog.isEmpty
            if rules.overlap == .allow || (!isBusy && decision.runs.isEmpty && backlog.isEmpty) {
                decision.runs.append(time)
            } else if mayWait {
                backlog.append(time)
            } else {
                decision.skips.append(Skip(reason: .overlap, first: time, last: time))
            }
        }
        return decision
    }

    /// The run before has ended: the time whose run is put in now.
    mutating func runEnded() -> UInt64? { backlog.isEmpty ? nil : backlog.removeFirst() }
}
