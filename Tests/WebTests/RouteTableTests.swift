import JSON
import Kernel
import Reactor
import Testing
import Transport

@testable import Web

@Suite struct RouteTableTests {
    private func route(
        _ method: HTTPMethod, _ pattern: String, _ answer: String = "", operation: OpenAPIOperation? = nil
    ) -> Route {
        Route(method, pattern, right: "client.read", "test", answers: [], operation: operation) { (_) async throws(Problem) in
            .text(answer)
        }
    }

    private func group(_ id: String, _ routes: [Route], prefixes: [String] = ["/api/v1/demo"]) throws -> RouteGroup {
        RouteGroup(try RouteOwner(plugin: id), routes: routes, prefixes: prefixes)
    }

    private func refusal(_ table: RouteTable, _ changes: [RouteChange]) -> String {
        do throws(RouteRefusal) {
            try table.apply(changes)
            return ""
        } catch {
            return error.detail
        }
    }

    private func found(_ table: RouteTable, _ method: HTTPMethod, _ path: String) -> RouteOwner? {
        guard case .found(let placed, _) = table.current.router.match(method, path.split(separator: "/").map(String.init))
        else { return nil }
        return placed.owner
    }

    @Test func groupsComeAndGoWhileTheServerAnswers() async throws {
        let web = try await WebFixture([route(.get, "/api/v1/clients", "core")])
        #expect(try web.call("GET", "/api/v1/demo/a").hasPrefix("HTTP/1.1 404"))
        try web.table.apply([.set(try group("demo", [route(.get, "/api/v1/demo/a", "one")]))])
        #expect(try web.call("GET", "/api/v1/demo/a").hasSuffix("one"))
        try web.table.apply([.set(try group("demo", [route(.get, "/api/v1/demo/b", "two")]))])
        #expect(try web.call("GET", "/api/v1/demo/a").hasPrefix("HTTP/1.1 404"))
        #expect(try web.call("GET", "/api/v1/demo/b").hasSuffix("two"))
        try web.table.apply([.remove(try RouteOwner(plugin: "demo"))])
        #expect(try web.call("GET", "/api/v1/demo/b").hasPrefix("HTTP/1.1 404"))
        #expect(try web.call("GET", "/api/v1/clients").hasSuffix("core"))
    }

    @Test func aRequestUnderWayEndsWithTheRouteThatItFound() async throws {
        let (entered, leave) = (TestLatch(), TestLatch())
        let slow = Route(.get, "/api/v1/demo/a", right: "client.read", "t", answers: []) { (_) async throws(Problem) in
            entered.open()
            await leave.wait()
            return .text("old")
        }
        let web = try await WebFixture()
        try web.table.apply([.set(try group("demo", [slow]))])
        let client = try web.client()
        try client.send("GET /api/v1/demo/a HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer reader\r\n\r\n")
        await entered.wait()
        try web.table.apply([.set(try group("demo", [route(.get, "/api/v1/demo/a", "new")]))])
        #expect(try web.call("GET", "/api/v1/demo/a").hasSuffix("new"))
        leave.open()
        #expect(client.rest().hasSuffix("old"))
    }

    @Test func aConflictIsRefusedNamesBothAndChangesNothing() throws {
        let table = try RouteTable(core: [route(.get, "/api/v1/clients/{id}")])
        try table.apply([.set(try group("one", [route(.get, "/api/v1/demo/{x}")]))])
        let both = refusal(table, [
            .remove(try RouteOwner(plugin: "one")), .set(try group("three", [route(.post, "/api/v1/demo/{x}")])),
            .set(try group("two", [route(.get, "/api/v1/demo/fixed")])),
        ])
        #expect(both.contains("\"two\"") && both.contains("\"three\""))
        #expect(found(table, .get, "/api/v1/demo/1")?.id == "one")
        let core = refusal(table, [.set(try group("two", [route(.post, "/api/v1/clients/all")], prefixes: ["/api/v1/clients"]))])
        #expect(core.contains("the plugin \"two\" claims POST /api/v1/clients/all, but the core has GET /api/v1/clients/{id}"))
        let twice = refusal(table, [.set(try group("two", [route(.get, "/api/v1/demo/a/{x}"), route(.get, "/api/v1/demo/a/{y}")]))])
        #expect(twice.contains("two routes for GET /api/v1/demo/a/{y}"))
        try table.apply([.remove(try RouteOwner(plugin: "one")), .set(try group("two", [route(.get, "/api/v1/demo/{x}")]))])
        #expect(found(table, .get, "/api/v1/demo/1")?.id == "two")
    }

