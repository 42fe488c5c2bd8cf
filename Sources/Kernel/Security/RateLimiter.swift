import Synchronization

/// How much a bucket still gives; also what the `RateLimit-…` header fields say.
public struct RateLimit: Sendable, Equatable {
    /// Requests per second that the bucket refills by; also its size.
    public var limit: Int
    public var remaining: Int
    /// Until it is full again, rounded up.
    public var resetSeconds: Int
}

/// The bucket of somebody who is known, found without a look-up: one number, the monotonic nanoseconds at which it will be
/// full again (see `RateLimiter`). Any thread, no lock.
final class RateBucket: Sendable {
    /// For operators: `user:ada`, `token:tok-…`.
    let key: String
    private let fullAt = Atomic<UInt64>(0)

    init(key: String) { self.key = key }

    func spend(limit: Int, now: UInt64) throws(Problem) -> RateLimit {
        let rate = RateLimit.Rate(limit)
        var known = fullAt.load(ordering: .relaxed)
        while true {
            let ahead = max(known, now) - now
            guard ahead + rate.interval <= rate.size else { throw rate.refusal(ahead: ahead, needed: rate.interval) }
            let (isDone, present) = fullAt.weakCompareExchange(
                expected: known, desired: now + ahead + rate.interval, ordering: .relaxed)
            if isDone { return rate.describe(ahead: ahead + rate.interval) }
            known = present
        }
    }

    func aheadNanoseconds(now: UInt64) -> UInt64 {
        let fullAt = fullAt.load(ordering: .relaxed)
        return max(fullAt, now) - now
    }

    func reset() { fullAt.store(0, ordering: .relaxed) }
}

/// Token buckets by key, each one number: the time at which the bucket will be full again (the generic cell rate
/// algorithm). A bucket that is full again is the same as none, so memory holds only what was used in the last second.
///
/// Any thread; one look-up under a short lock.
final class RateLimiter<Key: Hashable & Sendable>: Sendable {
    private struct State: ~Copyable {
        /// Monotonic nanoseconds at which the bucket is full.
        var fullAt: [Key: UInt64] = [:]
        var nextSweep: UInt64 = 0
        var refused: UInt64 = 0
    }
    private let state = Mutex(State())
    private let maximumKeys: Int
    private let everyoneElse: Key

    /// - Parameter maximumKeys: buckets in use at once; keys beyond them share that of `everyoneElse`.
    init(maximumKeys: Int = 65_536, everyoneElse: Key) {
        self.maximumKeys = maximumKeys
        self.everyoneElse = everyoneElse
    }

    /// Takes one request out of the bucket.
    /// - Parameters:
    ///   - limit: requests per second, at least 1.
    ///   - now: monotonic nanoseconds.
    /// - Throws: 429 `rate-limited` with the seconds to wait.
    @discardableResult
    func spend(_ key: Key, limit: Int, now: UInt64, cost: Int = 1) throws(Problem) -> RateLimit {
        let rate = RateLimit.Rate(limit)
        let needed = rate.interval * UInt64(max(1, cost))
        let (isAllowed, ahead): (Bool, UInt64) = state.withLock { state in
            if now >= state.nextSweep || state.fullAt.count > maximumKeys { Self.sweep(&state, now) }
            let known = state.fullAt[key]
            let key = known == nil && state.fullAt.count >= maximumKeys ? everyoneElse : key
            let fullAt = max(known ?? state.fullAt[key] ?? now, now)
            let ahead = fullAt - now
            guard ahead + needed <= rate.size else {
                state.refused += 1
                return (false, ahead)
            }
            state.fullAt[key] = fullAt + needed
            return (true, ahead + needed)
        }
        guard isAllowed else { throw rate.refusal(ahead: ahead, needed: needed) }
        return rate.describe(ahead: ahead)
    }

    /// What is left, without taking anything.
    func peek(_ key: Key, limit: Int, now: UInt64) -> RateLimit {
        let fullAt = state.withLock { $0.fullAt[key] } ?? now
        return RateLimit.Rate(limit).describe(ahead: max(fullAt, now) - now)
    }

    /// Fills the bucket again.
    func reset(_ key: Key) { state.withLock { _ = $0.fullAt.removeValue(forKey: key) } }
    func resetAll() { state.withLock { $0.fullAt.removeAll() } }

    /// Keys that are being used now, busiest first.
    func active(now: UInt64, atMost count: Int) -> [(key: Key, aheadNanoseconds: UInt64)] {
        let used = state.withLock { state in state.fullAt.filter { $0.value > now } }
        return used.sorted { $0.value > $1.value }.prefix(count).map { ($0.key, $0.value - now) }
    }

    var refusedCount: UInt64 { state.withLock { $0.refused } }

    private static func sweep(_ state: inout State, _ now: UInt64) {
        // At most each 100 ms, so that a flood of keys does not make each request walk the table.
        guard now >= state.nextSweep else { return }
        state.nextSweep = now + 100_000_000
        guard state.fullAt.count > 1_024 else {
            state.nextSweep = now + 1_000_000_000
            return
        }
        state.fullAt = state.fullAt.filter { $0.value > now }
    }

}

extension RateLimit {
    /// A number of requests per second, in nanoseconds.
    struct Rate {
        let limit: Int
        let interval: UInt64
        let size: UInt64

        init(_ limit: Int) {
            self.limit = max(1, limit)
            interval = 1_000_000_000 / UInt64(self.limit)
            size = interval * UInt64(self.limit)
        }

        func describe(ahead: UInt64) -> RateLimit {
            RateLimit(
                limit: limit, remaining: Int((size - min(ahead, size)) / interval),
                resetSeconds: Int((ahead + 999_999_999) / 1_000_000_000))
        }

        func refusal(ahead: UInt64, needed: UInt64) -> Problem {
            let wait = max(1, (ahead + needed - size + 999_999_999) / 1_000_000_000)
            return Problem(
                429, "rate-limited", "more than \(limit) requests per second; wait \(wait) s", retryAfter: Int(wait))
        }
    }
}

enum StrangerKey {
    /// IPv6 strangers have 2^64 addresses each: they count by their /64.
    static func group(_ address: String) -> String {
        guard address.utf8.contains(0x3A) else { return address }
        return Network(address, prefix: 64)?.description ?? address
    }

    static func of(_ address: String) -> String { "address:" + group(address) }
}
