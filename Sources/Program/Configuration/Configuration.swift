import JSON

/// Everything that is wrong with a configuration, found in one go.
public struct ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence each: key, value, where it stands, what is allowed.
    public let problems: [String]
    public init(_ problems: [String]) { self.problems = problems }
    public var description: String { problems.joined(separator: "\n") }
}

/// The values of all declared keys: default, then file, then environment, then flags; the later wins. Immutable; a reload
/// makes a new one.
public struct Configuration: Sendable {
    public enum Source: Sendable, Equatable, CustomStringConvertible {
        case defaultValue
        case file(String)
        case environment(String)
        case flag(String)

        public var description: String {
            switch self {
            case .defaultValue: "default"
            case .file(let name): name
            case .environment(let name): "environment variable \(name)"
            case .flag(let name): "flag --\(name)"
            }
        }
    }

    private struct Entry: Sendable {
        var value: JSONValue
        var source: Source
    }

    public let declarations: [ConfigurationDeclaration]
    /// Things that are allowed but probably not meant.
    public let warnings: [String]
    private let entries: [String: Entry]

    /// - Parameters:
    ///   - file: name and content of the configuration file (lenient JSON).
    ///   - environment: variables; those that begin with `CM_` and are neither declared nor `foreign` are warned of.
    ///   - flags: the parsed command line.
    ///   - foreign: names of `CM_…` variables that other programs of the family read.
    public init(
        _ declarations: [ConfigurationDeclaration], file: (name: String, content: [UInt8])? = nil,
        environment: [String: String] = [:], flags: Flags? = nil,
        foreign: Set<String> = ["CM_SERVER", "CM_TOKEN", "CM_PIN"]
    ) throws(ConfigurationError) {
        self.declarations = declarations
        var problems: [String] = []
        var entries: [String: Entry] = [:]
        for declaration in declarations {
            if entries[declaration.name] != nil { problems.append("\(declaration.name) is declared twice") }
            entries[declaration.name] = Entry(value: declaration.defaultValue, source: .defaultValue)
            // A default that its own rule refuses would fail every start; the tests see it first.
            if !declaration.isValid(declaration.defaultValue) {
                problems.append("\(declaration.name): the default \(declaration.defaultValue) is not allowed")
            }
        }

        func set(_ declaration: ConfigurationDeclaration, _ value: JSONValue?, shown: String, _ source: Source) {
            if let value, declaration.isValid(value) {
                entries[declaration.name] = Entry(value: value, source: source)
            } else {
                let text = declaration.isSecret ? "(secret)" : shown
                problems.append(
                    "\(declaration.name) = \(text) (\(source)): expected \(declaration.type), allowed: \(declaration.allowed)")
            }
        }

        if let file {
            do throws(JSONError) {
                let value = try JSONValue(parsing: file.content, limits: JSONLimits(bytes: 1 << 20), syntax: .lenient)
                var found: [(ConfigurationDeclaration, JSONValue)] = []
                Self.visit(value, declarations, "", file.name, &problems, &found)
                for (declaration, value) in found { set(declaration, value, shown: "\(value)", .file(file.name)) }
            } catch {
                problems.append("\(file.name), \(error)")
            }
        }
        let byVariable = Dictionary(declarations.map { ($0.environmentName, $0) }) { first, _ in first }
        var warnings: [String] = []
        for (name, text) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix("CM_") {
            if let declaration = byVariable[name] {
                set(declaration, declaration.fromText([text]), shown: text, .environment(name))
            } else if !foreign.contains(name) {
                let near = nearest(to: name, among: Array(byVariable.keys))
                warnings.append("environment variable \(name) is unknown" + (near.map { "; did you mean \($0)?" } ?? ""))
            }
        }
        if let flags {
            for declaration in declarations {
                guard let flag = declaration.flag, flags.has(flag) else { continue }
                let texts = flags.values(flag)
                set(declaration, declaration.fromText(texts), shown: texts.joined(separator: ","), .flag(flag))
            }
        }
        guard problems.isEmpty else { throw ConfigurationError(problems) }
        self.entries = entries
        self.warnings = warnings
    }

    /// Walks the file's objects down to declared keys; what is not declared is a problem.
    private static func visit(
        _ value: JSONValue, _ declarations: [ConfigurationDeclaration], _ path: String, _ file: String,
        _ problems: inout [String], _ found: inout [(ConfigurationDeclaration, JSONValue)]
    ) {
        if let declaration = declarations.first(where: { $0.name == path }) {
            found.append((declaration, value))
            return
        }
        guard path.isEmpty || declarations.contains(where: { $0.name.hasPrefix(path + ".") }) else {
            let near = nearest(to: path, among: declarations.map(\.name))
            problems.append("\(path) (\(file)) is not a key" + (near.map { "; did you mean \($0)?" } ?? ""))
            return
        }
        guard let object = value.object else {
            let place = path.isEmpty ? file : "\(path) (\(file))"
            problems.append("\(place): expected an object of keys, found \(value.kindName)")
            return
        }
        for member in object {
            visit(
                member.value, declarations, path.isEmpty ? member.key : path + "." + member.key, file, &problems, &found)
        }
    }

    /// The value of a key. A key that was not declared here has its default.
    public subscript<Value>(key: ConfigurationKey<Value>) -> Value {
        entries[key.name].flatMap { key.decode($0.value) } ?? key.defaultValue
    }

    public func source<Value>(of key: ConfigurationKey<Value>) -> Source { entries[key.name]?.source ?? .defaultValue }

    /// Key, value and source of everything, in the order of the declarations, secrets redacted.
    public var shown: JSONValue {
        var object = JSONObject()
        for declaration in declarations {
            guard let entry = entries[declaration.name] else { continue }
            let isSet = entry.value != declaration.defaultValue
            let value = declaration.isSecret ? .string(isSet ? "(set, not shown)" : "(not set)") : entry.value
            object[declaration.name] = ["value": value, "source": .string(entry.source.description)]
        }
        return .object(object)
    }
}

extension Configuration {
    /// The table of Docs/configuration.md; a test compares the two.
    public static func markdown(_ declarations: [ConfigurationDeclaration]) -> String {
        func cell(_ text: String) -> String { text.split(separator: "|").joined(separator: "\\|") }
        var text = "| key | type | default | allowed | environment | flag | meaning |\n|---|---|---|---|---|---|---|\n"
        for declaration in declarations {
            let cells = [
                "`\(declaration.name)`", declaration.isSecret ? declaration.type + ", secret" : declaration.type,
                "`\(declaration.defaultValue)`", cell(declaration.allowed), "`\(declaration.environmentName)`",
                declaration.flag.map { "`--\($0)`" } ?? "", cell(declaration.summary),
            ]
            text += "| " + cells.joined(separator: " | ") + " |\n"
        }
        return text
    }
}
