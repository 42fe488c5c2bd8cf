import Crypto
import Glibc
import Synchronization
import Testing

@testable import Kernel

@Suite struct AuthenticationTests {
    @Test func aLostAdministratorsTokenIsReplacedAndEnds() async throws {
        let fixture = try await SecurityFixture()
        defer { fixture.close() }
        let lost = fixture.adminToken
        let other = try await fixture.security.createToken(
            Security.TokenRequest(name: "ci", roles: ["viewer"]), by: try await fixture.admin())
        let first = try await fixture.security.recoverAdministrator(directory: fixture.directory.path, user: "uid 0")
        let found = fixture.adminToken
        #expect(found != lost)
        #expect(try await fixture.authenticate(found).id == first)
        #expect(try await fixture.authenticate(found).roles == ["administrator"])
        #expect(await code { _ = try await fixture.authenticate(lost) } == "token-invalid")
        #expect(try await fixture.authenticate(other.text).roles == ["viewer"])
        // Again: only the newest is good, also after a restart.
        _ = try await fixture.security.recoverAdministrator(directory: fixture.directory.path, user: "uid 0")
        fixture.close()
        let again = try await SecurityFixture(directory: fixture.directory, clock: fixture.clock)
        defer { again.close() }
        #expect(await code { _ = try await again.authenticate(found) } == "token-invalid")
        #expect(await code { _ = try await again.authenticate(lost) } == "token-invalid")
        #expect(try await again.authenticate(again.adminToken).roles == ["administrator"])
        #expect(try await again.audited("token.recover") == 2)
    }

    @Test func theFirstTokenAdministersAndSurvivesARestart() async throws {
        let first = try await SecurityFixture()
        let token = first.adminToken
        var status = stat()
        #expect(stat(first.directory.path + "/admin-token", &status) == 0 && status.st_mode & 0o777 == 0o600)
        let principal = try await first.admin()
        #expect(principal.id == Security.firstTokenID)
        #expect(first.security.grants(principal, "user.write"))
        #expect(try first.security.spend(principal).limit == 100_000)
        first.close()

        let second = try await SecurityFixture(directory: first.directory)
        #expect(second.adminToken == token)
        #expect(try await second.authenticate(token).roles == ["administrator"])
        second.close()

        // Deleting the file is good housekeeping: no new one is made.
        unlink(first.directory.path + "/admin-token")
        let third = try await SecurityFixture(directory: first.directory)
        #expect(third.adminToken.isEmpty)
        #expect(try await third.authenticate(token).roles == ["administrator"])
        third.close()
    }

    @Test(arguments: [nil, "", "Bearer", "Bearer ", "Basic YTpi", "bearer x", "Bearer  two", "Bearer cmt_unknown", "Bearer \u{0}"])
    func othersStayOutside(_ header: String?) async throws {
        let fixture = try await SecurityFixture()
        defer { fixture.close() }
        let answer = await code {
            _ = try await fixture.security.authenticate(authorization: header, address: "127.0.0.1", correlation: "")
        }
        #expect(answer == (header == nil ? "authentication-required" : "token-invalid"))
    }

    @Test func anIssuedTokenHasItsScopesRateNetworksAndEnd() async throws {
        let fixture = try await SecurityFixture()
        defer { fixture.close() }
        let admin = try await fixture.admin()
        let (token, text) = try await fixture.security.createToken(
            Security.TokenRequest(
                name: "ci", roles: ["operator"], scopes: ["client.*", "command.run"], networks: ["10.0.0.0/8", "2001:db8::/32"],
                lifetimeMilliseconds: 60_000), by: admin)
        #expect(text.hasPrefix("cmt_"))
        let principal = try await fixture.authenticate(text, from: "10.1.2.3")
        #expect(principal.kind == .token && principal.id == token.id && principal.credential == token.id)
        #expect(try fixture.security.spend(principal).limit == 100)
        #expect(fixture.security.grants(principal, "client.read"))
        #expect(fixture.security.grants(principal, "command.run"))
        #expect(!fixture.security.grants(principal, "file.read"))
        #expect(!fixture.security.grants(principal, "user.read"))
        #expect(await code { _ = try await fixture.authenticate(text, from: "11.0.0.1") } == "address-not-allowed")
        #expect(await code { _ = try await fixture.authenticate(text, from: "2001:db8::7") } == nil)
        #expect(await code { _ = try await fixture.authenticate(text, from: "::ffff:10.9.9.9") } == nil)
        fixture.clock.advance(60_000)
        #expect(await code { _ = try await fixture.authenticate(text, from: "10.1.2.3") } == "token-expired")
        #expect(try await fixture.audited("token.create") == 2)
    }

