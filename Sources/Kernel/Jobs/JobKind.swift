import JSON

/// What can be run as a job. The core registers its own; a plugin registers its through the same door.
public struct JobKind: Sendable {
    public enum Work: Sendable {
        /// Runs as a task on a loop; what it returns is the outcome. It must not block.
        case task(@Sendable (JobLease) async -> JobOutcome)
        /// Is told of an attempt, must return at once, and calls `Jobs.finish` later, from any thread.
        case delegated(@Sendable (JobLease) -> Void)
    }

    /// Lower-case words with dots and dashes; a plugin's begin with its id.
    public var name: String
    public var summary: String
    /// Who registered it: `core`, or a plugin's id. Only the same may replace or remove it.
    public var owner = "core"
    public var guarantee: JobGuarantee
    /// Attempts at a time.
    public var concurrency = 8
    public var retry = JobRetry()
    /// Of one attempt, unless the job says otherwise.
    public var timeoutMilliseconds: UInt64 = 3_600_000
    /// How long an attempt that was asked to end may take for it; then it is fenced.
    public var cancelGraceMilliseconds: UInt64 = 30_000
    /// Looks at arguments, and at whether this principal may have them run at all, before a job or schedule is accepted.
    /// Gives the job's title.
    public var check: @Sendable (JSONValue, Principal) async throws(Problem) -> String
    public var work: Work
    /// Asks an attempt to end. Returns at once.
    public var cancel: @Sendable (JobLease) -> Void = { _ in }
    /// For kinds whose work goes on elsewhere while the core is away: takes up the same attempt again after a restart, or
    /// returns `nil` where nothing is left of it. Only with `.task`.
    public var reattach: (@Sendable (JobLease) async -> JobOutcome?)?

    public init(
        _ name: String, _ summary: String, _ guarantee: JobGuarantee,
        check: @escaping @Sendable (JSONValue, Principal) async throws(Problem) -> String = { _, _ in "" }, work: Work
    ) {
        self.name = name
        self.summary = summary
        self.guarantee = guarantee
        self.check = check
        self.work = work
    }

    static func isName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x5F
            }
    }
}

/// A job as it is asked for.
public struct JobRequest: Sendable {
    public var kind: String
    public var arguments: JSONValue
    /// −100 to 100; higher ones go first.
    public var priority = 0
    /// Unix milliseconds; `nil`: at once.
    public var dueAt: UInt64?
    /// Unix milliseconds; not run, or no longer, after this.
    public var deadline: UInt64?
    /// Of one attempt; `nil`: the kind's.
    public var timeoutMilliseconds: UInt64?
    /// `nil`: the kind's.
    public var retry: JobRetry?
    public var parent: JobID?
    public var idempotencyKey: IdempotencyKey?

    public init(_ kind: String, _ arguments: JSONValue = [:]) {
        self.kind = kind
        self.arguments = arguments
    }
}
