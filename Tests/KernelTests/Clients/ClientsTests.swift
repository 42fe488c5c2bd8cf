import AgentProtocol
import Crypto
import JSON
import Testing

@testable import Kernel

@Suite struct ClientsTests {
    let fixture = RegistryFixture()

    func add(_ enrollment: Enrollment, labels: [String: String] = [:]) async throws -> (Machine, ClientID) {
        var machine = try Machine()
        machine.token = try await enrollment.tokens.create(
            labels: labels, lifetime: 3_600, uses: 1, by: fixture.admin
        ).text
        let admitted = try #require(await enrollment.admit(machine.hello()).accepted)
        machine.client = admitted.client
        return (machine, admitted.client)
    }

    static let facts: JSONValue = [
        "hostname": "db-1", "os": ["name": "debian", "version": "12"], "cores": 8,
        "addresses": ["10.0.0.7", "fe80::1"], "disks": [["mount": "/", "bytes": 1_000_000]], "virtual": true,
    ]

    @Test func aRestartForgetsNothing() async throws {
        let first = try await fixture.open()
        var (machine, id) = try await add(first, labels: ["env": "prod"])
        let (_, revoked) = try await add(first)
        let clients = first.clients
        try await clients.edit(
            id,
            ClientEdit(name: "the database", notes: "in rack 4", metadata: ["owner": "ann"], labels: ["role": "db"]),
            by: fixture.admin)
        clients.facts(id, Self.facts)
        try await clients.revoke(revoked, reason: "gone", by: fixture.admin)
        _ = try await clients.setGroup("prod", selector: "env=prod", description: "", by: fixture.admin)
        var stranger = try Machine()
        let waiting = await first.admit(stranger.hello()).enrollment
        try await clients.flush()
        let link = first.linkUp(try #require(await first.admit(machine.hello()).accepted))
        fixture.pass(seconds: 10)
        first.linkDown(link, LinkEnd(code: "lost", detail: "no heartbeat"))
        try await clients.flush()
        _ = first.linkUp(try #require(await first.admit(machine.hello()).accepted))
        fixture.crash()
        fixture.pass(seconds: 100)

        let second = try await fixture.open()
        let client = try #require(second.clients.get(id))
        #expect(client.name == "the database" && client.labels == ["env": "prod", "role": "db"])
        #expect(client.state == .offline && client.stateSince == fixture.now && client.hostname == "db-1")
        #expect(second.clients.get(revoked)?.state == .revoked)
        for text in [
            "group=prod", "fact.os.name=debian,fact.cores>=8", "fact.addresses=10.0.0.*", "fact.virtual=true",
            "fact.disks.0.mount=/", "name=the*", "state=offline",
        ] {
            #expect(try second.clients.select(Selector(parsing: text)) == [id], "\(text)")
        }
        let detail = try #require(try await second.clients.detail(id))
        #expect(detail.notes == "in rack 4" && detail.metadata == ["owner": "ann"] && detail.facts == Self.facts)
        let sessions = try await second.clients.sessions(of: id, limit: 10)
        #expect(sessions.map(\.end.code) == ["core-stopped", "lost", "fenced"])
        #expect(second.pending().map(\.id.description) == [waiting])
        // The epochs stand: a copy from before the restart is still found out.
        var copy = machine
        copy.epoch = 0
        #expect(await second.admit(machine.hello()).accepted?.epoch == 4)
        fixture.pass(seconds: 60)
        #expect(await second.admit(copy.hello()).refusal == "clone-suspected")
    }

    @Test func statesFollowLinksAndHeartbeats() async throws {
        let enrollment = try await fixture.open()
        var (machine, id) = try await add(enrollment)
        let clients = enrollment.clients
        let link = enrollment.linkUp(try #require(await enrollment.admit(machine.hello()).accepted))
        let beat = Beat(
            roundTripMicroseconds: 900, loadHundredths: 150, memoryAvailableKiB: 1_000, memoryTotalKiB: 4_000)
        enrollment.heartbeat(id, beat)
        #expect(clients.get(id)?.lastBeat?.roundTripMicroseconds == 900)
        fixture.pass(seconds: 27)
        clients.markStale()
        #expect(clients.get(id)?.state == .online)
        fixture.pass(seconds: 2)
        clients.markStale()
        #expect(clients.get(id)?.state == .stale && clients.get(id)?.stateSince == fixture.now)
        enrollment.heartbeat(id, beat)
        #expect(clients.get(id)?.state == .online)
        enrollment.linkDown(link, LinkEnd(code: "closed", detail: ""))
        #expect(clients.get(id)?.state == .offline && clients.count(of: .online) == 0)
        #expect(fixture.kinds().suffix(4) == ["client.online", "client.stale", "client.online", "client.offline"])
    }

    @Test func labelsAreCheckedAndAudited() async throws {
        let enrollment = try await fixture.open()
        let (_, id) = try await add(enrollment)
        let clients = enrollment.clients
        for key in ["Env", "", "state", "fact.os", "a b", String(repeating: "x", count: 64)] {
            await #expect(throws: Problem.self, "\(key)") {
                try await clients.edit(id, ClientEdit(labels: [key: "x"]), by: fixture.admin)
            }
        }
        let before = try #require(clients.get(id))
        let after = try await clients.edit(
            id, ClientEdit(labels: ["env": "prod"]), by: fixture.admin, ifRevision: before.revision)
        #expect(after.labels == ["env": "prod"] && after.entityTag != before.entityTag)
        await #expect(throws: Problem.self) {
            try await clients.edit(id, ClientEdit(name: "late"), by: fixture.admin, ifRevision: before.revision)
        }
        #expect(try await fixture.audited("client.update") == 1)
    }

    @Test func bulkLabelsReachExactlyTheSelected() async throws {
        let enrollment = try await fixture.open()
        var ids: [ClientID] = []
        for number in 0..<6 { ids.append(try await add(enrollment, labels: ["n": "\(number)"]).1) }
        let clients = enrollment.clients
        let chosen = try clients.select(Selector(parsing: "n<3"))
        #expect(try await clients.label(chosen, ["wave": "1"], by: fixture.admin, selector: "n<3") == 3)
        #expect(try await clients.label(chosen, ["wave": "1"], by: fixture.admin, selector: "n<3") == 0)
        #expect(try clients.select(Selector(parsing: "wave=1")) == ids[..<3].sorted())
        #expect(try await clients.label(ids, ["wave": nil], by: fixture.admin, selector: "*") == 3)
        #expect(try clients.select(Selector(parsing: "wave")).isEmpty)
    }

    @Test func aForgottenClientIsUnknown() async throws {
        let enrollment = try await fixture.open()
        var (machine, id) = try await add(enrollment, labels: ["env": "prod"])
        _ = enrollment.linkUp(try #require(await enrollment.admit(machine.hello()).accepted))
        try await enrollment.clients.forget(id, purge: true, reason: "scrapped", by: fixture.admin)
        #expect(enrollment.clients.get(id) == nil && enrollment.clients.count == 0)
        #expect(try enrollment.clients.select(Selector(parsing: "env=prod")).isEmpty)
        #expect(try await fixture.audited("client.forget") == 1)
        machine.token = nil
        #expect(await enrollment.admit(machine.hello()).enrollment != nil)
        await #expect(throws: Problem.self) {
            try await enrollment.clients.forget(id, purge: true, reason: "", by: fixture.admin)
        }
    }

    @Test func longOfflineClientsAreForgotten() async throws {
        var options = Clients.Options()
        options.forgetAfterDays = 30
        let enrollment = try await fixture.open(options)
        let (_, old) = try await add(enrollment)
        fixture.pass(seconds: 20 * 86_400)
        let (_, young) = try await add(enrollment)
        fixture.pass(seconds: 11 * 86_400)
        try await enrollment.clients.clean()
        #expect(enrollment.clients.get(old) == nil && enrollment.clients.get(young) != nil)
        #expect(try await fixture.audited("client.forget") == 1)
    }

    @Test func groupsCannotFormACircle() async throws {
        let clients = try await fixture.open().clients
        _ = try await clients.setGroup("a", selector: "env=prod", description: "", by: fixture.admin)
        _ = try await clients.setGroup("b", selector: "group=a", description: "", by: fixture.admin)
        for selector in ["group=b", "group=a", "group=unknown", "env="] {
            await #expect(throws: Problem.self, "\(selector)") {
                try await clients.setGroup("a", selector: selector, description: "", by: fixture.admin)
            }
        }
        await #expect(throws: Problem.self) { try await clients.removeGroup("a", by: fixture.admin) }
        try await clients.removeGroup("b", by: fixture.admin)
        try await clients.removeGroup("a", by: fixture.admin)
        #expect(try await clients.groups().isEmpty)
    }

