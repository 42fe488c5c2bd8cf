import JSON
import Kernel
import Program
import Reactor
import Synchronization
import Testing

@testable import Transport
@testable import Web

/// Knows one bearer, "good", who holds only the right `client.read`.
private final class TestGate: Gate {
    let refusals = Mutex<[String]>([])
    let reads = Mutex<[String]>([])
    let strangers = Mutex(0)

    func admitStranger(_ address: String) throws(Problem) {
        let count = strangers.withLock { count in
            count += 1
            return count
        }
        guard count <= 3 else { throw Problem(429, "rate-limited", "too many", retryAfter: 1) }
    }
    func authenticate(authorization: String?, address: String, correlation: String) async throws(Problem) -> Principal {
        guard authorization == "Bearer good" else { throw Problem(401, "unauthenticated", "who are you") }
        return Principal(kind: .token, id: "token:1", address: address, correlation: correlation)
    }
    func spend(_ principal: Principal) throws(Problem) -> RateLimitState? {
        RateLimitState(limit: 100, remaining: 99, resetSeconds: 1)
    }
    func grants(_ principal: Principal, _ right: Right) -> Bool { right == "client.read" }
    func isLive(_ principal: Principal) -> Bool { true }
    func watch(_ principal: Principal, _ ended: @escaping @Sendable () -> Void) -> AnyObject? { nil }
    func recordRefusal(_ principal: Principal, _ right: Right, path: String, reason: String) async {
        refusals.withLock { $0.append("\(principal.id) \(right) \(path)") }
    }
    func recordRead(_ principal: Principal, action: String, path: String) async throws(Problem) {
        reads.withLock { $0.append("\(action) \(path)") }
    }
}

@Suite struct PipelineTests {
    private let gate = TestGate()

    private func pipeline(_ observe: @escaping @Sendable (AnsweredRequest) -> Void = { _ in }) throws -> Pipeline {
        var routes: [Route] = []
        routes.append(Route(.get, "/open", access: .open, "o", answers: []) { (_) async throws(Problem) in .text("hello").tagged("v1") })
        routes.append(Route(.get, "/read/{id}", right: "client.read", "r", query: [.query("limit", .integer(in: 1...10))],
            answers: [], auditedRead: "output.read") { (request) async throws(Problem) in .text(request["id"]) })
        routes.append(Route(.post, "/write", right: "client.write", "w", body: .json(.object([])), answers: []) { (_) async throws(Problem) in .empty })
        routes.append(Route(.post, "/echo", right: "client.read", "e", body: .json(.object([.required("a", .integer())])), answers: []) {
            (request) async throws(Problem) in .json(request.json)
        })
        return Pipeline(
            table: try RouteTable(core: routes), gate: gate, origins: OriginPolicy(hosts: ["core.test"], origins: ["https://console.test"]),
            observe: observe)
    }

    private func call(
        _ method: HTTPMethod, _ target: String, _ headers: HTTPHeaders = [:], token: String? = "good", body: String = "",
        observe: @escaping @Sendable (AnsweredRequest) -> Void = { _ in }
    ) async throws -> Response {
        var headers = headers
        if headers["host"] == nil { headers.set("host", "127.0.0.1:1") }
        if let token { headers.set("authorization", "Bearer \(token)") }
        let head = HTTPRequestHead(
            method: method, target: target, minorVersion: 1, headers: headers, framing: .length(UInt64(body.utf8.count)),
            host: headers["host"] ?? "")
        let pipeline = try pipeline(observe)
        switch pipeline.plan(head, address: "192.0.2.1") {
        case .refuse(let response): return response
        case .accept(let matched, _):
            let loop = try EventLoop.start(name: "test")
            defer { loop.stop() }
            return await pipeline.answer(matched, head, body: Array(body.utf8), address: "192.0.2.1", loop: loop)
        }
    }

