import JSON
import PluginKit
import Testing

@Suite struct ReadingTests {
    private static let fingerprint = "SHA256:" + String(repeating: "A", count: 43)
    private static let releaseKey = "-----BEGIN PUBLIC KEY-----\nMFkwEwYH\n-----END PUBLIC KEY-----\n"

    private func settings(_ text: String = "{}") throws -> Settings {
        try Settings(try #require(try JSONValue(parsing: Array(text.utf8)).object))
    }

    /// A good request for "web-1", with other members in place of its own; `null` leaves one out.
    private func body(_ changes: String = "{}") throws -> JSONObject {
        let good = #"{"hosts": ["web-1"], "host_key": {"fingerprint": "\#(Self.fingerprint)"}, "credentials": {"password": "p"}}"#
        var object = try #require(try JSONValue(parsing: Array(good.utf8)).object)
        for member in try #require(try JSONValue(parsing: Array(changes.utf8)).object) {
            object[member.key] = member.value.isNull ? JSONValue?.none : member.value
        }
        return object
    }

    private func plans(_ changes: String = "{}", settings text: String = "{}") throws -> [(plan: Plan, secrets: Secrets)] {
        try Reading.plans(try body(changes), try settings(text), serverURL: "https://core:8443")
    }

    private func refusal(_ changes: String, serverURL: String? = "https://core:8443") throws -> String {
        let (body, settings) = (try body(changes), try settings())
        do throws(PluginError) { _ = try Reading.plans(body, settings, serverURL: serverURL) } catch {
            #expect(error.httpStatus == 422 && error.code == "invalid")
            return error.text
        }
        return "taken"
    }

    @Test func whatIsNotSaidIsWhatPeopleExpect() throws {
        let found = try #require(try plans().first)
        #expect(found.plan.action == .install && found.plan.server == "https://core:8443")
        #expect(found.plan.destination.name == "web-1:22" && found.plan.destination.user == "root")
        #expect(found.plan.jump == nil && found.plan.runAs == nil && found.plan.releaseKey == nil)
        #expect(found.secrets.host.password == Array("p".utf8) && found.secrets.jump.isEmpty)
    }

