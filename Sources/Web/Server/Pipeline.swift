import Kernel
import Reactor
import Synchronization
import Transport

/// From a whole request to a response: origin → route → authenticate → limit → right → body → handler.
/// Runs as one task on the connection's loop; only the handler may leave it.
public final class Pipeline: Sendable {
    let table: RouteTable
    let gate: any Gate
    private let origins: OriginPolicy
    private let correlations = CorrelationSource()
    /// Called once per answer.
    private let observe: @Sendable (AnsweredRequest) -> Void

    public init(
        table: RouteTable, gate: any Gate, origins: OriginPolicy,
        observe: @escaping @Sendable (AnsweredRequest) -> Void
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

    /// An object, since it goes from hand to hand.
    public final class Matched: Sendable {
        let placed: PlacedRoute
        let parameters: [String]
        /// Why the route's owner does not answer at present.
        let suspension: Suspension?
        let target: RequestTarget
        let correlation: String

        init(
            placed: PlacedRoute, parameters: [String], suspension: Suspension?, target: RequestTarget, correlation: String
        ) {
            self.placed = placed
            self.parameters = parameters
            self.suspension = suspension
            self.target = target
            self.correlation = correlation
        }

        var route: Route { placed.route }
        /// Anybody may call it.
        var isOpen: Bool { if case .open = route.access { true } else { false } }
    }

    /// Everything that the head alone can decide, before a byte of the body is kept.
    public func plan(_ head: HTTPRequestHead, address: String) -> Plan { plan(head, address: address, in: table.current) }

    func plan(_ head: HTTPRequestHead, address: String, in set: RouteSet) -> Plan {
        let correlation = correlations.accept(head.headers["x-correlation-id"])
        do throws(Problem) {
            try origins.check(head)
            if let (placed, target) = set.router.fixed(head.method, head.target) {
                return accept(placed, [], target, set, correlation)
            }
            let target = try RequestTarget(head.target)
            if head.method == .options, let response = preflight(head) { return .refuse(response) }
            switch set.router.match(head.method, target.segments) {
            case .found(let placed, let parameters):
                return accept(placed, parameters, target, set, correlation)
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

    private func accept(
        _ placed: PlacedRoute, _ parameters: [String], _ target: RequestTarget, _ set: RouteSet, _ correlation: String
    ) -> Plan {
        .accept(
            Matched(
                placed: placed, parameters: parameters, suspension: set.suspension(of: placed.owner), target: target,
                correlation: correlation),
            bodyLimit: placed.route.body.limit)
    }

    /// Never throws: every failure becomes a problem document.
    /// - Parameter authenticated: called on the loop as soon as the peer has shown who it is.
    public func answer(
        _ found: Matched, _ head: HTTPRequestHead, body: [UInt8], address: String, loop: EventLoop,
        authenticated: @Sendable () -> Void = {}
    ) async -> Response {
        switch await admit(found, head, body: body, address: address, loop: loop, authenticated: authenticated) {
        case .refused(let response): return response
        case .admitted(let admission):
            guard case .answer(let handler) = admission.matched.route.action else {
                return complete(Response(status: 500, body: .bytes([])), admission, head)
            }
            return await answer(admission, head, handler)
        }
    }

    func answer(_ admission: Admission, _ head: HTTPRequestHead, _ handler: Route.Handler) async -> Response {
        do throws(Problem) {
            // Handed on each time: an answer that is held twice would be copied when the next field is added.
            return complete(
                conditional(gate.watched(try await handler(admission.request), admission.request.principal), head), admission, head)
        } catch {
            return complete(response(to: error, admission.matched), admission, head)
        }
    }

    func response(to problem: Problem, _ matched: Matched) -> Response {
        var response = problem.response(correlation: matched.correlation)
        if problem.status == 401 { response.headers.set("www-authenticate", "Bearer") }
        return response
    }

    /// What every answer of an admitted request carries.
    func complete(_ response: consuming Response, _ admission: Admission, _ head: HTTPRequestHead) -> Response {
        complete(response, admission.matched, admission.limit, admission.begin, head)
    }

    func complete(
        _ response: consuming Response, _ matched: Matched, _ limit: RateLimitState?, _ begin: UInt64, _ head: HTTPRequestHead
    ) -> Response {
        if let limit {
            // No handler sets these.
            response.headers.add("ratelimit-limit", decimal: UInt64(clamping: limit.limit))
            response.headers.add("ratelimit-remaining", decimal: UInt64(clamping: limit.remaining))
            response.headers.add("ratelimit-reset", decimal: UInt64(clamping: limit.resetSeconds))
        }
        observe(
            AnsweredRequest(
                route: matched.route, status: response.status, nanoseconds: monotonicNanoseconds() - begin,
                correlation: matched.correlation))
        return finish(response, head, matched.route, matched.correlation)
    }

    /// For what is no answer any more.
    func observed(_ admission: Admission, status: Int) {
        observe(
            AnsweredRequest(
                route: admission.matched.route, status: status, nanoseconds: monotonicNanoseconds() - admission.begin,
                correlation: admission.matched.correlation))
    }

    func watch(_ principal: Principal, _ ended: @escaping @Sendable () -> Void) -> AnyObject? {
        gate.watch(principal, ended)
    }

    /// Why the sender of a body that is still on its way will not be served; `nil` if it may be. Spends nothing of its
    /// rate: `answer` does that when the body is there.
    public func refusal(of matched: Matched, _ head: HTTPRequestHead, address: String) async -> Response? {
        do throws(Problem) {
            let principal = try await gate.authenticate(
                authorization: head.authorization, address: address, correlation: matched.correlation)
            try await checkRight(principal, matched, head)
            return nil
        } catch {
            var response = error.response(correlation: matched.correlation)
            if error.status == 401 { response.headers.set("www-authenticate", "Bearer") }
            observe(
                AnsweredRequest(
                    route: matched.route, status: response.status, nanoseconds: 0, correlation: matched.correlation))
            return finish(response, head, matched.route, matched.correlation)
        }
    }

    private func conditional(_ response: consuming Response, _ head: HTTPRequestHead) -> Response {
        guard head.method == .get || head.method == .head, response.status == 200,
            let tag = response.headers["etag"], let wanted = head.headers["if-none-match"],
            wanted == "*" || wanted.split(separator: ",").contains(where: { $0.drop(while: { $0 == " " }) == tag })
        else { return response }
        return Response(status: 304, headers: ["etag": tag], body: .bytes([]))
    }

    private func preflight(_ head: HTTPRequestHead) -> Response? {
        guard head.headers["access-control-request-method"] != nil, var headers = origins.headers(for: head)
        else { return nil }
        headers.set("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE")
        headers.set("access-control-allow-headers", "authorization, content-type, idempotency-key, if-none-match, last-event-id, range")
        headers.set("access-control-max-age", "600")
        return Response(status: 204, headers: headers, body: .bytes([]))
    }

    private static let securityFields: HTTPHeaders = [
        "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    ]
    private static let cachePolicy: HTTPHeaders = ["cache-control": "no-store"]
    private static let contentPolicy: HTTPHeaders = ["content-security-policy": "default-src 'none'; frame-ancestors 'none'"]

    /// All three, for an answer that has neither policy of its own.
    private static let usualFields: HTTPHeaders = {
        var fields = securityFields
        fields.append(cachePolicy)
        fields.append(contentPolicy)
        return fields
    }()

    /// The fields that every answer carries.
    private func finish(
        _ response: consuming Response, _ head: HTTPRequestHead, _ route: Route?, _ correlation: String
    ) -> Response {
        if let allowed = origins.headers(for: head) {
            for field in allowed.all { response.headers.set(field.name, field.value) }
        }
        let hasCachePolicy = response.headers.contains("cache-control")
        let hasContentPolicy = response.headers.contains("content-security-policy")
        if hasCachePolicy || hasContentPolicy {
            response.headers.append(Pipeline.securityFields)
            if !hasCachePolicy { response.headers.append(Pipeline.cachePolicy) }
            if !hasContentPolicy { response.headers.append(Pipeline.contentPolicy) }
        } else {
            response.headers.append(Pipeline.usualFields)
        }
        response.headers.add("x-correlation-id", correlation)
        return response
    }
}

/// Correlation ids: the caller's own when it is plain text, else a new one. A random prefix per process and a counter
/// make new ones without a system call per request.
private final class CorrelationSource: Sendable {
    /// Short, so that prefix and counter fit into a string that needs no memory of its own.
    private let prefix = String(UInt64.random(in: 0..<(1 << 36)), radix: 36)
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
