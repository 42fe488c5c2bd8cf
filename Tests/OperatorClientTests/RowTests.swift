import JSON
import Testing

@testable import OperatorClient

@Suite struct RowTests {
    @Test func listsFollowCursors() async {
        let bench = Bench { request in
            request.target.contains("cursor=2")
                ? ScriptedCore.json(["items": [["id": "c", "state": "offline"]], "next": nil])
                : ScriptedCore.json(["items": [["id": "a", "name": "web\u{1B}[2J", "state": "online"], ["id": "b"]], "next": "2"])
        }
        #expect(await bench.run("clients", "list", "env=prod & !x", "-o", "json") == .success)
        let answer = try? JSONValue(parsing: bench.console.output)
        #expect(answer?["items"]?.array?.count == 3)
        #expect(answer?["more"] == false)
        #expect(bench.core.requests.first?.target.contains("selector=env%3Dprod%20%26%20%21x") == true)

        let table = Bench { _ in ScriptedCore.json(["items": [["id": "a", "name": "web\u{1B}[2J"], ["id": "bb"]], "next": "n"]) }
        #expect(await table.run("clients", "list", "--limit", "2") == .success)
        #expect(table.console.output.contains("ID"))
        #expect(table.console.output.contains("web^[[2J"))
        #expect(!table.console.output.contains("\u{1B}"))
        #expect(table.console.errors.contains("There are more"))
    }

    /// A core that hands out the same cursor for ever ends the list.
    @Test func endlessCursors() async {
        let bench = Bench { _ in ScriptedCore.json(["items": [["id": "a"]], "next": "same"]) }
        #expect(await bench.run("clients", "list") == .success)
        #expect(bench.core.requests.count <= 3)
    }

    @Test func recordsAndOperands() async {
        let bench = Bench { _ in ScriptedCore.json(["id": "x", "facts": ["os": "Linux", "disks": [1, 2]], "labels": [:]]) }
        #expect(await bench.run("clients", "show", "a/b ü") == .success)
        #expect(bench.core.requests.first?.target == "/api/v1/clients/a%2Fb%20%C3%BC")
        #expect(bench.console.output.split(separator: "\n") == ["id           x", "facts.os     Linux", "facts.disks  1, 2", "labels       -"])
    }

    @Test(arguments: [
        (401, Outcome.refused, "cmctl login"), (403, .refused, "role"), (429, .refused, "wrong"), (400, .usage, "wrong"),
        (404, .remoteFailure, "wrong"), (500, .remoteFailure, "wrong"), (503, .remoteFailure, "wrong"),
    ])
    func refusals(status: Int, wanted: Outcome, says: String) async {
        let bench = Bench { _ in ScriptedCore.problem(status, "some-code", "wrong \u{1B}[31m") }
        #expect(await bench.run("clients", "show", "x") == wanted)
        #expect(bench.console.errors.contains("wrong ^[[31m [some-code]"))
        #expect(bench.console.errors.contains(says))
    }

    @Test func answersThatAreNoJSON() async {
        let bench = Bench { _ in APIResponse(status: 200, body: Array("<html>".utf8)) }
        #expect(await bench.run("clients", "show", "x") == .remoteFailure)
        #expect(bench.console.errors.contains("Is this the address"))
        let gone = Bench { _ throws(OperatorError) in throw OperatorError(.unreachable, "nobody listens") }
        #expect(await gone.run("clients", "show", "x") == .unreachable)
    }

    @Test func bodiesComeFromFlagsOperandsAndData() async {
        let bench = Bench { _ in ScriptedCore.json(["token": "t"]) }
        #expect(
            await bench.run(
                "enroll-token", "create", "--uses", "2", "--ttl", "1h", "--label", "a=b", "--label", "c=d", "-o", "json",
                "--data", #"{"description": "x", "uses": 9}"#) == .success)
        let body = bench.core.requests.first?.body.flatMap { try? JSONValue(parsing: $0) }
        #expect(body == ["description": "x", "uses": 2, "ttl_s": 3600, "labels": ["a": "b", "c": "d"]])
        #expect((try? JSONValue(parsing: bench.console.output))?["token"] == "t")

        let label = Bench { _ in ScriptedCore.json(["changed": 2]) }
        #expect(await label.run("label", "env=prod", "a=b=c", "old-") == .success)
        #expect(
            label.core.requests.first?.body.flatMap { try? JSONValue(parsing: $0) }
                == ["selector": "env=prod", "labels": ["a": "b=c", "old": nil]])
        #expect(label.console.output == "2 clients changed\n")
    }

    @Test func eventsAreFollowedUntilInterrupted() async {
        var connections = 0
        let bench = Bench { _ in
            connections += 1
            let text = connections == 1 ? "id: 5\nevent: client.online\ndata: {\"kind\":\"client.online\",\"client\":\"a\"}\n\n\0" : "event: x\ndata: {}\n\n"
            return APIResponse(status: 200, body: Array(text.utf8))
        }
        bench.core.betweenPieces = { [interrupts = bench.interrupts] _ in if connections == 2 { _ = interrupts.raise() } }
        #expect(await bench.run("events", "follow", "--kind", "client.*", "-o", "json") == .success)
        #expect(bench.console.output.contains(#"{"kind":"client.online","client":"a"}"#))
        #expect(bench.core.requests.last?.headers.contains { $0.name == "last-event-id" && $0.value == "5" } == true)
        #expect(bench.core.requests.first?.target == "/api/v1/events?kind=client.%2A")
    }

    @Test func directCalls() async {
        let bench = Bench { _ in APIResponse(status: 200, body: Array("as it is\n".utf8)) }
        #expect(await bench.run("api", "post", "/api/v1/x?y=1", "--data", "{}", "--header", "X-A: b") == .success)
        #expect(bench.console.output == "as it is\n")
        var wanted = APIRequest("POST", "/api/v1/x?y=1", body: Array("{}".utf8))
        wanted.headers = [(name: "x-a", value: "b")]
        #expect(bench.core.requests == [wanted])
        let refused = Bench { _ in ScriptedCore.problem(403, "forbidden", "no") }
        #expect(await refused.run("api", "GET", "/x") == .refused)
    }
}
