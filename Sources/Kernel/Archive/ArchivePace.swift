/// When a segment is closed, and when one that failed is tried again. A value; no clock of its own.
struct ArchivePace: Equatable {
    static let firstMilliseconds: UInt64 = 1_000
    static let longestMilliseconds: UInt64 = 300_000

    /// Failures since the last success.
    private(set) var failures = 0

    mutating func succeeded() { failures = 0 }

    /// - Returns: how long to wait before the next attempt.
    mutating func failed() -> UInt64 {
        failures += 1
        return min(Self.firstMilliseconds << UInt64(min(failures - 1, 20)), Self.longestMilliseconds)
    }

    /// Whether what waits is a segment: so many records, or so much time.
    /// - Parameters:
    ///   - waiting: records that are not archived.
    ///   - closed: Unix milliseconds at which the last segment was closed, or at which it was found not to be worth one. A clock
    ///     that was put back counts as time that is over.
    static func isDue(waiting: UInt64, records: UInt64, closed: UInt64, seconds: UInt64, now: UInt64) -> Bool {
        guard waiting > 0 else { return false }
        return waiting >= records || now < closed || now - closed >= seconds * 1_000
    }
}
