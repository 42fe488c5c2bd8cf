import JSON
import Testing

@testable import OperatorClient

@Suite struct SecretVerbTests {
    private func body(_ bench: Bench) -> JSONValue? { bench.core.requests.last?.body.flatMap { try? JSONValue(parsing: $0) } }

    @Test func valuesComeFromStandardInputAndStandInNoAddress() async {
        let bench = Bench { _ in ScriptedCore.json(["name": "db", "current": 1]) }
        bench.console.input = Array("correct horse\n".utf8)
        #expect(await bench.run("secrets", "create", "db", "--summary", "the database", "--shared") == .success)
        #expect(bench.core.requests.last?.target == "/api/v1/secrets")
        #expect(body(bench) == ["name": "db", "summary": "the database", "shared": true, "value": "correct horse"])
        bench.console.input = [0xFF, 0x00]
        #expect(await bench.run("secrets", "add", "db", "--keep") == .success)
        #expect(bench.core.requests.last?.target == "/api/v1/secrets/db/versions")
        #expect(body(bench) == ["activate": false, "value_base64": "/wA="])
        bench.console.input = Array("\n".utf8)
        #expect(await bench.run("secrets", "add", "db") == .usage)
    }

    @Test func aSourceAndAKeptVersionTakeNoValue() async {
        let bench = Bench { _ in ScriptedCore.json(["name": "db"]) }
        bench.console.input = Array("must not be read".utf8)
        #expect(await bench.run("secrets", "create", "db", "--source", "prod/db", "--refresh", "5m") == .success)
        #expect(body(bench) == ["name": "db", "source": "prod/db", "refresh_s": 300])
        #expect(
            await bench.run(
                "secrets", "rotate", "db", "--version", "3", "--percent", "90", "--timeout", "10m", "--overlap", "1h", "--count-offline") == .success)
        #expect(bench.core.requests.last?.target == "/api/v1/secrets/db/rotate")
        #expect(body(bench) == ["version": 3, "percent": 90, "timeout_s": 600, "overlap_s": 3_600, "count_offline": true])
        #expect(await bench.run("secrets", "rotate", "db", "--version", "3", "--file", "x") == .usage)
    }

    @Test func theValueIsPrintedExactly() async {
        let bench = Bench { _ in ScriptedCore.json(["name": "db", "version": 2, "value": "a\u{1B}b"]) }
        #expect(await bench.run("secrets", "value", "db", "2") == .success)
        #expect(bench.core.requests.last?.target == "/api/v1/secrets/db/versions/2/value")
        #expect(bench.console.output == "a\u{1B}b")
        #expect(await bench.run("secrets", "value", "db") == .success)
        #expect(bench.core.requests.last?.target == "/api/v1/secrets/db/versions/current/value")
        let bytes = Bench { _ in ScriptedCore.json(["value_base64": "aGk="]) }
        #expect(await bytes.run("secrets", "value", "db") == .success)
        #expect(bytes.console.output == "hi")
    }

    @Test func assignmentsAndCommands() async {
        let bench = Bench { _ in ScriptedCore.json(["id": "01J9Z3K5X6Q7R8S9T0V1W2X3Y4", "target_count": 1]) }
        #expect(
            await bench.run(
                "secrets", "assign", "db", "env=prod", "--file", "db-password", "--owner", "app", "--group", "app", "--mode", "0440",
                "--lifetime", "1h", "--hook", "reload", "--hook", "app.service") == .success)
        #expect(bench.core.requests.last?.target == "/api/v1/secrets/db/assignments")
        #expect(
            body(bench) == [
                "selector": "env=prod", "file": "db-password", "owner": "app", "group": "app", "mode": "0440", "lifetime_s": 3_600,
                "hook": ["reload", "app.service"],
            ])
        #expect(
            await bench.run("secrets", "exec", "env=prod", "--secret", "PASSWORD=db", "--timeout", "30", "--detach", "--", "psql") == .success)
        #expect(bench.core.requests.last?.target == "/api/v1/secrets/commands")
        #expect(body(bench) == ["selector": "env=prod", "argv": ["psql"], "secrets": ["PASSWORD": "db"], "timeout_s": 30])
        #expect(await bench.run("secrets", "exec", "env=prod", "--", "psql") == .usage)
        #expect(await bench.run("secrets", "exec", "env=prod", "--secret", "A=b") == .usage)
    }
}
