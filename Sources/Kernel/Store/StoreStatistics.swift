import Synchronization

/// Counters of the store for metrics. Any thread.
public final class StoreStatistics: Sendable {
    public let commits = Atomic<Int>(0)
    /// Requests that went through commits, refused bodies included.
    public let requests = Atomic<Int>(0)
    /// Refused because the queue was full.
    public let refused = Atomic<Int>(0)
    public let commitNanoseconds = Atomic<UInt64>(0)
    public let longestCommitNanoseconds = Atomic<UInt64>(0)
    public let checkpoints = Atomic<Int>(0)

    func committed(_ count: Int, nanoseconds: UInt64) {
        commits.wrappingAdd(1, ordering: .relaxed)
        requests.wrappingAdd(count, ordering: .relaxed)
        commitNanoseconds.wrappingAdd(nanoseconds, ordering: .relaxed)
        longestCommitNanoseconds.max(nanoseconds, ordering: .relaxed)
    }
}
