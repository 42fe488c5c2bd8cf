/// How many connections of one address may be in their handshakes at a time. A value: arrivals and releases in,
/// verdicts out.
///
/// Overflow of an address is parked, bounded, and taken in turn as its earlier connections finish; other addresses do
/// not notice. Only addresses with something in progress take memory.
struct AddressLimitStateMachine {
    enum Verdict: Equatable {
        case admit
        case park
        case refuse
    }
    private struct Entry {
        var inProgress = 0
        /// Parked connections, oldest first; `next` is the first that has not been taken.
        var parked: [Int32] = []
        var next = 0
    }
    private var entries: [IPAddress: Entry] = [:]
    private let limit: Int
    private let parkedLimit: Int

    init(limit: Int, parkedLimit: Int) {
        self.limit = limit
        self.parkedLimit = parkedLimit
    }

    mutating func arrived(_ address: IPAddress, _ connection: Int32) -> Verdict {
        var entry = entries[address.limitKey] ?? Entry()
        let verdict: Verdict
        if entry.inProgress < limit {
            entry.inProgress += 1
            verdict = .admit
        } else if entry.parked.count - entry.next < parkedLimit {
            entry.parked.append(connection)
            verdict = .park
        } else {
            verdict = .refuse
        }
        entries[address.limitKey] = entry
        return verdict
    }

    /// A connection of this address has shown who it is, or is gone. The parked one whose turn it is.
    mutating func released(_ address: IPAddress) -> Int32? {
        guard var entry = entries[address.limitKey] else { return nil }
        var taken: Int32?
        if entry.next < entry.parked.count {
            taken = entry.parked[entry.next]
            entry.next += 1
            if entry.next > 64, entry.next * 2 > entry.parked.count {
                entry.parked.removeFirst(entry.next)
                entry.next = 0
            }
        } else {
            entry.inProgress -= 1
        }
        if entry.inProgress == 0, entry.next == entry.parked.count {
            entries[address.limitKey] = nil
        } else {
            entries[address.limitKey] = entry
        }
        return taken
    }

    /// Everything that is parked, for a listener that closes.
    mutating func takeParked() -> [Int32] {
        let all = entries.values.flatMap { $0.parked[$0.next...] }
        for key in entries.keys {
            entries[key]?.parked = []
            entries[key]?.next = 0
        }
        return all
    }

    var addressCount: Int { entries.count }
}
