import AgentProtocol
import Testing

@testable import Kernel

/// A client as plain data.
struct SampleClient: SelectorView {
    var id = ClientID(high: 1, low: 1)
    var state = ClientState.online
    var name = ""
    var labels: [String: String] = [:]
    var reported: [String: [String]] = [:]
    var memberships: Set<String> = []
    func label(_ key: String) -> String? { labels[key] }
    func facts(_ path: String) -> [String] { reported[path] ?? [] }
    func isMember(ofGroup name: String) -> Bool { memberships.contains(name) }
}

@Suite struct SelectorTests {
    static let database = SampleClient(
        name: "web server 1", labels: ["env": "prod", "role": "db"],
        reported: [
            "cores": ["8"], "os.name": ["debian"], "memory": ["17179869184"], "kernel": ["6.1.0-18-amd64"],
            "addresses": ["10.0.0.7", "fe80::1"],
        ], memberships: ["blue"])

    @Test(arguments: [
        "env=prod", "env==prod", "env=prod,role in (db,cache),!canary", "env=prod and role in (db, cache) and not canary",
        "env=test or role=db", "env=test,role=x or role=db", "(env=test or env=prod),role", "*", "all", " * ",
        "env!=test", "canary!=true", "role not in (web)", "role notin (web,cache)", "!(env=test or canary)", "!!role",
        "fact.cores>=4", "fact.cores<=8", "fact.cores<10", "fact.memory>=16G", "fact.memory>15.5GiB",
        "fact.kernel>=6.1", "fact.kernel<6.10", "fact.os.name=debian*", "fact.os.name=d?bian",
        "fact.addresses=10.0.0.*", "fact.addresses", "!fact.gpu", "state=online", "state in (online,stale)",
        "state!=offline", "group=blue", "name=\"web server 1\"", "name=web*", "label.env=prod",
        "00000000000G000000000000G1 or all",
    ])
    func holds(_ text: String) throws {
        #expect(try Selector(parsing: text).matches(Self.database), "\(text)")
    }

    @Test(arguments: [
        "env=test", "env=Prod", "canary", "role in (web,cache)", "fact.cores>8", "fact.cores<8", "fact.os.name>=4",
        "fact.gpu>=0", "fact.gpu!=x,fact.gpu", "name=\"web*\"", "group=red", "state=revoked", "not all",
        "env=prod,env=test", "fact.addresses=10.1.*", "fact.kernel>6.10",
    ])
    func doesNotHold(_ text: String) throws {
        #expect(try !Selector(parsing: text).matches(Self.database), "\(text)")
    }

    /// What decides who gets a secret: labels and ids, and nothing that a machine says or does.
    @Test(arguments: [
        ("*", nil), ("env=prod,!canary or role in (db,cache)", nil), ("00000000000G000000000000G1", nil), ("label.env=prod", nil),
        ("id=0*", nil), ("fact.os.name=debian", "fact.os.name"), ("env=prod or fact.cores>=4", "fact.cores"),
        ("env=prod,!(role=db or !fact.gpu)", "fact.gpu"), ("!state=offline", "state"), ("name=web*", "name"), ("group=blue", "group"),
    ] as [(String, String?)])
    func whatIsNotAssertedIsNamed(_ text: String, _ first: String?) throws {
        #expect(try Selector(parsing: text).firstUnasserted == first, "\(text)")
    }

    @Test func bareIdentifierIsASelector() throws {
        let id = ClientID(high: 0x0190_0000_0000_0000, low: 42)
        let selector = try Selector(parsing: id.description)
        #expect(selector.singleClient == id)
        #expect(selector.matches(SampleClient(id: id)))
        #expect(!selector.matches(SampleClient()))
        #expect(try Selector(parsing: id.description.lowercased()).singleClient == id)
    }

    @Test(arguments: [
        ("", "empty"), ("env=", "character 5"), ("env=prod,", "the end"), ("(env", "expected ')'"), ("env)", "found ')'"),
        ("state=up", "online, stale, offline, revoked"), ("state", "expected '='"), ("Env=1", "lower-case"),
        ("env=\"a", "never closed"), ("role in db", "expected '('"), ("role in (a", "','"), ("id=12", "client id"),
        ("group=a*", "no '*'"), ("state<online", "compares facts"), ("env prod", "expected ','"), ("in=3", "in"),
        ("env<>3", "expected a value"), ("fact.", "path"), ("*x", "expected ','"),
    ])
    func refusesAndSaysWhere(_ text: String, _ expected: String) {
        do {
            _ = try Selector(parsing: text)
            Issue.record("'\(text)' was accepted")
        } catch {
            #expect(error.code == "selector-invalid" && error.status == 400)
            #expect(error.detail.contains(expected), "\(error.detail)")
        }
    }

    @Test func isBounded() {
        let deep = String(repeating: "(", count: 33) + "a" + String(repeating: ")", count: 33)
        let negations = String(repeating: "!", count: 40) + "a"
        let many = "a in (" + (0..<600).map(String.init).joined(separator: ",") + ")"
        let long = "a=" + String(repeating: "x", count: 9_000)
        for text in [deep, negations, many, long] {
            #expect(throws: Problem.self) { try Selector(parsing: text) }
        }
    }
}
