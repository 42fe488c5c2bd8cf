import JSON
import Kernel
import Reactor
import Transport

/// Everything before the handler: who asks, whether they may, and whether the request is what the route takes.
extension Pipeline {
    /// A request that passed everything before its handler. An object, since it goes from hand to hand.
    final class Admission: Sendable {
        let matched: Matched
        let request: Request
        let limit: RateLimitState?
        /// Monotonic nanoseconds.
        let begin: UInt64

        init(matched: Matched, request: Request, limit: RateLimitState?, begin: UInt64) {
            self.matched = matched
            self.request = request
            self.limit = limit
            self.begin = begin
        }

        /// The same request with a body that is read piece by piece.
        func reading(_ stream: RequestBody) -> Admission {
            var request = request
            request.stream = stream
            return Admission(matched: matched, request: request, limit: limit, begin: begin)
        }
    }

    enum Admittance: Sendable {
        case admitted(Admission)
        case refused(Response)
    }

    /// Authentication, limit, right, body, query, audit: everything before the handler.
    func admit(
        _ found: Matched, _ head: HTTPRequestHead, body: [UInt8], address: String, loop: EventLoop,
        authenticated: @Sendable () -> Void
    ) async -> Admittance {
        let begin = monotonicNanoseconds()
        var matched = found
        var state: RateLimitState?
        do throws(Problem) {
            let principal = try await self.principal(for: matched, head, address, &state)
            if state != nil { authenticated() }
            if matched.suspension != nil { matched = try await resumed(matched, head, principal, body.count, loop) }
            let request = Request(
                head: head, matched: matched, query: query(of: matched), body: body, stream: nil, principal: principal,
                address: address, loop: loop, parsedBody: try parsed(matched.route, head, body))
            try checkQuery(matched.route, request.query)
            if case .webSocket = matched.route.action, let fault = WebSocketHandshake.fault(of: head) {
                throw Problem(fault.status, "websocket-required", fault.message)
            }
            if let action = matched.route.auditedRead {
                try await gate.recordRead(principal, action: action, path: String(head.path))
            }
            return .admitted(Admission(matched: matched, request: request, limit: state, begin: begin))
        } catch {
            var response = response(to: error, matched)
            if error.code == "websocket-required" { response.headers.set("upgrade", "websocket") }
            return .refused(complete(response, matched, state, begin, head))
        }
    }

    /// The ticket of a WebSocket is the pipeline's: no handler, log or audit record sees it.
    private func query(of matched: Matched) -> Query {
        guard case .webSocket = matched.route.action else { return matched.target.query }
        return matched.target.query.without("ticket")
    }

    /// Who holds this ticket; nil if the request shows none, or also an Authorization field.
    private func ticketHolder(_ matched: Matched, _ head: HTTPRequestHead, _ address: String) throws(Problem) -> Principal? {
        guard case .webSocket = matched.route.action, head.authorization == nil,
            let ticket = matched.target.query["ticket"]
        else { return nil }
        try gate.admitStranger(address)
        let holder = table.tickets.redeem(
            ticket, path: matched.target.segments, origin: head.origin, address: address)
        guard let holder, gate.isLive(holder) else {
            throw Problem(
                401, "ticket-invalid",
                "the ticket is unknown, used, older than 30 s, or was issued for another path, origin or address")
        }
        return holder.with(correlation: matched.correlation)
    }

    /// Waits until the route's owner answers again and finds the route anew, which need not be the same.
    private func resumed(
        _ matched: Matched, _ head: HTTPRequestHead, _ principal: Principal, _ bytes: Int, _ loop: EventLoop
    ) async throws(Problem) -> Matched {
        var matched = matched
        // An upgrade that suspends again and again must not hold a request for ever.
        for _ in 0..<3 {
            guard let suspension = matched.suspension else { return matched }
            try await suspension.wait(holding: bytes, on: loop)
            let set = table.current
            guard case .found(let placed, let parameters) = set.router.match(head.method, matched.target.segments) else {
                throw .notFound("there is nothing at this path any more; /openapi.json lists what there is")
            }
            matched = Matched(
                placed: placed, parameters: parameters, suspension: set.suspension(of: placed.owner),
                target: matched.target, correlation: matched.correlation)
            guard bytes <= placed.route.body.limit else { throw WebService.tooLarge(placed.route.body.limit) }
            if case .open = placed.route.access { continue }
            guard principal.kind != .system else {
                throw Problem(401, "authentication-required", "this operation now needs credentials: send \"Authorization: Bearer TOKEN\"")
            }
            try await checkRight(principal, matched, head)
        }
        if let suspension = matched.suspension { throw suspension.problem }
        return matched
    }

