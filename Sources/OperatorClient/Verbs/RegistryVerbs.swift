import JSON

/// Clients, their labels and groups, and how machines become clients.
extension Verb {
    static let registry: [Verb] = [
        .list(
            "clients list [SELECTOR]", "/api/v1/clients", "Clients, by selector.",
            ["id", "name", "hostname", "state", "state_since_ms:SINCE", "address", "labels"],
            flags: [
                .query("q", "TEXT", "Part of id, name, host name or address."),
                .query("sort", "FIELD", "Order; with - in front the other way round."),
                .query("facts", "PATH,…", "Facts to show too (with --output json)."),
            ]),
        .show("clients show ID", "/api/v1/clients/{ID}", "Everything known of a client."),
        .list(
            "clients sessions ID", "/api/v1/clients/{ID}/sessions", "Past links of a client, newest first.",
            ["epoch", "address", "started_ms", "ended_ms", "reason"]),
        .change(
            "PATCH", "clients set ID", "/api/v1/clients/{ID}", "Changes name, notes or metadata of a client.",
            flags: [
                .body("name", "TEXT", "Display name."), .body("notes", "TEXT", "Free text."),
                .body("metadata", "JSON", "Free data; replaces what is there.", .json),
                .body("label", "NAME=VALUE", "Label to set.", .map, as: "labels"),
            ]),
        .delete(
            "clients forget ID", "/api/v1/clients/{ID}", "Forgets a client; its key is unknown from then on.",
            flags: [
                .queryToggle("purge", "Also drop what was kept about it, except the audit trail."),
                .query("reason", "TEXT", "Kept in the audit trail."),
            ]),
        act("disconnect", "Closes a client's link; the agent comes back by itself."),
        .change(
            "POST", "clients move SELECTOR SERVERS", "/api/v1/clients/move",
            "Sends agents to other servers (URL[*WEIGHT][,…]), or to another core; who is not accepted there comes back.",
            flags: [
                .body("fingerprint", "FINGERPRINT", "Identity of the other core."),
                .body("enrollment-token", "TOKEN", "Of the other core; it names the fingerprint too."),
                .body("within", "TIME", "How long the core there may take to accept; 10m by default.", .seconds, as: "within_s"),
            ]),
        act("revoke", "Shuts a client out at once."),
        act("reinstate", "Lets a revoked client in again."),
        .change(
            "POST", "clients resolve ID ACTION", "/api/v1/clients/{ID}/resolve",
            "Decides about a client that two machines claim: replace, split or rekey.",
            flags: [.body("boot-id", "ID", "The machine that keeps the id.")]),
        Verb(
            "label SELECTOR NAME=VALUE…", "Sets labels on clients; NAME- removes one.",
            calls: ["POST /api/v1/clients/labels"],
            .program { (invocation) async throws(OperatorError) in try await invocation.label() }),
        .list(
            "groups list", "/api/v1/groups", "Saved selectors.", ["name", "clients", "selector", "description"], paged: false),
        .show("groups show NAME", "/api/v1/groups/{NAME}", "One group."),
        .change(
            "PUT", "groups set NAME SELECTOR", "/api/v1/groups/{NAME}", "Makes or changes a group.",
            flags: [.body("description", "TEXT", "What it is for.")]),
        .change(
            "POST", "groups create NAME SELECTOR", "/api/v1/groups", "Makes a group; refuses a name that exists.",
            flags: [.body("description", "TEXT", "What it is for.")]),
        .delete("groups delete NAME", "/api/v1/groups/{NAME}", "Removes a group that no other group refers to."),
        .change(
            "POST", "enroll-token create", "/api/v1/enrollment-tokens",
            "Makes an enrollment token; its text is shown once.",
            flags: [
                .body("uses", "N", "Machines that it lets in; 1 by default.", .integer),
                .body("ttl", "TIME", "How long it is good; an hour by default.", .seconds, as: "ttl_s"),
                .body("label", "NAME=VALUE", "Label of each client that it enrolls.", .map, as: "labels"),
                .body("description", "TEXT", "What it is for."),
                .body("client", "ID", "Give this client a new key instead of making a new client."),
            ]),
        .list(
            "enroll-token list", "/api/v1/enrollment-tokens", "Enrollment tokens, newest first; never their text.",
            ["id", "state", "used", "uses", "expires_ms", "created_by", "labels", "description"]),
        .show("enroll-token show ID", "/api/v1/enrollment-tokens/{ID}", "One enrollment token; never its text."),
        .delete("enroll-token revoke ID", "/api/v1/enrollment-tokens/{ID}", "Revokes a token; clients that it enrolled stay."),
        .list(
            "enrollments list", "/api/v1/enrollments", "Machines that wait for approval, oldest first.",
            ["id", "hostname", "address", "fingerprint", "asked_ms:ASKED"], paged: false),
        .show("enrollments show ID", "/api/v1/enrollments/{ID}", "One machine that waits."),
        .change(
            "POST", "enrollments approve ID", "/api/v1/enrollments/{ID}/approve",
            "Makes the machine a client; compare the fingerprint with what the agent shows.",
            flags: [
                .body("name", "TEXT", "Display name."),
                .body("label", "NAME=VALUE", "Label of the client.", .map, as: "labels"),
            ]),
        .change(
            "POST", "enrollments reject ID", "/api/v1/enrollments/{ID}/reject", "Sends the machine away.",
            flags: [.body("reason", "TEXT", "Kept in the audit trail.")], .done("rejected")),
        .show("enrollments policy", "/api/v1/enrollments/policy", "Whether machines are approved by themselves."),
        .change(
            "PUT", "enrollments set-policy", "/api/v1/enrollments/policy", "Switches automatic approval.",
            flags: [
                .body("auto-approve", "true|false", "Let every machine in that proves a key.", .boolean),
                .body("label", "NAME=VALUE", "Label of each of them.", .map, as: "labels"),
            ]),
    ]

    private static func act(_ name: String, _ summary: String) -> Verb {
        .change(
            "POST", "clients \(name) ID", "/api/v1/clients/{ID}/\(name)", summary,
            flags: [.body("reason", "TEXT", "Kept in the audit trail.")], .done("done"))
    }
}

extension Invocation {
    /// `NAME=VALUE` sets, `NAME-` removes.
    func label() async throws(OperatorError) -> Outcome {
        var labels = JSONObject()
        for word in operands["NAME=VALUE"] ?? [] {
            if word.hasSuffix("-"), !word.contains("=") {
                labels[String(word.dropLast())] = .null
            } else {
                let (name, value) = try Self.pair(word, "label")
                labels[name] = .string(value)
            }
        }
        let answer = try await core.post(
            "/api/v1/clients/labels", ["selector": .string(operand("SELECTOR") ?? ""), "labels": .object(labels)])
        if session.isJSON {
            session.showRecord(answer)
        } else {
            let count = answer["changed"]?.integer ?? 0
            console.print(count == 1 ? "1 client changed" : "\(count) clients changed")
        }
        return .success
    }
}
