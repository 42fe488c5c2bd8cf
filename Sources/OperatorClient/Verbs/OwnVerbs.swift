import JSON

/// Verbs that are about `cmctl` itself or about any call at all.
extension Verb {
    static let own: [Verb] = [
        Verb(
            "api METHOD PATH", "Calls the API directly and prints the answer as it comes.",
            flags: [
                .own("data", "JSON|@FILE|-", "The request's body."),
                .own("header", "NAME:VALUE", "A header of the request.", .list),
            ], .program { (invocation) async throws(OperatorError) in try await invocation.api() }),
        .show("health ready", "/health/ready", "Whether the core can serve: each check by name."),
        .show("health live", "/health/live", "Whether the core's process answers."),
        .change("GET", "metrics", "/metrics", "Everything the core counts, for Prometheus.", .text),
        .change("GET", "openapi", "/openapi.json", "The API as an OpenAPI 3.1 document.", .text),
        Verb(
            "completion SHELL", "Prints the completion script for bash, zsh or fish.",
            .program { (invocation) async throws(OperatorError) in
                guard let script = Completions.script(for: invocation.operand("SHELL") ?? "") else {
                    throw .usage("completions exist for bash, zsh and fish")
                }
                invocation.console.print(script)
                return .success
            }),
    ]
}

extension Invocation {
    func api() async throws(OperatorError) -> Outcome {
        let method = (operand("METHOD") ?? "").uppercased()
        guard ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].contains(method) else {
            throw .usage("'\(method)' is no method of the API", advice: "GET, POST, PUT, PATCH, DELETE and HEAD are.")
        }
        let path = operand("PATH") ?? ""
        guard path.hasPrefix("/"), path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw .usage("'\(path)' is no path", advice: "It begins with / and has only printable ASCII characters.")
        }
        var request = APIRequest(method, path)
        if let text = flags.value("data") {
            request.body =
                text == "-" ? try session.content("-")
                : text.hasPrefix("@") ? try session.content(String(text.dropFirst())) : Array(text.utf8)
        }
        for header in flags.values("header") {
            let parts = header.split(separator: ":", maxSplits: 1).map(String.init)
            guard parts.count == 2, header.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
                throw .usage("--header \(header): expected NAME:VALUE")
            }
            let value = parts[1].drop { $0 == " " }
            request.headers.append((name: parts[0].lowercased(), value: String(value)))
        }
        return try await session.pass(request)
    }
}
