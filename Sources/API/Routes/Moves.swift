import JSON
import Kernel
import Web

extension Right {
    /// As strong as every right over these clients: the core there has them.
    public static let moveClients: Right = "client.move"
}

/// `/api/v1/clients/move`: agents go to other servers, or to another core.
public func moveRoutes(_ clients: Clients, _ identity: IdentityService, scope: @escaping ClientScope) -> [Route] {
    let scoped = ScopedClients(clients: clients, scope: scope)
    let body = Schema.object([
        .optional("selector", .string(length: 1...SelectorSyntax.maximumLength)),
        .optional("clients", .array(.string(length: 26...26), count: 1...10_000)),
        .required("servers", .string("URL[*WEIGHT][,…], as cm-agent run --server takes it.", length: 1...4_096)),
        .optional("fingerprint", .string("Identity of the core there; without it, this core at other addresses.", length: 64...64)),
        .optional("enrollment_token", .string("Of the core there; without it an operator there has to approve.", length: 1...256)),
        .optional("within_s", .integer("An agent that is not accepted there after so many seconds comes back; 600 by default.", in: 1...86_400)),
    ])
    return [
        Route(
            .post, "/api/v1/clients/move", right: .moveClients,
            "Sends connected clients to other servers, signed by this core's identity. Who is not accepted there in time comes back.",
            body: .json(body),
            answers: [
                Route.Answer(
                    200, "Who was told, and who was not connected.",
                    .object([
                        .required("told", .integer()), .required("absent", .array(.string())),
                        .required("absent_count", .integer()),
                    ]))
            ]
        ) { (request) async throws(Problem) in
            let move = try ClientMove(
                servers: request.json["servers"]?.string ?? "", fingerprint: request.json["fingerprint"]?.string,
                token: request.json["enrollment_token"]?.string,
                withinSeconds: Int(request.json["within_s"]?.integer ?? 600))
            let (ids, text) = try await scoped.selection(request, .moveClients)
            let (told, absent) = try await clients.move(
                ids, to: move, signedBy: identity, by: request.principal, selector: text)
            return .json([
                "told": .integer(Int64(told)), "absent": .array(absent.prefix(1_000).map { .string("\($0)") }),
                "absent_count": .integer(Int64(absent.count)),
            ])
        }
    ]
}
