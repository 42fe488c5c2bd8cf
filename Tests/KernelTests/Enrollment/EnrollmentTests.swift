import AgentProtocol
import Crypto
import JSON
import Testing

@testable import Kernel

@Suite struct EnrollmentTests {
    let fixture = RegistryFixture()

    func token(
        _ enrollment: Enrollment, uses: Int = 1, labels: [String: String] = [:], client: ClientID? = nil
    ) async throws -> String {
        try await enrollment.tokens.create(
            labels: labels, lifetime: 3_600, uses: uses, client: client, by: fixture.admin
        ).text
    }

    /// A machine that is enrolled and was accepted once.
    func enrolled(_ enrollment: Enrollment) async throws -> Machine {
        var machine = try Machine()
        machine.token = try await token(enrollment)
        let admitted = try #require(await enrollment.admit(machine.hello()).accepted)
        machine.client = admitted.client
        return machine
    }

    @Test func aTokenMakesAClientWithItsLabels() async throws {
        let enrollment = try await fixture.open()
        var machine = try Machine()
        machine.token = try await token(enrollment, labels: ["env": "prod"])
        let admitted = try #require(await enrollment.admit(machine.hello()).accepted)
        #expect(admitted.epoch == 1)
        let client = try #require(enrollment.clients.get(admitted.client))
        #expect(client.labels == ["env": "prod"] && client.state == .offline)
        #expect(client.fingerprint == machine.key.publicKey.fingerprint)
        #expect(try await fixture.audited("client.enroll") == 1)
        _ = enrollment.linkUp(admitted)
        #expect(enrollment.clients.get(admitted.client)?.state == .online)
        #expect(try enrollment.clients.select(Selector(parsing: "env=prod,state=online")) == [admitted.client])
    }

    @Test func aOneUseTokenServesItsKeyAgainAndNoOther() async throws {
        let enrollment = try await fixture.open()
        var machine = try Machine()
        machine.token = try await token(enrollment)
        let first = try #require(await enrollment.admit(machine.hello()).accepted)
        // The answer was lost: the machine has no id yet and asks again with the same key and token.
        let again = try #require(await enrollment.admit(machine.hello()).accepted)
        #expect(again.client == first.client && again.epoch == 2)

        var thief = try Machine()
        thief.token = machine.token
        #expect(await enrollment.admit(thief.hello()).refusal == "token-used-up")
        #expect(try await fixture.audited("client.connect", "refused") == 1)
        #expect(enrollment.clients.count == 1)
    }

    @Test func twoKeysAtOnceCannotShareOneUse() async throws {
        let enrollment = try await fixture.open()
        let text = try await token(enrollment)
        let answers = try await withThrowingTaskGroup(of: Admission.self) { group in
            for _ in 0..<8 {
                var machine = try Machine()
                machine.token = text
                let hello = machine.hello()
                group.addTask { await enrollment.admit(hello) }
            }
            var answers: [Admission] = []
            for try await answer in group { answers.append(answer) }
            return answers
        }
        #expect(answers.filter { $0.accepted != nil }.count == 1)
        #expect(answers.filter { $0.refusal == "token-used-up" }.count == 7)
    }

    @Test func refusesWrongExpiredAndRevokedTokens() async throws {
        let enrollment = try await fixture.open()
        var machine = try Machine()
        machine.token = "nonsense"
        #expect(await enrollment.admit(machine.hello()).refusal == "token-invalid")
        machine.token = EnrollmentToken.generate(fingerprint: String(repeating: "a", count: 64))?.text
        #expect(await enrollment.admit(machine.hello()).refusal == "token-invalid")
        let (record, text) = try await enrollment.tokens.create(lifetime: 60, uses: 5, by: fixture.admin)
        machine.token = text
        try await enrollment.tokens.revoke(record.id, by: fixture.admin)
        #expect(await enrollment.admit(machine.hello()).refusal == "token-revoked")
        machine.token = try await enrollment.tokens.create(lifetime: 60, uses: 5, by: fixture.admin).text
        fixture.pass(seconds: 61)
        #expect(await enrollment.admit(machine.hello()).refusal == "token-expired")
        #expect(enrollment.clients.count == 0)
    }

