import AgentProtocol
import Crypto
import Testing

@testable import Kernel

/// An agent is sent from one core to another, by a statement that the first one's identity key signs.
@Suite(.timeLimit(.minutes(1))) struct MoveTests {
    private func statement(
        to other: LinkFixture, token: EnrollmentToken?, signedBy key: P256.PrivateKey, within seconds: UInt64 = 60,
        client: ClientID = LinkFixture.client
    ) throws -> MoveStatement {
        try MoveStatement(
            client: client, servers: other.url, fingerprint: other.coreKey.publicKey.fingerprint,
            token: token?.text ?? "", validUntil: 4_000_000_000, withinSeconds: seconds
        ) { (text) throws(CryptoError) in try key.sign(text) }
    }

    private func link(of core: LinkFixture) async throws -> AgentLink {
        let log = await core.services.log.wait { !$0.links.isEmpty }
        return try #require(log.links.last)
    }

    @Test func aSignedMoveLeadsToAnotherCoreForGood() async throws {
        let old = try await LinkFixture(heartbeatSeconds: 60)
        let newID = ClientID(high: 9, low: 9)
        let new = try await LinkFixture(heartbeatSeconds: 60) { hello in
            .accepted(AdmittedClient(client: newID, epoch: hello.epoch, heartbeatSeconds: 60))
        }
        try await old.agent(token: old.token)
        let token = new.token
        try await link(of: old).move(try statement(to: new, token: token, signedBy: old.coreKey))
        let log = await new.services.log.wait { $0.links.count == 1 }
        // A newcomer there: it shows the token, and not the id that the old core gave it.
        #expect(log.hellos.last?.client == nil)
        #expect(log.hellos.last?.enrollmentToken == token?.text)
        await old.services.log.wait { $0.ends == ["closed"] }
        log.links[0].close(LinkEnd(code: "disconnected", detail: "come back"))
        let back = await new.services.log.wait { $0.links.count == 2 }
        #expect(back.hellos.last?.client == newID)
        #expect(back.hellos.last?.enrollmentToken == nil)
        #expect(old.services.log.value.hellos.count == 1)
        old.stop()
        new.stop()
    }

    @Test func theSameCoreAtAnotherAddressKeepsTheID() async throws {
        let old = try await LinkFixture(heartbeatSeconds: 60)
        try await old.agent(token: old.token)
        let link = try await link(of: old)
        let address = old.url.split(separator: ":").last ?? ""
        link.move(
            try MoveStatement(
                client: LinkFixture.client, servers: "http://localhost:\(address)*3,\(old.url)",
                fingerprint: old.coreKey.publicKey.fingerprint, validUntil: 4_000_000_000, withinSeconds: 60
            ) { (text) throws(CryptoError) in try old.coreKey.sign(text) })
        let log = await old.services.log.wait { $0.links.count == 2 }
        #expect(log.hellos.last?.client == LinkFixture.client)
        #expect(log.ends == ["closed"])
        old.stop()
    }

    @Test func aForeignSignatureMovesNobody() async throws {
        let old = try await LinkFixture(heartbeatSeconds: 60)
        let new = try await LinkFixture(heartbeatSeconds: 60)
        try await old.agent(token: old.token)
        let others = try P256.PrivateKey.generate()
        let link = try await link(of: old)
        link.move(try statement(to: new, token: new.token, signedBy: others))
        await old.agentLog.wait { $0.ends.contains("protocol-malformed") }
        // Signed, but for another client.
        let again = await old.services.log.wait { $0.links.count == 2 }
        again.links[1].move(
            try statement(to: new, token: new.token, signedBy: old.coreKey, client: ClientID(high: 1, low: 1)))
        await old.services.log.wait { $0.links.count == 3 }
        #expect(old.agentLog.value.ends.filter { $0 == "protocol-malformed" }.count == 2)
        #expect(new.services.log.value.hellos.isEmpty)
        old.stop()
        new.stop()
    }

    @Test func whoIsNotAcceptedInTimeComesBackAndSaysWhy() async throws {
        let old = try await LinkFixture(heartbeatSeconds: 60)
        let new = try await LinkFixture(heartbeatSeconds: 60) { _ in .refused(code: "token-used-up", message: "somebody else used it") }
        try await old.agent(token: old.token)
        let link = try await link(of: old)
        link.move(try statement(to: new, token: new.token, signedBy: old.coreKey, within: 1))
        let log = await old.services.log.wait { !$0.moveFailures.isEmpty }
        #expect(log.moveFailures == [MoveFailure(servers: new.url, code: "token-used-up", message: "somebody else used it")])
        #expect(log.hellos.last?.client == LinkFixture.client)
        #expect(!new.services.log.value.hellos.isEmpty)
        old.stop()
        new.stop()
    }

    @Test func aMoveThatComesTooLateIsAnswered() async throws {
        let old = try await LinkFixture(heartbeatSeconds: 60)
        try await old.agent(token: old.token)
        let link = try await link(of: old)
        link.move(
            try MoveStatement(
                client: LinkFixture.client, servers: "https://nowhere.example",
                fingerprint: old.coreKey.publicKey.fingerprint, validUntil: 1, withinSeconds: 60
            ) { (text) throws(CryptoError) in try old.coreKey.sign(text) })
        let log = await old.services.log.wait { !$0.moveFailures.isEmpty }
        #expect(log.moveFailures.map(\.code) == ["move-lapsed"])
        #expect(log.links.count == 1)
        old.stop()
    }

    @Test func anOperatorNobodyHasApprovedInTimeIsARefusalToo() async throws {
        let old = try await LinkFixture(heartbeatSeconds: 60)
        let new = try await LinkFixture(heartbeatSeconds: 60) { _ in .pending(enrollment: "e-1", fingerprint: "f") }
        try await old.agent(token: old.token)
        let link = try await link(of: old)
        link.move(try statement(to: new, token: nil, signedBy: old.coreKey, within: 1))
        let log = await old.services.log.wait { !$0.moveFailures.isEmpty }
        #expect(log.moveFailures.map(\.code) == ["move-given-up"])
        old.stop()
        new.stop()
    }

    @Test func theStatementCoversEachField() throws {
        let key = try P256.PrivateKey.generate()
        let client = ClientID(high: 3, low: 4)
        let fingerprint = key.publicKey.fingerprint
        func make(_ servers: String, _ until: UInt64, _ within: UInt64) throws -> MoveStatement {
            try MoveStatement(
                client: client, servers: servers, fingerprint: fingerprint, validUntil: until, withinSeconds: within
            ) { (text) throws(CryptoError) in try key.sign(text) }
        }
        let statement = try make("https://a", 10, 20)
        let payload = statement.payload
        func read(_ bytes: [UInt8]) throws -> MoveStatement { try MoveStatement(reading: bytes.span.bytes) }
        #expect(try read(payload) == statement)
        #expect(statement.isValid(for: client, signedBy: key.publicKey))
        #expect(!statement.isValid(for: ClientID(high: 3, low: 5), signedBy: key.publicKey))
        let text = String(decoding: payload, as: UTF8.self)
        for (old, new) in [("https://a", "https://b"), ("\"until\":10", "\"until\":11"), ("\"within_s\":20", "\"within_s\":21")] {
            let changed = Array(text.split(separator: old, omittingEmptySubsequences: false).joined(separator: new).utf8)
            #expect(changed != payload)
            #expect(try !read(changed).isValid(for: client, signedBy: key.publicKey))
        }
    }

    @Test func wrongMovesNameTheField() {
        func pointer(_ body: () throws(Problem) -> Void) -> String? {
            do throws(Problem) {
                try body()
                return nil
            } catch { return error.pointer }
        }
        let core = String(repeating: "a", count: 64)
        let token = EnrollmentToken(secret: [UInt8](repeating: 1, count: 32), fingerprint: core)?.text
        #expect(pointer { () throws(Problem) in _ = try ClientMove(servers: "ftp://x") } == "/servers")
        #expect(pointer { () throws(Problem) in _ = try ClientMove(servers: "https://x", fingerprint: "A") } == "/fingerprint")
        #expect(pointer { () throws(Problem) in _ = try ClientMove(servers: "https://x", token: "cmt1") } == "/enrollment_token")
        #expect(
            pointer { () throws(Problem) in
                _ = try ClientMove(servers: "https://x", fingerprint: String(repeating: "b", count: 64), token: token)
            } == "/fingerprint")
        #expect(pointer { () throws(Problem) in _ = try ClientMove(servers: "https://x", withinSeconds: 0) } == "/within_s")
        #expect(pointer { () throws(Problem) in _ = try ClientMove(servers: "https://x*2,https://y", token: token) } == nil)
    }
}