    @Test func revocationHoldsAtOnceClosesStreamsAndSurvivesARestart() async throws {
        let fixture = try await SecurityFixture()
        let admin = try await fixture.admin()
        let (token, text) = try await fixture.security.createToken(
            Security.TokenRequest(name: "x", roles: ["viewer"]), by: admin)
        let principal = try await fixture.authenticate(text)
        let closed = Atomic(0)
        let watch = try #require(fixture.security.watch(principal) { closed.wrappingAdd(1, ordering: .relaxed) })
        try await fixture.security.revokeToken(token.id, by: admin)
        #expect(closed.load(ordering: .relaxed) == 1)
        #expect(!fixture.security.isLive(principal))
        #expect(fixture.security.watch(principal) {} == nil)
        #expect(await code { _ = try await fixture.authenticate(text) } == "token-invalid")
        #expect(await code { try await fixture.security.revokeToken(token.id, by: admin) } == "not-found")
        #expect(await code { try await fixture.security.revokeToken(Security.firstTokenID, by: admin) } == "last-administrator")
        withExtendedLifetime(watch) {}
        fixture.close()
        let again = try await SecurityFixture(directory: fixture.directory)
        #expect(await code { _ = try await again.authenticate(text) } == "token-invalid")
        again.close()
    }

    @Test func nobodyGivesMoreThanTheyHave() async throws {
        let fixture = try await SecurityFixture()
        defer { fixture.close() }
        let admin = try await fixture.admin()
        _ = try await fixture.security.putRole(
            name: "token-maker", summary: "", rules: [["effect": "allow", "actions": ["token.write", "user.write"]]], by: admin)
        let (_, text) = try await fixture.security.createToken(
            Security.TokenRequest(name: "maker", roles: ["token-maker", "viewer"], scopes: ["token.*"]), by: admin)
        let maker = try await fixture.authenticate(text)
        func make(_ roles: [String], _ scopes: [String]?) async -> String? {
            await code {
                _ = try await fixture.security.createToken(
                    Security.TokenRequest(name: "y", roles: roles, scopes: scopes), by: maker)
            }
        }
        #expect(await make(["administrator"], ["token.*"]) == "forbidden")
        #expect(await make(["viewer"], nil) == "forbidden")
        #expect(await make(["viewer"], ["*"]) == "forbidden")
        #expect(await make(["viewer"], ["token.read"]) == nil)
        #expect(await make(["nobody"], ["token.read"]) == "invalid")
        // Nor by taking over the account of somebody who has more.
        _ = try await fixture.security.createUser(name: "root", password: "correct horse", roles: ["administrator"], by: admin)
        #expect(
            await code {
                _ = try await fixture.security.changeUser("root", .init(password: "another horse"), by: maker)
            } == "forbidden")
        #expect(await code { try await fixture.security.deleteUser("root", by: maker) } == "forbidden")
    }

    @Test func sessionsOfOneUserShareOneBucketAndAnOperatorCanFillIt() async throws {
        let fixture = try await SecurityFixture { $0.userRate = 2 }
        defer { fixture.close() }
        let admin = try await fixture.admin()
        _ = try await fixture.security.createUser(name: "ada", password: "correct horse", roles: ["viewer"], by: admin)
        var principals: [Principal] = []
        for address in ["192.0.2.1", "192.0.2.2"] {
            let grant = try await fixture.security.logIn(
                name: "ada", password: "correct horse", code: nil, address: address, correlation: "")
            principals.append(try await fixture.authenticate(grant.accessToken))
        }
        // Two a second are allowed: three at once, over both sessions, are too many.
        let start = try fixture.security.spend(principals[0])
        #expect(start.limit == 2 && start.remaining == 1)
        var refusals = 0
        for turn in 1...8 where await code({ try fixture.security.spend(principals[turn % 2]) }) == "rate-limited" { refusals += 1 }
        #expect(refusals > 0)
        #expect(fixture.security.limits().contains { $0.key == "user:ada" && $0.limit == 2 })
        try await fixture.security.resetLimit("user:ada", by: admin)
        #expect(try fixture.security.spend(principals[1]).remaining == 1)
    }

    @Test func limitsRefuseThenFillAgainAndStrangersCountByAddress() async throws {
        let fixture = try await SecurityFixture { $0.strangerRate = 5 }
        defer { fixture.close() }
        for _ in 0..<5 { #expect(await code { _ = try await fixture.authenticate("cmt_wrong", from: "192.0.2.1") } == "token-invalid") }
        #expect(await code { _ = try await fixture.authenticate("cmt_wrong", from: "192.0.2.1") } == "rate-limited")
        #expect(await code { _ = try await fixture.authenticate("cmt_wrong", from: "192.0.2.2") } == "token-invalid")
        // A right token from the same address goes on.
        #expect(try await fixture.authenticate(fixture.adminToken, from: "192.0.2.1").id == Security.firstTokenID)
        // IPv6 neighbours of one /64 are one stranger.
        for host in 1...5 { _ = await code { try fixture.security.admitStranger("2001:db8::\(host)") } }
        #expect(await code { try fixture.security.admitStranger("2001:db8::ffff") } == "rate-limited")
        #expect(await code { try fixture.security.admitStranger("2001:db8:0:1::1") } == nil)
        #expect(fixture.security.limits().contains { $0.key == "address:192.0.2.1" && $0.limit == 5 })
        try await fixture.security.resetLimit("address:192.0.2.1", by: try await fixture.admin())
        #expect(await code { _ = try await fixture.authenticate("cmt_wrong", from: "192.0.2.1") } == "token-invalid")
        #expect(try await fixture.audited("limit.reset") == 1)
    }
}

