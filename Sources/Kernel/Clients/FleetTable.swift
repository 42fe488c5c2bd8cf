import AgentProtocol
import Crypto

/// The registry in memory: one row per client, indexed. A plain value; its owner serialises access.
///
/// An idle client costs its row (about 140 bytes), its ring of heartbeats (320), its two lists of term numbers, its
/// entries in the two maps, and the terms that no other client shares.
struct FleetTable: Sendable {
    struct Row: Sendable {
        var id: ClientID
        /// Of the SubjectPublicKeyInfo: what the registry knows a key by.
        var key: SHA256.Digest
        var state: ClientState
        /// Shut out until an operator decides which of two machines with this identity is the right one.
        var isHeldBack = false
        /// Unix milliseconds; the same holds for the other times.
        var stateSince: UInt64
        var enrolledAt: UInt64
        var lastSeen: UInt64
        /// Counts the changes that operators make; part of the ETag.
        var revision: UInt64
        /// The last accepted epoch.
        var epoch: UInt64
        /// When that epoch was accepted; 0 if it was before the core's start.
        var admittedAt: UInt64 = 0
        /// Machines with a copy of this identity that an operator ruled out; nearly always empty.
        var excludedBoots: [String] = []
        /// Identifies the last report of facts, so that the same report is not written again.
        var factsHash: UInt64 = 0
        var memoryTotalKiB: UInt32 = 0
        var name: TermTable.TermID?
        var labels: [TermTable.TermID] = []
        var facts: [TermTable.TermID] = []
        var address: String = ""
        var agentVersion: String = ""
        var link: AgentLink?
    }

    private(set) var rows: ContiguousArray<Row?> = []
    private(set) var terms = TermTable()
    private(set) var live = SlotSet()
    private(set) var count = 0
    var rings = BeatRings()
    /// Saved selectors by name; a group may refer to others.
    var groups: [String: Selector] = [:]
    /// Changes with everything but heartbeats; part of the ETag of lists.
    private(set) var generation: UInt64 = 1

    private var freeSlots: [UInt32] = []
    private var slots: [ClientID: UInt32] = [:]
    private var slotsByKey: [SHA256.Digest: UInt32] = [:]
    private var states: [SlotSet] = Array(repeating: SlotSet(), count: ClientState.allCases.count)

    mutating func reserve(_ count: Int) {
        rows.reserveCapacity(count)
        slots.reserveCapacity(count)
        slotsByKey.reserveCapacity(count)
        rings.reserve(slots: count)
    }

    // MARK: Finding

    func slot(of id: ClientID) -> UInt32? { slots[id] }
    func slot(of key: SHA256.Digest) -> UInt32? { slotsByKey[key] }
    func row(_ slot: UInt32) -> Row? { rows[Int(slot)] }
    func id(_ slot: UInt32) -> ClientID? { rows[Int(slot)]?.id }
    func row(of id: ClientID) -> Row? { slots[id].flatMap { rows[Int($0)] } }
    func count(of state: ClientState) -> Int { states[Self.place(state)].count }
    func slots(in state: ClientState) -> SlotSet { states[Self.place(state)] }

    // MARK: Changing

    /// The row's id and key must be new; its lists are empty and are set afterwards.
    @discardableResult
    mutating func insert(_ row: Row) -> UInt32 {
        let slot: UInt32
        if let free = freeSlots.popLast() {
            slot = free
            rows[Int(slot)] = row
        } else {
            slot = UInt32(rows.count)
            rows.append(row)
        }
        slots[row.id] = slot
        slotsByKey[row.key] = slot
        live.insert(slot)
        states[Self.place(row.state)].insert(slot)
        rings.reset(slot)
        count += 1
        generation += 1
        return slot
    }

