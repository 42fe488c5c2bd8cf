import JSON
import Kernel
import Program
import Reactor
import Synchronization
import Transport

/// From a whole request to a response: origin → route → authenticate → limit → right → body → handler.
/// Runs as one task on the connection's loop; only the handler may leave it.
public final class Pipeline: Sendable {
    let table: RouteTable
    private let gate: any Gate
    private let origins: OriginPolicy
    private let correlations = CorrelationSource()
    /// Called once per answer: route pattern (or "none"), status, nanoseconds.
    private let observe: @Sendable (Route?, Int, UInt64) -> Void

    public init(
        table: RouteTable, gate: any Gate, origins: OriginPolicy,
        observe: @escaping @Sendable (Route?, Int, UInt64) -> Void
    ) {
        self.table = table
        self.gate = gate
        self.origins = origins
        self.observe = observe
    }

    /// What a connection must know before the body arrives.
    public enum Plan: Sendable {
        /// Collect at most this many bytes of body, then call `answer`.
        case accept(Matched, bodyLimit: Int)
        /// Answer this at once; the body is not wanted.
        case refuse(Response)
    }

    public struct Matched: Sendable {
        let placed: PlacedRoute
        let parameters: [String]
        /// Why the route's owner does not answer at present.
        let suspension: Suspension?
        let target: RequestTarget
        let correlation: String

        var route: Route { placed.route }
        /// Anybody may call it.
        var isOpen: Bool { if case .open = route.access { true } else { false } }
    }

    /// Everything that the head alone can decide, before a byte of the body is kept.
    public func plan(_ head: HTTPRequestHead, address: String) -> Plan { plan(head, address: address, in: table.current) }

    func plan(_ head: HTTPRequestHead, address: String, in set: RouteSet) -> Plan {
        let correlation = correlations.accept(head.headers["x-correlation-id"])
        do throws(Problem) {
            try origins.check(head.headers)
            let target = try RequestTarget(head.target)
            if head.method == .options, let response = preflight(head) { return .refuse(response) }
            switch set.router.match(head.method, target.segments) {
            case .found(let placed, let parameters):
                return .accept(
                    Matched(
                        placed: placed, parameters: parameters, suspension: set.suspension(of: placed.owner),
                        target: target, correlation: correlation),
                    bodyLimit: placed.route.body.limit)
            case .wrongMethod(let allowed):
                let names = allowed.map(\.rawValue).joined(separator: ", ")
                try gate.admitStranger(address)
                let problem = Problem(405, "method-not-allowed", "\(head.method.rawValue) is not offered here; offered are \(names)")
                return .refuse(finish(problem.response(correlation: correlation).with("allow", names), head, nil, correlation))
            case .nothing:
                try gate.admitStranger(address)
                throw .notFound("there is nothing at this path; /openapi.json lists what there is")
            }
        } catch {
            return .refuse(finish(error.response(correlation: correlation), head, nil, correlation))
        }
    }

    /// Never throws: every failure becomes a problem document.
    /// - Parameter authenticated: called on the loop as soon as the peer has shown who it is.
    public func answer(
        _ found: Matched, _ head: HTTPRequestHead, body: [UInt8], address: String, loop: EventLoop,
        authenticated: @Sendable () -> Void = {}
    ) async -> Response {
        let begin = monotonicNanoseconds()
        var matched = found
        var response: Response
        var state: RateLimitState?
        do throws(Problem) {
            let principal = try await self.principal(for: matched, head, address, &state)
            if state != nil { authenticated() }
            if matched.suspension != nil { matched = try await resumed(matched, head, principal, body.count, loop) }
            let request = Request(
                method: head.method, path: String(head.path), query: matched.target.query, headers: head.headers, body: body,
                principal: principal, address: address, correlation: matched.correlation, loop: loop,
                parameters: matched.parameters, parameterNames: matched.route.parameterNames,
                parsedBody: try parsed(matched.route, head, body))
            try checkQuery(matched.route, request.query)
            if let action = matched.route.auditedRead {
                try await gate.recordRead(principal, action: action, path: String(head.path))
            }
            response = conditional(try await matched.route.handler(request), head)
        } catch {
            response = error.response(correlation: matched.correlation)
            if error.status == 401 { response.headers.set("www-authenticate", "Bearer") }
        }
        if let state {
            response.headers.set("ratelimit-limit", String(state.limit))
            response.headers.set("ratelimit-remaining", String(state.remaining))
            response.headers.set("ratelimit-reset", String(state.resetSeconds))
        }
        observe(matched.route, response.status, monotonicNanoseconds() - begin)
        return finish(response, head, matched.route, matched.correlation)
    }

