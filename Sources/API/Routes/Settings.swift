import JSON
import Kernel
import Web

extension Right {
    public static let readSettings: Right = "settings.read"
    public static let writeSettings: Right = "settings.write"
}

/// `/api/v1/settings`: what can be changed while the core runs.
public func settingRoutes(_ settings: Settings) -> [Route] {
    [
        Route(
            .get, "/api/v1/settings", right: .readSettings, "All settings with value, default and what is allowed.",
            answers: [
                Route.Answer(
                    200, "Settings.",
                    .object([.required("items", .array(settingSchema)), .optional("next", .string())]))
            ]
        ) { (_) async throws(Problem) in .json(["items": .array(settings.list()), "next": .null]) },
        Route(
            .get, "/api/v1/settings/{name}", right: .readSettings, "One setting.",
            answers: [Route.Answer(200, "The setting.", settingSchema)]
        ) { (request) async throws(Problem) in .json(try settings.show(request["name"])) },
        Route(
            .put, "/api/v1/settings/{name}", right: .writeSettings, "Changes a setting at once and durably.",
            body: .json(.object([.required("value", .any("Of the setting's type."))])),
            answers: [Route.Answer(200, "The setting.", settingSchema)]
        ) { (request) async throws(Problem) in
            try await settings.set(request["name"], to: request.json["value"], by: request.principal)
            return .json(try settings.show(request["name"]))
        },
        Route(
            .delete, "/api/v1/settings/{name}", right: .writeSettings, "Goes back to the default.",
            answers: [Route.Answer(200, "The setting.", settingSchema)]
        ) { (request) async throws(Problem) in
            try await settings.set(request["name"], to: nil, by: request.principal)
            return .json(try settings.show(request["name"]))
        },
    ]
}

private let settingSchema = Schema.object([
    .required("name", .string()), .required("value", .any()), .required("default", .any()),
    .required("type", .choice(["integer", "boolean", "string", "array"])), .required("summary", .string()),
    .required("changed", .boolean()), .optional("minimum", .integer(in: Int64.min...Int64.max)),
    .optional("maximum", .integer(in: Int64.min...Int64.max)), .optional("choices", .array(.string())),
    .optional("changed_ms", .integer()), .optional("changed_by", .string()),
])
