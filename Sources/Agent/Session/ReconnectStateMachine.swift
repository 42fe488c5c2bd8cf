/// When an agent tries again: full jitter (each delay is uniform between 0 and a bound that doubles), so that a fleet
/// that lost its core at one moment does not come back at one moment.
///
/// The bound stays at `nearCap` for the first minute, because most absences are restarts, and then grows.
public struct ReconnectStateMachine: Sendable {
    public struct Policy: Sendable {
        /// The first bound, milliseconds.
        public var base: UInt64 = 1_000
        public var nearCap: UInt64 = 8_000
        public var middleCap: UInt64 = 30_000
        public var farCap: UInt64 = 60_000
        /// After the core said no: there is no hurry.
        public var refusedCap: UInt64 = 300_000

        public init() {}
    }

    public let policy: Policy
    private var attempts: UInt64 = 0
    private var awaySince: UInt64?

    public init(policy: Policy = Policy()) { self.policy = policy }

    /// The link is accepted.
    public mutating func succeeded() {
        attempts = 0
        awaySince = nil
    }

    /// Milliseconds until the next attempt after one that failed or a link that was lost.
    /// - Parameters:
    ///   - now: milliseconds of a steady clock.
    ///   - random: 64 random bits.
    public mutating func delay(now: UInt64, random: UInt64) -> UInt64 {
        let since = awaySince ?? now
        awaySince = since
        let cap =
            switch now &- since {
            case 0..<60_000: policy.nearCap
            case 60_000..<600_000: policy.middleCap
            default: policy.farCap
            }
        let bound = min(cap, policy.base << min(attempts, 16))
        attempts += 1
        return random % (bound + 1)
    }

    /// After a refusal that only an operator can change.
    public mutating func delayAfterRefusal(random: UInt64) -> UInt64 {
        let bound = min(policy.refusedCap, policy.base << min(attempts + 3, 16))
        attempts += 1
        // Half of it for certain: a refused agent must not hammer.
        return bound / 2 + random % (bound / 2 + 1)
    }

    /// After a planned stop that named this agent's slot.
    public mutating func delay(slot: UInt64, now: UInt64) -> UInt64 {
        attempts = 0
        awaySince = now
        return slot
    }
}
