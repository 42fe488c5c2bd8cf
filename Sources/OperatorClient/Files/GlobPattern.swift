/// One part of a path with `*`, `?` and `[…]`, as shells match names: a leading dot only by a dot.
struct GlobPattern {
    private enum Piece {
        case literal(Character)
        case any
        case one
        case set([ClosedRange<Character>], isNegated: Bool)
    }
    private var pieces: [Piece] = []
    /// Without any of the signs.
    private(set) var isLiteral = true
    private let text: String

    init(_ text: String) {
        self.text = text
        var rest = Substring(text)
        while let character = rest.popFirst() {
            switch character {
            case "*": pieces.append(.any)
            case "?": pieces.append(.one)
            case "[":
                guard let set = Self.set(&rest) else {
                    pieces.append(.literal("["))
                    continue
                }
                pieces.append(set)
            case "\\":
                pieces.append(.literal(rest.popFirst() ?? "\\"))
                continue
            default:
                pieces.append(.literal(character))
                continue
            }
            isLiteral = false
        }
    }

    /// `[a-z]`, `[!a]`; `nil` when it is not closed.
    private static func set(_ rest: inout Substring) -> Piece? {
        var inner = rest
        var isNegated = false
        if inner.first == "!" || inner.first == "^" {
            isNegated = true
            inner.removeFirst()
        }
        var ranges: [ClosedRange<Character>] = []
        while let character = inner.popFirst() {
            if character == "]", !ranges.isEmpty {
                rest = inner
                return .set(ranges, isNegated: isNegated)
            }
            if inner.first == "-", let high = inner.dropFirst().first, high != "]", character <= high {
                ranges.append(character...high)
                inner.removeFirst(2)
            } else {
                ranges.append(character...character)
            }
        }
        return nil
    }

    func matches(_ name: String) -> Bool {
        if name.hasPrefix("."), !text.hasPrefix(".") { return false }
        let characters = Array(name)
        // The last star that could still take more, and how far it got: no recursion, no blow-up.
        var (piece, index, star, mark) = (0, 0, -1, 0)
        while index < characters.count {
            if piece < pieces.count, Self.takes(pieces[piece], characters[index]) {
                piece += 1
                index += 1
            } else if piece < pieces.count, case .any = pieces[piece] {
                star = piece
                mark = index
                piece += 1
            } else if star >= 0 {
                piece = star + 1
                mark += 1
                index = mark
            } else {
                return false
            }
        }
        while piece < pieces.count, case .any = pieces[piece] { piece += 1 }
        return piece == pieces.count
    }

    private static func takes(_ piece: Piece, _ character: Character) -> Bool {
        switch piece {
        case .literal(let wanted): wanted == character
        case .one: true
        case .any: false
        case .set(let ranges, let isNegated): ranges.contains { $0.contains(character) } != isNegated
        }
    }
}
