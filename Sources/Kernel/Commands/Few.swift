/// A list that nearly always has one element or none, and then owns no memory.
struct Few<Element>: Sequence {
    private var first: Element?
    private var rest: [Element] = []

    var isEmpty: Bool { first == nil }

    mutating func append(_ element: Element) {
        if first == nil { first = element } else { rest.append(element) }
    }

    mutating func append(contentsOf other: Few) {
        for element in other { append(element) }
    }

    mutating func removeAll(where isLeaving: (Element) -> Bool) {
        var left = Few()
        for element in self where !isLeaving(element) { left.append(element) }
        self = left
    }

    /// Hands each element on, in order, and is empty then.
    mutating func drain(_ body: (consuming Element) -> Void) {
        guard let element = first.take() else { return }
        body(element)
        guard !rest.isEmpty else { return }
        for element in rest { body(element) }
        rest = []
    }

    struct Iterator: IteratorProtocol {
        fileprivate var first: Element?
        fileprivate let rest: [Element]
        fileprivate var index = 0

        mutating func next() -> Element? {
            if let element = first {
                first = nil
                return element
            }
            guard index < rest.count else { return nil }
            defer { index += 1 }
            return rest[index]
        }
    }

    func makeIterator() -> Iterator { Iterator(first: first, rest: rest) }
}

extension Few: Sendable where Element: Sendable {}
