import AgentProtocol

/// How much output of commands, and of files, may go in one turn of the loop, so that what somebody types, and its echo, finds the loop
/// and the processor free. While nobody types a turn is larger and just has an end; beside a keystroke there is a pause between
/// two turns as well, which still leaves some 10 MB a second of output.
struct OutputPaceStateMachine {
    static let turnBytes = WireLimits.dataBytes
    /// While nobody types: a quarter of a millisecond.
    static let longTurnBytes = 256 << 10
    static let pauseMilliseconds: UInt64 = 1
    /// So long after a keystroke.
    static let typingNanoseconds: UInt64 = 2_000_000_000

    private var typedUntil: UInt64 = 0
    private var pausedUntil: UInt64 = 0

    /// Times are those of the loop, nanoseconds.
    mutating func typed(at now: UInt64) { typedUntil = now + Self.typingNanoseconds }

    /// Bytes that may go now; 0 in a pause, whose end somebody waits for.
    func allowance(at now: UInt64) -> Int { now < pausedUntil ? 0 : now < typedUntil ? Self.turnBytes : Self.longTurnBytes }

    /// The allowance has been used. True: a pause begins; false: the next turn may go on.
    mutating func spent(at now: UInt64) -> Bool {
        guard now < typedUntil else { return false }
        pausedUntil = now + Self.pauseMilliseconds * 1_000_000
        return true
    }

    /// The pause is over.
    mutating func resume() { pausedUntil = 0 }
}