    func checkRight(_ principal: Principal, _ matched: Matched, _ head: HTTPRequestHead) async throws(Problem) {
        guard case .right(let right) = matched.route.access, !gate.grants(principal, right) else { return }
        await gate.recordRefusal(principal, right, path: String(head.path), reason: "no role grants the right")
        throw .forbidden("this needs the right \"\(right)\", which no role or scope of \(principal.id) grants")
    }

    private func principal(
        for matched: Matched, _ head: HTTPRequestHead, _ address: String, _ state: inout RateLimitState?
    ) async throws(Problem) -> Principal {
        if case .open = matched.route.access {
            try gate.admitStranger(address)
            return Principal(kind: .system, id: "anonymous", address: address, correlation: matched.correlation)
        }
        let principal: Principal
        if let holder = try ticketHolder(matched, head, address) {
            principal = holder
        } else {
            principal = try await gate.authenticate(
                authorization: head.authorization, address: address, correlation: matched.correlation)
        }
        state = try gate.spend(principal)
        try await checkRight(principal, matched, head)
        return principal
    }

    private func parsed(_ route: Route, _ head: HTTPRequestHead, _ body: [UInt8]) throws(Problem) -> JSONValue? {
        let schema: Schema
        switch route.body {
        case .none, .bytes, .stream: return nil
        case .jsonReadByHandler:
            try requireJSON(head)
            return nil
        case .json(let shape, _): schema = shape
        }
        try requireJSON(head)
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: body, limits: JSONLimits(depth: 32, bytes: route.body.limit))
        } catch {
            throw .invalid("the body is not JSON: \(error)")
        }
        try schema.check(value)
        return value
    }

    /// Browsers send forms and text to other sites without asking first, but not this content type.
    private func requireJSON(_ head: HTTPRequestHead) throws(Problem) {
        if head.headers.holds("content-type", "application/json") { return }
        let type = head.headers["content-type"]?.prefix { $0 != ";" }.lowercased() ?? ""
        guard type == "application/json" else {
            throw Problem(415, "content-type", "the body must be sent with \"Content-Type: application/json\"")
        }
    }

    private func checkQuery(_ route: Route, _ query: Query) throws(Problem) {
        for item in query.items {
            guard let parameter = route.query.first(where: { $0.name == item.name }) else {
                let known = route.query.map(\.name).joined(separator: ", ")
                throw .invalid(
                    "unknown query parameter \"\(item.name.prefix(64))\"; "
                        + (known.isEmpty ? "this operation takes none" : "known are \(known)"))
            }
            try parameter.check(item.value)
            guard parameter.isRepeatable || query.values(item.name).count == 1 else {
                throw .invalid("the query parameter \"\(item.name)\" is given more than once")
            }
        }
    }
}

extension Route.Parameter {
    /// The text of the query read as the kind of the schema, then checked by it.
    func check(_ text: String) throws(Problem) {
        let value: JSONValue
        switch schema {
        case .integer: value = Int64(text).map { .integer($0) } ?? .string(text)
        case .number: value = Double(text).map { .number($0) } ?? .string(text)
        case .boolean: value = ["true", "1", ""].contains(text) ? true : ["false", "0"].contains(text) ? false : .string(text)
        default: value = .string(text)
        }
        do throws(Problem) {
            try schema.check(value, at: name)
        } catch {
            throw .invalid("query parameter: \(error.detail)", pointer: name)
        }
    }
}
