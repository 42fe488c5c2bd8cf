/// Slows down guessing of passwords. Counts by account and address together, so that nobody can lock out an account for
/// its owner, who comes from elsewhere; and by address alone, against one guess each at many accounts.
///
/// Five failures in a row lock the pair for a minute, each further one twice as long, up to an hour. Fifty failures over
/// all accounts lock the address in the same way. A quarter of an hour without a failure after the lock forgets it.
struct LockOutStateMachine: Sendable {
    struct Key: Hashable, Sendable {
        /// `nil` counts all accounts of the address together.
        var account: String?
        /// IPv6 by its /64.
        var address: String
    }

    private struct Count: Sendable {
        var failures: Int
        var lockedUntil: UInt64
        var lastFailure: UInt64
    }

    static let failuresOfPair = 5
    static let failuresOfAddress = 50
    static let firstLock: UInt64 = 60_000
    static let longestLock: UInt64 = 3_600_000
    static let memory: UInt64 = 900_000

    private var counts: [Key: Count] = [:]
    private let maximum: Int

    init(maximum: Int = 16_384) { self.maximum = maximum }

    var tracked: Int { counts.count }

    /// Milliseconds until this account may be tried again from this address; `nil` when it may be tried now.
    func lockedFor(account: String, address: String, now: UInt64) -> UInt64? {
        let until = [Key(account: account, address: address), Key(account: nil, address: address)]
            .compactMap { counts[$0]?.lockedUntil }.max() ?? 0
        return until > now ? until - now : nil
    }

    /// - Returns: true when this failure began a lock.
    mutating func failed(account: String, address: String, now: UInt64) -> Bool {
        makeRoom(now)
        let pair = note(Key(account: account, address: address), threshold: Self.failuresOfPair, now)
        let whole = note(Key(account: nil, address: address), threshold: Self.failuresOfAddress, now)
        return pair || whole
    }

    /// The right password clears the pair, but not the address: a guesser may own an account.
    mutating func succeeded(account: String, address: String) {
        counts[Key(account: account, address: address)] = nil
    }

    mutating func reset(address: String) { counts = counts.filter { $0.key.address != address } }
    mutating func resetAll() { counts.removeAll() }

    /// Locks that hold now.
    func locks(now: UInt64) -> [(key: Key, milliseconds: UInt64)] {
        counts.filter { $0.value.lockedUntil > now }.map { ($0.key, $0.value.lockedUntil - now) }
    }

    private mutating func note(_ key: Key, threshold: Int, _ now: UInt64) -> Bool {
        var count = counts[key] ?? Count(failures: 0, lockedUntil: 0, lastFailure: now)
        if now > max(count.lastFailure, count.lockedUntil) + Self.memory { count.failures = 0 }
        count.failures += 1
        count.lastFailure = now
        let beyond = count.failures - threshold
        if beyond >= 0 {
            count.lockedUntil = now + min(Self.longestLock, Self.firstLock << UInt64(min(beyond, 10)))
        }
        counts[key] = count
        return beyond >= 0
    }

    /// A full table first forgets what has lapsed, then what is not locked, then the oldest: a flood of addresses can
    /// make the core forget, but not lock anybody out.
    private mutating func makeRoom(_ now: UInt64) {
        guard counts.count + 2 > maximum else { return }
        counts = counts.filter { now <= max($0.value.lastFailure, $0.value.lockedUntil) + Self.memory }
        guard counts.count + 2 > maximum else { return }
        counts = counts.filter { $0.value.lockedUntil > now }
        guard counts.count + 2 > maximum else { return }
        let newest = counts.sorted { $0.value.lastFailure > $1.value.lastFailure }.prefix(maximum / 2)
        counts = Dictionary(uniqueKeysWithValues: newest.map { ($0.key, $0.value) })
    }
}
