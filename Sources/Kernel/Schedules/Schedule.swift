import JSON

/// When a schedule's times are. `at` and `local` have one only.
public enum ScheduleTiming: Sendable, Equatable {
    case cron(CronExpression)
    /// Unix milliseconds.
    case at(UInt64)
    /// What the clock of the schedule's zone shows then; the text as it was given.
    case local(String)
}

/// What happens at a time at which the run before it has not ended.
public enum ScheduleOverlap: String, Sendable, CaseIterable {
    /// That time has no run.
    case skip
    /// Its run begins when the one before has ended; one waits at most, later times have no run.
    case queue
    /// Runs go on side by side.
    case allow
}

/// What happens with times that passed while nobody could run them: the core was down, the kind was away.
public enum ScheduleMissed: String, Sendable, CaseIterable {
    case skip
    /// One run for all of them, that of the newest.
    case once
    /// A run for each of the newest ones: one after the other, or together where runs may overlap.
    case all
}

/// What the operator decides about a schedule.
public struct ScheduleDefinition: Sendable, Equatable {
    public var description = ""
    /// What is run. `kind` to `retry` are those of a job.
    public var kind: String
    public var arguments: JSONValue
    public var priority = 0
    public var timeoutMilliseconds: UInt64?
    public var retry: JobRetry?
    /// How long a run may take from the moment at which it is put in, waiting and repetitions included.
    public var deadlineMilliseconds: UInt64?

    public var timing: ScheduleTiming
    /// Of this machine's time zones.
    public var zone = "UTC"
    /// No times before; Unix milliseconds.
    public var startsAt: UInt64?
    /// No times after; Unix milliseconds.
    public var endsAt: UInt64?
    /// Each time is put off by chance, up to this and never past the time after it.
    public var jitterMilliseconds: UInt64 = 0
    public var overlap = ScheduleOverlap.skip
    public var missed = ScheduleMissed.once
    /// How many runs `missed = all` makes up for.
    public var missedLimit = 10
    /// A time that is acted upon later than this is a missed one.
    public var graceMilliseconds: UInt64 = 60_000
    public var isEnabled = true

    public init(kind: String, arguments: JSONValue = [:], timing: ScheduleTiming) {
        self.kind = kind
        self.arguments = arguments
        self.timing = timing
    }

    /// The job of one of its times.
    /// - Parameter now: Unix milliseconds.
    func request(now: UInt64) -> JobRequest {
        var request = JobRequest(kind, arguments)
        request.priority = priority
        request.timeoutMilliseconds = timeoutMilliseconds
        request.retry = retry
        request.deadline = deadlineMilliseconds.map { now + $0 }
        return request
    }

    /// Whether the two have the same times.
    func hasTimes(of other: ScheduleDefinition) -> Bool {
        timing == other.timing && zone == other.zone && startsAt == other.startsAt && endsAt == other.endsAt
            && jitterMilliseconds == other.jitterMilliseconds
    }
}

/// A schedule as it stands in the store.
public struct Schedule: Sendable {
    public let name: String
    public internal(set) var definition: ScheduleDefinition
    /// What a run does, in one line; from its kind.
    public internal(set) var title: String
    /// In whose name its runs go: who made it, or changed more of it than whether it is on.
    public internal(set) var owner: JobOwner
    public let createdAt: UInt64
    public let createdBy: String
    public internal(set) var changedAt: UInt64
    public internal(set) var revision: UInt64
    public internal(set) var machine: ScheduleStateMachine
    /// Runs put in so far, and times that passed without one.
    public internal(set) var runs: UInt64 = 0
    public internal(set) var skips: UInt64 = 0
    /// The newest time that had a run, and the newest that had none; Unix milliseconds.
    public internal(set) var lastRunAt: UInt64?
    public internal(set) var lastSkip: ScheduleStateMachine.Skip?

    public var entityTag: String { "\(revision)" }
    /// On, and with no time to come and no run that waits.
    public var hasEnded: Bool { definition.isEnabled && machine.next == nil && machine.backlog.isEmpty }
}

/// Bounds on schedules.
public struct ScheduleLimits: Sendable {
    public var schedules = 10_000
    public var descriptionBytes = 1_024
    public var missedRuns = 100
    public var jitterMilliseconds: UInt64 = 86_400_000
    public var graceMilliseconds: UInt64 = 7 * 86_400_000
    /// Schedules that are acted upon in one commit, and the bytes of their arguments together.
    public var batch = 256
    public var batchBytes = 1 << 20
    public init() {}
}
