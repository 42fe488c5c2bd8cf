import JSON
import Kernel
import PluginHost
import Web

extension Right {
    public static let readPlugins: Right = "plugin.read"
    public static let managePlugins: Right = "plugin.manage"
}

/// `/api/v1/plugins`: what stands in the plugin directory, what of it runs, and why the rest does not.
public func pluginRoutes(_ host: PluginHost) -> [Route] {
    func change(
        _ verb: String, _ summary: String, _ act: @escaping @Sendable (String, Principal) async throws(Problem) -> Void
    ) -> Route {
        Route(
            .post, "/api/v1/plugins/{id}/\(verb)", right: .managePlugins, summary,
            answers: [Route.Answer(200, "The plugin as it is now.", pluginSchema)]
        ) { (request) async throws(Problem) in
            try await act(request["id"], request.principal)
            return .json(try host.show(request["id"]))
        }
    }
    return [
        Route(
            .get, "/api/v1/plugins", right: .readPlugins, "All plugins with state, reason and remedy.",
            answers: [Route.Answer(200, "Plugins.", page(pluginSchema))]
        ) { (_) async throws(Problem) in
            .json(.page(host.list, next: nil))
        },
        Route(
            .get, "/api/v1/plugins/{id}", right: .readPlugins, "One plugin: grants, services, leases, what it cost.",
            answers: [Route.Answer(200, "The plugin.", pluginSchema)]
        ) { (request) async throws(Problem) in
            .json(try host.show(request["id"]))
        },
        change("approve", "Grants what the file that is there asks for; an unsigned file's approval holds for its hash.") {
            (id, principal) async throws(Problem) in try await host.approve(id, by: principal)
        },
        change("revoke", "Takes every approval of the plugin back; it stops if it needs one.") {
            (id, principal) async throws(Problem) in try await host.revoke(id, by: principal)
        },
        change("enable", "Switches a plugin on again, also after crashes and failures.") {
            (id, principal) async throws(Problem) in try await host.setEnabled(id, true, by: principal)
        },
        change("disable", "Switches a plugin off; its file stays.") {
            (id, principal) async throws(Problem) in try await host.setEnabled(id, false, by: principal)
        },
        Route(
            .delete, "/api/v1/plugins/{id}", right: .managePlugins, "Removes the plugin's file; what it stored stays.",
            answers: [Route.Answer(204, "Removed.")]
        ) { (request) async throws(Problem) in
            try await host.uninstall(request["id"], by: request.principal)
            return .empty
        },
    ]
}

private let pluginSchema = Schema.object([
    .required("id", .string("Reverse domain name; the file's name for what has no readable note.")),
    .required("state", .string("refused, awaiting-approval, waiting, off, loading, running, stopping, failed, fenced or missing.")),
    .optional("name", .string()), .optional("summary", .string()), .optional("version", .string()),
    .optional("file", .string()), .optional("sha256", .string()), .optional("signer", .any("The Ed25519 key, or null.")),
    .optional("replacement", .object([
        .required("version", .string()), .required("sha256", .string()), .required("signer", .any("The Ed25519 key, or null.")),
        .required("capabilities", .array(.string())),
    ])),
    .optional("code", .string("Why it, or its replacement, does not run.")), .optional("reason", .string()), .optional("remedy", .string()),
    .optional("provides", .array(.string())), .optional("requires", .array(.string())), .optional("wants", .array(.string())),
    .optional("capabilities", .array(.string())), .optional("granted", .array(.string())), .optional("routes", .array(.string())),
    .optional("images", .integer()), .optional("generation", .integer()), .optional("image_bytes", .integer()),
    .optional("queue", .integer()), .optional("resources", .integer()), .optional("misuses", .array(.string())),
    .optional("holds", .array(.string())), .optional("held_by", .array(.string())), .optional("accounting", .any()),
])
