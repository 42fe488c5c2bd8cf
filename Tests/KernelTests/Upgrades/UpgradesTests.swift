import AgentProtocol
import Crypto
import Glibc
import JSON
import System
import Testing

@testable import Kernel

/// Upgrades over real links: with simulated agents, and with a real one that becomes another program.
@Suite(.serialized) struct UpgradesTests {
    private func text(_ ids: [ClientID]) -> JSONValue { .array(ids.map { .string($0.description) }) }

    @Test func releasesAreFilesOfTheStoreAndHoldThem() async throws {
        try await UpgradesFixture.run { fixture in
            let release = try await fixture.release("exit 0", "0.2.0")
            let (upgrades, files) = (fixture.upgrades, fixture.kernel.files)
            let admin = fixture.administrator
            #expect(try await upgrades.releases(before: nil, limit: 10).map(\.id) == [release.id])
            await #expect(throws: Problem.self) { try await files.remove(release.file, by: admin) }
            do {
                _ = try await upgrades.addRelease(release.signed, file: release.file, by: admin)
                Issue.record("one version twice")
            } catch let problem as Problem { #expect(problem.code == "release-exists") }
            let other = try await fixture.release("exit 1", "0.3.0")
            do {
                _ = try await upgrades.addRelease(release.signed, file: other.file, by: admin)
                Issue.record("another file")
            } catch let problem as Problem { #expect(problem.status == 400) }
            try await upgrades.removeRelease(release.id, by: admin)
            try await fixture.onLoop { try await files.remove(release.file, by: admin) }
            await #expect(throws: Problem.self) { try await upgrades.release(release.id) }
        }
    }

    @Test func wavesReachAllAndABadOneIsStopped() async throws {
        try await UpgradesFixture.run { fixture in
            let clients = try await fixture.simulated(6)
            let good = try await fixture.release("exit 0", "0.2.0")
            let first = try await fixture.run([
                "release": .string("\(good.id)"), "clients": text(clients), "canary": 1, "wave": 3,
            ])
            let done = try await fixture.end(first)
            #expect(done.job.machine.state == .succeeded && done.counts == ["online": 6], "\(done.job.machine.reason)")
            #expect(done.version == "0.2.0")
            // Whoever runs it already has nothing to do, and the version of before is refused by each.
            let bad = try await fixture.release("exit 1", "0.3.0-bad")
            let second = try await fixture.run([
                "release": .string("\(bad.id)"), "clients": text(clients), "canary": 1, "wave": 2, "failures": 1,
            ])
            let stopped = try await fixture.end(second)
            #expect(stopped.job.machine.state == .dead && stopped.job.machine.code == "upgrade-stopped")
            #expect(stopped.counts == ["rolled-back": 3, "skipped": 3])
            let admin = fixture.administrator
            await #expect(throws: Problem.self) { try await fixture.upgrades.pause(second, true, by: admin) }
            // Nothing hands it out any more.
            try await fixture.upgrades.removeRelease(bad.id, by: admin)
        }
    }

    @Test func requestsAreCheckedBeforeAnythingIsMade() async throws {
        try await UpgradesFixture.run { fixture in
            let clients = try await fixture.simulated(1)
            let release = try await fixture.release("exit 0", "0.2.0")
            let good: JSONObject = ["release": .string("\(release.id)"), "clients": text(clients)]
            let wrong: [(String, JSONValue)] = [
                ("release", .string("\(ReleaseID(high: 1, low: 1))")), ("release", "x"), ("selector", "a=b"), ("wave", 0),
                ("canary", -1), ("failures", 10_001), ("online_within_s", 4), ("settle_s", 601), ("answer_within_s", 60),
                ("colour", "red"), ("clients", .array([])), ("clients", .array([.string("\(ClientID(high: 9, low: 9))")])),
                ("canary_selector", "("),
            ]
            for (name, value) in wrong {
                var body = good
                body[name] = value
                let asked = body
                await #expect(throws: Problem.self, "\(name)") { _ = try await fixture.run(.object(asked)) }
            }
            let viewer = Principal(kind: .user, id: "v", roles: ["viewer"])
            do {
                _ = try await fixture.run(.object(good), by: viewer)
                Issue.record("a viewer")
            } catch let problem as Problem { #expect(problem.status == 403) }
            // A right name after all.
            let id = try await fixture.run(.object(good))
            #expect(try await fixture.end(id).counts == ["online": 1])
        }
    }

    @Test func pauseResumeCancelAndAnotherTurn() async throws {
        try await UpgradesFixture.run { fixture in
            let clients = try await fixture.simulated(2)
            let release = try await fixture.release("exit 0", "0.2.0")
            try await fixture.stopAgents()
            let id = try await fixture.run([
                "release": .string("\(release.id)"), "clients": text(clients), "parallel": 1, "wait_s": 600,
            ])
            try await fixture.wait { try await fixture.upgrades.get(id).version != nil }
            let admin = fixture.administrator
            try await fixture.upgrades.pause(id, true, by: admin)
            #expect(try await fixture.upgrades.get(id).isPaused)
            try await fixture.restartCore()
            fixture.startAgain()
            try await fixture.wait { try fixture.online().count == 2 }
            #expect(try await fixture.upgrades.get(id).isPaused)
            #expect(try await fixture.states(id) == [.waiting, .waiting])
            try await fixture.upgrades.pause(id, false, by: admin)
            #expect(try await fixture.end(id).counts == ["online": 2])

            // Cancelled while their turn waits; put in again they get another.
            let newer = try await fixture.release("exit 0", "0.3.0")
            try await fixture.stopAgents()
            let second = try await fixture.run(["release": .string("\(newer.id)"), "clients": text(clients), "wait_s": 600])
            try await fixture.wait { try await fixture.upgrades.get(second).version != nil }
            do {
                try await fixture.upgrades.removeRelease(newer.id, by: admin)
                Issue.record("it is handed out")
            } catch let problem as Problem { #expect(problem.code == "release-in-use") }
            let jobs = fixture.kernel.jobs
            _ = try await fixture.onLoop { try await jobs.cancel(second, by: admin) }
            let cancelled = try await fixture.end(second)
            #expect(cancelled.job.machine.state == .cancelled && cancelled.counts == ["skipped": 2])
            fixture.startAgain()
            try await fixture.wait { try fixture.online().count == 2 }
            _ = try await fixture.onLoop { try await jobs.retry(second, by: admin).id }
            let again = try await fixture.end(second)
            #expect(again.counts == ["online": 2], "\(again.job.machine.state) \(again.job.machine.reason)")
        }
    }

    /// Many windows of a file, cut off by the end of the core and by that of the link.
    @Test func aFileGoesOnAfterARestartOfTheCore() async throws {
        try await UpgradesFixture.run { fixture in
            let clients = try await fixture.simulated(3)
            let release = try await fixture.release(
                "exit 0\n" + String(repeating: "# not so short\n", count: 400_000), "0.2.0")
            let id = try await fixture.run(["release": .string("\(release.id)"), "clients": text(clients)])
            try await fixture.wait { try await fixture.states(id).contains { $0 != .waiting && $0 != .sent } }
            for client in clients {
                fixture.kernel.clients.anyLink(of: client)?.close(LinkEnd(code: "disconnected", detail: "by a test"))
            }
            try await fixture.restartCore()
            let done = try await fixture.end(id)
            #expect(done.counts == ["online": 3], "\(done.job.machine.reason)")
        }
    }

    @Test func agentsWithoutTheKeyRefuse() async throws {
        try await UpgradesFixture.run { fixture in
            let keyless = try await fixture.simulated(1, hasKey: false)
            let release = try await fixture.release("exit 0", "0.2.0")
            let id = try await fixture.run(["release": .string("\(release.id)"), "clients": text(keyless)])
            #expect(try await fixture.end(id).counts == ["failed": 1])
            let client = try await fixture.upgrades.clients(of: id, from: 0, state: .failed, limit: 10).first
            #expect(client?.code == "upgrade-not-enabled")
            let forged = try await fixture.release("exit 0", "0.4.0", by: .generate())
            let others = try await fixture.simulated(1)
            let second = try await fixture.run(["release": .string("\(forged.id)"), "clients": text(others)])
            #expect(try await fixture.end(second).counts == ["failed": 1])
            #expect(
                try await fixture.upgrades.clients(of: second, from: 0, state: nil, limit: 10).first?.code == "release-signature")
        }
    }

    /// The whole way on a real machine: the process becomes its watcher, then the new program; a bad one changes nothing.
    @Test func aRealAgentBecomesTheReleaseOrStaysWhatItIs() async throws {
        try await UpgradesFixture.run { fixture in
            let pid = try fixture.startAgent()
            try await fixture.wait { try fixture.online().count == 1 }
            let client = try #require(try fixture.online().first)
            func upgrade(_ script: String, _ version: String) async throws -> (Upgrades.Client?, Release) {
                let release = try await fixture.release(script, version)
                let id = try await fixture.run([
                    "release": .string("\(release.id)"), "clients": text([client]), "online_within_s": 20, "settle_s": 0,
                ])
                _ = try await fixture.end(id)
                return (try await fixture.upgrades.clients(of: id, from: 0, state: nil, limit: 1).first, release)
            }
            let before = try Files.status(fixture.program).inode
            let (bad, _) = try await upgrade("exit 3", "0.2.0")
            #expect(bad?.state == .rolledBack && bad?.code == "trial-ended", "\(bad?.message ?? "")")
            #expect(try Files.status(fixture.program).inode == before)
            #expect(!Files.exists(fixture.program + ".staged"))
            #expect(kill(pid, 0) == 0)

            let (good, release) = try await upgrade("exec \"$(dirname \"$0\")/real-agent\" \"$@\"", "0.3.0")
            #expect(good?.state == .online, "\(good?.code ?? "") \(good?.message ?? "")")
            let content = try Files.read(fixture.program, limit: 1 << 20)
            #expect(SHA256.digest(content).hex == release.manifest.sha256)
            #expect(try Files.status(fixture.program + ".previous").inode == before)
            #expect(kill(pid, 0) == 0)
            try await fixture.wait { try fixture.online() == [client] }
        }
    }
}