    @Test func sessionsAreBounded() async throws {
        var options = Clients.Options()
        options.sessionsPerClient = 5
        let enrollment = try await fixture.open(options)
        var (machine, id) = try await add(enrollment)
        for _ in 0..<12 { #expect(await enrollment.admit(machine.hello()).accepted != nil) }
        #expect(try await enrollment.clients.sessions(of: id, limit: 100).map(\.epoch) == [12, 11, 10, 9, 8])
        fixture.pass(seconds: 91 * 86_400)
        try await enrollment.clients.clean()
        #expect(try await enrollment.clients.sessions(of: id, limit: 100).isEmpty)
    }

    @Test func factsAreCappedAndTheSameReportIsNotWrittenAgain() async throws {
        let enrollment = try await fixture.open()
        let (_, id) = try await add(enrollment)
        var many = JSONObject()
        for number in 0..<800 { many["key with space (\(number))"] = .string(String(repeating: "v", count: 40)) }
        many["hostname"] = "late"
        enrollment.facts(id, .object(many))
        let row = try #require(enrollment.clients.fleet.withLock { $0.row(of: id) })
        #expect(row.facts.count <= Facts.maximumValues)
        #expect(try enrollment.clients.select(Selector(parsing: "fact.key_with_space__1_")) == [id])
        try await enrollment.clients.flush()
        enrollment.facts(id, .object(many))
        #expect(enrollment.clients.unwritten.withLock { $0.facts.isEmpty })
        enrollment.facts(id, Self.facts)
        #expect(try enrollment.clients.select(Selector(parsing: "fact.key_with_space__1_")).isEmpty)
    }
}

@Suite struct ClientListingTests {
    let fixture = RegistryFixture()

