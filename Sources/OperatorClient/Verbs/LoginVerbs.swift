import JSON

/// Signing in, and one's own account.
extension Verb {
    static let login: [Verb] = [
        Verb(
            "login [URL]", "Signs in and remembers the core: with --user and a password, or with --token.",
            flags: [
                .own("user", "NAME", "Account to sign in with; the password is asked for."),
                .own("password-file", "FILE", "Read the password from a file, or - for standard input."),
                .own("code", "DIGITS", "One-time code, for accounts with a second factor."),
            ], calls: ["POST /api/v1/sessions", "POST /api/v1/sessions/refresh"],
            .program { (invocation) async throws(OperatorError) in try await invocation.login() }),
        Verb(
            "logout", "Ends the saved session and forgets it.",
            .program { (invocation) async throws(OperatorError) in try await invocation.logout() }),
        .show("sessions current", "/api/v1/sessions/current", "Who I am: account, roles, limits."),
        .list(
            "sessions list", "/api/v1/sessions", "Sessions of people, oldest first.",
            ["id", "user", "address", "created_ms", "expires_ms", "ends_ms"],
            flags: [.query("user", "NAME", "Of this account."), .queryToggle("all", "Of all accounts.")], paged: false),
        .delete("sessions end ID", "/api/v1/sessions/{ID}", "Ends a session and what it has open."),
        .change(
            "POST", "sessions ticket PATH", "/api/v1/sessions/tickets",
            "A ticket that opens the WebSocket at PATH once within 30 s: append it as ?ticket=."),
        .change(
            "POST", "sessions refuse SUBJECT", "/api/v1/sessions/revocations",
            "Refuses a subject (ISSUER#SUBJECT) or a token (ISSUER#jti:ID) of an outside issuer.",
            flags: [.body("ttl", "TIME", "For how long; a year by default.", .seconds, as: "ttl_s")], .done("refused from now on")),
        Verb(
            "sessions password", "Changes my password; all my sessions end.",
            calls: ["POST /api/v1/sessions/password"],
            .program { (invocation) async throws(OperatorError) in
                let old = try invocation.password("Old password", confirm: false)
                let new = try invocation.password("New password", confirm: true)
                _ = try await invocation.core.post(
                    "/api/v1/sessions/password", ["old": .string(old), "new": .string(new)])
                invocation.console.print("changed; sign in again")
                return .success
            }),
        .change(
            "POST", "sessions second-factor", "/api/v1/sessions/second-factor", "A new secret for an authenticator app."),
        .change(
            "PUT", "sessions confirm-second-factor SECRET CODE", "/api/v1/sessions/second-factor",
            "Turns the second factor on with a first code.", .done("on")),
    ]
}

extension Invocation {
    func login() async throws(OperatorError) -> Outcome {
        var choice = try session.choice(server: operand("URL"))
        guard let path = SavedLogin.path(session.environment) else {
            throw .usage("there is no HOME directory to remember the session in")
        }
        if let user = flags.value("user") {
            choice.token = nil
            choice.refresh = nil
            var body: JSONObject = ["name": .string(user), "password": .string(try givenPassword())]
            if let code = flags.value("code") { body["code"] = .string(code) }
            let grant = try await session.core(choice).post("/api/v1/sessions", .object(body))
            guard let token = grant["access_token"]?.string else {
                throw OperatorError(.remoteFailure, "the core gave no session")
            }
            choice.token = token
            choice.refresh = grant["refresh_token"]?.string
        } else if choice.token == nil {
            throw .usage("nothing to sign in with", advice: "Give --user NAME, or --token TOKEN.")
        }
        let me = try await session.core(choice).get("/api/v1/sessions/current")
        try session.files.write(path, SavedLogin(choice: choice).content)
        if session.isJSON {
            session.showRecord(me)
        } else {
            console.print("Signed in to \(choice.server) as \(Table.cell(me["id"] ?? .null)); remembered in \(path).")
        }
        return .success
    }

    func logout() async throws(OperatorError) -> Outcome {
        guard let path = SavedLogin.path(session.environment), let content = session.files.read(path) else {
            console.print("Nobody is signed in.")
            return .success
        }
        let saved = try SavedLogin(parsing: content, path: path)
        if saved.choice.refresh != nil {
            let core = try session.core(saved.choice)
            let me = try? await core.get("/api/v1/sessions/current")
            if let id = me?["credential"]?.string {
                _ = try? await core.call(APIRequest("DELETE", "/api/v1/sessions/" + APIRequest.encoded(id)))
            }
        }
        session.files.remove(path)
        console.print("Signed out of \(saved.choice.server).")
        return .success
    }

    private func givenPassword() throws(OperatorError) -> String {
        guard let file = flags.value("password-file") else { return try password("Password", confirm: false) }
        var bytes = try session.content(file)
        while bytes.last == 0x0A || bytes.last == 0x0D { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Asks on the terminal.
    func password(_ prompt: String, confirm: Bool) throws(OperatorError) -> String {
        guard let answer = console.secret(prompt) else {
            throw .usage("there is no terminal to ask for a password on", advice: "Give --password-file FILE where a verb has it.")
        }
        if confirm, console.secret(prompt + " again") != answer { throw .usage("the two passwords differ") }
        return answer
    }

    /// From `--password-file`, or asked for twice.
    func newPassword() throws(OperatorError) -> String {
        flags.has("password-file") ? try givenPassword() : try password("Password", confirm: true)
    }
}
