import JSON
import Kernel
import Testing
import Transport

@testable import Web

@Suite struct RouterTests {
    private func route(_ method: HTTPMethod, _ pattern: String) -> Route {
        Route(method, pattern, access: .open, "test", answers: []) { (_) async throws(Problem) in .empty }
    }

    private func router(_ routes: [Route]) throws -> Router {
        var router = Router()
        for route in routes { try router.add(route) }
        return router
    }

    private func find(_ router: Router, _ method: HTTPMethod, _ target: String) throws -> String {
        switch router.match(method, try RequestTarget(target).segments) {
        case .found(let placed, let parameters): ([placed.route.pattern] + parameters).joined(separator: " ")
        case .wrongMethod(let allowed): "wrong method, " + allowed.map(\.rawValue).joined(separator: ",")
        case .nothing: "nothing"
        }
    }

    @Test func fixedSegmentsWinOverParametersInAnyOrderOfDeclaration() throws {
        let router = try router([
            route(.get, "/clients/{id}"), route(.get, "/clients/types"), route(.post, "/clients/{id}/disconnect"),
            route(.get, "/clients"),
        ])
        #expect(try find(router, .get, "/clients/types") == "/clients/types")
        #expect(try find(router, .get, "/clients/abc") == "/clients/{id} abc")
        #expect(try find(router, .head, "/clients/abc") == "/clients/{id} abc")
        #expect(try find(router, .post, "/clients/types/disconnect") == "/clients/{id}/disconnect types")
        #expect(try find(router, .get, "/clients/") == "/clients")
        #expect(try find(router, .delete, "/clients") == "wrong method, GET")
        #expect(try find(router, .get, "/clients/a/b/c") == "nothing")
    }

    @Test func aSecondRouteForOnePlaceIsRefused() throws {
        var router = try router([route(.get, "/a/{x}")])
        #expect(throws: RouteConflict.self) { try router.add(route(.get, "/a/{y}")) }
    }

    @Test(arguments: [
        "relative", "/a//b", "/a/../b", "/a/%2e%2e/b", "/a/./b", "/a%", "/a%0", "/a%zz", "/%00", "/%ff", "/a?x=%G0",
    ])
    func ambiguousTargetsAreRefused(_ target: String) {
        #expect(throws: Problem.self) { try RequestTarget(target) }
    }

    @Test func escapesAreDecodedOnceAndASlashInsideStaysInItsSegment() throws {
        let target = try RequestTarget("/a/b%2Fc/%2525?q=x+y%26z&flag&q=2")
        #expect(target.segments == ["a", "b/c", "%25"])
        #expect(target.query["q"] == "x y&z")
        #expect(target.query.values("q") == ["x y&z", "2"])
        #expect(target.query.bool("flag") == true)
    }
}

@Suite struct SchemaTests {
    private let schema = Schema.object([
        .required("name", .string(length: 1...8)), .optional("count", .integer(in: 1...5)),
        .optional("kind", .choice(["fail", "skip"])), .optional("tags", .array(.string(), count: 0...2)),
        .optional("map", .map(.boolean(), count: 0...1)),
    ])

    @Test(arguments: [
        (#"{}"#, "/name", "missing"),
        (#"{"name": ""}"#, "/name", "0 bytes"),
        (#"{"name": 3}"#, "/name", "must be a string"),
        (#"{"name": "a", "count": 6}"#, "/count", "1 to 5"),
        (#"{"name": "a", "count": 1.5}"#, "/count", "whole number"),
        (#"{"name": "a", "kind": "x"}"#, "/kind", "fail, skip"),
        (#"{"name": "a", "tags": ["a", "b", "c"]}"#, "/tags", "3 elements"),
        (#"{"name": "a", "tags": [1]}"#, "/tags/0", "must be a string"),
        (#"{"name": "a", "map": {"x": 1}}"#, "/map/x", "true or false"),
        (#"{"name": "a", "map": {"x": true, "y": true}}"#, "/map", "2 members"),
        (#"{"name": "a", "other": 1}"#, "/other", "unknown member"),
        (#"[]"#, "", "must be an object"),
    ])
    func faultsNameThePlaceAndWhatWouldBeRight(_ text: String, _ pointer: String, _ words: String) throws {
        let value = try JSONValue(parsing: text)
        let problem = #expect(throws: Problem.self) { try schema.check(value) }
        #expect(problem?.status == 400)
        #expect(problem?.pointer == pointer)
        #expect(problem?.detail.contains(words) == true, "\(problem?.detail ?? "")")
    }

    @Test func aGoodValuePassesAndNullCountsAsAbsent() throws {
        try schema.check(JSONValue(parsing: #"{"name": "a", "count": null, "kind": "skip", "tags": ["x"], "map": {"y": false}}"#))
    }
}
