import Glibc

/// The part of JSON Schema (2020-12) that configurations and job arguments need: a value is checked, and the first fault is
/// told with its place and what would be right.
///
/// Understood: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`, `minimum`, `maximum`,
/// `minLength`, `maxLength`, `minItems`, `maxItems`, and, without effect, `title`, `description`, `default`, `examples`,
/// `format`, `$schema`. Any other keyword is refused when the schema is made: a rule that is not checked would be a lie.
public struct JSONSchema: Sendable, Equatable {
    public let json: JSONValue

    /// What is wrong with the schema itself.
    public struct Fault: Error, Sendable, Equatable, CustomStringConvertible {
        /// JSON pointer into the value (or into the schema).
        public let pointer: String
        public let text: String
        public var description: String { pointer.isEmpty ? text : "\(pointer): \(text)" }
    }

    public init(_ json: JSONValue) throws(Fault) {
        try Self.verify(json, "", depth: 16)
        self.json = json
    }

    /// - Throws: the first thing that does not fit.
    public func check(_ value: JSONValue) throws(Fault) { try Self.check(value, json, "") }

    private static let types: Set<String> = ["object", "array", "string", "integer", "number", "boolean", "null"]
    private static let counts: Set<String> = ["minLength", "maxLength", "minItems", "maxItems"]
    private static let silent: Set<String> = ["title", "description", "default", "examples", "format", "$schema"]

    private static func verify(_ schema: JSONValue, _ at: String, depth: Int) throws(Fault) {
        if schema.bool != nil { return }
        guard depth > 0, let object = schema.object else {
            throw Fault(pointer: at, text: depth > 0 ? "a schema must be an object or a boolean" : "the schema is nested too deeply")
        }
        for member in object {
            let place = at + "/" + member.key
            switch member.key {
            case "type":
                let names = member.value.array?.map { $0.string } ?? [member.value.string]
                guard names.allSatisfy({ $0.map(types.contains) ?? false }) else {
                    throw Fault(pointer: place, text: "must be one of \(types.sorted().joined(separator: ", ")), or an array of them")
                }
            case "enum": guard member.value.array != nil else { throw Fault(pointer: place, text: "must be an array") }
            case "const": break
            case "required":
                guard let names = member.value.array, names.allSatisfy({ $0.string != nil }) else {
                    throw Fault(pointer: place, text: "must be an array of names")
                }
            case "properties":
                guard let properties = member.value.object else { throw Fault(pointer: place, text: "must be an object") }
                for property in properties { try verify(property.value, place + "/" + property.key, depth: depth - 1) }
            case "items", "additionalProperties": try verify(member.value, place, depth: depth - 1)
            case "minimum", "maximum": guard member.value.number != nil else { throw Fault(pointer: place, text: "must be a number") }
            case let name where counts.contains(name):
                guard let count = member.value.integer, count >= 0 else {
                    throw Fault(pointer: place, text: "must be a whole number from 0 on")
                }
            case let name where silent.contains(name): break
            default:
                throw Fault(pointer: place, text: "the keyword is not understood, so it would not be checked")
            }
        }
    }

    private static func check(_ value: JSONValue, _ schema: JSONValue, _ at: String) throws(Fault) {
        if let allowed = schema.bool {
            guard allowed else { throw Fault(pointer: at, text: "is not allowed here") }
            return
        }
        if let type = schema["type"] {
            let names = type.array?.compactMap { $0.string } ?? [type.string ?? ""]
            guard names.contains(where: { fits(value, $0) }) else {
                throw Fault(pointer: at, text: "must be \(names.joined(separator: " or ")), found \(value.kindName)")
            }
        }
        if let allowed = schema["enum"]?.array, !allowed.contains(value) {
            let texts = allowed.map { String(decoding: $0.serialized(), as: UTF8.self) }
            throw Fault(pointer: at, text: "must be one of \(texts.joined(separator: ", "))")
        }
        if let only = schema["const"], only != value {
            throw Fault(pointer: at, text: "must be \(String(decoding: only.serialized(), as: UTF8.self))")
        }
        switch value {
        case .object(let object): try check(object, schema, at)
        case .array(let array):
            try bound(array.count, schema, "minItems", "maxItems", "items", at)
            if let items = schema["items"] {
                for (index, item) in array.enumerated() { try check(item, items, at + "/\(index)") }
            }
        case .string(let text): try bound(text.unicodeScalars.count, schema, "minLength", "maxLength", "characters", at)
        case .integer, .number:
            let number = value.number ?? 0
            if let least = schema["minimum"]?.number, number < least {
                throw Fault(pointer: at, text: "must be at least \(shown(schema["minimum"]))")
            }
            if let most = schema["maximum"]?.number, number > most {
                throw Fault(pointer: at, text: "must be at most \(shown(schema["maximum"]))")
            }
        case .null, .bool: break
        }
    }

    private static func check(_ object: JSONObject, _ schema: JSONValue, _ at: String) throws(Fault) {
        for name in schema["required"]?.array ?? [] {
            if let name = name.string, object[name] == nil { throw Fault(pointer: at, text: "\"\(name)\" is missing") }
        }
        let properties = schema["properties"]?.object
        for member in object {
            let place = at + "/" + member.key
            if let known = properties?[member.key] {
                try check(member.value, known, place)
            } else if let others = schema["additionalProperties"] {
                if others.bool == false {
                    let names = (properties?.map(\.key) ?? []).sorted().joined(separator: ", ")
                    throw Fault(pointer: place, text: "is not known" + (names.isEmpty ? "" : "; known are \(names)"))
                }
                try check(member.value, others, place)
            }
        }
    }

    private static func fits(_ value: JSONValue, _ type: String) -> Bool {
        switch type {
        case "object": value.object != nil
        case "array": value.array != nil
        case "string": value.string != nil
        case "boolean": value.bool != nil
        case "null": value.isNull
        case "integer": value.integer != nil
        default: value.number != nil
        }
    }

    private static func bound(
        _ count: Int, _ schema: JSONValue, _ least: String, _ most: String, _ what: String, _ at: String
    ) throws(Fault) {
        if let limit = schema[least]?.integer, Int64(count) < limit {
            throw Fault(pointer: at, text: "must have at least \(limit) \(what), has \(count)")
        }
        if let limit = schema[most]?.integer, Int64(count) > limit {
            throw Fault(pointer: at, text: "must have at most \(limit) \(what), has \(count)")
        }
    }

    private static func shown(_ value: JSONValue?) -> String { value.map { String(decoding: $0.serialized(), as: UTF8.self) } ?? "" }
}
