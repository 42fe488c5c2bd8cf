import JSON
import Testing

@testable import OperatorClient

private func event(_ name: String, _ data: JSONValue, id: String? = nil) -> String {
    (id.map { "id: \($0)\n" } ?? "") + "event: \(name)\ndata: \(data)\n\n"
}

private func command(_ state: String, _ counts: JSONValue) -> String {
    event("command", ["id": "C1", "state": .string(state), "counts": counts])
}

private func output(_ client: String, _ offset: Int64, _ text: String, _ stream: String = "stdout") -> String {
    event("output", ["client": .string(client), "stream": .string(stream), "offset": .integer(offset), "text": .string(text)])
}

private func target(_ client: String, _ state: String, _ code: Int64? = nil) -> String {
    event("target", ["client": .string(client), "state": .string(state), "exit_code": code.map { .integer($0) } ?? .null])
}

/// A core that runs one command whose watch gives these bodies, one per connection.
private func bench(_ watches: [String], targets: [JSONValue], cancelled: @escaping () -> Void = {}) -> Bench {
    var watches = watches
    return Bench { request throws(OperatorError) in
        switch (request.method, request.path) {
        case ("POST", "/api/v1/commands"): return ScriptedCore.json(
            ["id": "C1", "state": "running", "target_count": .integer(Int64(max(targets.count, 1)))], status: 201)
        case ("POST", "/api/v1/commands/C1/cancel"):
            cancelled()
            return ScriptedCore.json([:], status: 202)
        case ("GET", "/api/v1/commands/C1/watch"):
            guard !watches.isEmpty else { throw OperatorError(.unreachable, "nobody listens") }
            return APIResponse(status: 200, body: Array(watches.removeFirst().utf8))
        case ("GET", "/api/v1/commands/C1"): return ScriptedCore.json(["id": "C1", "state": "finished", "selector": "all", "counts": [:]])
        case ("GET", "/api/v1/clients"):
            return ScriptedCore.json(["items": [["id": "a", "name": "name-a"], ["id": "b", "name": "name-b"]], "next": nil])
        case ("GET", "/api/v1/commands/C1/targets"): return ScriptedCore.json(["items": .array(targets), "next": nil])
        default: return ScriptedCore.problem(404, "not-found", request.target)
        }
    }
}

@Suite struct ExecTests {
    @Test func oneClientIsPassedOnAsItIs() async {
        let watch = command("running", ["running": 1]) + target("a", "running") + output("a", 0, "no newline \u{1B}[1m")
            + output("a", 0, "err", "stderr") + target("a", "succeeded", 0) + command("finished", ["succeeded": 1])
        let bench = bench([watch], targets: [["client": "a", "state": "succeeded", "exit_code": 0]])
        #expect(await bench.run("exec", "a", "--timeout", "1m", "--env", "A=b=c", "--", "ls", "-l") == .success)
        #expect(bench.console.output == "no newline \u{1B}[1m")
        #expect(bench.console.errors == "err")
        let body = bench.core.requests.first?.body.flatMap { try? JSONValue(parsing: $0) }
        #expect(body == ["selector": "a", "argv": ["ls", "-l"], "timeout_s": 60, "env": ["A": "b=c"]])
    }

    @Test func manyClientsHavePrefixes() async {
        let watch = command("running", ["running": 2]) + target("a", "running") + target("b", "running")
            + output("a", 0, "one\ntw") + output("b", 0, "x\u{1B}[2Jy\n") + output("a", 6, "o") + target("a", "succeeded", 0)
            + target("b", "failed", 3) + command("finished", ["succeeded": 1, "failed": 1])
        let bench = bench(
            [watch], targets: [["client": "a", "state": "succeeded"], ["client": "b", "state": "failed", "exit_code": 3]])
        bench.console.outputIsTerminal = true
        #expect(await bench.run("exec", "all", "--", "ls") == .remoteFailure)
        #expect(bench.console.output == "name-a | one\nname-b | x^[[2Jy\nname-a | two\n")
        #expect(bench.console.errors == "name-b: exit status 3\n2 targets: 1 failed, 1 succeeded\n")
    }

