/// How `cmctl` ends.
public enum Outcome: Int32, Sendable {
    case success = 0
    /// The core, or a command on a client, failed.
    case remoteFailure = 1
    /// The command line or the request was wrong.
    case usage = 2
    /// Not signed in, not allowed, or limited.
    case refused = 3
    case unreachable = 4
}

/// Why a verb could not do its work: what was wrong and, where there is something, what to do about it.
public struct OperatorError: Error, Sendable, Equatable {
    public var status: Outcome
    public var what: String
    public var advice: String?

    public init(_ status: Outcome, _ what: String, advice: String? = nil) {
        self.status = status
        self.what = what
        self.advice = advice
    }

    public static func usage(_ what: String, advice: String? = nil) -> OperatorError {
        OperatorError(.usage, what, advice: advice)
    }
}
