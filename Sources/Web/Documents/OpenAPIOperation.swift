import JSON
import Kernel

/// An operation object (OpenAPI 3.1) that comes with a route as text, as plugins bring it. It is parsed and looked over
/// here: what the core itself decides (security, names, servers) it may not say.
public struct OpenAPIOperation: Sendable {
    public static let maximumBytes = 64 << 10

    let object: JSONObject
    let byteCount: Int
    /// Names of schemas that it refers to.
    let references: Set<String>
    /// Its query parameters, for the check of requests.
    let query: [Route.Parameter]

    private static let members: Set<String> = [
        "summary", "description", "parameters", "requestBody", "responses", "deprecated", "externalDocs",
    ]

    public init(parsing text: [UInt8]) throws(Problem) {
        let value = try OpenAPIText.object(text, limit: OpenAPIOperation.maximumBytes, what: "the OpenAPI operation")
        for key in value.keys where !OpenAPIOperation.members.contains(key) {
            throw .invalid("the OpenAPI operation has the member \"\(key.prefix(64))\"; allowed are \(OpenAPIOperation.members.sorted().joined(separator: ", "))")
        }
        for key in ["summary", "description"] where value[key] != nil && value[key]?.string == nil {
            throw .invalid("\"\(key)\" of the OpenAPI operation must be a string")
        }
        guard let responses = value["responses"]?.object, !responses.isEmpty else {
            throw .invalid("the OpenAPI operation needs \"responses\" with at least one answer")
        }
        for response in responses {
            let isStatus = Int(response.key).map { (100...599).contains($0) } ?? (response.key == "default")
            guard isStatus, response.value["description"]?.string != nil else {
                throw .invalid("the answer \"\(response.key.prefix(64))\" of the OpenAPI operation must be a status or default, with a description")
            }
        }
        var query: [Route.Parameter] = []
        for parameter in value["parameters"]?.array ?? [] {
            guard let name = parameter["name"]?.string, (1...64).contains(name.utf8.count) else {
                throw .invalid("each parameter of the OpenAPI operation needs a name of 1 to 64 bytes")
            }
            switch parameter["in"]?.string {
            case "query": query.append(OpenAPIOperation.query(name, parameter["schema"]))
            case "path", "header": break
            default: throw .invalid("the parameter \"\(name)\" of the OpenAPI operation must be in query, path or header")
            }
        }
        guard query.count <= 64 else { throw .invalid("the OpenAPI operation has more than 64 query parameters") }
        var references: Set<String> = []
        try OpenAPIText.collect(.object(value), &references)
        object = value
        byteCount = text.count
        self.query = query
        self.references = references
    }

    /// Numbers and booleans are checked by kind, lists may be repeated; finer rules are the plugin's.
    private static func query(_ name: String, _ schema: JSONValue?) -> Route.Parameter {
        switch schema?["type"]?.string {
        case "integer": .query(name, .integer(in: .min ... .max))
        case "number": .query(name, .number())
        case "boolean": .query(name, .boolean())
        case "array": .query(name, .string(), repeatable: true)
        default: .query(name, .string())
        }
    }
}

/// Schemas that come with a plugin's routes: one JSON object, a schema per name.
public struct OpenAPIComponents: Sendable {
    public static let maximumBytes = 256 << 10

    let schemas: JSONObject
    let byteCount: Int
    var names: Set<String> { Set(schemas.keys) }

    /// None.
    public init() {
        schemas = JSONObject()
        byteCount = 0
    }

    public init(parsing text: [UInt8]) throws(Problem) {
        let value = try OpenAPIText.object(text, limit: OpenAPIComponents.maximumBytes, what: "the OpenAPI schemas")
        for schema in value {
            guard (1...64).contains(schema.key.utf8.count), schema.key.utf8.allSatisfy(OpenAPIText.isNameByte) else {
                throw .invalid("\"\(schema.key.prefix(64))\" is no schema name: 1 to 64 letters, digits, _, - and dots")
            }
            guard schema.value.object != nil else { throw .invalid("the schema \"\(schema.key)\" must be an object") }
        }
        var references: Set<String> = []
        try OpenAPIText.collect(.object(value), &references)
        if let missing = references.subtracting(value.keys).min() {
            throw .invalid("a schema refers to \"\(missing)\", which is not among them")
        }
        schemas = value
        byteCount = text.count
    }
}

enum OpenAPIText {
    static let prefix = "#/components/schemas/"

    static func object(_ text: [UInt8], limit: Int, what: String) throws(Problem) -> JSONObject {
        guard text.count <= limit else { throw .invalid("\(what) has \(text.count) bytes; at most \(limit) are allowed") }
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: text, limits: JSONLimits(depth: 24, bytes: limit))
        } catch {
            throw .invalid("\(what) is not JSON: \(error)")
        }
        guard let object = value.object else { throw .invalid("\(what) is \(value.kindName); it must be an object") }
        return object
    }

    static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }

    /// The schemas that `value` refers to. Only the plugin's own may be named: nothing outside the document.
    static func collect(_ value: JSONValue, _ references: inout Set<String>) throws(Problem) {
        switch value {
        case .array(let elements): for element in elements { try collect(element, &references) }
        case .object(let object):
            for member in object {
                if member.key == "$ref", let target = member.value.string {
                    guard target.hasPrefix(prefix) else {
                        throw .invalid("\"$ref\": \"\(target.prefix(100))\" must begin with \(prefix)")
                    }
                    references.insert(String(target.dropFirst(prefix.count)))
                }
                try collect(member.value, &references)
            }
        default: break
        }
    }

    /// The same text with the owner before the name of each schema, so that two plugins may use one name.
    static func prefixed(_ value: JSONValue, by owner: RouteOwner) -> JSONValue {
        switch value {
        case .array(let elements): return .array(elements.map { prefixed($0, by: owner) })
        case .object(let object):
            return .object(JSONObject(object.map { member in
                if member.key == "$ref", let target = member.value.string, target.hasPrefix(prefix) {
                    return (member.key, .string("\(prefix)\(owner.id).\(target.dropFirst(prefix.count))"))
                }
                return (member.key, prefixed(member.value, by: owner))
            }))
        default: return value
        }
    }
}
