import JSON
import Kernel
import Testing

@testable import API

@Suite struct TransferReadingTests {
    private func request(_ text: String) throws -> TransferRequest {
        let json = try JSONValue(parsing: text)
        try TransferReading.schema.check(json)
        return try TransferReading.request(json)
    }

    @Test func aBodySaysEverything() throws {
        let client = "01J0938NKRKAYDXW0H48SM8NB6"
        let request = try request(
            """
            {"direction": "push", "clients": ["\(client)", "\(client)"], "path": "/srv/x", "file": "\(client)", "form": "tree",
             "mode": 416, "modified_ns": -5, "replace": false, "make_parents": true, "links": "skip", "rate_limit": 9,
             "offline": "fail", "within_s": 60}
            """)
        guard case .clients(let clients) = request.targets else { return #expect(Bool(false)) }
        // One that is named twice gets it once.
        #expect(clients.map(\.description) == [client])
        #expect(request.direction == .push && request.path == "/srv/x" && request.file?.description == client)
        #expect(request.form == .tree && request.mode == 416 && request.modified == -5 && request.links == .skip)
        #expect(!request.replaces && request.makesParents && request.rate == 9 && request.offline == .fail)
        #expect(request.withinMilliseconds == 60_000)
    }

    @Test func theFarEndMayBeAURL() throws {
        let hash = String(repeating: "0a", count: 32)
        let request = try request(
            """
            {"direction": "push", "selector": "*", "path": "/x", "url": "https://s3.example/k?s", "size": 7, "sha256": "\(hash)"}
            """)
        #expect(request.url?.address == "https://s3.example/k?s" && request.url?.size == 7 && request.url?.digest?.hex == hash)
        #expect(request.file == nil)
    }

    @Test func whatIsLeftOutHasItsDefault() throws {
        let request = try request(#"{"direction": "pull", "selector": "role=web", "path": "/x", "name": "n"}"#)
        guard case .selector(let selector) = request.targets else { return #expect(Bool(false)) }
        #expect(selector.text == "role=web" && request.direction == .pull && request.name == "n" && request.form == nil)
        #expect(request.replaces && !request.makesParents && request.links == .keep && request.rate == 0)
        #expect(request.offline == .queue && request.withinMilliseconds == 86_400_000)
    }

    @Test(arguments: [
        #"{"direction": "push", "path": "/x"}"#,
        #"{"direction": "push", "path": "/x", "selector": "*", "clients": ["01J0938NKRKAYDXW0H48SM8NB6"]}"#,
        #"{"direction": "push", "path": "/x", "clients": ["nobody-with-twenty-six-char"]}"#,
        // The first character of an id is 0 to 7.
        #"{"direction": "push", "path": "/x", "selector": "*", "file": "Z0000000000000000000000000"}"#,
        #"{"direction": "side", "path": "/x", "selector": "*"}"#, #"{"direction": "pull", "selector": "*"}"#,
        #"{"direction": "pull", "path": "/x", "selector": "*", "mode": 4096}"#,
        #"{"direction": "pull", "path": "/x", "selector": "*", "surprise": 1}"#,
        // What the bytes of a store have to be is known.
        #"{"direction": "pull", "path": "/x", "selector": "*", "size": 1}"#,
        """
        {"direction": "push", "path": "/x", "selector": "*", "url": "https://a/",
         "sha256": "zz00000000000000000000000000000000000000000000000000000000000000"}
        """,
    ])
    func whatIsWrongIsRefused(text: String) {
        #expect(throws: Problem.self) { _ = try request(text) }
    }
}
