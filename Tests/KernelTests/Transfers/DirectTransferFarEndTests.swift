import AgentProtocol
import Crypto
import Glibc
import Program
import Reactor
import System
import Testing
import Transport

@testable import Agent
@testable import Kernel

/// What lies between a client and the far end of a direct transfer: the agent's proxy, the host patterns of its policy, servers
/// that stop, that cannot be used, and agents and cores of another age.
@Suite struct DirectTransferFarEndTests {
    private typealias Direct = DirectTransferTests

    @Test(.timeLimit(.minutes(2)), arguments: ["http", "socks5"])
    func theAgentsProxyIsGoneThroughWhereThePatternMatches(scheme: String) async throws {
        let content = TransfersTests.pattern(700_000)
        let name = "a.store.example"
        let far = try await FarServer.start(content, name: name)
        defer { far.stop() }
        let proxy = try await FarProxy.start(name, far.server.address)
        defer { proxy.stop() }
        try await ChannelsFixture.run(proxy: "\(scheme)://user:secret@127.0.0.1:\(proxy.port)") { fixture in
            try Direct.allow(fixture, hosts: ["*.STORE.example:9443", far.host], authority: far.authority)
            let place = try TransfersTests.place(fixture)
            let there = try await Direct.start(.push, place + "/down", far, fixture, host: "\(name):9443")
            let down = try await TransfersTests.wait(there, fixture)
            #expect(down.state == .succeeded, "\(down.machine.code) \(down.machine.reason)")
            #expect(try Direct.bytes(place + "/down") == content)
            let back = try await Direct.start(.pull, place + "/down", far, fixture, host: "\(name):9443")
            #expect(try await TransfersTests.wait(back, fixture).state == .succeeded)
            #expect(far.change { $0.received } == content)
            #expect(proxy.destinations.filter { $0 == "\(name):9443" }.count == 2, "\(proxy.destinations)")
            // This machine is reached without the proxy.
            let near = try await Direct.start(.push, place + "/near", far, fixture)
            #expect(try await TransfersTests.wait(near, fixture).state == .succeeded)
            #expect(!proxy.destinations.contains(far.host))
            // The labels have to be there, the port has to be the same, and an end of a label is none of a host.
            for host in ["store.example:9443", "\(name):9444", name, "astore.example:9443", "\(name).evil.example:9443"] {
                let id = try await Direct.start(.push, place + "/no", far, fixture, host: host)
                let transfer = try await TransfersTests.wait(id, fixture)
                #expect(transfer.machine.code == "url-not-allowed", "\(host): \(transfer.machine)")
                #expect(!proxy.destinations.contains { $0.hasPrefix(host) && $0 != "\(name):9443" }, "\(proxy.destinations)")
            }
        }
    }

    @Test(.timeLimit(.minutes(1))) func anAgentWithoutTheFeatureIsNotAskedForIt() async throws {
        try await ChannelsFixture.run(isSimulated: true, withheld: [Feature.fileURL]) { fixture in
            let client = try await fixture.client()
            for waits in [false, true] {
                var request = TransferRequest(.push, targets: .clients([client]), path: "/a")
                request.url = TransferURL(address: "https://127.0.0.1/x?5ec2e7ab")
                request.offline = waits ? .queue : .fail
                do {
                    _ = try await fixture.kernel.transfers.create(request, by: ChannelsFixture.administrator)
                    Issue.record("it was taken")
                } catch let error as Problem {
                    #expect(error.code == "url-unsupported" && error.status == 409)
                    #expect(error.detail.contains("\(client)") && !error.detail.contains("5ec2e7ab"))
                }
            }
            #expect(try await fixture.kernel.transfers.list(TransferQuery(), ChannelsFixture.administrator).items.isEmpty)
        }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [true, false]) func secretVariablesNeedTheirFeature(has: Bool) async throws {
        try await ChannelsFixture.run(isSimulated: true, withheld: has ? [] : [Feature.secretEnvironment]) { fixture in
            let client = try await fixture.client()
            var request = CommandRequest(.clients([client]), .invocation(.argv(["/bin/true"])))
            request.secretEnvironment = ["TOKEN": "5ec2e7ab"]
            let id = try await fixture.kernel.commands.submit(request, ChannelsFixture.administrator).id
            let deadline = monotonicNanoseconds() + 20_000_000_000
            var target = try await fixture.kernel.commands.target(id, of: client)
            while target.end == nil, monotonicNanoseconds() < deadline {
                await fixture.pause()
                target = try await fixture.kernel.commands.target(id, of: client)
            }
            if has {
                #expect(target.state == "succeeded", "\(target)")
            } else {
                #expect(target.state == "refused" && target.end?.code == "secrets-unsupported", "\(target)")
                #expect(target.end?.message?.contains("install a newer one") == true)
            }
        }
    }

