import AgentProtocol
import Crypto
import JSON

/// A command with places for parameters. Values take the place of whole words or of parts of one word and are never read
/// by a shell: a script gets them as its arguments.
public struct Template: Sendable, Equatable {
    /// One element of an argument list.
    public enum Word: Sendable, Equatable {
        /// Text with `{parameter}` places; `{parameter...}` alone stands for all words of a list.
        case word(String)
        /// These words only when the parameter was given (a boolean: when it is true).
        case when(String, [String])
    }

    public enum Body: Sendable, Equatable {
        case argv([Word])
        case script(interpreter: [String], text: String, arguments: [Word])
    }

    public var name: String
    public var version: Int
    public var description: String
    /// `system`, `disk`, `memory`, `process`, `network`, `service`, `file`, or the operator's own.
    public var category: String
    public var parameters: [TemplateParameter]
    public var body: Body
    /// How its output becomes a typed result; `nil`: text.
    public var result: ResultParser?
    public var isBuiltIn: Bool

    public init(
        _ name: String, version: Int = 1, _ description: String, category: String, parameters: [TemplateParameter] = [],
        body: Body, result: ResultParser? = nil, isBuiltIn: Bool = false
    ) {
        self.name = name
        self.version = version
        self.description = description
        self.category = category
        self.parameters = parameters
        self.body = body
        self.result = result
        self.isBuiltIn = isBuiltIn
    }

    // MARK: Use

    /// What is run with these values.
    public func invocation(_ values: JSONObject) throws(Problem) -> Invocation {
        var words: [String: [String]] = [:]
        for member in values {
            guard let parameter = parameters.first(where: { $0.name == member.key }) else {
                let known = parameters.map(\.name).joined(separator: ", ")
                throw .invalid(
                    "template \(name) has no parameter \"\(CommandRequest.clipped(member.key))\"; it has: \(known.isEmpty ? "none" : known)",
                    pointer: "/parameters")
            }
            if !member.value.isNull { words[parameter.name] = try parameter.words(member.value) }
        }
        for parameter in parameters where words[parameter.name] == nil {
            if let standard = parameter.standard {
                words[parameter.name] = try parameter.words(standard)
            } else if parameter.isRequired {
                throw parameter.problem("is missing")
            }
        }
        switch body {
        case .argv(let argv): return .argv(try fill(argv, words))
        case .script(let interpreter, let text, let arguments):
            return .script(interpreter: interpreter, body: Array(text.utf8), arguments: try fill(arguments, words))
        }
    }

    private func fill(_ template: [Word], _ values: [String: [String]]) throws(Problem) -> [String] {
        var result: [String] = []
        for word in template {
            switch word {
            case .word(let text): result += try fill(text, values)
            case .when(let parameter, let texts):
                guard let given = values[parameter], !given.isEmpty else { continue }
                for text in texts { result += try fill(text, values) }
            }
        }
        return result
    }

    private func fill(_ text: String, _ values: [String: [String]]) throws(Problem) -> [String] {
        var filled = ""
        var rest = text[...]
        while let open = rest.firstIndex(of: "{"), let close = rest[open...].firstIndex(of: "}") {
            filled += rest[..<open]
            let place = rest[rest.index(after: open)..<close]
            rest = rest[rest.index(after: close)...]
            if place.hasSuffix("...") { return values[String(place.dropLast(3))] ?? [] }
            let value = values[String(place)]?.first ?? ""
            if filled.isEmpty, value.utf8.first == UInt8(ascii: "-"), isText(place) {
                throw .invalid(
                    "parameter \"\(place)\" may not begin with \"-\": it would be read as an option",
                    pointer: "/parameters/\(place)")
            }
            filled += value
        }
        return [filled + rest]
    }

    private func isText(_ name: Substring) -> Bool { parameters.first { $0.name == name }?.kind == .text }

    // MARK: Check

    /// Whether the template itself is well formed.
    func validate() throws(Problem) {
        guard Self.isName(name) else {
            throw .invalid(
                "\"\(CommandRequest.clipped(name))\" is no name: 1 to 64 lower-case letters, digits and . - _, a letter first",
                pointer: "/name")
        }
        guard parameters.count <= 64 else { throw .invalid("more than 64 parameters", pointer: "/parameters") }
        var names: Set<String> = []
        for parameter in parameters {
            guard Self.isName(parameter.name), names.insert(parameter.name).inserted else {
                throw .invalid(
                    "\"\(CommandRequest.clipped(parameter.name))\" is no parameter name, or stands twice",
                    pointer: "/parameters")
            }
            if let standard = parameter.standard { _ = try parameter.words(standard) }
        }
        let (words, pointer): ([Word], String)
        switch body {
        case .argv(let argv):
            (words, pointer) = (argv, "/argv")
            guard case .word(let program)? = argv.first, !program.isEmpty, !program.contains("{") else {
                throw .invalid("argv begins with the program, which is no parameter", pointer: "/argv/0")
            }
        case .script(let interpreter, let text, let arguments):
            (words, pointer) = (arguments, "/script/arguments")
            guard interpreter.first?.isEmpty == false else {
                throw .invalid("a script needs an interpreter", pointer: "/script/interpreter")
            }
            guard !text.isEmpty, text.utf8.count <= 512 << 10 else {
                throw .invalid("a script has 1 byte to 512 KiB", pointer: "/script/body")
            }
        }
        guard words.count <= 512 else { throw .invalid("more than 512 arguments", pointer: pointer) }
        for word in words {
            switch word {
            case .word(let text): try checkPlaces(text, names, pointer)
            case .when(let parameter, let texts):
                guard names.contains(parameter) else { throw unknownPlace(parameter, pointer) }
                for text in texts { try checkPlaces(text, names, pointer) }
            }
        }
    }

    private func checkPlaces(_ text: String, _ names: Set<String>, _ pointer: String) throws(Problem) {
        var rest = text[...]
        while let open = rest.firstIndex(of: "{") {
            guard let close = rest[open...].firstIndex(of: "}") else {
                throw .invalid("\"\(CommandRequest.clipped(text))\" has a { without a }", pointer: pointer)
            }
            let place = rest[rest.index(after: open)..<close]
            let isList = place.hasSuffix("...")
            let name = String(isList ? place.dropLast(3) : place)
            guard let parameter = parameters.first(where: { $0.name == name }) else { throw unknownPlace(name, pointer) }
            guard isList == (parameter.kind == .texts), !isList || text == "{\(place)}" else {
                throw .invalid(
                    "a list of texts stands alone in its argument as {\(name)...}, everything else as {\(name)}",
                    pointer: pointer)
            }
            rest = rest[rest.index(after: close)...]
        }
    }

    private func unknownPlace(_ name: String, _ pointer: String) -> Problem {
        .invalid("{\(CommandRequest.clipped(name))} is none of the parameters", pointer: pointer)
    }

    static func isName(_ name: String) -> Bool {
        guard (1...64).contains(name.utf8.count), let first = name.utf8.first, (0x61...0x7A).contains(first) else {
            return false
        }
        return name.utf8.allSatisfy {
            (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2E || $0 == 0x2D || $0 == 0x5F
        }
    }

    /// SHA-256 of the canonical text, in lower-case hexadecimal: two templates with the same hash do the same.
    public var hash: String { SHA256.digest(text(withHead: false)).hex }
}
