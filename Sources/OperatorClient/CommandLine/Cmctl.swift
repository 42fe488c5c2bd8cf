import JSON
import Program

/// `cmctl` as a function: words in, exit status out.
public struct Cmctl {
    private let console: any Console
    private let environment: [String: String]
    private let interrupts: Interrupts
    private let files: LocalFiles
    private let pause: (UInt64) async -> Void
    private let connect: (ServerChoice) throws(OperatorError) -> any APITransport
    private let verbs = Verb.table

    /// - Parameters:
    ///   - pause: suspends for that many milliseconds.
    ///   - connect: makes the way to a core; connects when it is first used.
    public init(
        console: any Console, environment: [String: String], interrupts: Interrupts = Interrupts(),
        files: LocalFiles = .real(),
        pause: @escaping (UInt64) async -> Void,
        connect: @escaping (ServerChoice) throws(OperatorError) -> any APITransport
    ) {
        self.console = console
        self.environment = environment
        self.interrupts = interrupts
        self.files = files
        self.pause = pause
        self.connect = connect
    }

    /// - Parameter arguments: without the program's name.
    public func run(_ arguments: [String]) async -> Outcome {
        do throws(OperatorError) {
            return try await perform(arguments)
        } catch {
            console.complain("cmctl: " + Table.printable(error.what))
            if let advice = error.advice { console.complain("  " + advice) }
            return error.status
        }
    }

    private func perform(_ arguments: [String]) async throws(OperatorError) -> Outcome {
        let head = try flags(arguments, Help.globalFlags + [.toggle("version", "")], stopsAtFirstWord: true)
        if head.has("version") {
            console.print("cmctl \(BuildID.description)")
            return .success
        }
        guard let first = head.words.first else {
            if head.has("help") {
                console.print(Help.overview(verbs))
                return .success
            }
            throw .usage("no verb is given", advice: "'cmctl --help' lists them.")
        }
        if first == "complete" {
            let words = Array(head.words.dropFirst(head.words.count > 1 && head.words[1] == "--" ? 2 : 1))
            for candidate in Completions.candidates(words, verbs) { console.print(candidate.word + "\t" + candidate.summary) }
            return .success
        }
        if first == "help" {
            return try help(Array(head.words.dropFirst()))
        }
        // Flags may stand between the words of a verb; operands come after them, so plain words up to "--" decide.
        let leading = head.words.prefix { $0 != "--" && !$0.hasPrefix("-") }
        guard let verb = Completions.match(Array(leading), verbs) else {
            return try unknown(Array(leading), wantsHelp: head.has("help") || head.words.contains("--help"))
        }
        let tail = try flags(Array(head.words.dropFirst(verb.words.count)), verb.allFlags + Help.globalFlags)
        if head.has("help") || tail.has("help") {
            console.print(Help.verb(verb))
            return .success
        }
        let operands = try assign(tail.words, to: verb)
        if tail.rest != nil, verb.restName == nil { throw .usage("'\(verb.name)' takes nothing after --", advice: verb.usage) }
        let global = { (name: String) in tail.value(name) ?? head.value(name) }
        let output = global("output") ?? "table"
        guard output == "table" || output == "json" else { throw .usage("--output \(output): expected table or json") }
        let (environment, read) = (environment, files.read)
        let session = Session(
            console: console, environment: environment, isJSON: output == "json", interrupts: interrupts, files: files, pause: pause,
            resolve: { (server) throws(OperatorError) in
                try ServerChoice.resolve(
                    flags: { $0 == "server" ? server ?? global($0) : global($0) }, environment: environment, read: read)
            }, connect: connect)
        let invocation = Invocation(
            verb: verb, operands: operands, rest: tail.rest, flags: tail, session: session)
        switch verb.action {
        case .call(let method, let path, let shape):
            return try await invocation.runRow(method: method, path: path, shape)
        case .program(let body):
            return try await body(invocation)
        }
    }

    private func flags(
        _ arguments: [String], _ allowed: [Flag], stopsAtFirstWord: Bool = false
    ) throws(OperatorError) -> Flags {
        do throws(FlagError) {
            return try Flags(parsing: arguments, allowed: allowed, stopsAtFirstWord: stopsAtFirstWord)
        } catch {
            throw .usage(error.detail)
        }
    }

    private func help(_ words: [String]) throws(OperatorError) -> Outcome {
        if words.isEmpty {
            console.print(Help.overview(verbs))
        } else if let verb = Completions.match(words, verbs) {
            console.print(Help.verb(verb))
        } else {
            return try unknown(words, wantsHelp: true)
        }
        return .success
    }

    private func unknown(_ words: [String], wantsHelp: Bool) throws(OperatorError) -> Outcome {
        let group = verbs.filter { $0.words.first == words.first }
        guard group.isEmpty else {
            let text = Help.group(words[0], group)
            if wantsHelp {
                console.print(text)
                return .success
            }
            throw .usage(words.count > 1 ? "'\(words[0])' has no verb '\(words[1])'" : "'\(words[0])' needs a verb", advice: text)
        }
        let known = Array(Set(verbs.compactMap(\.words.first)))
        let near = nearest(to: words.first ?? "", among: known).map { "Did you mean '\($0)'? " } ?? ""
        throw .usage("'\(words.first ?? "")' is no verb", advice: near + "'cmctl --help' lists them.")
    }

    private func assign(_ words: [String], to verb: Verb) throws(OperatorError) -> [String: [String]] {
        var rest = words[...]
        var result: [String: [String]] = [:]
        for operand in verb.operands {
            if operand.isRepeated {
                result[operand.name] = Array(rest)
                rest = []
            } else if let word = rest.popFirst() {
                result[operand.name] = [word]
            }
            if !operand.isOptional, result[operand.name, default: []].isEmpty {
                throw .usage("\(operand.name) is missing", advice: verb.usage)
            }
        }
        guard rest.isEmpty else { throw .usage("'\(rest[rest.startIndex])' is one word too many", advice: verb.usage) }
        return result
    }
}
