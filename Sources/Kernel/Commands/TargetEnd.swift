import AgentProtocol

/// How a target ended. The numbers stand in the database.
public enum FinalState: UInt8, Sendable, CaseIterable {
    /// It ran and left with exit code 0.
    case succeeded = 1
    /// It ran and left with another code, or by a signal.
    case failed = 2
    case timedOut = 3
    case cancelled = 4
    /// The core's or the agent's policy, a bound or the client's state said no; it never ran.
    case refused = 5
    case startFailed = 6
    /// Its holder, its machine or its client was lost; `TargetEnd.started` says whether it may have run.
    case interrupted = 7
    /// The client was offline and the command said to leave such clients out.
    case skipped = 8
    /// The client did not come back before the command's time was over; it never ran.
    case expired = 9
    /// The error budget was used up before its turn came; it never ran.
    case aborted = 10

    public var name: String {
        switch self {
        case .succeeded: "succeeded"
        case .failed: "failed"
        case .timedOut: "timed-out"
        case .cancelled: "cancelled"
        case .refused: "refused"
        case .startFailed: "start-failed"
        case .interrupted: "interrupted"
        case .skipped: "skipped"
        case .expired: "expired"
        case .aborted: "aborted"
        }
    }

    public init?(name: some StringProtocol) {
        guard let state = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = state
    }

    /// Whether it uses up the error budget. Leaving clients out is what the caller asked for, so it does not.
    public var countsAsError: Bool {
        switch self {
        case .succeeded, .skipped, .cancelled, .aborted: false
        case .failed, .timedOut, .refused, .startFailed, .interrupted, .expired: true
        }
    }
}

/// The end of one target with everything that is kept about it besides the output. An object, since it goes from hand to hand.
public final class TargetEnd: Sendable, Equatable {
    public let state: FinalState
    public let started: Started
    public let exitCode: Int32?
    public let signal: Int32?
    /// Stable, listed in Docs/errors.md; `nil` where the state says everything.
    public let code: String?
    public let message: String?
    /// What the agent measured; `nil` when the core itself ended the target.
    public let record: ExitRecord?

    public init(
        _ state: FinalState, started: Started, exitCode: Int32? = nil, signal: Int32? = nil, code: String? = nil,
        message: String? = nil, record: ExitRecord? = nil
    ) {
        self.state = state
        self.started = started
        self.exitCode = exitCode
        self.signal = signal
        self.code = code
        self.message = message
        self.record = record
    }

    /// What an agent's record means. A record cannot claim less than the core knows: once output or a start was seen,
    /// `started` stays `yes`.
    public convenience init(_ record: ExitRecord, sawStart: Bool) {
        let started: Started = sawStart ? .yes : record.started
        switch record.outcome {
        case .exited(let code):
            self.init(code == 0 ? .succeeded : .failed, started: .yes, exitCode: code, record: record)
        case .signaled(let signal):
            self.init(.failed, started: .yes, signal: signal, record: record)
        case .timedOut:
            self.init(.timedOut, started: started, record: record)
        case .cancelled:
            self.init(.cancelled, started: started, record: record)
        case .startFailed(let code, let message):
            self.init(.startFailed, started: started, code: code, message: message, record: record)
        case .refused(let code, let message):
            self.init(.refused, started: started, code: code, message: message, record: record)
        case .interrupted(let reason):
            self.init(.interrupted, started: started, code: "holder-lost", message: reason, record: record)
        }
    }

    public static func == (left: TargetEnd, right: TargetEnd) -> Bool {
        left.state == right.state && left.started == right.started && left.exitCode == right.exitCode
            && left.signal == right.signal && left.code == right.code && left.message == right.message
            && left.record == right.record
    }
}
