/// Things that all wait equally long, oldest first. Adding and taking cost the same however many wait.
struct DueQueue<Element> {
    private var entries: [(due: UInt64, element: Element)?] = []
    private var head = 0

    var isEmpty: Bool { head == entries.count }

    /// When the first one is due.
    var nextDue: UInt64? { isEmpty ? nil : entries[head]?.due }

    /// `due` is never earlier than that of the one before.
    mutating func append(_ element: Element, due: UInt64) { entries.append((due, element)) }

    /// The first one, if it is due.
    mutating func take(now: UInt64) -> Element? {
        guard let due = nextDue, due <= now, let entry = entries[head] else { return nil }
        entries[head] = nil
        head += 1
        if isEmpty {
            entries.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 1_024, head > entries.count / 2 {
            entries.removeFirst(head)
            head = 0
        }
        return entry.element
    }
}