    @Test func aStolenIdWithoutTheKeyIsRefusedAndAuditedOnceAMinute() async throws {
        let enrollment = try await fixture.open()
        let machine = try await enrolled(enrollment)
        var thief = try Machine()
        thief.client = machine.client
        for _ in 0..<5 { #expect(await enrollment.admit(thief.hello()).refusal == "key-mismatch") }
        #expect(try await fixture.audited("client.connect", "refused") == 1)
        // Neither a token for new machines nor the right key under another id helps.
        thief.token = try await token(enrollment)
        #expect(await enrollment.admit(thief.hello()).refusal == "key-mismatch")
        var confused = machine
        confused.client = ClientID(high: 5, low: 5)
        #expect(await enrollment.admit(confused.hello()).refusal == "key-mismatch")
        #expect(enrollment.clients.count == 1)
    }

    @Test func theOldKeyHandsTheIdToANewOne() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        let old = machine.key
        machine.key = try P256.PrivateKey.generate()
        machine.succession = try SuccessionStatement(client: id, from: machine.key, to: machine.key.publicKey).text
        #expect(await enrollment.admit(machine.hello()).refusal == "key-mismatch")
        machine.succession = try SuccessionStatement(client: id, from: old, to: machine.key.publicKey).text
        #expect(await enrollment.admit(machine.hello()).accepted?.client == id)
        #expect(try await fixture.audited("client.rekey") == 1)
        var stale = machine
        stale.key = old
        stale.succession = nil
        #expect(await enrollment.admit(stale.hello()).refusal == "key-mismatch")
    }

    @Test func anOperatorsTokenReEnrollsAMachineOntoItsId() async throws {
        let enrollment = try await fixture.open()
        let machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        var fresh = try Machine()
        fresh.token = try await token(enrollment, client: id)
        #expect(await enrollment.admit(fresh.hello()).accepted?.client == id)
        #expect(enrollment.clients.count == 1)
        #expect(enrollment.clients.get(id)?.fingerprint == fresh.key.publicKey.fingerprint)
    }

    @Test func strangersWaitForAnOperator() async throws {
        let enrollment = try await fixture.open()
        var stranger = try Machine()
        let waiting = try #require(await enrollment.admit(stranger.hello()).enrollment)
        #expect(await enrollment.admit(stranger.hello()).enrollment == waiting)
        let entry = try #require(enrollment.pending().first)
        #expect(entry.fingerprint == stranger.key.publicKey.fingerprint)
        async let verdict = enrollment.verdict(enrollment: waiting)
        let id = try await enrollment.approve(entry.id, name: "new", labels: ["env": "test"], by: fixture.admin)
        let admitted = try #require(await verdict?.accepted)
        #expect(admitted.client == id && admitted.epoch == 2)
        #expect(enrollment.clients.get(id)?.labels == ["env": "test"])
        #expect(enrollment.pending().isEmpty)
    }

