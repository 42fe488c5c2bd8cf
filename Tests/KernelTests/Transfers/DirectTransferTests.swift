import AgentProtocol
import Crypto
import Glibc
import JSON
import Reactor
import System
import Testing

@testable import Kernel

/// Files between a real `cm-agent` and a server with TLS, past the core.
@Suite struct DirectTransferTests {
    static let administrator = ChannelsFixture.administrator
    static let secret = "Signature=5ec2e7ab"

    static func run(
        _ content: [UInt8] = [], _ body: (ChannelsFixture, FarServer) async throws -> Void
    ) async throws {
        let far = try await FarServer.start(content)
        defer { far.stop() }
        try await ChannelsFixture.run { fixture in
            try allow(fixture, hosts: [far.host], authority: far.authority)
            try await body(fixture, far)
        }
    }

    static func write(_ bytes: [UInt8], to path: String) throws {
        try Descriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC).write(bytes.span.bytes)
    }

    static func allow(
        _ fixture: ChannelsFixture, hosts: [String], authority: String? = nil, isPlain: Bool = false
    ) throws {
        var direct: JSONObject = ["hosts": .array(hosts.map { .string($0) }), "plain_loopback": .bool(isPlain)]
        if let authority {
            let path = fixture.directory.path + "/far.pem"
            try write(Array(authority.utf8), to: path)
            direct["ca_file"] = .string(path)
        }
        let policy: JSONValue = .object(["direct_transfers": .object(direct)])
        try AtomicFile.write(policy.serialized(), to: fixture.agentDirectory + "/policy.json")
    }

    static func start(
        _ direction: TransferDirection, _ path: String, _ far: FarServer, _ fixture: ChannelsFixture, scheme: String = "https",
        host: String? = nil, size: UInt64? = nil, digest: SHA256.Digest? = nil, _ change: (inout TransferRequest) -> Void = { _ in }
    ) async throws -> TransferID {
        var request = TransferRequest(direction, targets: .clients([try await fixture.client()]), path: path)
        request.url = TransferURL(
            address: "\(scheme)://\(host ?? far.host)/bucket/key?\(secret)", size: size, digest: digest)
        change(&request)
        return try #require(try await fixture.kernel.transfers.create(request, by: administrator).transfers.first).transfer.id
    }

    /// A download from a server that goes quiet after `held` bytes, when `count` of them have moved.
    static func download(
        until count: UInt64, of held: Int, _ far: FarServer, _ fixture: ChannelsFixture
    ) async throws -> (TransferID, String) {
        far.change { $0.holdsAfter = held }
        let path = try TransfersTests.place(fixture) + "/down"
        let id = try await start(.push, path, far, fixture)
        try await TransfersTests.wait(id, fixture) { $0.bytes >= count || $0.state.isFinal }
        return (id, path)
    }

    static func bytes(_ path: String) throws -> [UInt8] { try Files.read(path, limit: 64 << 20) }

    /// Whether any file below holds the text.
    private static func holds(_ directory: String, _ text: String) throws -> Bool {
        let wanted = Array(text.utf8)
        for name in try Files.list(directory) {
            let path = directory + "/" + name
            var status = stat()
            guard lstat(path, &status) == 0 else { continue }
            if status.st_mode & S_IFMT == S_IFDIR {
                if try holds(path, text) { return true }
            } else if status.st_mode & S_IFMT == S_IFREG {
                let content = try Files.read(path, limit: 256 << 20)
                if finds(wanted, in: content) { return true }
            }
        }
        return false
    }

    private static func finds(_ wanted: [UInt8], in content: [UInt8]) -> Bool {
        var matched = 0
        // The first byte of what is looked for is nowhere else in it.
        for byte in content {
            matched = byte == wanted[matched] ? matched + 1 : byte == wanted[0] ? 1 : 0
            if matched == wanted.count { return true }
        }
        return false
    }

    @Test func aDownloadGoesOnAfterADropAndTheCoreSeesOnlyItsAccount() async throws {
        let content = TransfersTests.pattern(3 << 20)
        try await Self.run(content) { fixture, far in
            far.change { $0.cutAfter = 2 << 20 }
            let path = try TransfersTests.place(fixture) + "/down"
            let digest = SHA256.digest(content)
            let id = try await Self.start(.push, path, far, fixture, size: UInt64(content.count), digest: digest)
            let transfer = try await TransfersTests.wait(id, fixture)
            #expect(transfer.state == .succeeded, "\(transfer.machine.code) \(transfer.machine.reason)")
            #expect(transfer.digest == digest && transfer.bytes == UInt64(content.count) && transfer.size == transfer.bytes)
            #expect(transfer.far == "https://\(far.host)/bucket/key")
            #expect(try Self.bytes(path) == content)
            let requests = far.requests
            #expect(requests.count == 2 && requests.allSatisfy { $0.target == "/bucket/key?\(Self.secret)" })
            #expect(requests.last?.range?.hasPrefix("bytes=") == true && requests.last?.condition == "\"1\"")
            #expect(far.change { $0.sent } < content.count + 2 << 20)
            let trail = try await fixture.kernel.audit.query(AuditFilter(), limit: 500).lines.map(\.entry)
            let created = try #require(trail.first { $0.action == "transfer.create" })
            let detail = "\(created.detail)"
            #expect(detail.contains("/bucket/key") && !detail.contains("5ec2e7ab"))
            #expect(try await TransfersTests.isClean(fixture))
            #expect(try await fixture.kernel.files.list(FileQuery(), for: Self.administrator, .fileRead).isEmpty)
            #expect(try !Self.holds(fixture.directory.path, Self.secret))
        }
    }

    @Test func aDownloadGoesOnFromItsLastMarkAfterTheAgentDied() async throws {
        let content = TransfersTests.pattern(24 << 20)
        try await Self.run(content) { fixture, far in
            let (id, path) = try await Self.download(until: 18 << 20, of: 20 << 20, far, fixture)
            #expect(try !Self.holds(fixture.agentDirectory, Self.secret))
            fixture.killAgent()
            try fixture.startAgent()
            let transfer = try await TransfersTests.wait(id, fixture)
            #expect(transfer.state == .succeeded, "\(transfer.machine.code) \(transfer.machine.reason)")
            #expect(try Self.bytes(path) == content)
            let range = try #require(far.requests.last?.range)
            #expect(try #require(Int(range.dropFirst(6).dropLast())) >= 16 << 20)
        }
    }

    @Test func aChangedFileIsFetchedFromItsBeginning() async throws {
        let content = TransfersTests.pattern(2 << 20)
        try await Self.run(content) { fixture, far in
            let (id, path) = try await Self.download(until: 512 << 10, of: 1 << 20, far, fixture)
            _ = try await fixture.kernel.transfers.pause(id, by: Self.administrator)
            let other = TransfersTests.pattern(2 << 20, seed: 9)
            far.change { ($0.content, $0.tag) = (other, "\"2\"") }
            _ = try await fixture.kernel.transfers.resume(id, by: Self.administrator)
            #expect(try await TransfersTests.wait(id, fixture).state == .succeeded)
            #expect(try Self.bytes(path) == other)
            #expect(far.requests.last?.condition == "\"1\"")
        }
    }

    @Test(arguments: [0, 1_500_000]) func anUploadTellsItsHash(count: Int) async throws {
        let content = TransfersTests.pattern(count)
        try await Self.run { fixture, far in
            let path = try TransfersTests.place(fixture) + "/up"
            try Self.write(content, to: path)
            // The first answer is one that may be better the next time.
            far.change { $0.failures = [(503, "<Error><Code>SlowDown</Code></Error>")] }
            let id = try await Self.start(.pull, path, far, fixture)
            let transfer = try await TransfersTests.wait(id, fixture)
            #expect(transfer.state == .succeeded, "\(transfer.machine.code) \(transfer.machine.reason)")
            #expect(transfer.digest == SHA256.digest(content) && transfer.bytes == UInt64(count))
            #expect(far.change { $0.received } == content)
            #expect(far.requests.map(\.method) == ["PUT", "PUT"])
            #expect(try await TransfersTests.isClean(fixture))
        }
    }

    @Test func whatIsWrongIsToldWithoutTheSecret() async throws {
        let content = TransfersTests.pattern(10_000)
        try await Self.run(content) { fixture, far in
            let place = try TransfersTests.place(fixture)
            try Self.write([1], to: place + "/old")
            func fails(
                _ code: String, _ direction: TransferDirection = .push, with words: String, scheme: String = "https",
                size: UInt64? = nil, digest: SHA256.Digest? = nil
            ) async throws {
                let id = try await Self.start(
                    direction, place + "/old", far, fixture, scheme: scheme, size: size, digest: digest)
                let transfer = try await TransfersTests.wait(id, fixture)
                #expect(transfer.state == .failed && transfer.machine.code == code, "\(transfer.machine)")
                #expect(transfer.machine.reason.contains(words), "\(transfer.machine.reason)")
                #expect(!transfer.machine.reason.contains("5ec2e7ab"), "\(transfer.machine.reason)")
                #expect(try Self.bytes(place + "/old") == [1])
            }
            let body = "<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>5ec2e7ab</SignatureProvided></Error>"
            far.change { $0.failures = [(403, body)] }
            try await fails("url-refused", with: "403 SignatureDoesNotMatch")
            far.change { $0.failures = [(307, "")] }
            try await fails("url-redirected", with: "none is followed")
            try await fails("digest-mismatch", with: "hash", digest: SHA256.digest([2]))
            try await fails("url-size-mismatch", with: "10000", size: 9)
            #expect(far.requests.count == 4)
            // Held back at its last piece: the server has nothing.
            try await fails("digest-mismatch", .pull, with: "not uploaded", digest: SHA256.digest([2]))
            #expect(far.change { $0.received }.isEmpty)
            try await fails("url-not-allowed", with: "plain_loopback", scheme: "http")
            try Self.allow(fixture, hosts: [far.host])
            try await fails("url-untrusted", with: "ca_file")
            try Self.allow(fixture, hosts: ["127.0.0.1", "*.example:1"], authority: far.authority)
            try await fails("url-not-allowed", with: fixture.agentDirectory + "/policy.json")
            #expect(try await TransfersTests.isClean(fixture))
        }
    }

    @Test func plainHTTPNeedsTheClientsConsent() async throws {
        let far = try await FarServer.start([7, 8], isSecure: false)
        defer { far.stop() }
        try await ChannelsFixture.run { fixture in
            try Self.allow(fixture, hosts: [far.host], isPlain: true)
            let path = try TransfersTests.place(fixture) + "/down"
            let id = try await Self.start(.push, path, far, fixture, scheme: "http") { $0.mode = 0o600 }
            #expect(try await TransfersTests.wait(id, fixture).state == .succeeded)
            #expect(try Self.bytes(path) == [7, 8])
            #expect(try Files.status(path).mode & 0o777 == 0o600)
        }
    }

    @Test func aLimitOfSpeedHoldsAndPauseAndCancelTakeHold() async throws {
        let content = TransfersTests.pattern(40 << 20)
        try await Self.run(content) { fixture, far in
            let path = try TransfersTests.place(fixture) + "/down"
            let id = try await Self.start(.push, path, far, fixture) { $0.rate = 1 << 18 }
            try await TransfersTests.wait(id, fixture) { $0.bytes > 0 || $0.state.isFinal }
            _ = try await fixture.kernel.transfers.pause(id, by: Self.administrator)
            let paused = try await fixture.kernel.transfers.get(id, Self.administrator).transfer
            // Of 40 MiB at a quarter of one a second only what credit there was.
            #expect(paused.state == .paused && paused.bytes < 8 << 20)
            _ = try await fixture.kernel.transfers.resume(id, by: Self.administrator)
            try await TransfersTests.wait(id, fixture) { $0.state == .running && $0.bytes > paused.bytes }
            _ = try await fixture.kernel.transfers.cancel(id, by: Self.administrator)
            #expect(try await TransfersTests.isClean(fixture))
            #expect(!Files.exists(path))
            #expect(far.requests.count == 2)
        }
    }

    @Test func aRestartOfTheCoreLosesTheURLAndSaysSo() async throws {
        try await Self.run(TransfersTests.pattern(20 << 20)) { fixture, far in
            let path = try TransfersTests.place(fixture) + "/down"
            let id = try await Self.start(.push, path, far, fixture) { $0.rate = 1 << 18 }
            try await TransfersTests.wait(id, fixture) { $0.bytes > 0 || $0.state.isFinal }
            // More than may be under way with one client: each gives its place back, though none is opened any more.
            var all = [id]
            for number in 0..<6 { all.append(try await Self.start(.push, path + "\(number)", far, fixture) { $0.rate = 1 << 18 }) }
            try await fixture.restartCore()
            for id in all {
                let transfer = try await TransfersTests.wait(id, fixture)
                #expect(transfer.state == .failed && transfer.machine.code == "url-lost")
            }
            #expect(try await TransfersTests.isClean(fixture))
            #expect(try !Self.holds(fixture.directory.path, Self.secret))
        }
    }

    @Test func requestsThatCannotBeAreRefused() async throws {
        try await ChannelsFixture.run(isSimulated: true) { fixture in
            let client = try await fixture.client()
            func code(_ address: String, _ change: (inout TransferRequest) -> Void = { _ in }) async throws -> String {
                var request = TransferRequest(.push, targets: .clients([client]), path: "/a")
                request.url = TransferURL(address: address)
                change(&request)
                do {
                    let made = try await fixture.kernel.transfers.create(request, by: Self.administrator)
                    return try await TransfersTests.wait(try #require(made.transfers.first).transfer.id, fixture).machine.code
                } catch let error as Problem {
                    #expect(!error.detail.contains("5ec"))
                    return error.code
                }
            }
            for address in [
                "ftp://a/5ec", "https://", "https://u:5ec@a/", "https://a/5ec d", "https://a/#5ec",
                "https://a/" + String(repeating: "x", count: 8_192),
            ] {
                #expect(try await code(address) == "invalid", "\(address.prefix(40))")
            }
            #expect(try await code("https://a/") { $0.form = .tree } == "invalid")
            #expect(try await code("https://a/") { $0.name = "x" } == "invalid")
            #expect(try await code("https://a/") == "url-not-allowed")
        }
    }
}
