/// Where and why a JSON text was refused. `description` is fit for people. One word, so that functions that can throw it cost
/// nothing while they do not.
public struct JSONError: Error, Sendable, Equatable {
    public enum Reason: Sendable, Equatable {
        /// Not JSON.
        case syntax
        case badUTF8
        case duplicateKey
        /// Deeper or longer than the limits allow.
        case tooDeep, tooLong
        /// A number that the wanted type cannot hold.
        case numberRange
        /// JSON, but not what the reader asked for: wrong type, or a value that `fail` refused.
        case unexpected
    }

    private struct Fields: Equatable {
        var reason: Reason
        var detail: String
        var offset: Int
        var line: Int
        var column: Int
        var pointer = ""
    }
    private final class Box: Sendable {
        let fields: Fields
        init(_ fields: Fields) { self.fields = fields }
    }
    private let box: Box

    init(reason: Reason, detail: String, offset: Int, line: Int, column: Int) {
        box = Box(Fields(reason: reason, detail: detail, offset: offset, line: line, column: column))
    }

    private init(_ fields: Fields) { box = Box(fields) }

    public var reason: Reason { box.fields.reason }
    /// What was found and what would be right.
    public var detail: String { box.fields.detail }
    /// Bytes from the start of the text.
    public var offset: Int { box.fields.offset }
    /// From 1; the column counts Unicode scalars.
    public var line: Int { box.fields.line }
    public var column: Int { box.fields.column }
    /// RFC 6901 pointer of the innermost value that was being read; empty for the whole text.
    public var pointer: String { box.fields.pointer }

    public static func == (left: JSONError, right: JSONError) -> Bool { left.box.fields == right.box.fields }

    /// The same error seen from the value that holds the member or element.
    func inside(_ token: String) -> JSONError {
        var escaped = ""
        for character in token.unicodeScalars {
            switch character {
            case "~": escaped += "~0"
            case "/": escaped += "~1"
            default: escaped.unicodeScalars.append(character)
            }
        }
        var outer = box.fields
        outer.pointer = "/" + escaped + pointer
        return JSONError(outer)
    }
}

extension JSONError: CustomStringConvertible {
    public var description: String {
        let place = "line \(line), column \(column)"
        return pointer.isEmpty ? "\(place): \(detail)" : "\(place) (\(pointer)): \(detail)"
    }
}

/// Bounds on a text that is not trusted.
public struct JSONLimits: Sendable {
    /// Arrays and objects inside each other; at most 512, because the reader recurses.
    public var depth: Int
    /// Bytes of text.
    public var bytes: Int

    public init(depth: Int = 64, bytes: Int = 16 << 20) {
        self.depth = min(depth, 512)
        self.bytes = bytes
    }
}

public enum JSONSyntax: Sendable {
    /// RFC 8259.
    case strict
    /// Also `//` and `/* */` comments and a comma after the last member: for files that people write.
    case lenient
}