    @Test(arguments: [
        "/api/v1/clients", "/api/v1/demonstration", "/api/v1", "/api/v1/demo/", "api/v1/demo", "/api/v1/demo//a",
        "/api/v1/demo/../clients", "/api/v1/demo/a b", "/api/v1/demo/%41", "/api/v1/demo/{}", "/api/v1/demo/{a}/{a}",
        "/api/v1/demo/{a", "/{x}/v1/demo", "/api/v1/demo/1/2/3/4/5/6/7/8/9/10/11/12/13/14",
    ])
    func aPluginClaimsOnlyPlainPathsBelowItsPrefixes(_ pattern: String) throws {
        let table = RouteTable()
        #expect(refusal(table, [.set(try group("demo", [route(.get, pattern)]))]).contains("the plugin \"demo\" claims GET"))
        #expect(table.routes.isEmpty)
    }

    @Test func theTableIsBounded() throws {
        let table = RouteTable()
        let many = (0...RouteTable.Bound.routesPerPlugin).map { route(.get, "/api/v1/demo/r\($0)") }
        #expect(refusal(table, [.set(try group("demo", many))]).contains("at most 256"))
        try table.apply([.set(try group("demo", Array(many.dropLast())))])
        #expect(refusal(table, [.set(try group("demo", [route(.options, "/api/v1/demo/x")]))]).contains("the method must be"))
        for id in ["", "core", "A", "a/b", String(repeating: "a", count: 65)] {
            #expect(throws: Problem.self) { try RouteOwner(plugin: id) }
        }
    }

    // MARK: Suspension

    @Test func aFencedPluginAnswers503WithItsNameAndOnlyToThoseWhoMayCallIt() async throws {
        let web = try await WebFixture([route(.get, "/api/v1/clients", "core")])
        let demo = try RouteOwner(plugin: "demo")
        try web.table.apply([.set(try group("demo", [route(.get, "/api/v1/demo/a", "one")]))])
        try web.table.apply([.suspend(demo, .refuse(reason: "its thread hangs", retryAfterSeconds: 7))])
        let answer = try web.call("GET", "/api/v1/demo/a").lowercased()
        #expect(answer.hasPrefix("http/1.1 503") && answer.contains("retry-after: 7\r\n"))
        #expect(answer.contains(#""code":"plugin-suspended""#) && answer.contains(#"\"demo\""#) && answer.contains("hangs"))
        #expect(try web.call("GET", "/api/v1/demo/a", token: nil).hasPrefix("HTTP/1.1 401"))
        #expect(try web.call("GET", "/api/v1/demo/a", token: "nobody").hasPrefix("HTTP/1.1 403"))
        #expect(try web.call("GET", "/api/v1/clients").hasSuffix("core"))
        try web.table.apply([.resume(demo)])
        #expect(try web.call("GET", "/api/v1/demo/a").hasSuffix("one"))
        #expect(refusal(web.table, [.suspend(.core, .refuse(reason: "", retryAfterSeconds: 1))]).contains("the core"))
    }