    @Test(.timeLimit(.minutes(1))) func whatHasNoLengthOrAnotherEncodingIsUnusable() async throws {
        try await Direct.run(TransfersTests.pattern(10_000)) { fixture, far in
            let path = try TransfersTests.place(fixture) + "/down"
            for tells in [FarServer.Tells(length: false), FarServer.Tells(encoding: "gzip")] {
                far.change { $0.tells = tells }
                let transfer = try await TransfersTests.wait(try await Direct.start(.push, path, far, fixture), fixture)
                #expect(transfer.state == .failed && transfer.machine.code == "url-unusable", "\(transfer.machine)")
                #expect(!transfer.machine.reason.contains("5ec2e7ab"))
            }
            // Not tried again: the next answer would be the same.
            #expect(far.requests.count == 2)
            #expect(!Files.exists(path))
            #expect(try await TransfersTests.isClean(fixture))
        }
    }

    /// The file became shorter under the same tag: what was kept is given up, and it begins anew.
    @Test(.timeLimit(.minutes(2))) func aRangeThatIsNotThereAnyMoreBeginsAnew() async throws {
        try await Direct.run(TransfersTests.pattern(2 << 20)) { fixture, far in
            let (id, path) = try await Direct.download(until: 512 << 10, of: 1 << 20, far, fixture)
            _ = try await fixture.kernel.transfers.pause(id, by: Direct.administrator)
            let other = TransfersTests.pattern(1_000, seed: 9)
            far.change { $0.content = other }
            _ = try await fixture.kernel.transfers.resume(id, by: Direct.administrator)
            let transfer = try await TransfersTests.wait(id, fixture)
            #expect(transfer.state == .succeeded, "\(transfer.machine)")
            #expect(try Direct.bytes(path) == other)
            #expect(transfer.digest == SHA256.digest(other) && transfer.bytes == 1_000)
            let ranges = far.requests.map(\.range)
            #expect(ranges.count == 3 && ranges[1] != nil && ranges[2] == nil, "\(ranges)")
            #expect(try await TransfersTests.isClean(fixture))
        }
    }

    // MARK: Patience

    private struct Outcome: Sendable {
        var moved: [UInt64] = []
        var result: TransferResult?
        var failure: FileFailure?
        var isOver: Bool { result != nil || failure != nil }
    }

    /// One transfer by the agent's own code in this process, with less patience than a real agent's.
    private static func move(
        _ direction: TransferDirection, _ path: String, _ far: FarServer, in place: String, _ patience: DirectTransfer.Patience
    ) async throws -> Outcome {
        // The agent's own data, which transfers may not touch.
        let directory = place + "/agent"
        try Files.makeDirectories(directory)
        try Direct.write(Array(far.authority.utf8), to: directory + "/far.pem")
        let policy = #"{"direct_transfers": {"hosts": ["\#(far.host)"], "ca_file": "\#(directory)/far.pem"}}"#
        try Direct.write(Array(policy.utf8), to: directory + "/policy.json")
        try Files.makeDirectories(directory + "/transfers")
        let loop = try EventLoop.start(name: "direct")
        let pool = BlockingPool(name: "direct")
        let url = TransferURL(address: "https://\(far.host)/bucket/key?\(Direct.secret)")
        let order = TransferOrder(transfer: TransferID(high: 1, low: 1), direction: direction, path: path, size: 1 << 30, url: url)
        let work = DirectPlace(order, url, FileRoots(dataDirectory: directory), directory + "/transfers", SerialWork(on: pool))
        let seen = Watched(Outcome())
        loop.post {
            final class Holder { var direct: DirectTransfer? }
            let holder = Holder()
            let direct = DirectTransfer(
                work, proxy: nil, patience: patience, on: loop,
                DirectTransfer.News(
                    ready: { _, _ in holder.direct?.grant(upTo: .max) },
                    moved: { offset in seen.update { $0.moved.append(offset) } },
                    finished: { result in
                        holder.direct = nil
                        seen.update { $0.result = result }
                    },
                    failed: { failure in
                        holder.direct = nil
                        seen.update { $0.failure = failure }
                    }))
            holder.direct = direct
            direct.start()
        }
        let outcome = await seen.wait { $0.isOver }
        loop.stop()
        loop.join()
        return outcome
    }

