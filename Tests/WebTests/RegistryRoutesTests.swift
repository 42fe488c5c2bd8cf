import API
import Glibc
import JSON
import Kernel
import Reactor
import Synchronization
import Testing

@testable import Transport
@testable import Web

/// Tokens are names: "admin" may do everything everywhere; "limited" may see all clients but touch only env=test;
/// "blind" has the rights on no client but env=test.
private struct NamesGate: Gate {
    func admitStranger(_ address: String) throws(Problem) {}
    func authenticate(authorization: String?, address: String, correlation: String) async throws(Problem) -> Principal {
        Principal(
            kind: .user, id: String((authorization ?? "").dropFirst(7)), address: address, correlation: correlation)
    }
    func spend(_ principal: Principal) throws(Problem) -> RateLimitState? { nil }
    func grants(_ principal: Principal, _ right: Right) -> Bool { true }
    func isLive(_ principal: Principal) -> Bool { true }
    func watch(_ principal: Principal, _ ended: @escaping @Sendable () -> Void) -> AnyObject? { nil }
    func recordRefusal(_ principal: Principal, _ right: Right, path: String, reason: String) async {}
    func recordRead(_ principal: Principal, action: String, path: String) async throws(Problem) {}
}

/// A core's registry behind its routes, in a directory of its own.
private final class RegistryAPI: Sendable {
    private let directory: String
    private let store: Store
    private let pipeline: Pipeline
    private let loop: EventLoop
    let enrollment: Enrollment

    init() async throws {
        var template = Array("/tmp/cm-routes-XXXXXX".utf8CString)
        directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        store = try Store.open(directory: directory, migrations: Clients.migrations)
        let clients = try await Clients.load(store: store, publish: { _ in })
        enrollment = try await Enrollment.load(
            clients: clients, fingerprint: { String(repeating: "a", count: 64) }, answers: { _ in false })
        let test = try Selector(parsing: "env=test")
        let scope: ClientScope = { principal, right in
            switch principal.id {
            case "admin": (allowed: [.everything], denied: [])
            case "limited": (allowed: right == .readClients ? [.everything] : [test], denied: [])
            default: (allowed: [test], denied: [])
            }
        }
        let routes = clientRoutes(enrollment, scope: scope) + groupRoutes(clients, scope: scope)
            + enrollmentRoutes(enrollment) + enrollmentTokenRoutes(enrollment, scope: scope)
        pipeline = Pipeline(
            table: try RouteTable(core: routes), gate: NamesGate(), origins: OriginPolicy(hosts: [], origins: []), observe: { _ in })
        loop = try EventLoop.start(name: "test")
    }

    deinit {
        loop.stop()
        store.close()
        for name in ["core.sqlite3", "core.sqlite3-wal", "core.sqlite3-shm", "lock"] { unlink(directory + "/" + name) }
        rmdir(directory)
    }

    func call(
        _ method: HTTPMethod, _ path: String, _ body: JSONValue? = nil, as caller: String = "admin",
        ifMatch: String? = nil, ifNoneMatch: String? = nil
    ) async throws -> (status: Int, json: JSONValue, headers: HTTPHeaders) {
        let bytes = body?.serialized() ?? []
        var headers: HTTPHeaders = ["host": "127.0.0.1:1", "authorization": "Bearer \(caller)"]
        if body != nil { headers.set("content-type", "application/json") }
        if let ifMatch { headers.set("if-match", ifMatch) }
        if let ifNoneMatch { headers.set("if-none-match", ifNoneMatch) }
        let head = HTTPRequestHead(
            method: method, target: "/api/v1" + path, minorVersion: 1, headers: headers,
            framing: .length(UInt64(bytes.count)), host: "127.0.0.1:1")
        let response: Response
        switch pipeline.plan(head, address: "192.0.2.1") {
        case .refuse(let refusal): response = refusal
        case .accept(let matched, _):
            response = await pipeline.answer(matched, head, body: bytes, address: "192.0.2.1", loop: loop)
        }
        guard case .bytes(let answer) = response.body else { return (response.status, .null, response.headers) }
        return (response.status, answer.isEmpty ? .null : try JSONValue(parsing: answer), response.headers)
    }

