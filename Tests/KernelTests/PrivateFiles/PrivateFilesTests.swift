import Agent
import AgentProtocol
import Crypto
import Synchronization
import System
import Testing

@testable import Kernel

/// The kernel's side against a simulated and a real agent.
@Suite struct PrivateFilesTests {
    private static func order(_ name: String = "key", keeper: String = "k") -> PrivateFileOrder {
        PrivateFileOrder(name: name, keeper: keeper, owner: nil, mode: 0o440, lifetimeMilliseconds: 60_000)
    }

    private static let viewer = Principal(kind: .user, id: "eve", roles: ["viewer"])

    private static func code(_ body: () async throws(Problem) -> Void) async -> String? {
        do throws(Problem) {
            try await body()
            return nil
        } catch { return error.code }
    }

    @Test func aSimulatedAgentGivesProof() async throws {
        let fixture = try await ChannelsFixture(isSimulated: true)
        let client = try await fixture.client()
        let files = fixture.kernel.privateFiles
        let content = Array("a secret of this test".utf8)
        let (file, isChanged) = try await files.put(Self.order(), content: content, on: client, ChannelsFixture.administrator)
        #expect(isChanged && file.sha256 == SHA256.digest(content).hex && file.bytes == UInt64(content.count))
        #expect(try await !files.put(Self.order(), content: content, on: client, ChannelsFixture.administrator).isChanged)
        let listed = try await files.list(keeper: "k", on: client, ChannelsFixture.administrator)
        #expect(listed.map(\.name) == ["key"] && listed[0].sha256 == file.sha256)
        #expect(try await files.list(keeper: "other", on: client, ChannelsFixture.administrator).isEmpty)
        let foreign = await Self.code { () throws(Problem) in
            _ = try await files.put(Self.order(keeper: "other"), content: [1], on: client, ChannelsFixture.administrator)
        }
        #expect(foreign == "private-file-foreign")
        #expect(try await files.remove("key", keeper: "k", on: client, ChannelsFixture.administrator))
        #expect(try await !files.remove("key", keeper: "k", on: client, ChannelsFixture.administrator))

        // Who may not is refused, and that is written down.
        for refused in [
            await Self.code { () throws(Problem) in _ = try await files.put(Self.order(), content: [1], on: client, Self.viewer) },
            await Self.code { () throws(Problem) in _ = try await files.list(keeper: "k", on: client, Self.viewer) },
        ] { #expect(refused == "forbidden") }
        let nobody = ClientID(high: 1, low: 1)
        #expect(await Self.code { () throws(Problem) in _ = try await files.list(keeper: "k", on: nobody, ChannelsFixture.administrator) } == "not-found")

        // The trail has each change, and nothing of the content: no hash either.
        var filter = AuditFilter()
        filter.action = "private-file.*"
        let trail = try await fixture.kernel.audit.query(filter).lines.reversed().map { "\($0.entry.action) \($0.entry.target ?? "") \($0.entry.reason) \($0.entry.detail)" }
        for (line, action) in zip(trail, [
            "put", "put", "put", "remove", "remove", "put", "list",
        ]) { #expect(line.hasPrefix("private-file.\(action) ")) }
        #expect(trail.count == 7)
        #expect(trail.allSatisfy { !$0.contains("a secret") && !$0.contains(file.sha256) })
        await fixture.stop()
    }

    @Test func aRealAgentKeepsThemInMemory() async throws {
        let place = "/dev/shm/cm-private-kernel-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        defer { try? Files.removeTree(place) }
        let fixture = try await ChannelsFixture(policy: #"{"private_files": {"directory": "\#(place)"}}"#)
        let client = try await fixture.client()
        let files = fixture.kernel.privateFiles
        let content = [UInt8](repeating: 7, count: PrivateFileLimits.contentBytes)
        let (file, _) = try await files.put(Self.order(), content: content, on: client, ChannelsFixture.administrator)
        #expect(file.path == place + "/key" && file.sha256 == SHA256.digest(content).hex)
        #expect(try Files.read(file.path, limit: 1 << 20) == content)
        // Several at once, more than may be under way.
        let changed = await withTaskGroup(of: Int.self) { group in
            for number in 0..<8 {
                group.addTask {
                    let order = Self.order("small-\(number)")
                    let placed = try? await files.put(order, content: [UInt8(number)], on: client, ChannelsFixture.administrator)
                    return placed?.isChanged == true ? 1 : 0
                }
            }
            return await group.reduce(0, +)
        }
        #expect(changed == 8)
        let tooLong = await Self.code { () throws(Problem) in
            _ = try await files.put(Self.order(), content: content + [1], on: client, ChannelsFixture.administrator)
        }
        #expect(tooLong == "too-large")
        // A policy that refuses is the client's word.
        let hook = await Self.code { () throws(Problem) in
            var order = Self.order()
            order.hook = ["reload", "app.service"]
            _ = try await files.put(order, content: [1], on: client, ChannelsFixture.administrator)
        }
        #expect(hook == "agent-policy")
        fixture.killAgent()
        let offline = await Self.code { () throws(Problem) in
            for _ in 0..<200 {
                _ = try await files.list(keeper: "k", on: client, ChannelsFixture.administrator)
            }
        }
        #expect(offline == "client-offline")
        #expect(Files.exists(place + "/small-3"))
        await fixture.stop()
    }

    @Test func specificationsAreRead() throws {
        let order = try PrivateFiles.order(
            Array(#"{"name":"a","owner":"app","group":"web","mode":288,"ttl_s":5,"hook":["reload","a.service"]}"#.utf8), keeper: "k")
        #expect(order == PrivateFileOrder(
            name: "a", keeper: "k", owner: "app", group: "web", mode: 0o440, lifetimeMilliseconds: 5_000, hook: ["reload", "a.service"]))
        for text in [
            "", "[]", "{}", #"{"name":"a","mode":511}"#, #"{"name":"a","ttl_s":0}"#, #"{"name":"a","hook":"x"}"#,
            #"{"name":"a","hook":[1]}"#, #"{"name":"a","content":"x"}"#, #"{"name":1}"#, #"{"name":"../a"}"#,
        ] {
            #expect(throws: Problem.self, "\(text)") { try PrivateFiles.order(Array(text.utf8), keeper: "k") }
        }
    }
}
