import JSON
import PluginKit

/// `POST /api/v1/secrets/commands`: a command that gets secrets as variables of its environment, and whose kept output is masked.
struct CommandRoutes {
    let routes: SecretRoutes
    let fleet: Fleet

    func add() throws(PluginError) {
        try routes.host.http().route(
            SecretRoutes.bodied(
                .post, SecretRoutes.base + "/commands", "secrets.use", "Runs a command with secrets in its environment.", Operations.commands)
        ) { [self] request, body in
            SecretRoutes.answer(request) { () throws(PluginError) in
                let id = try run(request, body)
                request.respond(202, json: ["id": .string(id)] as JSONObject)
            }
        }
    }

    private func run(_ request: Request, _ bytes: RawSpan) throws(PluginError) -> String {
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: [UInt8](bytes), limits: JSONLimits(depth: 12, bytes: SecretRoutes.bodyBytes))
        } catch {
            throw .invalid("the body is no JSON (line \(error.line), column \(error.column))")
        }
        guard var command = json.object, let wishes = command["secrets"]?.object, (1...32).contains(wishes.count) else {
            throw .invalid("the body is that of POST /api/v1/commands with \"secrets\" besides: {\"VARIABLE\": \"NAME\"}, 1 to 32 of them")
        }
        command["secrets"] = nil
        guard command["wait_s"] == nil else { throw .invalid("\"wait_s\" is not for this operation: look at the command that it answers with") }
        // Labels that operators assert choose who gets a secret, here as everywhere.
        if let selector = command["selector"] {
            guard let text = selector.string else { throw .invalid("\"selector\" must be a text") }
            _ = try fleet.asserted(text)
        }
        var variables: [(name: String, value: String)] = []
        var used: [JSONValue] = []
        for wish in wishes {
            let name = wish.value.string ?? wish.value["secret"]?.string ?? ""
            guard wish.key.utf8.count <= 128, !wish.key.utf8.contains(0), !wish.key.contains("="), !wish.key.isEmpty else {
                throw .invalid("\"\(wish.key.prefix(32))\" is no name of a variable")
            }
            let secret = try routes.vault.secret(name)
            let version = wish.value["version"]?.integer.map { Int(clamping: $0) } ?? secret.current
            let value = try routes.vault.value(name, version)
            guard let text = String(validating: value, as: UTF8.self), !value.contains(0) else {
                throw .conflict("secret-no-text", "the secret \"\(name)\" is no text without NUL and cannot be a variable")
            }
            variables.append((wish.key, text))
            used.append(["variable": .string(wish.key), "secret": .string(name), "version": .integer(Int64(version))])
        }
        let (specification, secrets) = (command, variables)
        var id = ""
        try routes.audited("secrets.use", request, "", ["secrets": .array(used)]) { () throws(PluginError) in
            id = try routes.host.commands().run(specification, secrets: secrets, as: .request(request))
        }
        return id
    }
}