@Suite struct RateLimiterTests {
    @Test func aBucketHoldsOneSecondAndRefillsEvenly() throws {
        let limiter = RateLimiter(everyoneElse: "everyone-else")
        let start: UInt64 = 1_000_000_000_000
        for left in (0..<10).reversed() {
            #expect(try limiter.spend("a", limit: 10, now: start).remaining == left)
        }
        let refusal = #expect(throws: Problem.self) { try limiter.spend("a", limit: 10, now: start) }
        #expect(refusal?.status == 429 && refusal?.retryAfterSeconds == 1)
        #expect(limiter.peek("a", limit: 10, now: start) == RateLimit(limit: 10, remaining: 0, resetSeconds: 1))
        #expect(try limiter.spend("a", limit: 10, now: start + 100_000_000).remaining == 0)
        #expect(throws: Problem.self) { try limiter.spend("a", limit: 10, now: start + 100_000_000) }
        #expect(try limiter.spend("b", limit: 10, now: start).remaining == 9)
        #expect(limiter.refusedCount == 2)
    }

    @Test func aFloodOfKeysIsBoundedAndSharesOneBucket() throws {
        let limiter = RateLimiter(maximumKeys: 100, everyoneElse: "everyone-else")
        let now: UInt64 = 1_000_000_000_000
        var refused = 0
        for key in 0..<1_000 where (try? limiter.spend("k\(key)", limit: 10, now: now)) == nil { refused += 1 }
        #expect(limiter.active(now: now, atMost: 10_000).count <= 101)
        #expect(refused == 890)
        #expect(try limiter.spend("later", limit: 10, now: now + 2_000_000_000).remaining == 9)
    }
}
