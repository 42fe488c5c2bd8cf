/// When a delivery that failed is tried again. A value; no I/O.
enum DeliverySchedule {
    /// About five hours in all; then the delivery is dead until somebody retries it.
    static let maximumAttempts = 16
    static let firstMilliseconds: UInt64 = 1_000
    static let longestMilliseconds: UInt64 = 1_800_000

    enum Verdict: Equatable { case delivered, again(afterMilliseconds: UInt64), dead }

    /// - Parameters:
    ///   - attempt: counts from 1.
    ///   - status: of the answer; `nil` when there was none.
    ///   - random: from 0 up to but not including 1: the jitter that keeps many from coming back at once.
    static func verdict(attempt: Int, status: Int?, random: Double) -> Verdict {
        if let status, (200..<300).contains(status) { return .delivered }
        // The endpoint says that it is gone for good (RFC 9110 §15.5.11).
        if status == 410 || attempt >= maximumAttempts { return .dead }
        let doublings = UInt64(min(max(attempt, 1) - 1, 20))
        let longest = min(firstMilliseconds << doublings, longestMilliseconds)
        return .again(afterMilliseconds: longest / 2 + UInt64(Double(longest / 2) * random))
    }
}
