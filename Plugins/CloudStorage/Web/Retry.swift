import Glibc

/// How often a request is tried, and the pauses between: exponential with full jitter, so that many who were turned away at once
/// do not come back at once.
struct Retry: Sendable, Equatable {
    var attempts = 5
    static let firstMilliseconds: UInt64 = 200
    static let longestMilliseconds: UInt64 = 10_000

    /// Tries until it goes well, fails for good, or the attempts are used up: then the last error stands.
    func run<Result>(
        _ cancellation: Cancellation, _ work: (_ attempt: Int) throws(CloudError) -> Result
    ) throws(CloudError) -> Result {
        var attempt = 1
        while true {
            do throws(CloudError) {
                return try work(attempt)
            } catch {
                guard error.isPassing, attempt < attempts, !cancellation.isCancelled else { throw error }
                cancellation.pause(milliseconds: Self.pause(after: attempt, wish: error.retryAfter))
                if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
                attempt += 1
            }
        }
    }

    /// A store's own wish counts, up to half a minute.
    private static func pause(after attempt: Int, wish: UInt64?) -> UInt64 {
        let most = min(firstMilliseconds << UInt64(min(attempt - 1, 16)), longestMilliseconds)
        let chosen = UInt64.random(in: most / 2...most)
        return max(chosen, min(wish ?? 0, 30) * 1_000)
    }
}
