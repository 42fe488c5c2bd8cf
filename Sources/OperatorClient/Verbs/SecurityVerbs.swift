import JSON

/// Who may do what: accounts, tokens, roles, the command policy, limits, the core's identity.
extension Verb {
    static let security: [Verb] = [
        .list(
            "users list", "/api/v1/users", "All accounts.", ["name", "roles", "disabled", "second_factor", "created_ms"], paged: false),
        .show("users show NAME", "/api/v1/users/{NAME}", "One account."),
        Verb(
            "users create NAME", "Makes an account; the password is asked for.",
            flags: [
                .body("role", "NAME", "A role of the account.", .list, as: "roles"),
                .own("password-file", "FILE", "Read the password from a file, or - for standard input."),
            ],
            calls: ["POST /api/v1/users"],
            .program { (invocation) async throws(OperatorError) in
                var body: JSONObject = [
                    "name": .string(invocation.operand("NAME") ?? ""), "password": .string(try invocation.newPassword()),
                ]
                let roles = invocation.flags.values("role")
                if !roles.isEmpty { body["roles"] = .array(roles.map { .string($0) }) }
                invocation.session.showRecord(try await invocation.core.post("/api/v1/users", .object(body)))
                return .success
            }),
        .change(
            "PATCH", "users set NAME", "/api/v1/users/{NAME}", "Changes roles of an account, or disables it.",
            flags: [
                .body("role", "NAME", "The roles; repeat for more.", .list, as: "roles"),
                .body("disabled", "true|false", "Whether it may sign in.", .boolean),
            ]),
        Verb(
            "users password NAME", "Sets a password for somebody; their sessions end.",
            flags: [.own("password-file", "FILE", "Read the password from a file, or - for standard input.")],
            calls: ["PATCH /api/v1/users/{NAME}"],
            .program { (invocation) async throws(OperatorError) in
                var request = APIRequest("PATCH", "/api/v1/users/" + APIRequest.encoded(invocation.operand("NAME") ?? ""))
                request.body = JSONValue.object(["password": .string(try invocation.newPassword())]).serialized()
                invocation.session.showRecord(try await invocation.core.call(request))
                return .success
            }),
        .delete("users delete NAME", "/api/v1/users/{NAME}", "Deletes an account, its sessions and its tokens."),
        .delete(
            "users remove-second-factor NAME", "/api/v1/users/{NAME}/second-factor",
            "Turns a second factor off, for somebody who lost the device."),
        .list(
            "tokens list", "/api/v1/tokens", "API tokens; never their text.",
            ["id", "name", "owner", "roles", "rate", "expires_ms", "last_used_ms"], paged: false),
        .show("tokens show ID", "/api/v1/tokens/{ID}", "One API token; never its text."),
        .change(
            "POST", "tokens create NAME", "/api/v1/tokens", "Makes an API token; its text is shown once.",
            flags: [
                .body("role", "NAME", "A role of the token; repeat for more.", .list, as: "roles"),
                .body("scope", "ACTION", "Narrow it to this action; repeat for more.", .list, as: "scopes"),
                .body("network", "CIDR", "Only from this range; repeat for more.", .list, as: "networks"),
                .body("rate", "N", "Requests per second; 100 by default.", .integer),
                .body("ttl", "TIME", "How long it is good; for ever by default.", .seconds, as: "ttl_s"),
            ]),
        .delete("tokens revoke ID", "/api/v1/tokens/{ID}", "Revokes an API token and closes what it has open."),
        .list("roles list", "/api/v1/roles", "All roles.", ["name", "built_in", "summary"], paged: false),
        .show("roles show NAME", "/api/v1/roles/{NAME}", "One role with its rules."),
        .change(
            "PUT", "roles set NAME", "/api/v1/roles/{NAME}", "Makes a role or replaces its rules.",
            flags: [
                .body("rules", "JSON|@FILE", "List of {effect, actions, selector}.", .json),
                .body("summary", "TEXT", "What it is for."),
            ]),
        .delete("roles delete NAME", "/api/v1/roles/{NAME}", "Deletes a role that nobody has."),
        .list(
            "policies list", "/api/v1/policies", "The rules of the command policy.",
            ["id", "effect", "argv", "preset", "shell", "anything", "roles", "users", "selector"], paged: false),
        .change(
            "POST", "policies add", "/api/v1/policies", "Adds a rule; one that denies wins.",
            flags: [
                .body("effect", "allow|deny", "What it does."),
                .body("argv", "GLOB", "One pattern per argument; a last ... for any more.", .list),
                .body("preset", "LEVEL", "safe, moderate, dangerous or restricted."),
                .bodyToggle("shell", "Shell texts."), .bodyToggle("anything", "Any command."),
                .body("role", "NAME", "Only for this role; repeat for more.", .list, as: "roles"),
                .body("user", "NAME", "Only for this account; repeat for more.", .list, as: "users"),
                .body("selector", "SELECTOR", "Only on these clients."),
            ]),
        .delete("policies delete ID", "/api/v1/policies/{ID}", "Takes a rule out."),
        Verb(
            "policies check -- ARGV…", "Where I could run a command now; runs nothing.",
            flags: [.own("shell", nil, "Ask about shell texts.", .toggle)], calls: ["POST /api/v1/policies/check"],
            .program { (invocation) async throws(OperatorError) in
                let body: JSONObject =
                    invocation.flags.has("shell")
                    ? ["shell": true] : ["argv": .array((invocation.rest ?? []).map { .string($0) })]
                invocation.session.showRecord(try await invocation.core.post("/api/v1/policies/check", .object(body)))
                return .success
            }),
        .list(
            "limits list", "/api/v1/limits", "Rate limits in use, busiest first, and log-in locks.",
            ["id", "kind", "account", "remaining", "limit", "reset_ms"], paged: false),
        .change(
            "POST", "limits reset [KEY]", "/api/v1/limits/reset", "Fills a limit again or lifts locks; all without KEY.",
            .done("reset")),
        .show("identity show", "/api/v1/identity", "Fingerprints of the core and its authority."),
        .change(
            "POST", "identity rotate", "/api/v1/identity/rotate", "Makes the backup key the identity of the core.",
            flags: [.body("valid-days", "N", "How long agents accept the old key's word; 90 by default.", .integer)]),
    ]
}
