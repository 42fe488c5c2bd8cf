import Crypto
import Testing

@testable import Kernel

@Suite struct LogInTests {
    private func fixtureWithUser(_ roles: [String] = ["operator"]) async throws -> SecurityFixture {
        let fixture = try await SecurityFixture()
        _ = try await fixture.security.createUser(
            name: "ada", password: "correct horse", roles: roles, by: try await fixture.admin())
        return fixture
    }

    private func logIn(
        _ fixture: SecurityFixture, _ password: String = "correct horse", name: String = "ada", code: String? = nil,
        from address: String = "192.0.2.1"
    ) async throws(Problem) -> SessionGrant {
        try await fixture.security.logIn(name: name, password: password, code: code, address: address, correlation: "c")
    }

    @Test func aSessionIsShortRefreshedListedAndRevoked() async throws {
        let fixture = try await fixtureWithUser()
        defer { fixture.close() }
        let grant = try await logIn(fixture)
        let principal = try await fixture.authenticate(grant.accessToken)
        #expect(principal.kind == .user && principal.id == "ada" && principal.roles == ["operator"])
        #expect(fixture.security.sessions(of: "ada").map(\.id) == [grant.session.id])

        fixture.clock.advance(15 * 60_000)
        #expect(await code { _ = try await fixture.authenticate(grant.accessToken) } == "token-expired")
        #expect(fixture.security.isLive(principal))
        let fresh = try await fixture.security.refresh(grant.refreshToken, address: "192.0.2.1", correlation: "c")
        #expect(try await fixture.authenticate(fresh.accessToken).id == "ada")
        #expect(await code { _ = try await fixture.authenticate(grant.accessToken) } == "token-invalid")
        // A refresh token is no access token, and the other way round.
        #expect(await code { _ = try await fixture.authenticate(fresh.refreshToken) } == "token-invalid")
        #expect(
            await code {
                _ = try await fixture.security.refresh(fresh.accessToken, address: "192.0.2.1", correlation: "c")
            } == "token-invalid")