    @Test func jsonShape() async {
        let watch = command("running", ["unfinished": 1]) + output("a", 0, "hi\n") + target("a", "succeeded", 0)
            + command("finished", ["succeeded": 1])
        let target: JSONValue = ["client": "a", "state": "succeeded", "exit_code": 0]
        var shown = target.object ?? [:]
        shown["stdout"] = "hi\n"
        shown["stderr"] = ""
        let bench = bench([watch], targets: [target])
        #expect(await bench.run("exec", "a", "--output", "json", "--", "true") == .success)
        #expect(
            (try? JSONValue(parsing: bench.console.output)) == ["command": "C1", "state": "finished", "targets": [.object(shown)]])
    }

    /// The watch breaks off in the middle of an event and starts again from the beginning: nothing is shown twice or lost.
    @Test func aLostConnectionIsTakenUpAgain() async {
        let start = command("running", ["running": 1]) + output("a", 0, "0123456789")
        let first = start + output("a", 10, "abc").prefix(20) + "\0"
        let again = command("running", ["running": 1]) + output("a", 0, "0123456789abcdef") + target("a", "succeeded", 0)
            + command("finished", ["succeeded": 1])
        let bench = bench([String(first), again], targets: [["client": "a", "state": "succeeded"]])
        #expect(await bench.run("exec", "a", "--", "x") == .success)
        #expect(bench.console.output == "0123456789abcdef")
    }

    @Test func aCoreThatStaysAwayIsUnreachable() async {
        let bench = bench([command("running", [:]) + "\0"], targets: [])
        #expect(await bench.run("exec", "a", "--", "x") == .unreachable)
        #expect(bench.console.errors.contains("cmctl commands follow C1"))
    }

    @Test func interruptCancels() async {
        let running = command("running", ["running": 1]) + output("a", 0, "working") + command("running", ["running": 1])
        let ended = target("a", "cancelled") + command("finished", ["cancelled": 1])
        var cancels = 0
        let bench = bench(
            [running, ended], targets: [["client": "a", "state": "cancelled"]], cancelled: { cancels += 1 })
        bench.core.betweenPieces = { [interrupts = bench.interrupts] number in
            if number == 20, cancels == 0 { #expect(interrupts.raise()) }
        }
        #expect(await bench.run("exec", "a", "--", "sleep", "100") == .remoteFailure)
        #expect(cancels == 1)
        #expect(bench.console.errors.contains("Cancelling C1"))
        #expect(!bench.interrupts.raise())
    }

    @Test func whoMayNotReadOutputStillSeesTheEnd() async {
        let bench = Bench { request in
            switch request.path {
            case "/api/v1/commands": ScriptedCore.json(["id": "C1", "target_count": 1], status: 201)
            case "/api/v1/commands/C1/watch": ScriptedCore.problem(403, "forbidden", "no")
            case "/api/v1/commands/C1": ScriptedCore.json(["state": "finished", "counts": ["failed": 1]])
            default: ScriptedCore.json(["items": [["client": "a", "state": "failed"]], "next": nil])
            }
        }
        #expect(await bench.run("exec", "a", "--", "x") == .remoteFailure)
        #expect(bench.console.errors.contains("may not read output"))
    }

    @Test func templateParametersHaveTheirTypes() async {
        let bench = Bench { request in
            if request.path == "/api/v1/templates/disk" {
                return ScriptedCore.json([
                    "parameters": [
                        ["name": "n", "type": "integer"], ["name": "all", "type": "boolean"], ["name": "paths", "type": "texts"],
                        ["name": "t", "type": "text"],
                    ]
                ])
            }
            return ScriptedCore.json(["id": "C1"], status: 201)
        }
        #expect(
            await bench.run(
                "exec", "a", "--template", "disk", "--param", "n=5", "--param", "all=true", "--param", "paths=/a", "--param",
                "paths=/b", "--param", "t=7", "--detach", "--cpu-limit", "0.5", "--idempotency-key", "k") == .success)
        let request = bench.core.requests.last
        #expect(
            request?.body.flatMap { try? JSONValue(parsing: $0) } == [
                "selector": "a", "template": "disk", "parameters": ["n": 5, "all": true, "paths": ["/a", "/b"], "t": "7"],
                "cpu_limit": 500,
            ])
        #expect(request?.headers.first?.name == "idempotency-key")
        #expect(bench.console.output == "C1\n")
        #expect(await bench.run("exec", "a", "--template", "disk", "--param", "x=1") == .usage)
    }

    @Test(arguments: [
        (["succeeded", "succeeded"], Outcome.success), (["succeeded", "skipped"], .success), (["skipped"], .remoteFailure),
        (["refused", "refused"], .refused), (["refused", "failed"], .remoteFailure), (["succeeded", "refused"], .remoteFailure),
        (["interrupted"], .remoteFailure), ([], .remoteFailure),
    ])
    func statuses(states: [String], wanted: Outcome) {
        #expect(ExecStateMachine.status(ofStates: states) == wanted)
    }

    @Test func scriptsAndInput() async {
        let bench = bench([command("finished", [:])], targets: [["client": "a", "state": "succeeded"]])
        bench.console.input = [0xFF, 0x00]
        #expect(await bench.run("exec", "a", "--stdin", "-", "--shell", "cat", "--wave", "1", "--wave", "10%", "--error-budget", "5%") == .success)
        let body = bench.core.requests.first?.body.flatMap { try? JSONValue(parsing: $0) }
        #expect(body == ["selector": "a", "shell": "cat", "stdin_base64": "/wA=", "waves": [1, "10%"], "error_budget": "5%"])
    }
}

