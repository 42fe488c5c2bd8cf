import Reactor

/// A moment on the monotonic clock that something must be over by.
struct Deadline: Sendable {
    let nanoseconds: UInt64

    init(milliseconds: Int) { nanoseconds = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000 }

    /// At least 0; rounded up.
    var millisecondsLeft: Int32 {
        let now = monotonicNanoseconds()
        return now >= nanoseconds ? 0 : Int32(clamping: (nanoseconds - now + 999_999) / 1_000_000)
    }
}
