/// How many connections of one address may be in their handshakes at a time. A value: arrivals, first words and releases
/// in, verdicts out.
///
/// Overflow of an address is parked, bounded, and taken in turn as its earlier connections finish; other addresses do
/// not notice. Who says nothing has no turn. Returning agents wait in a lane of their own, and both lanes take turns: an
/// operator behind the address of a thousand agents that come back at one moment does not wait for all of them, nor they
/// for a flood of strangers. Only addresses with something in progress or parked take memory.
struct AddressLimitStateMachine {
    enum Verdict: Equatable {
        case admit
        case park
        case refuse
    }
    private struct Entry {
        var inProgress = 0
        // Parked connections, each in one of these; short enough (`parkedLimit`) to be searched.
        var silent: [Int32] = []
        /// Those that have spoken, oldest first.
        var strangers: [Int32] = []
        var returning: [Int32] = []
        var returningIsNext = true

        var isEmpty: Bool { inProgress == 0 && silent.isEmpty && strangers.isEmpty && returning.isEmpty }
    }
    private var entries: [IPAddress: Entry] = [:]
    private let limit: Int
    private let parkedLimit: Int

    /// - Parameter parkedLimit: of the silent ones, and of each lane.
    init(limit: Int, parkedLimit: Int) {
        self.limit = limit
        self.parkedLimit = parkedLimit
    }

    mutating func arrived(_ address: IPAddress, _ connection: Int32) -> Verdict {
        change(address) { [limit, parkedLimit] entry in
            if entry.inProgress < limit {
                entry.inProgress += 1
                return .admit
            }
            guard entry.silent.count < parkedLimit else { return .refuse }
            entry.silent.append(connection)
            return .park
        }
    }

    /// A parked connection has something to say; `isReturning`, that it was here before. Idempotent: a stranger may turn
    /// out to be a returning one when more of its first bytes are there.
    mutating func spoke(_ address: IPAddress, _ connection: Int32, isReturning: Bool) -> Verdict {
        change(address) { [limit, parkedLimit] entry in
            if let place = entry.silent.firstIndex(of: connection) {
                entry.silent.remove(at: place)
            } else if isReturning, let place = entry.strangers.firstIndex(of: connection) {
                entry.strangers.remove(at: place)
            } else {
                return .park  // It waits in its lane.
            }
            if entry.inProgress < limit {
                entry.inProgress += 1
                return .admit
            }
            let lane = isReturning ? \Entry.returning : \Entry.strangers
            guard entry[keyPath: lane].count < parkedLimit else { return .refuse }
            entry[keyPath: lane].append(connection)
            return .park
        }
    }

    /// A parked connection has ended.
    mutating func left(_ address: IPAddress, _ connection: Int32) {
        change(address) { entry in
            for lane in [\Entry.silent, \Entry.strangers, \Entry.returning] {
                if let place = entry[keyPath: lane].firstIndex(of: connection) { entry[keyPath: lane].remove(at: place) }
            }
        }
    }

    /// A connection of this address has shown who it is, or is gone. The parked one whose turn it is.
    mutating func released(_ address: IPAddress) -> Int32? {
        change(address) { entry in
            if entry.strangers.isEmpty && entry.returning.isEmpty {
                entry.inProgress = max(0, entry.inProgress - 1)
                return nil
            }
            let takesReturning =
                entry.strangers.isEmpty || (entry.returningIsNext && !entry.returning.isEmpty)
            entry.returningIsNext = !takesReturning
            return takesReturning ? entry.returning.removeFirst() : entry.strangers.removeFirst()
        }
    }

    private mutating func change<Result>(_ address: IPAddress, _ body: (inout Entry) -> Result) -> Result {
        var entry = entries.removeValue(forKey: address.limitKey) ?? Entry()
        let result = body(&entry)
        if !entry.isEmpty { entries[address.limitKey] = entry }
        return result
    }

    /// Everything that is parked, for a listener that closes.
    mutating func takeParked() -> [Int32] {
        var all: [Int32] = []
        for key in Array(entries.keys) {
            change(key) { entry in
                all += entry.silent + entry.strangers + entry.returning
                (entry.silent, entry.strangers, entry.returning) = ([], [], [])
            }
        }
        return all
    }

    var addressCount: Int { entries.count }
}
