import AgentProtocol
import Crypto
import Testing

@testable import Kernel

/// A small generator with a seed, so that a failure can be run again.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// The indexes must give what a look at every client gives.
@Suite struct FleetSelectionTests {
    static let keys = ["env", "role", "rack", "canary"]
    static let values = ["prod", "test", "db", "cache", "r1", "r2", "10", "9", "web-1", "web-2"]
    static let paths = ["cores", "os.name", "kernel", "addresses"]
    static let factValues = ["4", "8", "16", "debian", "ubuntu", "6.1.0-18", "6.10.2", "10.0.0.1", "10.0.0.2", "8G"]

    static func client(_ number: UInt64, _ random: inout SeededGenerator) -> SampleClient {
        var client = SampleClient(id: ClientID(high: 0x0190_0000_0000_0000 + number, low: number))
        client.state = ClientState.allCases.randomElement(using: &random) ?? .online
        if Bool.random(using: &random) { client.name = values.randomElement(using: &random) ?? "" }
        for key in keys where Bool.random(using: &random) {
            client.labels[key] = values.randomElement(using: &random)
        }
        for path in paths where Bool.random(using: &random) {
            let count = path == "addresses" ? 2 : 1
            client.reported[path] = (0..<count).compactMap { _ in factValues.randomElement(using: &random) }
        }
        return client
    }

    static func put(_ client: SampleClient, into table: inout FleetTable) {
        let row = FleetTable.Row(
            id: client.id, key: fingerprint(client.id.low), state: client.state, stateSince: 0, enrolledAt: 0,
            lastSeen: 0, revision: 1, epoch: 0)
        let slot = table.insert(row)
        fill(client, slot, &table)
    }

    static func fill(_ client: SampleClient, _ slot: UInt32, _ table: inout FleetTable) {
        table.setState(client.state, of: slot, at: 1)
        table.setName(client.name, of: slot)
        table.setLabels(client.labels, of: slot)
        let facts = client.reported.flatMap { path, values in Set(values).map { (path: path, value: $0) } }
        table.setFacts(facts, of: slot)
    }

    static func fingerprint(_ number: UInt64) -> SHA256.Digest {
        let bytes = (0..<32).map { $0 < 8 ? UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) : 0 }
        return SHA256.digest(bytes)
    }

    static func selectorText(_ random: inout SeededGenerator, depth: Int, _ clients: [SampleClient]) -> String {
        func pick(_ list: [String]) -> String { list.randomElement(using: &random) ?? "" }
        if depth > 0, Int.random(in: 0..<3, using: &random) > 0 {
            let left = selectorText(&random, depth: depth - 1, clients)
            let right = selectorText(&random, depth: depth - 1, clients)
            return pick(["(\(left)) or (\(right))", "\(left),(\(right))", "!(\(left))", "not \(left) and \(right)"])
        }
        switch Int.random(in: 0..<12, using: &random) {
        case 0: return pick(keys)
        case 1: return "\(pick(keys))=\(pick(values))"
        case 2: return "\(pick(keys))!=\(pick(values))"
        case 3: return "\(pick(keys)) in (\(pick(values)),\(pick(values)))"
        case 4: return "\(pick(keys)) not in (\(pick(values)))"
        case 5: return "\(pick(keys))=\(pick(["web*", "*", "?", "r?", "*b*"]))"
        case 6: return "fact.\(pick(paths))\(pick(["<", "<=", ">", ">="]))\(pick(factValues))"
        case 7: return "fact.\(pick(paths))=\(pick(factValues + ["10.*", "6.*"]))"
        case 8: return "state=\(pick(["online", "offline", "stale", "revoked", "o*"]))"
        case 9: return "name=\(pick(values + ["web*"]))"
        case 10: return clients.randomElement(using: &random).map { $0.id.description } ?? "*"
        default: return pick(["*", "all", "name", "fact.cores"])
        }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func indexesAgreeWithALookAtEveryClient(_ seed: UInt64) throws {
        var random = SeededGenerator(state: seed)
        var table = FleetTable()
        var clients: [SampleClient] = []
        for number in 1...200 as ClosedRange<UInt64> {
            let client = Self.client(number, &random)
            clients.append(client)
            Self.put(client, into: &table)
        }
        for round in 0..<150 {
            // Between selections clients change, go and come, so that the indexes are exercised both ways.
            let index = Int.random(in: 0..<clients.count, using: &random)
            let old = clients[index]
            let slot = try #require(table.slot(of: old.id))
            if round % 3 == 0 {
                table.remove(slot)
                clients[index] = Self.client(UInt64(1_000 + round), &random)
                Self.put(clients[index], into: &table)
            } else {
                var changed = Self.client(old.id.low, &random)
                changed.id = old.id
                clients[index] = changed
                Self.fill(changed, slot, &table)
            }
            let text = Self.selectorText(&random, depth: 4, clients)
            let selector = try Selector(parsing: text)
            let expected = Set(clients.filter { selector.matches($0) }.map(\.id))
            var found: Set<ClientID> = []
            try table.select(selector).forEach { if let row = table.row($0) { found.insert(row.id) } }
            #expect(found == expected, "seed \(seed), round \(round): \(text)")
        }
        for client in clients { table.remove(try #require(table.slot(of: client.id))) }
        #expect(table.terms.termCount == 0 && table.count == 0)
    }

    @Test func manyClientsWithOneValueBecomeABitmapAndBack() throws {
        var table = FleetTable()
        for number in 1...3_000 as ClosedRange<UInt64> {
            Self.put(
                SampleClient(id: ClientID(high: number, low: number), labels: ["env": "prod", "host": "h\(number)"]),
                into: &table)
        }
        let prod = try Selector(parsing: "env=prod")
        #expect(try table.select(prod).count == 3_000)
        #expect(try table.select(Selector(parsing: "host=h12?")).count == 10)
        for number in 1...2_990 as ClosedRange<UInt64> {
            table.remove(try #require(table.slot(of: ClientID(high: number, low: number))))
        }
        #expect(try table.select(prod).count == 10)
    }

    @Test func groupsAreFollowedAndNeverTurnInACircle() throws {
        var table = FleetTable()
        Self.put(SampleClient(id: ClientID(high: 1, low: 1), labels: ["env": "prod"]), into: &table)
        table.groups = [
            "prod": try Selector(parsing: "env=prod"), "outer": try Selector(parsing: "group=prod"),
            "loop": try Selector(parsing: "not group=loop"),
        ]
        #expect(try table.select(Selector(parsing: "group=outer")).count == 1)
        for text in ["group=loop", "!group=typo", "env=test,group=typo"] {
            #expect(throws: Problem.self, "\(text)") { try table.select(Selector(parsing: text)) }
        }
    }

    @Test func aRingKeepsTheLastBeats() {
        var rings = BeatRings()
        rings.reset(3)
        #expect(rings.last(of: 3) == nil)
        for beat in 1...100 as ClosedRange<UInt32> {
            rings.append(
                BeatSample(at: beat, roundTripMicroseconds: 1, memoryAvailableKiB: 1, loadHundredths: 1), to: 3)
            #expect(rings.last(of: 3)?.at == beat)
            #expect(rings.history(of: 3).map(\.at) == Array((beat > 20 ? beat - 19 : 1)...beat))
        }
    }
}
