import JSON
import Kernel

/// The shape of a JSON value: checks request bodies and writes itself into the OpenAPI document, so that what is
/// documented is what is enforced.
public indirect enum Schema: Sendable {
    /// Lengths are counted in UTF-8 bytes.
    case string(String = "", length: ClosedRange<Int> = 0...4_096)
    case choice([String], String = "")
    case integer(String = "", in: ClosedRange<Int64> = 0...Int64.max)
    case number(String = "")
    case boolean(String = "")
    case array(Schema, String = "", count: ClosedRange<Int> = 0...10_000)
    /// Exactly these members; others are refused by name.
    case object([Member], String = "")
    /// Any member names, all values of one shape.
    case map(Schema, String = "", count: ClosedRange<Int> = 0...1_000)
    case any(String = "")

    public struct Member: Sendable {
        let name: String
        let schema: Schema
        let isRequired: Bool

        public static func required(_ name: String, _ schema: Schema) -> Member {
            Member(name: name, schema: schema, isRequired: true)
        }
        /// `null` counts as absent.
        public static func optional(_ name: String, _ schema: Schema) -> Member {
            Member(name: name, schema: schema, isRequired: false)
        }
    }

    /// Throws what is wrong with `value`, with a JSON pointer (RFC 6901) to the place.
    public func check(_ value: JSONValue, at pointer: String = "") throws(Problem) {
        switch self {
        case .any: return
        case .string(_, let length):
            guard let text = value.string else { throw mismatch("a string", value, pointer) }
            guard length.contains(text.utf8.count) else {
                throw .invalid(
                    "\(name(pointer)) has \(text.utf8.count) bytes; allowed are \(length.lowerBound) to \(length.upperBound)",
                    pointer: pointer)
            }
        case .choice(let choices, _):
            guard let text = value.string, choices.contains(text) else {
                throw .invalid(
                    "\(name(pointer)) is \(Schema.shown(value)); allowed are \(choices.joined(separator: ", "))",
                    pointer: pointer)
            }
        case .integer(_, let range):
            guard let number = value.integer else { throw mismatch("a whole number", value, pointer) }
            guard range.contains(number) else {
                throw .invalid(
                    "\(name(pointer)) is \(number); allowed are \(range.lowerBound) to \(range.upperBound)",
                    pointer: pointer)
            }
        case .number: guard value.number != nil else { throw mismatch("a number", value, pointer) }
        case .boolean: guard value.bool != nil else { throw mismatch("true or false", value, pointer) }
        case .array(let element, _, let count):
            guard let elements = value.array else { throw mismatch("an array", value, pointer) }
            guard count.contains(elements.count) else {
                throw .invalid(
                    "\(name(pointer)) has \(elements.count) elements; allowed are \(count.lowerBound) to \(count.upperBound)",
                    pointer: pointer)
            }
            for (index, item) in elements.enumerated() { try element.check(item, at: "\(pointer)/\(index)") }
        case .object(let members, _):
            guard let object = value.object else { throw mismatch("an object", value, pointer) }
            try Schema.check(object, members, at: pointer)
        case .map(let element, _, let count):
            guard let object = value.object else { throw mismatch("an object", value, pointer) }
            guard count.contains(object.count) else {
                throw .invalid(
                    "\(name(pointer)) has \(object.count) members; allowed are \(count.lowerBound) to \(count.upperBound)",
                    pointer: pointer)
            }
            for member in object { try element.check(member.value, at: pointer + "/" + Schema.escaped(member.key)) }
        }
    }

    private static func check(_ object: JSONObject, _ members: [Member], at pointer: String) throws(Problem) {
        for member in members {
            guard let value = object[member.name], !(value.isNull && !member.isRequired) else {
                guard !member.isRequired else {
                    throw .invalid("the member \"\(member.name)\" is missing", pointer: pointer + "/" + member.name)
                }
                continue
            }
            try member.schema.check(value, at: pointer + "/" + escaped(member.name))
        }
        for entry in object where !members.contains(where: { $0.name == entry.key }) {
            let known = members.map(\.name).joined(separator: ", ")
            throw .invalid(
                "unknown member \"\(String(entry.key.prefix(64)))\"; known are \(known)",
                pointer: pointer + "/" + escaped(entry.key))
        }
    }

    private func mismatch(_ expected: String, _ value: JSONValue, _ pointer: String) -> Problem {
        .invalid("\(name(pointer)) is \(value.kindName); it must be \(expected)", pointer: pointer)
    }

    private func name(_ pointer: String) -> String { pointer.isEmpty ? "the body" : "\"\(pointer)\"" }

    private static func shown(_ value: JSONValue) -> String {
        value.string.map { "\"\($0.prefix(64))\"" } ?? value.kindName
    }

    private static func escaped(_ key: String) -> String {
        var text = ""
        for character in key.prefix(64) {
            switch character {
            case "~": text += "~0"
            case "/": text += "~1"
            default: text.append(character)
            }
        }
        return text
    }
}

extension Schema {
    /// As JSON Schema 2020-12, the dialect of OpenAPI 3.1.
    public var document: JSONValue {
        switch self {
        case .any(let text): Schema.described(text, [:])
        case .string(let text, let length):
            Schema.described(
                text, ["type": "string", "minLength": .integer(Int64(length.lowerBound)),
                    "maxLength": .integer(Int64(length.upperBound))])
        case .choice(let choices, let text):
            Schema.described(text, ["type": "string", "enum": .array(choices.map { .string($0) })])
        case .integer(let text, let range):
            Schema.described(
                text, ["type": "integer", "minimum": .integer(range.lowerBound), "maximum": .integer(range.upperBound)])
        case .number(let text): Schema.described(text, ["type": "number"])
        case .boolean(let text): Schema.described(text, ["type": "boolean"])
        case .array(let element, let text, let count):
            Schema.described(
                text, ["type": "array", "items": element.document, "minItems": .integer(Int64(count.lowerBound)),
                    "maxItems": .integer(Int64(count.upperBound))])
        case .map(let element, let text, let count):
            Schema.described(
                text, ["type": "object", "additionalProperties": element.document,
                    "maxProperties": .integer(Int64(count.upperBound))])
        case .object(let members, let text): Schema.objectDocument(members, text)
        }
    }

    private static func objectDocument(_ members: [Member], _ text: String) -> JSONValue {
        var properties = JSONObject()
        for member in members {
            properties[member.name] = member.isRequired ? member.schema.document : orNull(member.schema.document)
        }
        var object: JSONObject = ["type": "object", "properties": .object(properties), "additionalProperties": false]
        let required = members.filter(\.isRequired).map { JSONValue.string($0.name) }
        if !required.isEmpty { object["required"] = .array(required) }
        return described(text, object)
    }

    /// An optional member may be there and `null`, in what is sent and in what is answered.
    private static func orNull(_ document: JSONValue) -> JSONValue {
        guard var object = document.object, let type = object["type"] else { return document }
        object["type"] = .array([type, "null"])
        if let choices = object["enum"]?.array { object["enum"] = .array(choices + [.null]) }
        return .object(object)
    }

    private static func described(_ text: String, _ object: JSONObject) -> JSONValue {
        var object = object
        if !text.isEmpty { object["description"] = .string(text) }
        return .object(object)
    }
}
