// The standard library's Double refers to libm, which is linked only where this is imported.
import Glibc

/// A whole JSON value in memory. For large or hot texts read with `JSONReader` instead.
///
/// A number is `.integer` exactly when its text has neither fraction nor exponent; integers outside Int64 are refused by
/// the parser rather than rounded.
public enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    public var isNull: Bool {
        if case .null = self { true } else { false }
    }

    public var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }
    /// Also a number such as `3.0` that stands for a whole number.
    public var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int64(exactly: value)
        default: nil
        }
    }
    public var number: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
    public var string: String? {
        if case .string(let value) = self { value } else { nil }
    }
    public var array: [JSONValue]? {
        if case .array(let value) = self { value } else { nil }
    }
    public var object: JSONObject? {
        if case .object(let value) = self { value } else { nil }
    }

    /// The member of an object; `nil` when this is no object or has no such member.
    public subscript(key: String) -> JSONValue? { object?[key] }

    /// What this is, for error messages: "a string", "an object".
    public var kindName: String {
        switch self {
        case .null: "null"
        case .bool: "true or false"
        case .integer, .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

extension JSONValue {
    /// Parses exactly one value; anything but white space after it is an error.
    public init(
        parsing bytes: [UInt8], limits: JSONLimits = .init(), syntax: JSONSyntax = .strict
    ) throws(JSONError) {
        self = try JSONReader.read(bytes, limits: limits, syntax: syntax) { reader throws(JSONError) in
            try reader.value()
        }
    }

    public init(
        parsing text: String, limits: JSONLimits = .init(), syntax: JSONSyntax = .strict
    ) throws(JSONError) {
        try self.init(parsing: Array(text.utf8), limits: limits, syntax: syntax)
    }

    /// The text without any white space.
    public func serialized() -> [UInt8] {
        var writer = JSONWriter()
        writer.value(self)
        return writer.finish()
    }

    /// Two spaces of indentation, for people.
    public func pretty() -> String {
        var text = ""
        appendPretty(to: &text, indentation: "")
        return text
    }

    private func appendPretty(to text: inout String, indentation: String) {
        let inner = indentation + "  "
        switch self {
        case .array(let elements) where !elements.isEmpty:
            text += "["
            for (index, element) in elements.enumerated() {
                text += index == 0 ? "\n" : ",\n"
                text += inner
                element.appendPretty(to: &text, indentation: inner)
            }
            text += "\n" + indentation + "]"
        case .object(let object) where !object.isEmpty:
            text += "{"
            for (index, member) in object.enumerated() {
                text += index == 0 ? "\n" : ",\n"
                text += inner + String(decoding: JSONValue.string(member.key).serialized(), as: UTF8.self) + ": "
                member.value.appendPretty(to: &text, indentation: inner)
            }
            text += "\n" + indentation + "}"
        default:
            text += String(decoding: serialized(), as: UTF8.self)
        }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByNilLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .number(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(nilLiteral: ()) { self = .null }
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JSONValue)...) { self = .object(JSONObject(elements)) }
}

extension JSONValue: CustomStringConvertible {
    public var description: String { String(decoding: serialized(), as: UTF8.self) }
}