    /// Enrolls a machine with a token that the API made.
    func add(_ labels: JSONValue, key: UInt8) async throws -> String {
        let made = try await call(.post, "/enrollment-tokens", ["labels": labels, "uses": 1, "ttl_s": 600])
        #expect(made.status == 201)
        let admission = await enrollment.admit(
            AgentHello(
                publicKey: Array(repeating: key, count: 91), enrollmentToken: made.json["token"]?.string, bootID: "b",
                epoch: 1, hostname: "h\(key)", address: "192.0.2.7"))
        guard case .accepted(let client) = admission else {
            Issue.record("not accepted: \(admission)")
            return ""
        }
        return client.client.description
    }
}

@Suite struct RegistryRoutesTests {
    @Test func tokensEnrollAndAreNeverShownAgain() async throws {
        let api = try await RegistryAPI()
        let id = try await api.add(["env": "prod"], key: 1)
        let shown = try await api.call(.get, "/clients/\(id)")
        #expect(shown.status == 200 && shown.json["labels"] == ["env": "prod"])
        let tokens = try await api.call(.get, "/enrollment-tokens")
        let token = try #require(tokens.json["items"]?.array?.first)
        #expect(token["state"]?.string == "used-up" && token["token"] == nil && token["used"]?.integer == 1)
        let name = try #require(token["id"]?.string)
        #expect(try await api.call(.delete, "/enrollment-tokens/\(name)").status == 204)
        #expect(try await api.call(.get, "/enrollment-tokens/\(name)").json["state"]?.string == "revoked")
        for body: JSONValue in [["uses": 0], ["ttl_s": 1], ["labels": ["Bad": "x"]], ["labels": ["a": 1]], ["client": "x"]] {
            #expect(try await api.call(.post, "/enrollment-tokens", body).status == 400, "\(body)")
        }
    }

    @Test func listsFollowSelectorsPagesAndTags() async throws {
        let api = try await RegistryAPI()
        for key in 1...5 as ClosedRange<UInt8> { _ = try await api.add(["n": .string("\(key)")], key: key) }
        let some = try await api.call(.get, "/clients?selector=n%3E%3D2,n!%3D4&sort=-id&limit=2")
        #expect(some.status == 200 && some.json["total"]?.integer == 3 && some.json["items"]?.array?.count == 2)
        let next = try #require(some.json["next"]?.string)
        let rest = try await api.call(.get, "/clients?selector=n%3E%3D2,n!%3D4&sort=-id&limit=2&cursor=\(next)")
        #expect(rest.json["items"]?.array?.count == 1 && rest.json["next"]?.isNull == true)
        let tag = try #require(some.headers["etag"])
        #expect(try await api.call(.get, "/clients?limit=2", ifNoneMatch: tag).status == 304)
        let wrong = try await api.call(.get, "/clients?selector=n%3D%3D")
        #expect(wrong.status == 400 && wrong.json["code"]?.string == "selector-invalid")
        #expect(try await api.call(.get, "/clients?cursor=x").status == 400)
        #expect(try await api.call(.get, "/clients?q=h3.example").json["total"]?.integer == 0)  // no facts reported yet
    }

    @Test func changesAreConditionalOnWhatWasSeen() async throws {
        let api = try await RegistryAPI()
        let id = try await api.add(["env": "prod"], key: 1)
        let tag = try #require(try await api.call(.get, "/clients/\(id)").headers["etag"])
        let changed = try await api.call(
            .patch, "/clients/\(id)", ["name": "db", "labels": ["env": nil, "role": "db"]], ifMatch: tag)
        #expect(changed.status == 200 && changed.json["labels"] == ["role": "db"])
        #expect(try await api.call(.patch, "/clients/\(id)", ["name": "x"], ifMatch: tag).status == 412)
        #expect(try await api.call(.patch, "/clients/\(id)", ["labels": ["state": "x"]]).status == 400)
        #expect(try await api.call(.patch, "/clients/\(id)", ["unknown": 1]).status == 400)
    }

    @Test func aCallerTouchesOnlyHisClients() async throws {
        let api = try await RegistryAPI()
        let test = try await api.add(["env": "test"], key: 1)
        let prod = try await api.add(["env": "prod"], key: 2)
        // Seen but not to be touched: 403. Not even seen: 404, as if it did not exist.
        #expect(try await api.call(.patch, "/clients/\(prod)", ["name": "x"], as: "limited").status == 403)
        #expect(try await api.call(.post, "/clients/\(prod)/revoke", ["reason": "x"], as: "blind").status == 404)
        #expect(try await api.call(.delete, "/clients/\(prod)", as: "limited").status == 403)
        #expect(try await api.call(.get, "/clients/\(prod)", as: "blind").status == 404)
        #expect(try await api.call(.get, "/clients", as: "blind").json["total"]?.integer == 1)
        let all: JSONValue = ["selector": "*", "labels": ["seen": "yes"]]
        #expect(try await api.call(.post, "/clients/labels", all, as: "limited").json["changed"]?.integer == 1)
        let named: JSONValue = ["clients": [.string(test), .string(prod)], "labels": ["seen": "no"]]
        #expect(try await api.call(.post, "/clients/labels", named, as: "limited").status == 403)
        #expect(try await api.call(.get, "/clients/\(prod)").json["labels"] == ["env": "prod"])
        #expect(try await api.call(.get, "/clients/\(test)").json["labels"] == ["env": "test", "seen": "yes"])
    }

