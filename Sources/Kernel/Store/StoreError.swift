/// What a request body may throw. A body that throws leaves no trace in the database and never harms the requests that
/// share its commit.
public enum StoreError: Error, Sendable, Equatable {
    /// The body's own refusal, passed on as it is (`throw .refused(.notFound("…"))`).
    case refused(Problem)
    /// A UNIQUE, CHECK, NOT NULL or foreign-key rule of the schema was broken. SQLite's text names table and column.
    case constraint(String)
    /// No space on the disk, or the file reached a limit of the system.
    case full
    /// Somebody outside holds a lock on the database file.
    case locked
    /// A read took longer than its limit and was ended.
    case tooSlow
    /// Anything else that SQLite reports, with its extended result code.
    case failed(code: Int32, message: String)

    /// The answer for the layers above.
    public var problem: Problem {
        switch self {
        case .refused(let problem): problem
        case .constraint(let rule): Problem(409, "conflict", "the change breaks a rule of the store: \(rule)")
        case .full: Problem(507, "disk-full", "the disk of the data directory is full: nothing was changed")
        case .locked:
            Problem(503, "store-busy", "another program holds a lock on the database: try again", retryAfter: 1)
        case .tooSlow: Problem(503, "store-slow", "the query took too long: narrow it", retryAfter: 1)
        case .failed(let code, let message): Problem(500, "store-failed", "the store failed (\(code)): \(message)")
        }
    }
}
