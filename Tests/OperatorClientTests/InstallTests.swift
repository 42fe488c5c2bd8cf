import Glibc
import JSON
import Testing

@testable import OperatorClient

/// `cmctl install`: what its flags make of the request, how it follows, how it ends.
@Suite struct InstallTests {
    private static func record(_ id: String, _ state: String, _ more: JSONObject = [:]) -> JSONValue {
        var object: JSONObject = ["id": .string(id), "host": .string("host-" + id), "job": .string("job-" + id), "state": .string(state)]
        for member in more { object[member.key] = member.value }
        return .object(object)
    }

    /// Accepts, and has each installation end as `ends` says at the second look.
    private static func bench(_ ends: [JSONValue], refused: [JSONValue] = []) -> Bench {
        var looks: [String: Int] = [:]
        return Bench { request in
            if request.method == "POST" {
                let items = ends.map { record($0["id"]?.string ?? "", "waiting") }
                if request.path.hasSuffix("/credentials") { return ScriptedCore.json(items[0], status: 202) }
                return ScriptedCore.json(["items": .array(items), "refused": .array(refused)], status: 202)
            }
            if request.path.hasSuffix("/logs") {
                let isFirst = !request.target.contains("cursor=")
                return ScriptedCore.json(["items": isFirst ? [["sequence": 7, "text": "logged\u{1B} in"]] : [], "next": nil])
            }
            let id = String(request.path.split(separator: "/").last ?? "")
            looks[id, default: 0] += 1
            let end = ends.first { $0["id"]?.string == id } ?? .null
            return ScriptedCore.json(looks[id] == 1 ? record(id, "running") : end)
        }
    }

    private static func sent(_ bench: Bench) -> JSONValue {
        (bench.core.requests.first { $0.method == "POST" }?.body).flatMap { try? JSONValue(parsing: $0) } ?? .null
    }

    private static func file(_ text: String) -> String {
        var template = Array("/tmp/cm-install-test-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        _ = text.withCString { write(descriptor, $0, strlen($0)) }
        close(descriptor)
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    @Test func flagsBecomeTheRequest() async {
        let bench = Self.bench([Self.record("a", "succeeded", ["client": "C1"])])
        let key = Self.file("a key\n")
        let password = Self.file("a password\n")
        let hosts = Self.file("# ours\nweb2:2222  # second\n\n")
        defer { for path in [key, password, hosts] { unlink(path) } }
        let outcome = await bench.run(
            "install", "web1", "--hosts", hosts, "--action", "repair", "--user", "admin", "--port", "2200", "--fingerprint", "SHA256:x",
            "--agents-url", "https://core:8443", "--label", "site=a", "--fact", "rack=7", "--run-as", "agent", "--wait", "2m", "--key", key,
            "--passphrase-file", password, "--password-file", password, "--sudo-password-file", password, "--agent",
            "--jump", "me@[fe80::1]:2022", "--jump-fingerprint", "SHA256:y", "--jump-key", key)
        #expect(outcome == .success)
        let credentials: JSONValue = [
            "password": "a password", "passphrase": "a password", "sudo_password": "a password", "private_key": "a key\n", "agent": true,
        ]
        let wanted: JSONValue = [
            "hosts": ["web1", "web2:2222"], "action": "repair", "user": "admin", "port": 2200, "host_key": ["fingerprint": "SHA256:x"],
            "server": "https://core:8443", "labels": ["site": "a"], "facts": ["rack": "7"], "run_as": "agent", "wait_s": 120,
            "credentials": credentials,
            "jump": [
                "host": "fe80::1", "port": 2022, "user": "me", "host_key": ["fingerprint": "SHA256:y"], "credentials": ["private_key": "a key\n"],
            ],
        ]
        #expect(Self.sent(bench) == wanted)
        #expect(bench.console.output.contains("host-a: logged^[ in\n"))
        #expect(bench.console.output.contains("host-a: succeeded as client C1"))
        #expect(!bench.console.output.contains("password"))
    }

    @Test func passwordsAreAskedForWithoutEcho() async {
        let bench = Self.bench([Self.record("a", "succeeded")])
        bench.console.password = "typed"
        #expect(await bench.run("install", "web1", "--ask-password", "--ask-passphrase", "--ask-sudo-password", "--trust-first-use", "--jump", "gate") == .success)
        let typed: JSONValue = ["password": "typed", "passphrase": "typed", "sudo_password": "typed"]
        #expect(Self.sent(bench)["credentials"] == typed)
        #expect(Self.sent(bench)["host_key"] == ["trust_first_use": true])
        #expect(Self.sent(bench)["jump"] == ["host": "gate", "host_key": ["trust_first_use": true], "credentials": typed])
    }

    @Test func theUsersKnownHostsAreTheOrdinaryWayAndNothingIsSilent() async {
        var bench = Self.bench([Self.record("a", "succeeded")])
        bench.environment["HOME"] = "/home/me"
        #expect(await bench.run("install", "web1", "--agent") == .usage)
        #expect(bench.console.errors.contains("which host keys to believe"))
        bench.disk.content["/home/me/.ssh/known_hosts"] = "web1 ssh-ed25519 AAAA\n"
        #expect(await bench.run("install", "web1", "--agent") == .success)
        #expect(Self.sent(bench)["host_key"] == ["known_hosts": "web1 ssh-ed25519 AAAA\n"])
        #expect(await bench.run("install", "web1", "--agent", "--fingerprint", "x", "--trust-first-use") == .usage)
        #expect(await bench.run("install", "web1", "--trust-first-use") == .usage)
        #expect(await bench.run("install", "--agent", "--trust-first-use") == .usage)
    }

    @Test func whatFailsOnOneHostIsNamedAndCounted() async {
        let bench = Self.bench(
            [Self.record("a", "succeeded"), Self.record("b", "failed", ["code": "ssh-login-refused", "reason": "no"])])
        #expect(await bench.run("install", "a", "b", "--agent", "--trust-first-use") == .remoteFailure)
        #expect(bench.console.errors.contains("host-b: failed: no [ssh-login-refused]"))
        #expect(bench.console.output.contains("1 of 2 hosts are done"))
        let refused = Self.bench([Self.record("a", "succeeded")], refused: [["host": "c:22", "code": "host-busy", "reason": "busy"]])
        #expect(await refused.run("install", "a", "c", "--agent", "--trust-first-use") == .remoteFailure)
        #expect(refused.console.errors.contains("c:22: busy"))
    }

    @Test func detachDoesNotWait() async {
        let bench = Self.bench([Self.record("a", "succeeded")])
        #expect(await bench.run("install", "a", "--agent", "--trust-first-use", "--detach") == .success)
        #expect(bench.console.output == "a  host-a\n")
        #expect(bench.core.requests.count == 1)
    }

    @Test func oneThatNeedsItsCredentialsGoesOn() async {
        let password = Self.file("again\n")
        defer { unlink(password) }
        let bench = Self.bench([Self.record("a", "succeeded", ["jump": "me@gate:22"])])
        #expect(await bench.run("install", "continue", "a", "--password-file", password, "--jump-password-file", password) == .success)
        #expect(bench.core.requests.contains { $0.method == "POST" && $0.path == "/api/v1/installations/a/credentials" })
        #expect(Self.sent(bench)["credentials"] == ["password": "again"])
    }
}