    @Test func aTokenForAClientNeedsTheRightOnThatClient() async throws {
        let api = try await RegistryAPI()
        let test = try await api.add(["env": "test"], key: 1)
        let prod = try await api.add(["env": "prod"], key: 2)
        let body: (String) -> JSONValue = { ["client": .string($0)] }
        #expect(try await api.call(.post, "/enrollment-tokens", body(prod), as: "limited").status == 403)
        #expect(try await api.call(.post, "/enrollment-tokens", body(prod), as: "blind").status == 404)
        #expect(try await api.call(.post, "/enrollment-tokens", body(test), as: "limited").status == 201)
        let labelled: JSONValue = ["client": .string(test), "labels": ["env": "prod"]]
        #expect(try await api.call(.post, "/enrollment-tokens", labelled).status == 400)
    }

    @Test func revokeReinstateForget() async throws {
        let api = try await RegistryAPI()
        let id = try await api.add([:], key: 1)
        #expect(try await api.call(.post, "/clients/\(id)/disconnect", ["reason": "x"]).status == 409)
        #expect(try await api.call(.post, "/clients/\(id)/revoke", ["reason": "stolen"]).status == 204)
        let shown = try await api.call(.get, "/clients/\(id)")
        #expect(shown.json["state"]?.string == "revoked" && shown.json["revoked_reason"]?.string == "stolen")
        #expect(try await api.call(.post, "/clients/\(id)/reinstate", [:]).status == 204)
        #expect(try await api.call(.post, "/clients/\(id)/resolve", ["action": "rekey"]).status == 409)
        #expect(try await api.call(.delete, "/clients/\(id)?purge=true").status == 204)
        #expect(try await api.call(.get, "/clients/\(id)").status == 404)
        #expect(try await api.call(.get, "/clients/nonsense").status == 400)
    }

    @Test func machinesWithoutATokenAreApproved() async throws {
        let api = try await RegistryAPI()
        let hello = AgentHello(
            publicKey: Array(repeating: 9, count: 91), bootID: "b", epoch: 1, hostname: "new", address: "192.0.2.9")
        guard case .pending(let enrollment, let fingerprint) = await api.enrollment.admit(hello) else {
            Issue.record("a stranger was not asked to wait")
            return
        }
        let waiting = try #require(try await api.call(.get, "/enrollments").json["items"]?.array?.first)
        #expect(waiting["id"]?.string == enrollment && waiting["fingerprint"]?.string == fingerprint)
        let approved = try await api.call(
            .post, "/enrollments/\(enrollment)/approve", ["name": "new one", "labels": ["env": "test"]])
        #expect(approved.status == 201)
        let id = try #require(approved.json["client"]?.string)
        #expect(try await api.call(.get, "/clients/\(id)").json["name"]?.string == "new one")
        #expect(try await api.call(.post, "/enrollments/\(enrollment)/reject", [:]).status == 404)
        #expect(try await api.call(.get, "/enrollments/policy").json["auto_approve"] == false)
    }

    @Test func groupsAreSelectors() async throws {
        let api = try await RegistryAPI()
        _ = try await api.add(["env": "test"], key: 1)
        _ = try await api.add(["env": "prod"], key: 2)
        #expect(try await api.call(.post, "/groups", ["name": "testing", "selector": "env=test"]).status == 201)
        #expect(try await api.call(.post, "/groups", ["name": "testing", "selector": "env=x"]).status == 409)
        #expect(try await api.call(.put, "/groups/outer", ["selector": "group=testing or env=prod"]).status == 200)
        #expect(try await api.call(.get, "/clients?selector=group%3Douter").json["total"]?.integer == 2)
        #expect(try await api.call(.delete, "/groups/testing").status == 409)
        let groups = try await api.call(.get, "/groups", as: "blind")
        #expect(groups.json["items"]?.array?.compactMap { $0["clients"]?.integer } == [1, 1])
    }
}