    private func text(_ response: Response) -> String {
        guard case .bytes(let bytes) = response.body else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test func withoutCredentialsOnlyOpenRoutesAnswer() async throws {
        #expect(try await call(.get, "/open", token: nil).status == 200)
        let refused = try await call(.get, "/read/1", token: nil)
        #expect(refused.status == 401)
        #expect(refused.headers["www-authenticate"] == "Bearer")
        #expect(text(refused).contains(#""code":"unauthenticated""#))
    }

    @Test func aMissingRightIsRefusedNamedAndRecorded() async throws {
        let refused = try await call(.post, "/write", ["content-type": "application/json"], body: "{}")
        #expect(refused.status == 403)
        #expect(text(refused).contains("client.write"))
        #expect(gate.refusals.withLock { $0 } == ["token:1 client.write /write"])
    }

    @Test func auditedReadsLeaveARecordBeforeTheyAreAnswered() async throws {
        #expect(text(try await call(.get, "/read/abc?limit=3")) == "abc")
        #expect(gate.reads.withLock { $0 } == ["output.read /read/abc"])
    }

    @Test func limitsAndSecurityFieldsAreOnEachAnswer() async throws {
        let response = try await call(.get, "/read/1")
        #expect(response.headers["ratelimit-limit"] == "100")
        #expect(response.headers["ratelimit-remaining"] == "99")
        #expect(response.headers["x-content-type-options"] == "nosniff")
        #expect(response.headers["content-security-policy"]?.contains("default-src 'none'") == true)
        #expect(response.headers["x-correlation-id"]?.isEmpty == false)
        let own = try await call(.get, "/open", ["x-correlation-id": "mine-1"], token: nil)
        #expect(own.headers["x-correlation-id"] == "mine-1")
        let spoiled = try await call(.get, "/open", ["x-correlation-id": "a b"], token: nil)
        #expect(spoiled.headers["x-correlation-id"] != "a b")
    }

    @Test func aRequestIsLoggedByItsCorrelationId() async throws {
        let lines = Mutex<[String]>([])
        let log = Log(level: .debug) { line in lines.withLock { $0.append(String(decoding: line, as: UTF8.self)) } }
        _ = try await call(.get, "/read/1", ["x-correlation-id": "mine-2"], observe: RequestLog(log).observe)
        let line = try JSONValue(parsing: try #require(lines.withLock { $0.first }))
        #expect(line["event"]?.string == "request.answered")
        #expect(line["level"]?.string == "debug")
        #expect(line["correlation"]?.string == "mine-2")
        #expect(line["route"]?.string == "/read/{id}")
        #expect(line["status"]?.integer == 200)
        // At the level that ships a request leaves no line.
        log.level = .info
        _ = try await call(.get, "/read/1", observe: RequestLog(log).observe)
        #expect(lines.withLock { $0.count } == 1)
        RequestLog(log).observe(
            AnsweredRequest(
                route: Route(.get, "/broken", access: .open, "b", answers: []) { (_) async throws(Problem) in .text("") },
                status: 500, nanoseconds: 2_000, correlation: "mine-3"))
        let warning = try JSONValue(parsing: try #require(lines.withLock { $0.last }))
        #expect(warning["event"]?.string == "request.failed")
        #expect(warning["correlation"]?.string == "mine-3")
        #expect(warning["duration_us"]?.integer == 2)
    }

    @Test(arguments: ["/read/1?limit=0", "/read/1?limit=x", "/read/1?other=1", "/read/1?limit=1&limit=2"])
    func wrongQueriesAreRefused(_ target: String) async throws {
        #expect(try await call(.get, target).status == 400)
    }

    @Test func bodiesMustBeJSONOfTheDeclaredShape() async throws {
        let json: HTTPHeaders = ["content-type": "application/json; charset=utf-8"]
        #expect(text(try await call(.post, "/echo", json, body: #"{"a": 1}"#)) == #"{"a":1}"#)
        #expect(try await call(.post, "/echo", json, body: #"{"a": "x"}"#).status == 400)
        #expect(try await call(.post, "/echo", json, body: #"{"#).status == 400)
        #expect(try await call(.post, "/echo", ["content-type": "text/plain"], body: #"{"a": 1}"#).status == 415)
    }

    @Test func aMatchingTagIsAnsweredWith304() async throws {
        let response = try await call(.get, "/open", ["if-none-match": "\"v0\", \"v1\""], token: nil)
        #expect(response.status == 304)
        #expect(text(response).isEmpty)
    }

    @Test func unknownNamesAndForeignOriginsAreRefused() async throws {
        #expect(try await call(.get, "/open", ["host": "evil.test"], token: nil).status == 421)
        #expect(try await call(.get, "/open", ["host": "core.test:8443"], token: nil).status == 200)
        #expect(try await call(.get, "/open", ["origin": "https://evil.test"], token: nil).status == 403)
        #expect(try await call(.get, "/open", ["origin": "null"], token: nil).status == 403)
        let listed = try await call(.get, "/open", ["origin": "https://console.test"], token: nil)
        #expect(listed.headers["access-control-allow-origin"] == "https://console.test")
        let plain = try await call(.get, "/open", [:], token: nil)
        #expect(plain.headers["access-control-allow-origin"] == nil)
    }

    @Test func wrongMethodsAndPathsSayWhatThereIs() async throws {
        let wrong = try await call(.put, "/open")
        #expect(wrong.status == 405)
        #expect(wrong.headers["allow"] == "GET")
        #expect(try await call(.get, "/nowhere").status == 404)
    }

    @Test func strangersAreLimitedPerAddress() async throws {
        for _ in 0..<3 { _ = try await call(.get, "/open", token: nil) }
        let refused = try await call(.get, "/open", token: nil)
        #expect(refused.status == 429)
        #expect(refused.headers["retry-after"] == "1")
    }
}