    /// Why the sender of a body that is still on its way will not be served; `nil` if it may be. Spends nothing of its
    /// rate: `answer` does that when the body is there.
    public func refusal(of matched: Matched, _ head: HTTPRequestHead, address: String) async -> Response? {
        do throws(Problem) {
            let principal = try await gate.authenticate(
                authorization: head.headers["authorization"], address: address, correlation: matched.correlation)
            try await checkRight(principal, matched, head)
            return nil
        } catch {
            var response = error.response(correlation: matched.correlation)
            if error.status == 401 { response.headers.set("www-authenticate", "Bearer") }
            observe(matched.route, response.status, 0)
            return finish(response, head, matched.route, matched.correlation)
        }
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
            if case .open = placed.route.access { continue }
            guard principal.id != Pipeline.anonymous else {
                throw Problem(401, "authentication-required", "this operation now needs credentials: send \"Authorization: Bearer TOKEN\"")
            }
            try await checkRight(principal, matched, head)
            guard bytes <= placed.route.body.limit else { throw WebService.tooLarge(placed.route.body.limit) }
        }
        if let suspension = matched.suspension { throw suspension.problem }
        return matched
    }

    private static let anonymous = "anonymous"

    private func checkRight(_ principal: Principal, _ matched: Matched, _ head: HTTPRequestHead) async throws(Problem) {
        guard case .right(let right) = matched.route.access, !gate.grants(principal, right) else { return }
        await gate.recordRefusal(principal, right, path: String(head.path), reason: "no role grants the right")
        throw .forbidden("this needs the right \"\(right)\", which no role or scope of \(principal.id) grants")
    }

    private func principal(
        for matched: Matched, _ head: HTTPRequestHead, _ address: String, _ state: inout RateLimitState?
    ) async throws(Problem) -> Principal {
        if case .open = matched.route.access {
            try gate.admitStranger(address)
            return Principal(kind: .system, id: Pipeline.anonymous, address: address, correlation: matched.correlation)
        }
        let principal = try await gate.authenticate(
            authorization: head.headers["authorization"], address: address, correlation: matched.correlation)
        state = try gate.spend(principal)
        try await checkRight(principal, matched, head)
        return principal
    }

    private func parsed(_ route: Route, _ head: HTTPRequestHead, _ body: [UInt8]) throws(Problem) -> JSONValue? {
        let schema: Schema
        switch route.body {
        case .none, .bytes: return nil
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

    private func conditional(_ response: Response, _ head: HTTPRequestHead) -> Response {
        guard head.method == .get || head.method == .head, response.status == 200,
            let tag = response.headers["etag"], let wanted = head.headers["if-none-match"],
            wanted == "*" || wanted.split(separator: ",").contains(where: { $0.drop(while: { $0 == " " }) == tag })
        else { return response }
        return Response(status: 304, headers: ["etag": tag], body: .bytes([]))
    }

    private func preflight(_ head: HTTPRequestHead) -> Response? {
        guard head.headers["access-control-request-method"] != nil, var headers = origins.headers(for: head.headers)
        else { return nil }
        headers.set("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE")
        headers.set("access-control-allow-headers", "authorization, content-type, idempotency-key, if-none-match, last-event-id, range")
        headers.set("access-control-max-age", "600")
        return Response(status: 204, headers: headers, body: .bytes([]))
    }

    private static let securityFields: HTTPHeaders = [
        "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    ]

    /// The fields that every answer carries.
    private func finish(
        _ response: Response, _ head: HTTPRequestHead, _ route: Route?, _ correlation: String
    ) -> Response {
        var response = response
        if let allowed = origins.headers(for: head.headers) {
            for field in allowed.all { response.headers.set(field.name, field.value) }
        }
        response.headers.append(Pipeline.securityFields)
        if response.headers["cache-control"] == nil { response.headers.add("cache-control", "no-store") }
        if response.headers["content-security-policy"] == nil {
            response.headers.add("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
        }
        response.headers.add("x-correlation-id", correlation)
        return response
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

/// Correlation ids: the caller's own when it is plain text, else a new one. A random prefix per process and a counter
/// make new ones without a system call per request.
private final class CorrelationSource: Sendable {
    private let prefix = String(UInt64.random(in: .min ... .max), radix: 36)
    private let counter = Atomic<UInt64>(0)

    func accept(_ given: String?) -> String {
        if let given, (1...64).contains(given.utf8.count), given.utf8.allSatisfy(CorrelationSource.isPlain) { return given }
        return prefix + "-" + String(counter.wrappingAdd(1, ordering: .relaxed).newValue, radix: 36)
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }
}
