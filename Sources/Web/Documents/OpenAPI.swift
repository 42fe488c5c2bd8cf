import JSON
import Transport

/// The OpenAPI 3.1 document of a route table.
public enum OpenAPI {
    /// - Parameter groups: the core's first.
    static func document(_ groups: [RouteGroup], title: String, version: String) -> JSONValue {
        var paths = JSONObject()
        var schemas: JSONObject = ["Problem": problem]
        for group in groups {
            for route in group.routes {
                var item = paths[route.pattern]?.object ?? JSONObject()
                item[route.method.rawValue.lowercased()] = .object(operation(route, of: group.owner))
                paths[route.pattern] = .object(item)
            }
            for schema in group.components.schemas {
                schemas["\(group.owner.id).\(schema.key)"] = OpenAPIText.prefixed(schema.value, by: group.owner)
            }
        }
        return [
            "openapi": "3.1.0",
            "info": ["title": .string(title), "version": .string(version)],
            "paths": .object(paths),
            "components": [
                "securitySchemes": ["bearer": ["type": "http", "scheme": "bearer"]],
                "schemas": .object(schemas),
            ],
        ]
    }

    private static func operation(_ route: Route, of owner: RouteOwner) -> JSONObject {
        var operation: JSONObject = [
            "operationId": .string(identifier(route)),
            "summary": .string(route.summary),
            "tags": [.string(route.area)],
        ]
        let parameters = pathParameters(route) + route.query.map(queryParameter)
        if !parameters.isEmpty { operation["parameters"] = .array(parameters) }
        switch route.body {
        case .none: break
        case .json(let schema, _), .jsonReadByHandler(let schema, _):
            operation["requestBody"] = content("application/json", schema.document, required: true)
        case .bytes(let contentType, _), .stream(let contentType, _):
            operation["requestBody"] = content(contentType, ["type": "string", "format": "binary"], required: true)
        }
        operation["responses"] = .object(responses(route))
        if let own = route.operation { merge(own, into: &operation, route, owner) }
        if case .webSocket(let limits, _, _) = route.action {
            operation["x-websocket"] = [
                "maximum_message_bytes": .integer(Int64(limits.maximumMessage)),
                "subprotocols": .array(limits.subprotocols.map { .string($0) }),
            ]
            operation["parameters"] = .array((operation["parameters"]?.array ?? []) + [ticket])
        }
        if !owner.isCore { operation["x-plugin"] = .string(owner.id) }
        switch route.access {
        case .open: operation["security"] = []
        case .signedIn: operation["security"] = [["bearer": []]]
        case .right(let right):
            operation["security"] = [["bearer": []]]
            operation["x-right"] = .string(right.rawValue)
        }
        return operation
    }

    /// What the route's own text says goes before what its fields say, except for the path's parameters: the pattern
    /// decides which those are.
    private static func merge(
        _ own: OpenAPIOperation, into operation: inout JSONObject, _ route: Route, _ owner: RouteOwner
    ) {
        for member in own.object where member.key != "parameters" && member.key != "responses" {
            operation[member.key] = OpenAPIText.prefixed(member.value, by: owner)
        }
        let described = own.object["parameters"]?.array ?? []
        let path = route.parameterNames.enumerated().map { index, name in
            described.first { $0["in"]?.string == "path" && $0["name"]?.string == name } ?? pathParameters(route)[index]
        }
        let parameters = path + described.filter { $0["in"]?.string != "path" }
        if !parameters.isEmpty { operation["parameters"] = OpenAPIText.prefixed(.array(parameters), by: owner) }
        var responses = self.responses(route)
        for response in own.object["responses"]?.object ?? [:] {
            responses[response.key] = OpenAPIText.prefixed(response.value, by: owner)
        }
        operation["responses"] = .object(responses)
    }

    private static func responses(_ route: Route) -> JSONObject {
        var responses = JSONObject()
        if case .webSocket = route.action {
            responses["101"] = ["description": "The connection is a WebSocket from here on (RFC 6455)."]
        }
        for answer in route.answers {
            var response: JSONObject = ["description": .string(answer.description)]
            if answer.schema != nil || answer.contentTypes != ["application/json"] {
                let shape: JSONValue = answer.schema.map { ["schema": $0.document] } ?? [:]
                response["content"] = .object(JSONObject(answer.contentTypes.map { ($0, shape) }))
            }
            responses[String(answer.status)] = .object(response)
        }
        responses["default"] = [
            "description": "A problem document (RFC 9457).",
            "content": ["application/problem+json": ["schema": ["$ref": "#/components/schemas/Problem"]]],
        ]
        return responses
    }

    private static func pathParameters(_ route: Route) -> [JSONValue] {
        route.parameterNames.map { name in
            ["name": .string(name), "in": "path", "required": true, "schema": ["type": "string"]]
        }
    }

    private static func queryParameter(_ parameter: Route.Parameter) -> JSONValue {
        let schema: JSONValue =
            parameter.isRepeatable
            ? ["type": "array", "items": parameter.schema.document] : parameter.schema.document
        return ["name": .string(parameter.name), "in": "query", "schema": schema]
    }

    private static func content(_ type: String, _ schema: JSONValue, required: Bool) -> JSONValue {
        ["required": .bool(required), "content": .object([type: ["schema": schema]])]
    }

    /// `getClientsId` for `GET /api/v1/clients/{id}`.
    private static func identifier(_ route: Route) -> String {
        var name = route.method.rawValue.lowercased()
        for segment in route.pattern.split(separator: "/") where segment != "api" && segment != "v1" {
            for word in segment.split(whereSeparator: { !$0.isLetter && !$0.isNumber }) {
                name += word.prefix(1).uppercased() + word.dropFirst()
            }
        }
        return name
    }

    private static let ticket: JSONValue = [
        "name": "ticket", "in": "query", "schema": ["type": "string"],
        "description": "Instead of the Authorization field: a one-time ticket of POST /api/v1/sessions/tickets.",
    ]

    private static let problem: JSONValue = [
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": [
            "type": ["type": "string"],
            "title": ["type": "string"],
            "status": ["type": "integer"],
            "code": ["type": "string", "description": "Stable; listed in Docs/errors.md."],
            "detail": ["type": "string"],
            "pointer": ["type": "string", "description": "JSON pointer to the member that was wrong."],
            "archived": [
                "type": "object", "required": ["remote", "key", "bytes"],
                "description": "Where what is gone here can be had: an object of this remote.",
                "properties": ["remote": ["type": "string"], "key": ["type": "string"], "bytes": ["type": "integer"]],
            ],
            "correlation": ["type": "string"],
        ],
    ]
}
