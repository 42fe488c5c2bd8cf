/// Which keys of a tree take part: those that one of `include` matches, or all, without those that one of `exclude` does.
struct Filter: Sendable {
    private let include: [Glob]
    private let exclude: [Glob]

    init(include: [String], exclude: [String]) {
        self.include = include.map(Glob.init)
        self.exclude = exclude.map(Glob.init)
    }

    func takes(_ key: String) -> Bool {
        let key = Array(key.utf8)
        return (include.isEmpty || include.contains { $0.matches(key) }) && !exclude.contains { $0.matches(key) }
    }
}

/// `*` stands for anything but slashes, `**` for anything, `?` for one character that is no slash.
struct Glob: Sendable {
    private enum Piece: Equatable { case byte(UInt8), one, some, all }
    private let pieces: [Piece]

    init(_ text: String) {
        var pieces: [Piece] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "*"):
                if pieces.last == .some { pieces[pieces.count - 1] = .all } else if pieces.last != .all { pieces.append(.some) }
            case UInt8(ascii: "?"): pieces.append(.one)
            default: pieces.append(.byte(byte))
            }
        }
        self.pieces = pieces
    }

    /// One row of the table of "these pieces match so much of the text" at a time: no pattern takes longer than both lengths multiplied.
    func matches(_ text: [UInt8]) -> Bool {
        var row = [Bool](repeating: false, count: text.count + 1)
        row[0] = true
        for piece in pieces {
            var next = [Bool](repeating: false, count: text.count + 1)
            if piece == .some || piece == .all { next[0] = row[0] }
            for index in 0..<text.count {
                let byte = text[index]
                switch piece {
                case .byte(let wanted): next[index + 1] = row[index] && byte == wanted
                case .one: next[index + 1] = byte != UInt8(ascii: "/") && (row[index] || next[index] && byte & 0xC0 == 0x80)
                case .some: next[index + 1] = row[index + 1] || next[index] && byte != UInt8(ascii: "/")
                case .all: next[index + 1] = row[index + 1] || next[index]
                }
            }
            row = next
        }
        return row[text.count]
    }
}
