import AgentProtocol

/// Recursive descent over the bytes of a selector; depth, length and terms are bounded.
struct SelectorParser {
    private let text: String
    private let bytes: [UInt8]
    private var position = 0
    private var terms = 0

    init(_ text: String) throws(Problem) {
        guard text.utf8.count <= SelectorSyntax.maximumLength else {
            throw Problem(
                400, "selector-invalid",
                "the selector has \(text.utf8.count) bytes, at most \(SelectorSyntax.maximumLength) are allowed")
        }
        self.text = text
        bytes = Array(text.utf8)
    }

    mutating func parse() throws(Problem) -> Selector.Node {
        skipSpace()
        guard position < bytes.count else {
            throw fault("it is empty; '*' selects every client")
        }
        let node = try disjunction(depth: 0)
        guard position == bytes.count else {
            throw fault("expected ',', 'and', 'or' or the end, found \(found())")
        }
        return node
    }

    private mutating func disjunction(depth: Int) throws(Problem) -> Selector.Node {
        guard depth <= SelectorSyntax.maximumDepth else {
            throw fault("more than \(SelectorSyntax.maximumDepth) nested parentheses and negations")
        }
        var nodes = [try conjunction(depth: depth)]
        while takeWord("or") { nodes.append(try conjunction(depth: depth)) }
        return nodes.count == 1 ? nodes[0] : .any(nodes)
    }

    private mutating func conjunction(depth: Int) throws(Problem) -> Selector.Node {
        var nodes = [try unary(depth: depth)]
        while take(",") || takeWord("and") { nodes.append(try unary(depth: depth)) }
        return nodes.count == 1 ? nodes[0] : .all(nodes)
    }

    private mutating func unary(depth: Int) throws(Problem) -> Selector.Node {
        guard depth <= SelectorSyntax.maximumDepth else {
            throw fault("more than \(SelectorSyntax.maximumDepth) nested parentheses and negations")
        }
        if take("!") || takeWord("not") { return .not(try unary(depth: depth + 1)) }
        if take("(") {
            let node = try disjunction(depth: depth + 1)
            guard take(")") else { throw fault("expected ')', found \(found())") }
            return node
        }
        return try condition()
    }

    private mutating func condition() throws(Problem) -> Selector.Node {
        try countTerm()
        if take("*") { return .everything }
        let start = position
        let word = takeBareWord()
        guard !word.isEmpty else {
            throw fault("expected a condition such as env=prod, a client id or '*', found \(found())")
        }
        if word == "all" { return .everything }
        if let id = ClientID(word) { return .client(id) }
        let key = try key(word, at: start)
        if take("!=") { return .not(try equality(key)) }
        if take("==") || take("=") { return try equality(key) }
        for comparison in [Comparison.Operator.lessOrEqual, .greaterOrEqual, .less, .greater]
        where take(comparison.rawValue) {
            switch key {
            case .label, .fact: return .compares(key, Comparison(comparison, try value(of: key).text))
            case .name, .state, .group, .id:
                throw fault("'\(comparison.rawValue)' compares facts and labels, not '\(word)'")
            }
        }
        if takeWord("in") { return try list(key) }
        if takeWord("notin") { return .not(try list(key)) }
        let mark = position
        if takeWord("not") {
            if takeWord("in") { return .not(try list(key)) }
            position = mark
        }
        switch key {
        case .label, .fact, .name: return .present(key)
        case .state, .group, .id: throw fault("expected '=' and a value after '\(word)', found \(found())")
        }
    }

    private func key(_ word: String, at start: Int) throws(Problem) -> Selector.Key {
        switch word {
        case "state": return .state
        case "group": return .group
        case "name": return .name
        case "id": return .id
        default: break
        }
        if word.hasPrefix("fact.") {
            let path = String(word.dropFirst(5))
            guard !path.isEmpty, path.utf8.count <= SelectorSyntax.maximumFactPathLength else {
                throw fault(
                    "a fact's path has 1 to \(SelectorSyntax.maximumFactPathLength) bytes after 'fact.'", at: start)
            }
            return .fact(path)
        }
        let label = word.hasPrefix("label.") ? String(word.dropFirst(6)) : word
        if let fault = SelectorSyntax.fault(ofLabelKey: label) { throw self.fault(fault, at: start) }
        return .label(label)
    }

