import JSON
import Kernel
import Web

extension Right {
    public static let readTemplates: Right = "template.read"
    public static let editTemplates: Right = "template.edit"
}

/// `/api/v1/templates`: the built-in catalogue and the operators' own templates.
public func templateRoutes(_ templates: Templates, now: @escaping @Sendable () -> UInt64) -> [Route] {
    let schema = Schema.object([
        .optional("name", .string()), .optional("version", .integer()), .optional("hash", .string()),
        .optional("built_in", .boolean()), .optional("description", .string(length: 0...1_024)),
        .optional("category", .string(length: 0...64)),
        .optional("parameters", .array(.any("name, type, required, default, description …"), count: 0...64)),
        .optional("argv", .array(.any("A word with {parameter} places, or {\"if\": parameter, \"argv\": [words]}."), count: 0...512)),
        .optional("script", .any("interpreter, body, arguments.")),
        .optional("result", .choice(ResultParser.allCases.map(\.rawValue), "How the output becomes a typed result.")),
    ])
    return [
        Route(
            .get, "/api/v1/templates", right: .readTemplates, "All templates in their newest versions.",
            answers: [Route.Answer(200, "All of them.", CommandWriting.pageSchema(schema))]
        ) { (_) async throws(Problem) in
            var writer = JSONWriter(reserving: 32_768)
            writer.object { writer in
                writer.array("items") { writer in
                    for template in templates.list() { writer.raw(template.text(withHead: true)) }
                }
                writer.key("next")
                writer.null()
            }
            return .json(bytes: writer.finish())
        },
        Route(
            .get, "/api/v1/templates/{name}", right: .readTemplates, "One template.",
            query: [.query("version", .integer("Default: the newest.", in: 1...1_000_000_000))],
            answers: [Route.Answer(200, "The template.", schema)]
        ) { (request) async throws(Problem) in
            let version = request.query.integer("version").map { Int($0) }
            let template = try await templates.get(request["name"], version: version)
            return .json(bytes: template.text(withHead: true)).tagged(template.hash)
        },
        Route(
            .put, "/api/v1/templates/{name}", right: .editTemplates,
            "Stores a template; what was there becomes an older version.", body: .jsonReadByHandler(schema),
            answers: [Route.Answer(200, "The stored version.", schema)]
        ) { (request) async throws(Problem) in
            let template = try await templates.put(request["name"], request.body, request.principal, now: now())
            return .json(bytes: template.text(withHead: true))
        },
        Route(
            .delete, "/api/v1/templates/{name}", right: .editTemplates, "Takes a template out of use.",
            answers: [Route.Answer(204, "Done.")]
        ) { (request) async throws(Problem) in
            try await templates.remove(request["name"], request.principal)
            return .empty
        },
    ]
}