    @Test func aRejectedMachineIsToldSo() async throws {
        let enrollment = try await fixture.open()
        var stranger = try Machine()
        let waiting = try #require(await enrollment.admit(stranger.hello()).enrollment)
        async let verdict = enrollment.verdict(enrollment: waiting)
        try await enrollment.reject(try #require(EnrollmentID(waiting)), reason: "not ours", by: fixture.admin)
        // A verdict that is asked for after the decision finds nothing to wait for.
        let answer = await verdict
        #expect(answer == nil || answer?.refusal == "enrollment-rejected")
        #expect(await enrollment.admit(stranger.hello()).refusal == "enrollment-rejected")
        fixture.pass(seconds: 86_401)
        try await enrollment.lapse()
        #expect(await enrollment.admit(stranger.hello()).enrollment != nil)
    }

    @Test func theWaitingRoomIsBoundedAndNobodyIsPushedOut() throws {
        var room = PendingEnrollments()
        func entry(_ number: UInt64, _ address: String) -> PendingEnrollment {
            PendingEnrollment(
                id: EnrollmentID(high: 0, low: number), key: FleetSelectionTests.fingerprint(number), publicKey: [],
                address: address, hostname: "", agentVersion: "", bootID: "", askedAt: number)
        }
        for number in 0..<1_000 as Range<UInt64> {
            let address = "address \(number / 20)"
            #expect(room.offer(FleetSelectionTests.fingerprint(number), from: address) == .free)
            room.add(entry(number, address))
        }
        let key = FleetSelectionTests.fingerprint(5_000)
        #expect(room.offer(key, from: "another") == .full)
        #expect(room.offer(FleetSelectionTests.fingerprint(7), from: "x") == .waiting(EnrollmentID(high: 0, low: 7)))
        room.remove(EnrollmentID(high: 0, low: 999))
        #expect(room.offer(key, from: "address 0") == .addressFull)
        #expect(room.offer(key, from: "another") == .free)
        #expect(room.lapse(now: PendingEnrollments.milliseconds + 500).count == 500)
        #expect(room.offer(key, from: "address 0") == .free)
    }

    @Test func autoApprovalIsOffAndAudited() async throws {
        let enrollment = try await fixture.open()
        #expect(!enrollment.policy.autoApprove)
        try await enrollment.setPolicy(
            EnrollmentPolicy(autoApprove: true, labels: ["source": "auto"]), by: fixture.admin)
        var stranger = try Machine()
        let admitted = try #require(await enrollment.admit(stranger.hello()).accepted)
        #expect(enrollment.clients.get(admitted.client)?.labels == ["source": "auto"])
        #expect(try await fixture.audited("enrollment-policy.update") == 1)
        #expect(try await fixture.audited("client.enroll") == 1)
    }

    // MARK: Fences and clones

    @Test func aNewerLinkFencesTheOlder() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        let older = enrollment.linkUp(try #require(await enrollment.admit(machine.hello()).accepted))
        let newer = enrollment.linkUp(try #require(await enrollment.admit(machine.hello()).accepted))
        #expect(enrollment.clients.link(of: id) === newer)
        enrollment.linkDown(older, LinkEnd(code: "fenced", detail: ""))
        #expect(enrollment.clients.link(of: id) === newer && enrollment.clients.get(id)?.state == .online)
        enrollment.linkUp(older)
        #expect(enrollment.clients.link(of: id) === newer)
    }

    @Test func anOlderLinkThatAnswersMakesAClone() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        _ = enrollment.linkUp(try #require(await enrollment.admit(machine.hello()).accepted))
        fixture.olderLinkAnswers.store(true, ordering: .relaxed)
        machine.boot = "boot-2"
        machine.address = "192.0.2.9"
        #expect(await enrollment.admit(machine.hello()).refusal == "clone-suspected")
        #expect(enrollment.clients.link(of: id) == nil)
        #expect(enrollment.clients.get(id)?.isHeldBack == true)
        let named = try #require(try await enrollment.clients.detail(id)?.contenders.array)
        #expect(named.compactMap { $0["boot_id"]?.string } == ["boot-1", "boot-2"])
        #expect(named.compactMap { $0["address"]?.string } == ["192.0.2.1", "192.0.2.9"])
        #expect(try await fixture.audited("client.hold", "refused") == 1)
    }

    @Test func aRestoredSnapshotIsHeldBackUntilAnOperatorDecides() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        let snapshot = machine
        for _ in 0..<3 { #expect(await enrollment.admit(machine.hello()).accepted != nil) }
        fixture.pass(seconds: 60)
        var restored = snapshot
        restored.boot = "boot-2"
        #expect(await enrollment.admit(restored.hello()).refusal == "clone-suspected")
        #expect(await enrollment.admit(machine.hello()).refusal == "clone-suspected")

        // Restart: the verdict stands.
        fixture.crash()
        let reopened = try await fixture.open()
        #expect(await reopened.admit(machine.hello()).refusal == "clone-suspected")

        await #expect(throws: Problem.self) {
            try await reopened.resolve(id, .replace, keeping: "boot-7", by: fixture.admin)
        }
        #expect(try await reopened.resolve(id, .replace, keeping: "boot-2", by: fixture.admin) == nil)
        #expect(await reopened.admit(machine.hello()).refusal == "superseded")
        #expect(await reopened.admit(restored.hello()).accepted?.client == id)
    }

    @Test func aCraftedBootIdRulesOutOnlyItself() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        var copy = machine
        copy.boot = "x\n\(machine.boot)\",\"y"
        #expect(await enrollment.admit(machine.hello()).accepted != nil)
        #expect(await enrollment.admit(copy.hello()).refusal == "clone-suspected")
        _ = try await enrollment.resolve(id, .replace, keeping: machine.boot, by: fixture.admin)
        fixture.crash()
        let reopened = try await fixture.open()
        #expect(await reopened.admit(copy.hello()).refusal == "superseded")
        #expect(await reopened.admit(machine.hello()).accepted?.client == id)
    }

