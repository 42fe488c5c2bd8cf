import JSON
import Testing

@testable import OperatorClient

private let pin = String(repeating: "ab", count: 32)
private let path = "/home/u/.config/client-manager/cmctl.json"

@Suite struct LoginTests {
    private func grant(_ number: Int) -> JSONValue {
        ["access_token": .string("access\(number)"), "refresh_token": .string("refresh\(number)")]
    }

    private func bench(_ handler: @escaping ScriptedCore.Handler) -> Bench {
        var bench = Bench(handler)
        bench.environment = ["HOME": "/home/u"]
        return bench
    }

    @Test func passwordLogInIsRemembered() async {
        let bench = bench { request in
            request.path == "/api/v1/sessions" ? ScriptedCore.json(grant(1), status: 201) : ScriptedCore.json(["id": "ann"])
        }
        bench.console.password = "hunter22hunter22"
        #expect(await bench.run("login", "https://core:1/", "--user", "ann", "--code", "123456", "--pin", pin) == .success)
        let body = bench.core.requests.first?.body.flatMap { try? JSONValue(parsing: $0) }
        #expect(body == ["name": "ann", "password": "hunter22hunter22", "code": "123456"])
        let saved = bench.disk.content[path].flatMap { try? JSONValue(parsing: $0) }
        #expect(saved == ["server": "https://core:1", "token": "access1", "pin": .string(pin), "refresh": "refresh1"])
        #expect(bench.console.output.contains("Signed in to https://core:1 as ann"))
        #expect(!bench.console.output.contains("hunter22"))
    }

    @Test func aWrongPasswordSavesNothing() async {
        let bench = bench { _ in ScriptedCore.problem(401, "log-in-failed", "name or password is wrong") }
        bench.console.password = "x"
        #expect(await bench.run("login", "https://core:1", "--user", "ann") == .refused)
        #expect(bench.disk.content.isEmpty)
        #expect(await bench.run("login", "https://core:1") == .usage)
    }

    /// An expired session renews itself once and keeps the new pair.
    @Test func anExpiredSessionRenewsItself() async {
        var refreshed = 0
        let bench = bench { request in
            if request.path == "/api/v1/sessions/refresh" {
                refreshed += 1
                return ScriptedCore.json(grant(2))
            }
            return refreshed == 0 ? ScriptedCore.problem(401, "expired", "x") : ScriptedCore.json(["id": "c"])
        }
        bench.disk.content[path] = #"{"server": "https://core:1", "token": "access1", "refresh": "refresh1"}"#
        #expect(await bench.run("clients", "show", "c") == .success)
        #expect(refreshed == 1)
        #expect(bench.disk.content[path]?.contains("refresh2") == true)
    }

    @Test func aDeadSessionSaysWhatToDo() async {
        let bench = bench { _ in ScriptedCore.problem(401, "expired", "the session is over") }
        bench.disk.content[path] = #"{"server": "https://core:1", "token": "access1", "refresh": "refresh1"}"#
        #expect(await bench.run("clients", "show", "c") == .refused)
        #expect(bench.console.errors.contains("cmctl login"))
    }

    @Test func logOutForgets() async {
        let bench = bench { request in ScriptedCore.json(request.method == "GET" ? ["credential": "s1"] : [:]) }
        bench.disk.content[path] = #"{"server": "https://core:1", "token": "access1", "refresh": "refresh1"}"#
        #expect(await bench.run("logout") == .success)
        #expect(bench.disk.content.isEmpty)
        #expect(bench.core.requests.last?.target == "/api/v1/sessions/s1")
    }
}
