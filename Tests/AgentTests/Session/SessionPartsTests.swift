import AgentProtocol
import Crypto
import Glibc
import JSON
import System
import Testing
import Transport

@testable import Agent

@Suite struct ReconnectTests {
    @Test func boundsDoubleAndGrowWithTheAbsence() {
        var machine = ReconnectStateMachine()
        #expect(machine.delay(now: 0, random: 1_000) == 1_000)
        #expect(machine.delay(now: 0, random: 2_000) == 2_000)
        #expect(machine.delay(now: 0, random: 4_000) == 4_000)
        #expect(machine.delay(now: 0, random: 8_000) == 8_000)
        #expect(machine.delay(now: 59_999, random: 8_000) == 8_000)
        #expect(machine.delay(now: 60_000, random: 30_000) == 30_000)
        #expect(machine.delay(now: 600_000, random: 60_000) == 60_000)
        #expect(machine.delay(now: 600_000, random: 60_001) == 0)
        machine.succeeded()
        #expect(machine.delay(now: 700_000, random: 1_001) == 0)
    }

    @Test func slotIsKeptExactlyAndRefusalsAreSlow() {
        var machine = ReconnectStateMachine()
        #expect(machine.delay(slot: 4_321, now: 0) == 4_321)
        for _ in 0..<20 { #expect(machine.delayAfterRefusal(random: 0) >= 4_000) }
        #expect(machine.delayAfterRefusal(random: 0) == 150_000)
    }
}

@Suite struct ServerListTests {
    @Test func weightsAndFailuresDecide() throws {
        let list = try ServerList("https://a.example*3,http://127.0.0.1:8080")
        #expect(list.servers.map(\.weight) == [3, 1])
        #expect(list.servers.map(\.url.target) == ["/agent", "/agent"])
        let chosen = (0..<4 as Range<UInt64>).map { list.choose(excluding: [], random: $0) }
        #expect(chosen == [0, 0, 0, 1])
        #expect(list.choose(excluding: [0], random: 0) == 1)
        #expect(list.choose(excluding: [0, 1], random: 0) == 0)
    }

    @Test(arguments: ["", "https://a*0", "https://a*x", "ftp://a", "https://a,,https://b", "https://a*1001"])
    func wrongListsAreRefused(text: String) {
        #expect(throws: (any Error).self) { try ServerList(text) }
    }
}

@Suite struct IdentityFilesTests {
    private func withDirectory(_ body: (String) throws -> Void) throws {
        let path = "/tmp/cm-identity-\(Hex.encode(Random.bytes(8)))"
        try Files.makeDirectories(path)
        defer { try? Files.removeTree(path) }
        try body(path)
    }

    @Test func identitySurvivesARestart() throws {
        try withDirectory { path in
            let first = try IdentityFiles(dataDirectory: path)
            #expect(try Files.status(path + "/identity/key.pem").mode & 0o777 == 0o600)
            var state = AgentState(client: ClientID(high: 1, low: 2), pins: ["a", "b"], epoch: 9)
            state.adopted = AdoptedServers(servers: "https://new", inPlaceOf: "https://old")
            state.failedMove = MoveFailure(servers: "https://other", code: "unreachable", message: "no answer")
            let fingerprint = String(repeating: "0", count: 64)
            state.relocation = Relocation(
                try MoveStatement(
                    client: ClientID(high: 1, low: 2), servers: "https://next", fingerprint: fingerprint, validUntil: 9,
                    withinSeconds: 60) { (text) throws(CryptoError) in try first.key.sign(text) },
                isToOtherCore: true, now: 5)
            try first.save(state, isAccepted: true)
            let second = try IdentityFiles(dataDirectory: path)
            #expect(second.state == state)
            #expect(second.key.publicKey == first.key.publicKey)
            try IdentityFiles.reset(dataDirectory: path)
            let third = try IdentityFiles(dataDirectory: path)
            #expect(third.state == AgentState())
            #expect(third.key.publicKey != first.key.publicKey)
        }
    }

    @Test func openOrDamagedFilesAreErrors() throws {
        try withDirectory { path in
            _ = try IdentityFiles(dataDirectory: path)
            try Files.changeMode(path + "/identity/key.pem", 0o644)
            #expect(throws: IdentityError.self) { try IdentityFiles(dataDirectory: path) }
            try Files.changeMode(path + "/identity/key.pem", 0o600)
            try AtomicFile.write(Array("{".utf8), to: path + "/identity/state.json")
            #expect(throws: IdentityError.self) { try IdentityFiles(dataDirectory: path) }
        }
    }

    @Test func renewedKeyBringsTheOldOnesWordUntilItIsAccepted() throws {
        try withDirectory { path in
            let old = try IdentityFiles(dataDirectory: path)
            let client = ClientID(high: 1, low: 2)
            try old.save(AgentState(client: client, epoch: 1), isAccepted: true)
            try IdentityFiles.renewKey(dataDirectory: path)
            let new = try IdentityFiles(dataDirectory: path)
            let statement = try #require(new.succession)
            #expect(
                statement.isValid(
                    client: client, registeredKey: old.key.publicKey.spki, presentedKey: new.key.publicKey.spki))
            try new.save(new.state, isAccepted: true)
            #expect(try IdentityFiles(dataDirectory: path).succession == nil)
        }
    }
}

@Suite struct FactsTests {
    @Test func factsOfTheMachineAndOfTheOperator() throws {
        let collector = try FactsCollector(extra: ["role=db", "os=mine"], agentVersion: "1.2")
        let facts = try JSONValue(parsing: collector.collect())
        #expect(facts["role"]?.string == "db")
        // A built-in fact cannot be replaced.
        #expect(facts["os"]?.string != "mine")
        #expect(facts["agent_version"]?.string == "1.2")
        #expect((facts["cores"]?.integer ?? 0) > 0)
        #expect((facts["memory_kib"]?.integer ?? 0) > 0)
    }

    @Test(arguments: ["novalue", "=x", "Upper=x", "sp ace=x"]) func wrongFactsAreRefused(text: String) {
        #expect(throws: IdentityError.self) { try FactsCollector(extra: [text], agentVersion: "1") }
    }
}