    func fill(_ enrollment: Enrollment, _ count: Int) async throws -> [ClientID] {
        let text = try await enrollment.tokens.create(lifetime: 3_600, uses: count, by: fixture.admin).text
        var ids: [ClientID] = []
        for number in 0..<count {
            var machine = try Machine()
            machine.token = text
            let admitted = try #require(await enrollment.admit(machine.hello()).accepted)
            ids.append(admitted.client)
            try await enrollment.clients.edit(
                admitted.client, ClientEdit(name: "web-\(number % 3)", labels: ["n": "\(number)"]), by: fixture.admin)
        }
        return ids
    }

    @Test(arguments: ClientQuery.Order.allCases, [false, true])
    func pagesShowEveryClientOnce(_ order: ClientQuery.Order, _ isDescending: Bool) async throws {
        let enrollment = try await fixture.open()
        let ids = try await fill(enrollment, 23)
        var seen: [ClientID] = []
        var query = ClientQuery(order: order, isDescending: isDescending, limit: 5)
        repeat {
            let page = try enrollment.clients.page(query)
            #expect(page.total == 23)
            seen += page.clients.map(\.id)
            query.cursor = page.next.flatMap { ClientCursor(encoded: $0.encoded) }
        } while query.cursor != nil && seen.count < 100
        #expect(seen.count == 23 && Set(seen) == Set(ids))
        if order == .id { #expect(seen == (isDescending ? ids.sorted().reversed() : ids.sorted())) }
    }

    @Test func aListShowsOnlyWhatTheCallerMaySee() async throws {
        let enrollment = try await fixture.open()
        let ids = try await fill(enrollment, 9)
        let clients = enrollment.clients
        let allowed = [try Selector(parsing: "n<6")]
        let denied = [try Selector(parsing: "name=web-1")]
        var query = ClientQuery(selector: try Selector(parsing: "n>=1"), allowed: allowed, denied: denied)
        let shown = try clients.page(query)
        #expect(Set(shown.clients.compactMap { $0.labels["n"] }) == ["2", "3", "5"])
        query.text = "WEB-2"
        #expect(Set(try clients.page(query).clients.compactMap { $0.labels["n"] }) == ["2", "5"])
        // The same for one client at a time and for a list.
        for (number, id) in ids.enumerated() {
            let isSeen = number < 6 && number % 3 != 1
            #expect(try clients.permits(id, allowed: allowed, denied: denied) == isSeen)
            #expect(try clients.select(.client(id), allowed: allowed, denied: denied) == (isSeen ? [id] : []))
        }
        let stranger = ClientID(high: 1, low: 1)
        let sorted = try clients.narrow(ids + [stranger], allowed: allowed, denied: denied)
        #expect(sorted.permitted == [ids[0], ids[2], ids[3], ids[5]])
        #expect(sorted.refused.count == 5 && sorted.unknown == [stranger])
        let many = try clients.narrow(
            Array(repeating: ids, count: 10).flatMap { $0 }, allowed: allowed, denied: denied)
        #expect(many.permitted.count == 40 && many.refused.count == 50)
        // A rule that names a lost group refuses to answer rather than deny nothing.
        #expect(throws: Problem.self) {
            try clients.permits(ids[0], allowed: [.everything], denied: [Selector(parsing: "group=lost")])
        }
    }

    @Test func theTagOfAListChangesWithWhatItShows() async throws {
        let enrollment = try await fixture.open()
        let ids = try await fill(enrollment, 3)
        let clients = enrollment.clients
        let tag = try clients.page(ClientQuery()).entityTag
        #expect(try clients.page(ClientQuery()).entityTag == tag)
        try await clients.edit(ids[0], ClientEdit(labels: ["x": "y"]), by: fixture.admin)
        #expect(try clients.page(ClientQuery()).entityTag != tag)
    }
}
