extension Role {
    /// The roles that every core has.
    static let builtIn: [Role] = [
        builtIn("administrator", "everything, everywhere", ["*"]),
        builtIn(
            "operator", "works with all clients: commands, files, terminals, labels; no users, roles or settings",
            [
                "client.read", "client.label", "client.edit", "client.disconnect", "group.read", "command.run",
                "command.read", "command.cancel", "output.read", "template.read", "template.run", "schedule.read",
                "schedule.edit", "file.read", "file.write", "transfer.read", "transfer.create", "transfer.cancel",
                "terminal.open", "terminal.read", "job.read", "job.create", "job.cancel", "event.read", "limit.read",
                "enrollment.read", "release.read", "upgrade.read",
            ]),
        builtIn(
            "viewer", "sees clients, commands and events; changes nothing, reads no output and no files",
            [
                "client.read", "group.read", "command.read", "template.read", "schedule.read", "transfer.read",
                "job.read", "event.read", "limit.read", "enrollment.read", "release.read", "upgrade.read",
            ]),
    ]

    private static func builtIn(_ name: String, _ summary: String, _ actions: [String]) -> Role {
        Role(
            name: name, summary: summary, rules: [RoleRule(.allow, actions.compactMap { try? RightPattern($0) })],
            isBuiltIn: true)
    }
}

extension Right {
    /// Rights over single clients: a role may give them for some clients only, and handlers ask `Security.scope`. Every
    /// other right is about the core as a whole, and only a rule over all clients gives it.
    var isAboutClients: Bool {
        let area = rawValue.prefix { $0 != "." }
        switch area {
        case "client", "command", "output", "file", "private-file", "transfer", "terminal", "installation", "upgrade": return true
        default: return false
        }
    }
}