    mutating func remove(_ slot: UInt32) {
        guard let row = rows[Int(slot)] else { return }
        setName(nil, of: slot)
        setLabels([:], of: slot)
        setFacts([], of: slot)
        slots[row.id] = nil
        slotsByKey[row.key] = nil
        live.remove(slot)
        states[Self.place(row.state)].remove(slot)
        rings.reset(slot)
        rows[Int(slot)] = nil
        freeSlots.append(slot)
        count -= 1
        generation += 1
    }

    /// Changes fields that no index knows. `id`, `key`, `state`, `name`, `labels` and `facts` have setters of their own.
    mutating func update(_ slot: UInt32, _ change: (inout Row) -> Void) {
        guard var row = rows[Int(slot)] else { return }
        change(&row)
        rows[Int(slot)] = row
        generation += 1
    }

    mutating func noteBeat(_ slot: UInt32, _ sample: BeatSample, at milliseconds: UInt64, totalKiB: UInt32) {
        rows[Int(slot)]?.lastSeen = milliseconds
        rows[Int(slot)]?.memoryTotalKiB = totalKiB
        rings.append(sample, to: slot)
    }

    mutating func setState(_ state: ClientState, of slot: UInt32, at milliseconds: UInt64) {
        guard let old = rows[Int(slot)]?.state, old != state else { return }
        states[Self.place(old)].remove(slot)
        states[Self.place(state)].insert(slot)
        rows[Int(slot)]?.state = state
        rows[Int(slot)]?.stateSince = milliseconds
        generation += 1
    }

    mutating func setKey(_ key: SHA256.Digest, of slot: UInt32) {
        guard let old = rows[Int(slot)]?.key else { return }
        slotsByKey[old] = nil
        slotsByKey[key] = slot
        rows[Int(slot)]?.key = key
        generation += 1
    }

    mutating func setName(_ name: String?, of slot: UInt32) {
        if let old = rows[Int(slot)]?.name { terms.remove(old, slot: slot) }
        rows[Int(slot)]?.name = (name?.isEmpty ?? true) ? nil : name.map { terms.add(.name, "", $0, slot: slot) }
        generation += 1
    }

    mutating func setLabels(_ labels: [String: String], of slot: UInt32) {
        let old = rows[Int(slot)]?.labels ?? []
        let new = labels.sorted { $0.key < $1.key }.map { terms.add(.label, $0.key, $0.value, slot: slot) }
        replace(old, by: new, of: slot)
        rows[Int(slot)]?.labels = new
        generation += 1
    }

    /// The pairs must be without doubles.
    mutating func setFacts(_ facts: [(path: String, value: String)], of slot: UInt32) {
        let old = rows[Int(slot)]?.facts ?? []
        let new = facts.map { terms.add(.fact, $0.path, $0.value, slot: slot) }
        replace(old, by: new, of: slot)
        rows[Int(slot)]?.facts = new
        generation += 1
    }

    /// The new terms were added already; a term that stands in both lists must stay.
    private mutating func replace(_ old: [TermTable.TermID], by new: [TermTable.TermID], of slot: UInt32) {
        guard !old.isEmpty else { return }
        let kept = Set(new)
        for term in old where !kept.contains(term) { terms.remove(term, slot: slot) }
    }

    // MARK: Reading a row

    func name(of row: Row) -> String { row.name.map { terms.value(of: $0) } ?? "" }

    func labels(of row: Row) -> [String: String] {
        var labels: [String: String] = [:]
        labels.reserveCapacity(row.labels.count)
        for term in row.labels { labels[terms.key(of: term)] = terms.value(of: term) }
        return labels
    }

    /// The first value of a fact.
    func fact(_ path: String, of row: Row) -> String? {
        guard let key = terms.number(.fact, path) else { return nil }
        return row.facts.first { terms.isOf($0, key) }.map { terms.value(of: $0) }
    }

    func facts(of row: Row) -> [(path: String, value: String)] {
        row.facts.map { (terms.key(of: $0), terms.value(of: $0)) }
    }

    private static func place(_ state: ClientState) -> Int {
        switch state {
        case .online: 0
        case .stale: 1
        case .offline: 2
        case .revoked: 3
        }
    }
}
