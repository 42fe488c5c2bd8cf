extension Verb {
    static let registry: [Verb] = [
        .list(
            "clients list [SELECTOR]", "/api/v1/clients", "Clients, by selector.",
            ["id", "name", "state", "labels", "facts.os:SYSTEM"]),
        .show("clients show ID", "/api/v1/clients/{ID}", "Everything known of a client."),
    ]
}