@Suite struct EventStreamTests {
    @Test func formsOfTheStandard() {
        let text = ": comment\n\ndata: a\r\ndata:b\n\r\nevent: x\rid: 7\rdata\r\rdata: last"
        for size in [1, 2, 3, 100] {
            var machine = EventStreamStateMachine()
            var events: [EventStreamStateMachine.Event] = []
            var rest = Array(text.utf8)[...]
            while !rest.isEmpty {
                events += machine.feed(Array(rest.prefix(size))) ?? []
                rest = rest.dropFirst(size)
            }
            #expect(
                events == [
                    EventStreamStateMachine.Event(name: "message", id: nil, data: Array("a\nb".utf8)),
                    EventStreamStateMachine.Event(name: "x", id: "7", data: []),
                ])
            #expect(machine.lastID == "7")
        }
    }

    @Test func anEndlessEventIsRefused() {
        var machine = EventStreamStateMachine()
        let piece = [UInt8](repeating: 0x61, count: 1 << 20)
        var refused = false
        for _ in 0..<6 where machine.feed(piece) == nil { refused = true }
        #expect(refused)
    }
}

@Suite struct OutputLinesTests {
    @Test func namesAreShortAndUnique() {
        let names = ClientNames.short([
            ["id": "01AAAAAA111111", "name": "db", "hostname": "x"], ["id": "01AAAAAA222222", "name": "", "hostname": "vm"],
            ["id": "01AAAAAA333333", "hostname": "vm"], ["id": "01AAAAAA444444"],
        ])
        #expect(names == ["01AAAAAA111111": "db", "01AAAAAA222222": "vm/222222", "01AAAAAA333333": "vm/333333"])
    }

    @Test func progressCountsWhatHasEnded() {
        var state = ExecStateMachine(total: 10)
        _ = state.event("command", ["state": "running", "counts": ["succeeded": 3, "failed": 1, "unfinished": 6]])
        #expect(state.progress == "4/10 done: 1 failed")
    }

    @Test func coloursMayPassAndNothingElse() {
        let guarded = { (text: String) in String(decoding: OutputLines.guarded(Array(text.utf8)), as: UTF8.self) }
        #expect(guarded("a\tb\u{1B}[1;31mred") == "a\tb\u{1B}[1;31mred\u{1B}[0m")
        #expect(guarded("x\u{1B}[2J\u{1B}]0;t\u{7}\u{9B}31m\r") == "x^[[2J^[]0;t^G\u{FFFD}31m")
        #expect(guarded("50%\r60%") == "50%^M60%")
    }

    @Test func longLinesAreBroken() {
        var lines = OutputLines(usesColour: false, isGuarded: false)
        let stream = OutputLines.Stream(client: "a", isError: true)
        let out = lines.add([UInt8](repeating: 0x61, count: OutputLines.longestLine + 1), of: stream, name: "n")
        #expect(out.count == OutputLines.longestLine + "n ! \n".utf8.count)
        let rest = lines.end("a", name: "n")
        #expect(rest.count == 1 && rest[0].isError && rest[0].bytes == Array("n ! a\n".utf8))
        #expect(lines.end("a", name: "n").isEmpty)
    }
}
