import JSON
import Kernel
import Web

/// `/api/v1/sessions/tickets`: how a browser opens a WebSocket without a token in its URL.
public func ticketRoutes(of table: RouteTable) -> [Route] {
    [
        // The table holds this route.
        Route(
            .post, "/api/v1/sessions/tickets", access: .signedIn,
            "A ticket that opens one WebSocket once within 30 s, as who asks, from the same origin and address: append it as ?ticket=.",
            body: .json(.object([.required("path", .string("Of the WebSocket, without a query.", length: 1...1_024))])),
            answers: [
                Route.Answer(
                    201, "The ticket.",
                    .object([.required("ticket", .string()), .required("expires_in_s", .integer())]))
            ], auditedRead: "session.ticket"
        ) { [weak table] (request) async throws(Problem) in
            guard let table else { throw .notFound("the server is stopping") }
            let ticket = try table.issueTicket(
                request.principal, path: request.json["path"]?.string ?? "", origin: request.headers["origin"])
            return .json(
                ["ticket": .string(ticket), "expires_in_s": .integer(Int64(TicketBook.lifetimeMilliseconds / 1_000))],
                status: 201)
        }
    ]
}
