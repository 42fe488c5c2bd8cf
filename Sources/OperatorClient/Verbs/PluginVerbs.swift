/// Plugins of the core.
extension Verb {
    static let plugins: [Verb] = [
        .list(
            "plugins list", "/api/v1/plugins", "Plugins with their state, and why one does not run.",
            ["id", "version", "state", "code", "reason", "remedy"], paged: false),
        .show("plugins show ID", "/api/v1/plugins/{ID}", "One plugin: grants, services, leases, what it cost."),
        .change("POST", "plugins approve ID", "/api/v1/plugins/{ID}/approve", "Grants what its file asks for."),
        .change("POST", "plugins revoke ID", "/api/v1/plugins/{ID}/revoke", "Takes its approvals back."),
        .change("POST", "plugins enable ID", "/api/v1/plugins/{ID}/enable", "Switches it on again."),
        .change("POST", "plugins disable ID", "/api/v1/plugins/{ID}/disable", "Switches it off."),
        .change("DELETE", "plugins uninstall ID", "/api/v1/plugins/{ID}", "Removes its file."),
    ]
}
