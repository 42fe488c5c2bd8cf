/// Refusals of strangers are audited once per address, code and minute, with the number of those left out: a flood
/// cannot fill the audit trail. A value without I/O.
struct RefusalLimiter: Sendable {
    private struct Key: Hashable {
        var address: String
        var code: String
    }
    private struct Count {
        var minute: UInt64
        var leftOut: Int
    }
    private static let maximum = 4_096
    private var counts: [Key: Count] = [:]
    /// Those that came while the table was full.
    private var untold = 0

    /// - Parameter now: Unix milliseconds.
    /// - Returns: how many refusals like this were left out before, if this one is to be written; else `nil`.
    mutating func note(_ address: String, _ code: String, now: UInt64) -> Int? {
        let key = Key(address: address, code: code)
        let minute = now / 60_000
        if let count = counts[key] {
            if count.minute == minute {
                counts[key]?.leftOut += 1
                return nil
            }
            counts[key] = Count(minute: minute, leftOut: 0)
            return count.leftOut
        }
        if counts.count >= Self.maximum {
            counts = counts.filter { $0.value.minute == minute }
            guard counts.count < Self.maximum else {
                untold += 1
                return nil
            }
        }
        counts[key] = Count(minute: minute, leftOut: 0)
        defer { untold = 0 }
        return untold
    }
}
