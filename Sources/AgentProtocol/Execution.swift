/// What is run: exactly one of these per command.
public enum Invocation: Sendable, Equatable {
    /// A program and its arguments; no shell reads them.
    case argv([String])
    /// One text for `/bin/sh -c`. Needs a right of its own on the core.
    case shell(String)
    /// A script body that is handed to an interpreter as a file.
    case script(interpreter: [String], body: [UInt8], arguments: [String])
}

/// An order of the core to an agent: run this once. It is never sent twice for a target that may have started.
public struct Order: Sendable, Equatable {
    public var command: CommandID
    public var invocation: Invocation
    /// Bytes for standard input; `nil` means /dev/null.
    public var standardInput: [UInt8]?
    /// Added to the agent's clean base environment.
    public var environment: [String: String]
    public var workingDirectory: String?
    /// A user name or number on the client; `nil` means the agent's own user.
    public var user: String?
    /// From the spawn on; `nil` means no limit.
    public var timeoutMilliseconds: UInt64?
    /// From TERM to KILL at cancel and timeout.
    public var killGraceMilliseconds: UInt64
    /// For standard output and standard error together; what comes after is dropped and `ExitRecord.truncated` set.
    public var outputLimitBytes: UInt64
    public var memoryLimitBytes: UInt64?
    /// Thousandths of one core.
    public var processorLimitMillis: UInt64?
    /// Goes through to the agent's log lines.
    public var correlation: String
    /// Variables whose values no journal may hold: an agent keeps them in memory until the start. What stands in a
    /// journal has the names, and empty values.
    public var secretEnvironment: [String: String]
    /// The kernel's deadline for the start, Unix milliseconds; the agent refuses to start later. `nil` means none.
    public var startBefore: UInt64?

    public init(
        command: CommandID, invocation: Invocation, standardInput: [UInt8]? = nil, environment: [String: String] = [:],
        workingDirectory: String? = nil, user: String? = nil, timeoutMilliseconds: UInt64? = nil,
        killGraceMilliseconds: UInt64 = 5_000, outputLimitBytes: UInt64 = 1 << 30, memoryLimitBytes: UInt64? = nil,
        processorLimitMillis: UInt64? = nil, correlation: String = "", startBefore: UInt64? = nil,
        secretEnvironment: [String: String] = [:]
    ) {
        self.command = command
        self.invocation = invocation
        self.standardInput = standardInput
        self.environment = environment
        self.workingDirectory = workingDirectory
        self.user = user
        self.timeoutMilliseconds = timeoutMilliseconds
        self.killGraceMilliseconds = killGraceMilliseconds
        self.outputLimitBytes = outputLimitBytes
        self.memoryLimitBytes = memoryLimitBytes
        self.processorLimitMillis = processorLimitMillis
        self.correlation = correlation
        self.startBefore = startBefore
        self.secretEnvironment = secretEnvironment
    }
}

public enum OutputStream: UInt8, Sendable, CaseIterable {
    case standardOutput = 1
    case standardError = 2
}

/// Whether the program began to run, as far as anybody can know.
public enum Started: String, Sendable {
    case no, yes, maybe
}

/// How a target ended.
public enum Outcome: Sendable, Equatable {
    case exited(code: Int32)
    case signaled(signal: Int32)
    case timedOut
    case cancelled
    /// The program could not be started: the code is stable (`program-not-found`, `user-unknown`, …), the text is for people.
    case startFailed(code: String, message: String)
    /// The agent's own policy, queue bound or deadline said no.
    case refused(code: String, message: String)
    /// The holder or the machine died, or the agent's data is gone.
    case interrupted(reason: String)
}

/// The end of one target, written by the agent's holder; the core records it once.
public struct ExitRecord: Sendable, Equatable {
    public var command: CommandID
    public var outcome: Outcome
    public var started: Started
    /// Unix milliseconds by the client's clock.
    public var startedAt: UInt64?
    public var finishedAt: UInt64
    public var durationMicroseconds: UInt64
    public var userMicroseconds: UInt64
    public var systemMicroseconds: UInt64
    /// 0: not known (a program that needed less than its holder cannot be told apart from it).
    public var maximumResidentBytes: UInt64
    /// The whole length of each stream as kept; the core has everything when it holds this many bytes.
    public var standardOutputBytes: UInt64
    public var standardErrorBytes: UInt64
    /// The output limit was met and later bytes were dropped.
    public var truncated: Bool

    public init(
        command: CommandID, outcome: Outcome, started: Started, startedAt: UInt64? = nil, finishedAt: UInt64 = 0,
        durationMicroseconds: UInt64 = 0, userMicroseconds: UInt64 = 0, systemMicroseconds: UInt64 = 0,
        maximumResidentBytes: UInt64 = 0, standardOutputBytes: UInt64 = 0, standardErrorBytes: UInt64 = 0,
        truncated: Bool = false
    ) {
        self.command = command
        self.outcome = outcome
        self.started = started
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.durationMicroseconds = durationMicroseconds
        self.userMicroseconds = userMicroseconds
        self.systemMicroseconds = systemMicroseconds
        self.maximumResidentBytes = maximumResidentBytes
        self.standardOutputBytes = standardOutputBytes
        self.standardErrorBytes = standardErrorBytes
        self.truncated = truncated
    }
}

/// What an agent says about one execution after a (re)connect. Executions that the core has acknowledged are gone.
public struct ExecutionReport: Sendable, Equatable {
    public var command: CommandID
    public var started: Started
    /// Bytes that stand in the spool now.
    public var standardOutputBytes: UInt64
    public var standardErrorBytes: UInt64
    /// Set when it has ended.
    public var exit: ExitRecord?

    public init(
        command: CommandID, started: Started, standardOutputBytes: UInt64, standardErrorBytes: UInt64,
        exit: ExitRecord?
    ) {
        self.command = command
        self.started = started
        self.standardOutputBytes = standardOutputBytes
        self.standardErrorBytes = standardErrorBytes
        self.exit = exit
    }
}

/// The core's answer to one report.
public enum ResumeDecision: Sendable, Equatable {
    /// Send output from these offsets on, and the exit record when there is one.
    case resume(command: CommandID, standardOutputFrom: UInt64, standardErrorFrom: UInt64)
    /// The core has recorded the end (or never knew it): drop journal and spool.
    case forget(command: CommandID)
    /// It should not go on: end it (cancelled while the link was down).
    case cancel(command: CommandID, standardOutputFrom: UInt64, standardErrorFrom: UInt64)
}
