/// Interned pairs of key and value with the slots that have them: the registry's memory of labels, facts and names, and
/// at the same time the index that serves selectors. A client keeps only the numbers of its terms.
struct TermTable: Sendable {
    typealias TermID = UInt32

    /// What a key belongs to; keeps a label `os` apart from a fact `os`.
    enum Area: UInt8, Sendable {
        case label = 0x6C  // l
        case fact = 0x66  // f
        case name = 0x6E  // n
    }

    private struct Term {
        var value: String
        var key: UInt32
        /// Where the term stands in its key's list.
        var place: UInt32
        var posting: PostingList
    }
    private struct Key {
        /// The area's letter, then the key.
        var name: String
        var terms: [TermID] = []
    }

    private var terms: [Term] = []
    private var freeTerms: [TermID] = []
    private var keys: [Key] = []
    private var freeKeys: [UInt32] = []
    private var keyNumbers: [String: UInt32] = [:]
    /// Open addressing over the terms by key and value: 0 is free, else the term's number plus one. At most half full.
    private var buckets: [UInt32] = Array(repeating: 0, count: 64)
    private var live = 0

    var termCount: Int { live }

    /// Notes that the slot has the term; makes it if it is new. The caller adds a term to a slot at most once.
    mutating func add(_ area: Area, _ key: String, _ value: String, slot: UInt32) -> TermID {
        let number = keyNumber(Self.keyName(area, key))
        var bucket = firstBucket(number, value)
        while buckets[bucket] != 0 {
            let term = buckets[bucket] - 1
            if isTerm(term, number, value) {
                terms[Int(term)].posting.insert(slot)
                return term
            }
            bucket = (bucket + 1) & (buckets.count - 1)
        }
        let new = Term(
            value: value, key: number, place: UInt32(keys[Int(number)].terms.count), posting: .one(slot))
        let term: TermID
        if let free = freeTerms.popLast() {
            term = free
            terms[Int(term)] = new
        } else {
            term = TermID(terms.count)
            terms.append(new)
        }
        keys[Int(number)].terms.append(term)
        buckets[bucket] = term + 1
        live += 1
        if live * 2 > buckets.count { rehash() }
        return term
    }

    /// Takes the slot out of the term; a term without slots is gone.
    mutating func remove(_ term: TermID, slot: UInt32) {
        let index = Int(term)
        terms[index].posting.remove(slot)
        guard terms[index].posting.count == 0 else { return }
        removeBucket(of: term)
        let key = Int(terms[index].key)
        let place = Int(terms[index].place)
        let last = keys[key].terms.removeLast()
        if last != term {
            keys[key].terms[place] = last
            terms[Int(last)].place = UInt32(place)
        }
        if keys[key].terms.isEmpty {
            keyNumbers[keys[key].name] = nil
            keys[key] = Key(name: "")
            freeKeys.append(UInt32(key))
        }
        terms[index] = Term(value: "", key: 0, place: 0, posting: .none)
        freeTerms.append(term)
        live -= 1
    }

    func value(of term: TermID) -> String { terms[Int(term)].value }
    /// The key without its area.
    func key(of term: TermID) -> String { String(keys[Int(terms[Int(term)].key)].name.dropFirst()) }
    func isOf(_ term: TermID, _ key: UInt32) -> Bool { terms[Int(term)].key == key }

    func number(_ area: Area, _ key: String) -> UInt32? { keyNumbers[Self.keyName(area, key)] }

    /// The slots with exactly this value.
    func posting(_ key: UInt32, _ value: String) -> PostingList {
        var bucket = firstBucket(key, value)
        while buckets[bucket] != 0 {
            let term = buckets[bucket] - 1
            if isTerm(term, key, value) { return terms[Int(term)].posting }
            bucket = (bucket + 1) & (buckets.count - 1)
        }
        return .none
    }

    /// Different values that the key has in the fleet.
    func valueCount(_ key: UInt32) -> Int { keys[Int(key)].terms.count }

    /// Adds the slots of all values that pass the test.
    func formUnion(of key: UInt32, into set: inout SlotSet, where test: (String) -> Bool) {
        for term in keys[Int(key)].terms where test(terms[Int(term)].value) {
            terms[Int(term)].posting.formUnion(into: &set)
        }
    }

    // MARK: Hashing

    private static func keyName(_ area: Area, _ key: String) -> String {
        String(Unicode.Scalar(area.rawValue)) + key
    }

    private mutating func keyNumber(_ name: String) -> UInt32 {
        if let number = keyNumbers[name] { return number }
        let number: UInt32
        if let free = freeKeys.popLast() {
            number = free
            keys[Int(number)] = Key(name: name)
        } else {
            number = UInt32(keys.count)
            keys.append(Key(name: name))
        }
        keyNumbers[name] = number
        return number
    }

    /// Keyed per process: agents choose the values, so the order of buckets must not be theirs to guess.
    private func firstBucket(_ key: UInt32, _ value: String) -> Int {
        var hasher = Hasher()
        hasher.combine(key)
        hasher.combine(value)
        return hasher.finalize() & (buckets.count - 1)
    }

    /// Byte by byte, as patterns compare, where `String ==` would take different spellings of one text as equal.
    private func isTerm(_ term: TermID, _ key: UInt32, _ value: String) -> Bool {
        let other = terms[Int(term)]
        return other.key == key && other.value.utf8.count == value.utf8.count
            && other.value.utf8.elementsEqual(value.utf8)
    }

    private mutating func rehash() {
        let old = buckets
        buckets = Array(repeating: 0, count: old.count * 2)
        for entry in old where entry != 0 {
            let term = terms[Int(entry - 1)]
            var bucket = firstBucket(term.key, term.value)
            while buckets[bucket] != 0 { bucket = (bucket + 1) & (buckets.count - 1) }
            buckets[bucket] = entry
        }
    }

    /// Backward-shift deletion: what was pushed past the hole moves back, so no tombstones are needed.
    private mutating func removeBucket(of term: TermID) {
        let mask = buckets.count - 1
        var hole = firstBucket(terms[Int(term)].key, terms[Int(term)].value)
        while buckets[hole] != term + 1 { hole = (hole + 1) & mask }
        var next = (hole + 1) & mask
        while buckets[next] != 0 {
            let other = terms[Int(buckets[next] - 1)]
            let home = firstBucket(other.key, other.value)
            if (next - home) & mask >= (next - hole) & mask {
                buckets[hole] = buckets[next]
                hole = next
            }
            next = (next + 1) & mask
        }
        buckets[hole] = 0
    }
}
