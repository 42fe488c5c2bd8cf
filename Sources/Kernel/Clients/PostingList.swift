/// The slots that have one term. Most terms of a fleet are unique (a host name) or very common (an operating system):
/// the first cost no allocation, the second a bitmap, what lies between a sorted list.
enum PostingList: Sendable {
    case none
    case one(UInt32)
    /// Ascending.
    case list([UInt32])
    case bits(SlotSet, count: Int)

    var count: Int {
        switch self {
        case .none: 0
        case .one: 1
        case .list(let slots): slots.count
        case .bits(_, let count): count
        }
    }

    /// A list of this length takes as much memory as a bitmap of 64 times 512 slots; both ways cost the same to change.
    private static let longestList = 1_024

    mutating func insert(_ slot: UInt32) {
        switch self {
        case .none: self = .one(slot)
        case .one(let other):
            if other != slot { self = .list(other < slot ? [other, slot] : [slot, other]) }
        case .list(var slots):
            self = .none  // Gives up its reference, so that the array below is changed in place.
            let index = Self.position(of: slot, in: slots)
            if index == slots.count || slots[index] != slot { slots.insert(slot, at: index) }
            self = slots.count > Self.longestList ? .bits(SlotSet(slots), count: slots.count) : .list(slots)
        case .bits(var set, var count):
            self = .none
            if set.insert(slot) { count += 1 }
            self = .bits(set, count: count)
        }
    }

    mutating func remove(_ slot: UInt32) {
        switch self {
        case .none: break
        case .one(let other):
            if other == slot { self = .none }
        case .list(var slots):
            self = .none
            let index = Self.position(of: slot, in: slots)
            if index < slots.count, slots[index] == slot { slots.remove(at: index) }
            self = slots.count == 1 ? .one(slots[0]) : .list(slots)
        case .bits(var set, var count):
            self = .none
            if set.remove(slot) { count -= 1 }
            if count < Self.longestList / 2 {
                var slots: [UInt32] = []
                set.forEach { slots.append($0) }
                self = slots.count == 1 ? .one(slots[0]) : .list(slots)
            } else {
                self = .bits(set, count: count)
            }
        }
    }

    func contains(_ slot: UInt32) -> Bool {
        switch self {
        case .none: return false
        case .one(let other): return other == slot
        case .list(let slots):
            let index = Self.position(of: slot, in: slots)
            return index < slots.count && slots[index] == slot
        case .bits(let set, _): return set.contains(slot)
        }
    }

    func formUnion(into set: inout SlotSet) {
        switch self {
        case .none: break
        case .one(let slot): set.insert(slot)
        case .list(let slots):
            for slot in slots { set.insert(slot) }
        case .bits(let other, _): set.formUnion(other)
        }
    }

    private static func position(of slot: UInt32, in slots: [UInt32]) -> Int {
        var low = 0
        var high = slots.count
        while low < high {
            let middle = (low + high) / 2
            if slots[middle] < slot { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
