/// Where and why a JSON text was refused. `description` is fit for people.
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

    public var reason: Reason
    /// What was found and what would be right.
    public var detail: String
    /// Bytes from the start of the text.
    public var offset: Int
    /// From 1; the column counts Unicode scalars.
    public var line: Int
    public var column: Int
    /// RFC 6901 pointer of the innermost value that was being read; empty for the whole text.
    public var pointer: String = ""

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
        var outer = self
        outer.pointer = "/" + escaped + pointer
        return outer
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
