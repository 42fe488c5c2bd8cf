/// A set of small numbers (slots of the fleet table) as a bitmap.
struct SlotSet: Sendable, Equatable {
    private var words: [UInt64] = []

    init() {}

    init(_ slots: some Sequence<UInt32>) {
        for slot in slots { insert(slot) }
    }

    var isEmpty: Bool { words.allSatisfy { $0 == 0 } }
    var count: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }
    /// Words that the bitmap takes, for deciding between it and a list.
    var wordCount: Int { words.count }

    func contains(_ slot: UInt32) -> Bool {
        let word = Int(slot >> 6)
        return word < words.count && words[word] & (1 << UInt64(slot & 63)) != 0
    }

    /// - Returns: whether it was not there before.
    @discardableResult
    mutating func insert(_ slot: UInt32) -> Bool {
        let word = Int(slot >> 6)
        if word >= words.count { words.append(contentsOf: repeatElement(0, count: word + 1 - words.count)) }
        let bit: UInt64 = 1 << UInt64(slot & 63)
        defer { words[word] |= bit }
        return words[word] & bit == 0
    }

    /// - Returns: whether it was there.
    @discardableResult
    mutating func remove(_ slot: UInt32) -> Bool {
        guard contains(slot) else { return false }
        words[Int(slot >> 6)] &= ~(1 << UInt64(slot & 63))
        return true
    }

    mutating func formUnion(_ other: SlotSet) {
        if other.words.count > words.count {
            words.append(contentsOf: repeatElement(0, count: other.words.count - words.count))
        }
        for index in other.words.indices { words[index] |= other.words[index] }
    }

    mutating func formIntersection(_ other: SlotSet) {
        if words.count > other.words.count { words.removeLast(words.count - other.words.count) }
        for index in words.indices { words[index] &= other.words[index] }
    }

    mutating func subtract(_ other: SlotSet) {
        for index in 0..<min(words.count, other.words.count) { words[index] &= ~other.words[index] }
    }

    func forEach(_ body: (UInt32) -> Void) {
        for (index, var word) in words.enumerated() {
            while word != 0 {
                body(UInt32(index << 6 + word.trailingZeroBitCount))
                word &= word - 1
            }
        }
    }

    static func == (a: SlotSet, b: SlotSet) -> Bool {
        let shorter = min(a.words.count, b.words.count)
        return a.words[..<shorter] == b.words[..<shorter] && a.words[shorter...].allSatisfy { $0 == 0 }
            && b.words[shorter...].allSatisfy { $0 == 0 }
    }
}