    @Test func requestsWaitForAnUpgradeAndFindTheNewRoutes() async throws {
        let web = try await WebFixture()
        let demo = try RouteOwner(plugin: "demo")
        try web.table.apply([.set(try group("demo", [route(.get, "/api/v1/demo/a", "old")]))])
        try web.table.apply([.suspend(demo, .queue(reason: "upgrade", milliseconds: 60_000))])
        let clients = try (0..<20).map { _ in try web.client() }
        for client in clients {
            try client.send("GET /api/v1/demo/a HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer reader\r\n\r\n")
        }
        for _ in 0..<2_000 where web.gate.authentications.load(ordering: .relaxed) < 20 {
            await web.loop.sleep(milliseconds: 1)
        }
        try web.table.apply([.set(try group("demo", [route(.get, "/api/v1/demo/a", "new")])), .resume(demo)])
        for client in clients { #expect(client.rest().hasSuffix("new")) }
        #expect(web.gate.authentications.load(ordering: .relaxed) == 20)
    }

    @Test func aWaitThatLastsTooLongIsRefused() async throws {
        let web = try await WebFixture()
        try web.table.apply([
            .set(try group("demo", [route(.get, "/api/v1/demo/a", "old")])),
            .suspend(try RouteOwner(plugin: "demo"), .queue(reason: "upgrade", milliseconds: 20)),
        ])
        #expect(try web.call("GET", "/api/v1/demo/a").hasPrefix("HTTP/1.1 503"))
    }

    @Test func whatWaitsIsBoundedByBytes() async throws {
        let upload = Route(
            .post, "/api/v1/demo/a", right: "client.read", "t", body: .bytes(contentType: "text/plain", limit: 32 << 20),
            answers: []
        ) { (_) async throws(Problem) in .text("taken") }
        let web = try await WebFixture()
        try web.table.apply([
            .set(try group("demo", [upload])),
            .suspend(try RouteOwner(plugin: "demo"), .queue(reason: "upgrade", milliseconds: 15_000)),
        ])
        let large = [UInt8](repeating: 0x61, count: Suspension.maximumBytes + 1)
        #expect(try web.call("POST", "/api/v1/demo/a", body: large).hasPrefix("HTTP/1.1 503"))
    }

    // MARK: Document

    private let operation = ##"""
        {"summary": "Things", "parameters": [
          {"name": "id", "in": "path", "required": true, "description": "which", "schema": {"type": "string"}},
          {"name": "deep", "in": "query", "schema": {"type": "boolean"}}],
         "responses": {"200": {"description": "it", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}}}
        """##

    @Test func aPluginsOwnTextIsInTheDocumentUnderItsName() async throws {
        let table = try RouteTable(core: [route(.get, "/api/v1/clients")])
        let before = table.document()
        #expect(table.document().tag == before.tag)
        let own = try OpenAPIOperation(parsing: Array(operation.utf8))
        var demo = try group("demo", [route(.get, "/api/v1/demo/{id}", operation: own)])
        #expect(refusal(table, [.set(demo)]).contains("\"Thing\""))
        demo.components = try OpenAPIComponents(parsing: Array(
            ##"{"Thing": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Thing"}}}}"##.utf8))
        try table.apply([.set(demo)])
        let after = table.document()
        #expect(after.tag != before.tag)
        let document = try JSONValue(parsing: after.bytes)
        let shown = try #require(document["paths"]?["/api/v1/demo/{id}"]?["get"])
        #expect(shown["summary"]?.string == "Things" && shown["x-plugin"]?.string == "demo")
        #expect(shown["x-right"]?.string == "client.read" && shown["security"]?.array?.isEmpty == false)
        #expect(shown["parameters"]?.array?.count == 2 && shown["parameters"]?.array?.first?["description"]?.string == "which")
        let reference = "#/components/schemas/demo.Thing"
        #expect(shown["responses"]?["200"]?["content"]?["application/json"]?["schema"]?["$ref"]?.string == reference)
        let schema = document["components"]?["schemas"]?["demo.Thing"]
        #expect(schema?["properties"]?["next"]?["$ref"]?.string == reference)
        #expect(document["paths"]?["/api/v1/clients"] != nil && document["components"]?["schemas"]?["Problem"] != nil)
        try table.apply([.suspend(demo.owner, .refuse(reason: "", retryAfterSeconds: 1))])
        #expect(table.document().tag == after.tag)
        try table.apply([.remove(demo.owner)])
        #expect(!String(decoding: table.document().bytes, as: UTF8.self).contains("demo"))
    }

    @Test func queryParametersOfTheTextAreChecked() async throws {
        let web = try await WebFixture()
        let text = #"{"parameters": [{"name": "deep", "in": "query", "schema": {"type": "boolean"}}], "responses": {"200": {"description": "d"}}}"#
        let own = try OpenAPIOperation(parsing: Array(text.utf8))
        try web.table.apply([.set(try group("demo", [route(.get, "/api/v1/demo/a", "ok", operation: own)]))])
        #expect(try web.call("GET", "/api/v1/demo/a?deep=true").hasSuffix("ok"))
        #expect(try web.call("GET", "/api/v1/demo/a?deep=7").hasPrefix("HTTP/1.1 400"))
        #expect(try web.call("GET", "/api/v1/demo/a?other=7").hasPrefix("HTTP/1.1 400"))
    }

    @Test(arguments: [
        "[]", "{", "{}", #"{"responses": {}}"#, #"{"responses": {"200": {}}}"#, #"{"responses": {"700": {"description": ""}}}"#,
        #"{"security": [], "responses": {"200": {"description": ""}}}"#,
        #"{"x-right": "all", "responses": {"200": {"description": ""}}}"#,
        #"{"parameters": [{"name": "a", "in": "cookie"}], "responses": {"200": {"description": ""}}}"#,
        #"{"responses": {"200": {"description": "", "content": {"a/b": {"schema": {"$ref": "http://elsewhere/x"}}}}}}"#,
    ])
    func textThatDecidesTooMuchOrNothingIsRefused(_ text: String) {
        #expect(throws: Problem.self) { try OpenAPIOperation(parsing: Array(text.utf8)) }
    }

    @Test func textIsBounded() throws {
        let long = String(repeating: "x", count: OpenAPIOperation.maximumBytes)
        let text = #"{"summary": "\#(long)", "responses": {"200": {"description": ""}}}"#
        let problem = #expect(throws: Problem.self) { try OpenAPIOperation(parsing: Array(text.utf8)) }
        #expect(problem?.detail.contains("at most 65536") == true)
        #expect(throws: Problem.self) { try OpenAPIComponents(parsing: Array(#"{"a b": {}}"#.utf8)) }
        #expect(throws: Problem.self) { try OpenAPIComponents(parsing: Array(##"{"A": {"$ref": "#/components/schemas/B"}}"##.utf8)) }
    }
}
