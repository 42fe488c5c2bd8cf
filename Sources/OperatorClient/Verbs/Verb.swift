import Program

/// One verb of `cmctl` as data: parsing, help, completions and most requests are made from it.
struct Verb: Sendable {
    enum Action: Sendable {
        /// `{NAME}` in the path is the operand of that name.
        case call(method: String, path: String, Shape)
        case program(@Sendable (Invocation) async throws(OperatorError) -> Outcome)
    }

    /// What a row shows of its answer.
    enum Shape: Sendable {
        /// `{"items": …}` as a table. `paged`: the call takes `limit`, the size of a page.
        case list([Column], paged: Bool)
        /// An object, one member per line.
        case record
        /// A sentence.
        case done(String)
        /// The body as it stands.
        case text
    }

    /// `clients show`
    let name: String
    let operands: [Operand]
    let flags: [VerbFlag]
    let summary: String
    let action: Action
    /// `-- ARGV…`: the verb takes words after `--`.
    let restName: String?
    /// `METHOD PATH` of the operations that it is for; a test compares them with the core's routes.
    let calls: [String]

    struct Operand: Sendable, Equatable {
        let name: String
        let isRepeated: Bool
        let isOptional: Bool
    }

    /// - Parameter usage: words in lower case name the verb, `NAME` is an operand, `[NAME]` may be left out, `NAME…` may be
    ///   repeated, `-- NAME…` takes the rest of the command line.
    /// - Parameter calls: of a verb that is a program; `.call` says it by itself.
    init(_ usage: String, _ summary: String, flags: [VerbFlag] = [], calls: [String] = [], _ action: Action) {
        var names: [String] = []
        var operands: [Operand] = []
        var rest: String?
        var words = usage.split(separator: " ").map(String.init)[...]
        while let word = words.popFirst() {
            if word == "--" {
                rest = words.popFirst()
            } else if word.contains(where: \.isUppercase) {
                let bare = word.filter { $0 != "[" && $0 != "]" && $0 != "…" }
                operands.append(
                    Operand(name: bare, isRepeated: word.contains("…"), isOptional: word.hasPrefix("[")))
            } else {
                names.append(word)
            }
        }
        name = names.joined(separator: " ")
        self.operands = operands
        self.flags = flags
        self.summary = summary
        self.action = action
        restName = rest
        if case .call(let method, let path, _) = action { self.calls = ["\(method) \(path)"] } else { self.calls = calls }
    }

    var words: [String] { name.split(separator: " ").map(String.init) }

    var usage: String {
        var text = "cmctl " + name
        for operand in operands {
            let shown = operand.name + (operand.isRepeated ? "…" : "")
            text += operand.isOptional ? " [\(shown)]" : " \(shown)"
        }
        if !flags.isEmpty { text += " [flags]" }
        if let restName { text += " -- " + restName }
        return text
    }
}

extension Verb {
    static func list(
        _ usage: String, _ path: String, _ summary: String, _ columns: [Column], flags: [VerbFlag] = [], paged: Bool = true
    ) -> Verb {
        Verb(usage, summary, flags: flags, .call(method: "GET", path: path, .list(columns, paged: paged)))
    }
    static func show(_ usage: String, _ path: String, _ summary: String, flags: [VerbFlag] = []) -> Verb {
        Verb(usage, summary, flags: flags, .call(method: "GET", path: path, .record))
    }
    static func change(
        _ method: String, _ usage: String, _ path: String, _ summary: String, flags: [VerbFlag] = [], _ shape: Shape = .record
    ) -> Verb {
        Verb(usage, summary, flags: flags, .call(method: method, path: path, shape))
    }
    static func delete(_ usage: String, _ path: String, _ summary: String, flags: [VerbFlag] = []) -> Verb {
        Verb(usage, summary, flags: flags, .call(method: "DELETE", path: path, .done("done")))
    }
}

/// A flag of a verb and the member of the query or body that it sets.
struct VerbFlag: Sendable {
    enum Kind: Sendable {
        case text, integer, decimal, toggle, boolean, list, map, json
        /// `90`, `15m`, `1h30m`, `2d`: whole seconds.
        case seconds
        /// Content of a file as text; `-` is standard input.
        case file
    }

    let flag: Flag
    let kind: Kind
    /// Name of the member; `a.b` sets `b` in the object `a`. Empty: the verb reads the flag by itself.
    let member: String
    let isQuery: Bool

    init(_ name: String, _ placeholder: String?, _ kind: Kind, _ summary: String, as member: String?, query: Bool, letter: Character? = nil) {
        let isRepeated = kind == .list || kind == .map
        flag =
            placeholder.map { .option(name, $0, summary, letter: letter, repeated: isRepeated) }
            ?? .toggle(name, summary, letter: letter)
        self.kind = kind
        self.member = member ?? name.split(separator: "-").joined(separator: "_")
        isQuery = query
    }

    /// Sets a member of the body.
    static func body(
        _ name: String, _ placeholder: String, _ summary: String, _ kind: Kind = .text, as member: String? = nil
    ) -> VerbFlag {
        VerbFlag(name, placeholder, kind, summary, as: member, query: false)
    }
    /// Sets a query parameter.
    static func query(
        _ name: String, _ placeholder: String, _ summary: String, _ kind: Kind = .text, as member: String? = nil
    ) -> VerbFlag {
        VerbFlag(name, placeholder, kind, summary, as: member, query: true)
    }
    static func bodyToggle(_ name: String, _ summary: String, as member: String? = nil) -> VerbFlag {
        VerbFlag(name, nil, .toggle, summary, as: member, query: false)
    }
    static func queryToggle(_ name: String, _ summary: String, as member: String? = nil) -> VerbFlag {
        VerbFlag(name, nil, .toggle, summary, as: member, query: true)
    }
    /// For verbs that are programs.
    static func own(
        _ name: String, _ placeholder: String?, _ summary: String, _ kind: Kind = .text, letter: Character? = nil
    ) -> VerbFlag {
        VerbFlag(name, placeholder, kind, summary, as: "", query: false, letter: letter)
    }
}
