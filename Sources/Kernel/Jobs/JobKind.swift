import JSON

/// What a kind takes.
public enum JobArguments: Sendable {
    case any
    /// A JSON Schema for readers; the kind's `check` looks at the arguments by itself.
    case documented(JSONValue)
    /// The core checks them before `check` sees them.
    case schema(JSONSchema)

    public var json: JSONValue? {
        switch self {
        case .any: nil
        case .documented(let json): json
        case .schema(let schema): schema.json
        }
    }
}

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
    /// Tells the versions of one owner apart while two of them run side by side: `Jobs.endAttempts` takes it.
    public var instance: UInt64 = 0
    /// Rights that whoever wants it run needs, when he asks for it and again when it runs.
    public var rights: [Right] = []
    public var guarantee: JobGuarantee
    /// What it takes, for readers of the API and for the core to check.
    public var arguments = JobArguments.any
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

    /// Whether this principal may have this run.
    /// - Returns: the job's title.
    func accept(_ given: JSONValue, _ principal: Principal, _ owners: JobOwners) async throws(Problem) -> String {
        try owners.require(rights, principal, for: name)
        if case .schema(let schema) = arguments {
            do throws(JSONSchema.Fault) {
                try schema.check(given)
            } catch {
                let place = "/arguments" + error.pointer
                throw .invalid("\(place) \(error.text)", pointer: place)
            }
        }
        let title = try await check(given, principal)
        return title.isEmpty ? summary : title
    }

    static func isName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x5F
            }
    }
}

/// What the core's security says of those in whose name jobs run.
public struct JobOwners: Sendable {
    /// The owner as he is now.
    var present: @Sendable (_ owner: JobOwner, _ correlation: String) throws(Problem) -> Principal
    var grants: @Sendable (Principal, Right) -> Bool

    public init(_ security: Security) {
        present = { (owner, correlation) throws(Problem) in try security.present(owner, correlation: correlation) }
        grants = { security.grants($0, $1) }
    }

    init(
        present: @escaping @Sendable (_ owner: JobOwner, _ correlation: String) throws(Problem) -> Principal,
        grants: @escaping @Sendable (Principal, Right) -> Bool
    ) {
        self.present = present
        self.grants = grants
    }

    func require(_ rights: [Right], _ principal: Principal, for kind: String) throws(Problem) {
        for right in rights where principal.kind != .system && !grants(principal, right) {
            throw .forbidden("jobs of kind \(kind) need the right \(right), which \(principal.id) does not have")
        }
    }

    /// Jobs of the core and of plugins have nobody behind them; every other owner must still be there and still have the
    /// rights that the kind asks for.
    func require(_ rights: [Right], _ owner: JobOwner, for kind: String, correlation: String) throws(Problem) {
        guard owner.kind != .system else { return }
        try require(rights, try present(owner, correlation), for: kind)
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

extension JobRequest {
    func checkTimes() throws(Problem) {
        if let timeoutMilliseconds {
            try CommandRequest.range(timeoutMilliseconds, 1_000...7 * 86_400_000, "the time-out", "ms", "/timeout_s")
        }
        guard let retry else { return }
        try CommandRequest.range(retry.maximumAttempts, 1...100, "the number", "attempts", "/retry/attempts")
        try CommandRequest.range(retry.firstMilliseconds, 100...86_400_000, "the first pause", "ms", "/retry/first_s")
        try CommandRequest.range(
            retry.longestMilliseconds, retry.firstMilliseconds...7 * 86_400_000, "the longest pause", "ms", "/retry/longest_s")
    }
}