    @Test func theDefaultsAreMeantForSlowServers() {
        let patience = DirectTransfer.Patience()
        #expect(patience.stallMilliseconds == 60_000 && patience.answerMilliseconds == 120_000 && patience.pauseMilliseconds == 500)
    }

    @Test(.timeLimit(.minutes(1))) func aDownloadThatStopsGoesOnOverAnotherConnection() async throws {
        let content = TransfersTests.pattern(2 << 20)
        let far = try await FarServer.start(content)
        defer { far.stop() }
        let directory = CommandsDirectory()
        far.change { $0.holdsAfter = 1 << 20 }
        let path = directory.path + "/down"
        let outcome = try await Self.move(
            .push, path, far, in: directory.path, DirectTransfer.Patience(stallMilliseconds: 300, pauseMilliseconds: 1))
        #expect(outcome.result?.digest == SHA256.digest(content), "\(outcome)")
        #expect(try Direct.bytes(path) == content)
        let requests = far.requests
        #expect(requests.count == 2 && requests.last?.range?.hasPrefix("bytes=") == true, "\(requests)")
    }

    @Test(.timeLimit(.minutes(1))) func anUploadThatNobodyTakesIsGivenUp() async throws {
        let far = try await FarServer.start()
        defer { far.stop() }
        let directory = CommandsDirectory()
        // More than the sockets of both ends hold.
        try Direct.write(TransfersTests.pattern(40 << 20), to: directory.path + "/up")
        far.change { $0.takesNothing = true }
        let outcome = try await Self.move(
            .pull, directory.path + "/up", far, in: directory.path,
            DirectTransfer.Patience(stallMilliseconds: 200, pauseMilliseconds: 1))
        #expect(outcome.failure?.code == "url-failed", "\(outcome.failure as Any)")
        #expect(outcome.failure?.message.contains("took no byte for 200 ms") == true, "\(outcome.failure as Any)")
        #expect(outcome.failure?.message.contains("5ec2e7ab") == false)
        #expect((6...40).contains(far.requests.count), "\(far.requests.count)")
    }

    /// Nothing is gained by such an attempt, however many bytes it brings.
    @Test(.timeLimit(.minutes(1))) func aServerThatAlwaysDropsAtTheSamePlaceIsGivenUp() async throws {
        let far = try await FarServer.start(TransfersTests.pattern(1 << 20))
        defer { far.stop() }
        let directory = CommandsDirectory()
        far.change {
            $0.tells.tag = false
            $0.cutsAlways = 512 << 10
        }
        let path = directory.path + "/down"
        let outcome = try await Self.move(.push, path, far, in: directory.path, DirectTransfer.Patience(pauseMilliseconds: 1))
        #expect(outcome.failure?.code == "url-failed", "\(outcome.failure as Any)")
        #expect((6...40).contains(far.requests.count), "\(far.requests.count)")
        #expect(!Files.exists(path))
    }

    @Test(.timeLimit(.minutes(1))) func anAnswerThatNeverComesIsNotWaitedFor() async throws {
        let far = try await FarServer.start()
        defer { far.stop() }
        let directory = CommandsDirectory()
        try Direct.write([1, 2, 3], to: directory.path + "/up")
        far.change { $0.takesNothing = true }
        let outcome = try await Self.move(
            .pull, directory.path + "/up", far, in: directory.path,
            DirectTransfer.Patience(answerMilliseconds: 100, pauseMilliseconds: 1))
        #expect(outcome.failure?.code == "url-failed", "\(outcome.failure as Any)")
        #expect(far.requests.count == 6)
    }
}
