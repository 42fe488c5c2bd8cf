/// Names that are spoken for: areas of the API, and first words of events and audit actions.
enum CoreAreas {
    /// Areas below /api/v1 that no plugin gets.
    static let routes: Set<String> = [
        "sessions", "clients", "groups", "commands", "templates", "schedules", "enrollments", "enrollment-tokens", "users",
        "tokens", "roles", "policies", "audit", "events", "webhooks", "files", "transfers", "jobs", "plugins", "limits",
        "settings", "identity", "upgrades",
    ]
    /// Areas of first-party plugins: other files get them when an operator approves it, like a capability.
    static let firstParty: Set<String> = ["terminal", "cloud", "installations", "secrets"]

    /// First words of the core's own events and audit records: no plugin speaks in them, whatever the last word of its id.
    static let words: Set<String> = [
        "agent", "audit", "client", "command", "core", "enrollment", "enrollment-policy", "enrollment-token", "event", "file",
        "group", "identity", "job", "limit", "output", "plugin", "policy", "role", "schedule", "secret", "security", "session",
        "settings", "setting", "store", "template", "token", "transfer", "user", "webhook",
    ]
}