        try await fixture.security.revokeSession(grant.session.id, by: try await fixture.authenticate(fresh.accessToken))
        #expect(await code { _ = try await fixture.authenticate(fresh.accessToken) } == "token-invalid")
        #expect(!fixture.security.isLive(principal))
        #expect(fixture.security.sessions(of: nil).isEmpty)
    }

    @Test func aRefreshTokenThatShowsUpTwiceEndsTheSession() async throws {
        let fixture = try await fixtureWithUser()
        defer { fixture.close() }
        let grant = try await logIn(fixture)
        let fresh = try await fixture.security.refresh(grant.refreshToken, address: "192.0.2.1", correlation: "c")
        #expect(
            await code { _ = try await fixture.security.refresh(grant.refreshToken, address: "198.51.100.9", correlation: "c") }
                == "token-reused")
        #expect(await code { _ = try await fixture.authenticate(fresh.accessToken) } == "token-invalid")
        #expect(
            await code { _ = try await fixture.security.refresh(fresh.refreshToken, address: "192.0.2.1", correlation: "c") }
                == "token-invalid")
    }

    @Test func sessionsSurviveARestart() async throws {
        let fixture = try await fixtureWithUser()
        let grant = try await logIn(fixture)
        fixture.close()
        let again = try await SecurityFixture(directory: fixture.directory, clock: fixture.clock)
        #expect(try await again.authenticate(grant.accessToken).id == "ada")
        #expect(try await again.security.refresh(grant.refreshToken, address: "192.0.2.1", correlation: "c").session.user == "ada")
        again.close()
    }

    @Test func guessingLocksThePairAndNobodyElse() async throws {
        let fixture = try await fixtureWithUser()
        defer { fixture.close() }
        for _ in 0..<5 { #expect(await code { _ = try await logIn(fixture, "wrong guess") } == "log-in-failed") }
        // Even the right password is not looked at any more.
        #expect(await code { _ = try await logIn(fixture) } == "locked-out")
        // The owner comes from elsewhere and gets in.
        #expect(await code { _ = try await logIn(fixture, from: "198.51.100.7") } == nil)
        #expect(fixture.security.limits().contains { $0.kind == "lock-out" && $0.account == "ada" && $0.key == "log-in:192.0.2.1" })
        fixture.clock.advance(60_001)
        #expect(await code { _ = try await logIn(fixture) } == nil)
        // A name that does not exist answers the same.
        #expect(await code { _ = try await logIn(fixture, name: "nobody") } == "log-in-failed")
    }

    @Test func aNewPasswordEndsSessionsAndADisabledAccountStaysOut() async throws {
        let fixture = try await fixtureWithUser()
        defer { fixture.close() }
        let admin = try await fixture.admin()
        let grant = try await logIn(fixture)
        _ = try await fixture.security.changeUser("ada", .init(password: "battery staple"), by: admin)
        #expect(await code { _ = try await fixture.authenticate(grant.accessToken) } == "token-invalid")
        #expect(await code { _ = try await logIn(fixture) } == "log-in-failed")
        let second = try await logIn(fixture, "battery staple")
        let (_, token) = try await fixture.security.createToken(
            .init(name: "own", roles: ["operator"]), by: try await fixture.authenticate(second.accessToken))
        _ = try await fixture.security.changeUser("ada", .init(isDisabled: true), by: admin)
        #expect(await code { _ = try await logIn(fixture, "battery staple") } == "log-in-failed")
        #expect(await code { _ = try await fixture.authenticate(second.accessToken) } == "token-invalid")
        #expect(await code { _ = try await fixture.authenticate(token) } == "token-invalid")
    }

    @Test func newRolesHoldAtOnce() async throws {
        let fixture = try await fixtureWithUser()
        defer { fixture.close() }
        let grant = try await logIn(fixture)
        #expect(fixture.security.grants(try await fixture.authenticate(grant.accessToken), "command.run"))
        _ = try await fixture.security.changeUser("ada", .init(roles: ["viewer"]), by: try await fixture.admin())
        #expect(!fixture.security.grants(try await fixture.authenticate(grant.accessToken), "command.run"))
    }

    @Test func theSecondFactorIsAskedForAfterThePasswordAndEachCodeCountsOnce() async throws {
        let fixture = try await fixtureWithUser()
        defer { fixture.close() }
        let principal = try await fixture.authenticate(try await logIn(fixture).accessToken)
        let (secret, bytes) = fixture.security.newSecondFactor()
        func code(_ steps: UInt64 = 0) -> String {
            OneTimePassword.code(secret: bytes, step: fixture.clock.milliseconds / 30_000 + steps)
        }
        #expect(await KernelTests.code { try await fixture.security.confirmSecondFactor(secret: secret, code: "0", by: principal) } == "invalid")
        try await fixture.security.confirmSecondFactor(secret: secret, code: code(), by: principal)
        #expect(await KernelTests.code { _ = try await logIn(fixture) } == "second-factor-required")
        #expect(await KernelTests.code { _ = try await logIn(fixture, "wrong guess") } == "log-in-failed")
        // The code that turned it on is used up.
        #expect(await KernelTests.code { _ = try await logIn(fixture, code: code()) } == "log-in-failed")
        fixture.clock.advance(30_000)
        let next = code()
        #expect(await KernelTests.code { _ = try await logIn(fixture, code: next) } == nil)
        #expect(await KernelTests.code { _ = try await logIn(fixture, code: next) } == "log-in-failed")
        try await fixture.security.removeSecondFactor("ada", by: try await fixture.admin())
        #expect(await KernelTests.code { _ = try await logIn(fixture) } == nil)
    }
}

@Suite struct LockOutStateMachineTests {
    @Test func locksGrowAndAreForgotten() {
        var machine = LockOutStateMachine()
        for attempt in 1...5 {
            let began = machine.failed(account: "a", address: "x", now: 0)
            #expect(began == (attempt == 5))
        }
        #expect(machine.lockedFor(account: "a", address: "x", now: 1) == 59_999)
        #expect(machine.lockedFor(account: "a", address: "y", now: 1) == nil)
        #expect(machine.lockedFor(account: "b", address: "x", now: 1) == nil)
        _ = machine.failed(account: "a", address: "x", now: 60_000)
        #expect(machine.lockedFor(account: "a", address: "x", now: 60_000) == 120_000)
        for _ in 0..<20 { _ = machine.failed(account: "a", address: "x", now: 60_000) }
        #expect(machine.lockedFor(account: "a", address: "x", now: 60_000) == LockOutStateMachine.longestLock)
        let later = 60_000 + LockOutStateMachine.longestLock + LockOutStateMachine.memory + 1
        let began = machine.failed(account: "a", address: "x", now: later)
        #expect(!began)
    }

    @Test func manyAccountsFromOneAddressLockTheAddress() {
        var machine = LockOutStateMachine()
        for account in 0..<50 { _ = machine.failed(account: "\(account)", address: "x", now: 0) }
        #expect(machine.lockedFor(account: "fresh", address: "x", now: 0) != nil)
        #expect(machine.lockedFor(account: "fresh", address: "y", now: 0) == nil)
    }

    @Test func aFloodOfAddressesIsBounded() {
        var machine = LockOutStateMachine(maximum: 100)
        for address in 0..<10_000 { _ = machine.failed(account: "a", address: "\(address)", now: UInt64(address)) }
        #expect(machine.tracked <= 100)
    }
}
