/// The candidate that a mistyped word probably means: at most a third of its letters (and at least one) may differ.
public func nearest(to word: String, among candidates: [String]) -> String? {
    let limit = max(1, word.count / 3)
    return candidates.map { ($0, distance(Array(word), Array($0))) }
        .filter { $0.1 <= limit }
        .min { $0.1 < $1.1 }?.0
}

/// Levenshtein's distance.
private func distance(_ left: [Character], _ right: [Character]) -> Int {
    var previous = Array(0...right.count)
    for (row, a) in left.enumerated() {
        var current = [row + 1]
        for (column, b) in right.enumerated() {
            current.append(min(previous[column] + (a == b ? 0 : 1), previous[column + 1] + 1, current[column] + 1))
        }
        previous = current
    }
    return previous[right.count]
}