    @Test func splitGivesTheOtherMachineAClientOfItsOwn() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        try await enrollment.clients.edit(id, ClientEdit(labels: ["env": "prod"]), by: fixture.admin)
        var copy = machine
        copy.boot = "boot-2"
        fixture.pass(seconds: 60)
        #expect(await enrollment.admit(machine.hello()).accepted != nil)
        #expect(await enrollment.admit(copy.hello()).refusal == "clone-suspected")
        let text = try #require(try await enrollment.resolve(id, .split, keeping: "boot-1", by: fixture.admin))
        #expect(await enrollment.admit(machine.hello()).accepted?.client == id)
        var fresh = try Machine()
        fresh.token = text
        let other = try #require(await enrollment.admit(fresh.hello()).accepted)
        #expect(other.client != id && enrollment.clients.get(other.client)?.labels == ["env": "prod"])
    }

    @Test func rekeyLetsOnlyTheTokenIn() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        var copy = machine
        #expect(await enrollment.admit(machine.hello()).accepted != nil)
        #expect(await enrollment.admit(copy.hello()).refusal == "clone-suspected")
        let text = try #require(try await enrollment.resolve(id, .rekey, keeping: nil, by: fixture.admin))
        #expect(await enrollment.admit(machine.hello()).refusal == "clone-suspected")
        machine.key = try P256.PrivateKey.generate()
        machine.token = text
        #expect(await enrollment.admit(machine.hello()).accepted?.client == id)
        #expect(enrollment.clients.get(id)?.isHeldBack == false)
        #expect(await enrollment.admit(copy.hello()).refusal == "key-mismatch")
    }

    @Test func aHelloThatWasOvertakenOnTheWayIsNoClone() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let delayed = machine.hello()
        #expect(await enrollment.admit(machine.hello()).accepted != nil)
        #expect(await enrollment.admit(delayed).refusal == "fenced")
        #expect(await enrollment.admit(machine.hello()).accepted != nil)
    }

    @Test func aRevokedClientStaysOut() async throws {
        let enrollment = try await fixture.open()
        var machine = try await enrolled(enrollment)
        let id = try #require(machine.client)
        _ = enrollment.linkUp(try #require(await enrollment.admit(machine.hello()).accepted))
        try await enrollment.clients.revoke(id, reason: "stolen", by: fixture.admin)
        #expect(enrollment.clients.link(of: id) == nil)
        #expect(await enrollment.admit(machine.hello()).refusal == "revoked")
        machine.token = try await token(enrollment)
        machine.client = nil
        #expect(await enrollment.admit(machine.hello()).refusal == "revoked")
        try await enrollment.clients.reinstate(id, reason: "found", by: fixture.admin)
        #expect(await enrollment.admit(machine.hello()).accepted?.client == id)
    }

    @Test func refusalsAreLimitedPerAddressAndMinute() {
        var limiter = RefusalLimiter()
        #expect(limiter.note("a", "x", now: 0) == 0)
        for _ in 0..<9 { #expect(limiter.note("a", "x", now: 1_000) == nil) }
        #expect(limiter.note("a", "y", now: 1_000) == 0)
        #expect(limiter.note("a", "x", now: 60_000) == 9)
        for number in 0..<10_000 { _ = limiter.note("address \(number)", "x", now: 60_001) }
        #expect(limiter.note("one more", "x", now: 60_001) == nil)
        #expect((limiter.note("one more", "x", now: 120_000) ?? 0) > 5_000)
    }
}
