import JSON

/// One parameter of a template: its type decides which values are taken.
public struct TemplateParameter: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        /// Any text without zero bytes and line breaks. Where it begins an argument of its own it may not begin with "-",
        /// so that no value becomes an option.
        case text
        case integer(ClosedRange<Int64>)
        case boolean
        case choice([String])
        /// An absolute path without "." and ".." parts.
        case path
        /// A host name or an address.
        case host
        /// A name of letters, digits and `@ . _ - : \`: users, services, devices.
        case name
        /// Any number of texts; stands alone in an argument as `{name...}`.
        case texts
    }

    public var name: String
    public var kind: Kind
    public var isRequired: Bool
    public var standard: JSONValue?
    public var description: String

    public init(
        _ name: String, _ kind: Kind, required: Bool = false, default standard: JSONValue? = nil, _ description: String
    ) {
        self.name = name
        self.kind = kind
        isRequired = required
        self.standard = standard
        self.description = description
    }

    /// The value as the words that take its place.
    func words(_ value: JSONValue) throws(Problem) -> [String] {
        switch (kind, value) {
        case (.text, .string(let text)): return [try line(text)]
        case (.integer(let range), _):
            guard let number = value.integer else { throw wrong("a whole number", value) }
            guard range.contains(number) else {
                throw problem("is \(number), \(range.lowerBound) to \(range.upperBound) are allowed")
            }
            return [String(number)]
        case (.boolean, .bool(let flag)): return flag ? ["true"] : []
        case (.choice(let choices), .string(let text)):
            guard choices.contains(text) else {
                throw problem("is \"\(CommandRequest.clipped(text))\", allowed are \(choices.joined(separator: ", "))")
            }
            return [text]
        case (.path, .string(let text)):
            let parts = try line(text).split(separator: "/")
            guard text.utf8.first == UInt8(ascii: "/"), text.utf8.count < 4_096, !parts.contains(".."), !parts.contains(".")
            else { throw problem("is no absolute path without \".\" and \"..\"") }
            return [text]
        case (.host, .string(let text)):
            guard (1...253).contains(text.utf8.count), text.utf8.first != UInt8(ascii: "-"),
                text.utf8.allSatisfy({ Self.isAlphanumeric($0) || Self.hostMarks.contains($0) })
            else { throw problem("is no host name and no address") }
            return [text]
        case (.name, .string(let text)):
            guard (1...255).contains(text.utf8.count), text.utf8.first != UInt8(ascii: "-"),
                text.utf8.allSatisfy({ Self.isAlphanumeric($0) || Self.nameMarks.contains($0) })
            else { throw problem("may have 1 to 255 letters, digits and @ . _ - : \\, and not begin with \"-\"") }
            return [text]
        case (.texts, .array(let values)):
            var words: [String] = []
            for value in values {
                guard let text = value.string else { throw wrong("a list of texts", value) }
                guard text.utf8.first != UInt8(ascii: "-") else { throw problem("may not begin with \"-\"") }
                words.append(try line(text))
            }
            return words
        default: throw wrong(kindName, value)
        }
    }

    private static let hostMarks = Set(".-_:%".utf8)
    private static let nameMarks = Set("@._-:\\".utf8)

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte & 0xDF)
    }

    private func line(_ text: String) throws(Problem) -> String {
        guard !text.utf8.contains(where: { $0 == 0 || $0 == 0x0A || $0 == 0x0D }) else {
            throw problem("may not contain line breaks or zero bytes")
        }
        return text
    }

    private func wrong(_ wanted: String, _ value: JSONValue) -> Problem {
        problem("is \(value.kindName), expected \(wanted)")
    }

    func problem(_ text: String) -> Problem {
        .invalid("parameter \"\(name)\" \(text)", pointer: "/parameters/\(name)")
    }

    public var kindName: String {
        switch kind {
        case .text: "text"
        case .integer: "integer"
        case .boolean: "boolean"
        case .choice: "choice"
        case .path: "path"
        case .host: "host"
        case .name: "name"
        case .texts: "texts"
        }
    }
}
