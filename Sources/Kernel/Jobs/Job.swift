import AgentProtocol
import JSON

public enum JobItself: Sendable {}
/// One job, through all its attempts.
public typealias JobID = Identifier<JobItself>

public enum JobState: String, Sendable, CaseIterable {
    /// For its time, a free place, its children or its kind.
    case waiting
    case running
    case succeeded
    case cancelled
    /// It will not run again by itself: somebody has to look at it.
    case dead

    public var isFinal: Bool { self != .waiting && self != .running }
}

/// What a kind promises about running twice.
public enum JobGuarantee: String, Sendable, CaseIterable {
    /// Runs at least once: an interrupted attempt is followed by another.
    case idempotent
    /// Never starts twice by itself: an interrupted attempt makes the job dead.
    case atMostOnce = "at-most-once"
}

/// How often, and after which pauses, a failed job runs again.
public struct JobRetry: Sendable, Equatable {
    /// Failures that end it.
    public var maximumAttempts: Int
    public var firstMilliseconds: UInt64
    public var longestMilliseconds: UInt64

    public init(maximumAttempts: Int = 5, firstMilliseconds: UInt64 = 1_000, longestMilliseconds: UInt64 = 900_000) {
        self.maximumAttempts = maximumAttempts
        self.firstMilliseconds = firstMilliseconds
        self.longestMilliseconds = longestMilliseconds
    }

    /// Doubles with each failure; the upper half is chance, so that many that failed together do not come back together.
    /// - Parameters:
    ///   - failures: counts from 1.
    ///   - random: from 0 up to but not including 1.
    func pause(afterFailures failures: Int, random: Double) -> UInt64 {
        let doublings = UInt64(min(max(failures, 1) - 1, 30))
        let (grown, overflows) = firstMilliseconds.multipliedReportingOverflow(by: 1 << doublings)
        let longest = overflows ? longestMilliseconds : min(grown, longestMilliseconds)
        return longest / 2 + UInt64(Double(longest - longest / 2) * random)
    }
}

/// In whose name a job runs; his rights are looked up again when it does.
public struct JobOwner: Sendable, Equatable {
    public var kind: Principal.Kind
    public var id: String
    /// The session or token that proved it; counts for owners that are known by nothing else.
    public var credential: String?

    public init(kind: Principal.Kind, id: String, credential: String? = nil) {
        self.kind = kind
        self.id = id
        self.credential = credential
    }

    public init(_ principal: Principal) {
        self.init(kind: principal.kind, id: principal.id, credential: principal.credential)
    }
}

/// How far an attempt has come, in units of the kind's own.
public struct JobProgress: Sendable, Equatable {
    public var done: UInt64
    public var total: UInt64?
    public var text: String

    public init(done: UInt64, total: UInt64? = nil, text: String = "") {
        self.done = done
        self.total = total
        self.text = text
    }
}

/// A job as it stands in the store.
public struct Job: Sendable {
    public let id: JobID
    public let kind: String
    /// One line for lists.
    public let title: String
    /// An object in JSON.
    public let arguments: [UInt8]
    /// Higher ones go first.
    public let priority: Int
    /// Of one attempt.
    public let timeoutMilliseconds: UInt64
    public let owner: JobOwner
    public let correlation: String
    public let parent: JobID?
    /// 0 for a job without a parent.
    let depth: Int
    /// The schedule that made it, and for which of its times (Unix milliseconds).
    public let schedule: String?
    public let occurrence: UInt64?
    public let createdAt: UInt64
    public internal(set) var machine: JobStateMachine
    public internal(set) var progress: JobProgress?
    /// What the next attempt goes on from.
    public internal(set) var checkpoint: [UInt8]?
    /// JSON; what the kind has to say about a success.
    public internal(set) var result: [UInt8]?
}

/// The right to work on one attempt. It is good until the attempt ends, by whatever cause: then each call with it is
/// refused with 409 `job-fenced`.
public struct JobLease: Sendable {
    public let job: JobID
    public let kind: String
    /// Counts from 1.
    public let attempt: Int
    /// Rises with every attempt of any job; whoever is told a higher one turns away lower ones.
    public let fence: UInt64
    public let arguments: JSONValue
    /// Of the last attempt that left one.
    public let checkpoint: [UInt8]?
    public let owner: JobOwner
    public let correlation: String
    /// Unix milliseconds.
    public let begunAt: UInt64
    /// Unix milliseconds; the attempt is asked to end then.
    public let endsBy: UInt64
}

/// How an attempt ended.
public enum JobOutcome: Sendable, Equatable {
    public enum Again: Sendable, Equatable {
        /// Another attempt would fail as well.
        case never
        /// Something may have been done. Idempotent kinds try again, the others do not.
        case ifIdempotent
        /// Certainly nothing was done: every kind tries again.
        case nothingWasDone
    }
    /// `result`: JSON.
    case succeeded(result: [UInt8]?)
    case failed(code: String, reason: String, again: Again)
    /// Certainly nothing was begun, and the attempt is not to blame: another one follows. Counted as an interruption.
    case notBegun(reason: String)
    /// Because it was asked to.
    case cancelled
    /// A new attempt follows when all children have ended; not counted as a failure.
    case afterChildren
}

/// A line of a job's log.
public struct JobLogLine: Sendable {
    public enum Level: String, Sendable, CaseIterable { case debug, info, warning, error }
    /// Counts from 1 for each job; earlier ones than the kept ones are gone.
    public var sequence: UInt64
    public var milliseconds: UInt64
    public var attempt: Int
    public var level: Level
    public var text: String
}

/// Bounds on jobs.
public struct JobLimits: Sendable {
    /// Unfinished ones together; more are answered 503.
    public var openJobs = 100_000
    public var runningAttempts = 256
    public var kinds = 1_000
    public var argumentBytes = 64 << 10
    public var checkpointBytes = 64 << 10
    public var resultBytes = 64 << 10
    public var logLineBytes = 2_048
    /// Of one job; older lines make room.
    public var logLines = 1_000
    public var children = 1_000
    public var depth = 8
    /// Interruptions after which an idempotent job is taken to be the cause.
    public var interruptions = 20
    /// How long finished ones are kept, and how many.
    public var historyMilliseconds: UInt64 = 30 * 86_400_000
    public var historyJobs = 100_000
    public init() {}
}