    @Test func hostsAreReadInEveryForm() throws {
        let found = try plans(
            #"{"user": "ops", "port": 2022, "hosts": ["a", "b:23", "me@c", "me@[fe80::1]:24", "fe80::2", {"host": "d", "port": 25, "user": "x"}]}"#)
        #expect(found.map { "\($0.plan.destination.user)@\($0.plan.destination.name)" } == [
            "ops@a:2022", "ops@b:23", "me@c:2022", "me@fe80::1:24", "ops@fe80::2:2022", "x@d:25",
        ])
    }

    @Test func aHostHasWhatIsItsOwn() throws {
        let found = try plans(
            #"{"labels": {"env": "prod"}, "hosts": ["a", {"host": "b", "labels": {"env": "test"}, "credentials": {"agent": true}}]}"#)
        #expect(found.map { $0.plan.labels.map { "\($0)=\($1)" } } == [["env=prod"], ["env=test"]])
        #expect(found.map(\.secrets.host.usesAgent) == [false, true])
        // Its credentials are its own altogether: no password is sent to a host that it was not given for.
        #expect(found.last?.secrets.host.password == [])
    }

    @Test func theWaitIsTheRequestsElseTheSettings() throws {
        #expect(try plans().first?.plan.waitSeconds == 60)
        #expect(try plans(settings: #"{"wait_s": 90}"#).first?.plan.waitSeconds == 90)
        #expect(try plans(#"{"wait_s": 7}"#, settings: #"{"wait_s": 90}"#).first?.plan.waitSeconds == 7)
        #expect(try refusal(#"{"wait_s": 4}"#) == "\"wait_s\" is a whole number from 5 to 600")
        #expect(try settings(#"{"wait_s": 1}"#).waitSeconds == 5)
        #expect(try settings(#"{"wait_s": 9999}"#).waitSeconds == 600)
    }

    @Test func settingsAreTakenWithinTheirBounds() throws {
        #expect(try settings().retentionDays == 90)
        #expect(try settings(#"{"retention_days": 7}"#).retentionDays == 7)
        #expect(try settings(#"{"parallel": 0}"#).parallel == 1)
        #expect(try settings(#"{"parallel": 99}"#).parallel == 32)
        #expect(try settings(#"{"agent_socket": ""}"#).agentSocket == nil)
        #expect(throws: PluginError.self) { try settings(#"{"release_key": "x"}"#) }
    }

    @Test func theReleaseKeyIsForNewAgentsOfRoot() throws {
        let key = JSONValue.string(Self.releaseKey)
        let section = JSONValue.object(["release_key": key]).description
        #expect(try plans(settings: section).first?.plan.releaseKey == Self.releaseKey)
        #expect(try plans(#"{"run_as": "cm"}"#, settings: section).first?.plan.releaseKey == nil)
        #expect(try plans(#"{"action": "upgrade"}"#, settings: section).first?.plan.releaseKey == nil)
        var request = try body(#"{"run_as": "cm"}"#)
        request["release_key"] = key
        #expect(throws: PluginError.self) { try Reading.plans(request, try settings(), serverURL: "https://core:8443") }
    }

    @Test func whatIsWrongIsNamed() throws {
        let cases = [
            (#"{"hostz": 1}"#, "unknown member \"hostz\""),
            (#"{"action": "erase"}"#, "\"action\" is one of"),
            (#"{"hosts": []}"#, "a list of 1 to 256"),
            (#"{"hosts": ["a", "a:22"]}"#, "a:22 is in \"hosts\" twice"),
            (#"{"hosts": ["a:b"]}"#, "no port number after the colon"),
            (#"{"hosts": ["a;reboot"]}"#, "\"host\" is a name or an address"),
            (#"{"hosts": ["-oProxyCommand=x"]}"#, "\"host\" is a name or an address"),
            (#"{"user": "-l"}"#, "\"user\" is not \"-l\""),
            (#"{"host_key": null}"#, "exactly one of"),
            (#"{"host_key": {"trust_first_use": false}}"#, "exactly one of"),
            (#"{"host_key": {"trust_first_use": true, "fingerprint": "x"}}"#, "exactly one of"),
            (#"{"host_key": {"fingerprint": "MD5:00"}}"#, "\"fingerprint\" is SHA256:"),
            (#"{"credentials": null}"#, "need a password, a private_key or agent: true"),
            (#"{"jump": {"host": "j"}}"#, "jump: \"credentials\" need"),
            (#"{"server": "core:8443"}"#, "\"server\" is an address"),
            (#"{"facts": {"a=b": "c"}}"#, "\"facts\" is an object"),
        ]
        for (changes, words) in cases {
            let text = try refusal(changes)
            #expect(text.contains(words), "\(changes): \(text)")
        }
        #expect(try refusal("{}", serverURL: nil).contains("set agents.url"))
        // To remove an agent nobody needs to know where the core is.
        #expect(try refusal(#"{"action": "uninstall"}"#, serverURL: nil) == "taken")
    }

    @Test func aKeyThatCannotBeUsedIsRefusedBeforeAnyHostIsAsked() throws {
        let request = try body(#"{"credentials": {"private_key": "x"}}"#)
        let settings = try settings()
        do throws(PluginError) {
            _ = try Reading.plans(request, settings, serverURL: "https://core")
            Issue.record("it was taken")
        } catch { #expect(error.code == "ssh-key-invalid" && error.text.hasPrefix("credentials: ")) }
    }

    @Test func credentialsGivenLaterCoverTheJumpHost() throws {
        let settings = try settings()
        let request = try body(#"{"jump": {"host": "j", "host_key": {"trust_first_use": true}, "credentials": {"agent": true}}}"#)
        let plan = try #require(try Reading.plans(request, settings, serverURL: "https://core").first?.plan)
        #expect(plan.jump?.name == "j:22")
        let bare: JSONObject = ["credentials": ["password": "p"]]
        #expect(throws: PluginError.self) { try Reading.secrets(bare, for: plan) }
        let both: JSONObject = ["credentials": ["password": "p"], "jump": ["credentials": ["password": "q"]]]
        #expect(try Reading.secrets(both, for: plan).jump.password == Array("q".utf8))
        // What is kept of the request holds no secret, and comes back whole.
        #expect(Plan(.object(plan.json)) == plan)
    }
}