    private mutating func equality(_ key: Selector.Key) throws(Problem) -> Selector.Node {
        .matches(key, [try value(of: key)])
    }

    private mutating func list(_ key: Selector.Key) throws(Problem) -> Selector.Node {
        guard take("(") else { throw fault("expected '(' and a list of values after 'in', found \(found())") }
        var patterns = [try value(of: key)]
        while take(",") {
            try countTerm()
            patterns.append(try value(of: key))
        }
        guard take(")") else { throw fault("expected ',' or ')' in the list of values, found \(found())") }
        return .matches(key, patterns)
    }

    private mutating func value(of key: Selector.Key) throws(Problem) -> Pattern {
        skipSpace()
        let start = position
        let pattern: Pattern
        if position < bytes.count, bytes[position] == 0x22 {
            pattern = Pattern(try quoted(), literal: true)
        } else {
            let word = takeBareWord()
            guard !word.isEmpty else { throw fault("expected a value, found \(found())") }
            pattern = Pattern(word)
        }
        switch key {
        case .state:
            guard pattern.isGlob || ClientState(rawValue: pattern.text) != nil else {
                let states = ClientState.allCases.map(\.rawValue).joined(separator: ", ")
                throw fault("'\(pattern.text)' is no state; the states are \(states)", at: start)
            }
        case .id:
            guard !pattern.isGlob else { return pattern }
            guard let id = ClientID(pattern.text) else {
                throw fault("'\(pattern.text)' is no client id (26 characters, the first 0 to 7)", at: start)
            }
            return Pattern(id.description)
        case .group:
            guard !pattern.isGlob else { throw fault("a group's name has no '*' or '?'", at: start) }
        case .label, .fact, .name: break
        }
        return pattern
    }

    private mutating func quoted() throws(Problem) -> String {
        let start = position
        position += 1
        var content: [UInt8] = []
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            if byte == 0x22 { return endQuoted(content) }
            if byte == 0x5C {
                guard position < bytes.count, bytes[position] == 0x22 || bytes[position] == 0x5C else {
                    throw fault("a backslash stands before a quotation mark or another backslash")
                }
                content.append(bytes[position])
                position += 1
            } else {
                content.append(byte)
            }
        }
        throw fault("the quotation mark is never closed", at: start)
    }

    private mutating func endQuoted(_ content: [UInt8]) -> String {
        skipSpace()
        return String(decoding: content, as: UTF8.self)
    }

    // MARK: Words

    private mutating func skipSpace() {
        while position < bytes.count, bytes[position] == 0x20 || (bytes[position] >= 0x09 && bytes[position] <= 0x0D) {
            position += 1
        }
    }

    /// A run of bytes up to a space or an operator, and the space after it. May be empty.
    private mutating func takeBareWord() -> String {
        let start = position
        while position < bytes.count, !SelectorSyntax.endsWord(bytes[position]) { position += 1 }
        let word = String(decoding: bytes[start..<position], as: UTF8.self)
        skipSpace()
        return word
    }

    /// The word if it stands here as a whole word.
    private mutating func takeWord(_ word: String) -> Bool {
        let end = position + word.utf8.count
        guard end <= bytes.count, bytes[position..<end].elementsEqual(word.utf8),
            end == bytes.count || SelectorSyntax.endsWord(bytes[end])
        else { return false }
        position = end
        skipSpace()
        return true
    }

    private mutating func take(_ symbol: String) -> Bool {
        let end = position + symbol.utf8.count
        guard end <= bytes.count, bytes[position..<end].elementsEqual(symbol.utf8) else { return false }
        position = end
        skipSpace()
        return true
    }

    // MARK: Errors

    private mutating func countTerm() throws(Problem) {
        terms += 1
        guard terms <= SelectorSyntax.maximumTerms else {
            throw fault("more than \(SelectorSyntax.maximumTerms) conditions and values")
        }
    }

    private func found() -> String {
        guard position < bytes.count else { return "the end" }
        return "'\(String(decoding: bytes[position..<min(position + 20, bytes.count)], as: UTF8.self))'"
    }

    private func fault(_ what: String, at place: Int? = nil) -> Problem {
        let column = String(decoding: bytes[..<(place ?? position)], as: UTF8.self).count + 1
        let shown = text.count > 200 ? text.prefix(200) + "…" : text[...]
        return Problem(400, "selector-invalid", "selector '\(shown)', character \(column): \(what)")
    }
}
