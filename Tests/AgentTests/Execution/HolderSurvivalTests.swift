import Agent
import AgentProtocol
import Glibc
import Reactor
import System
import Testing

@Suite struct HolderSurvivalTests {
    /// A program that prints `first`, waits until the gate opens, and prints `second`.
    private func gated(_ directory: TemporaryDirectory) -> Order {
        mkfifo(directory.path + "/gate", 0o600)
        return shell("echo $$; echo first; read x < \(directory.path)/gate; echo second; echo >> \(directory.path)/runs")
    }

    private func openGate(_ directory: TemporaryDirectory) {
        let gate = open(directory.path + "/gate", O_WRONLY)
        write(gate, "\n", 1)
        close(gate)
    }

    @Test func anotherAgentTakesUpWhatRuns() async throws {
        let directory = try TemporaryDirectory()
        let order = gated(directory)
        do {
            let first = try await ExecutorHarness(directory)
            await first.start(order)
            await first.wait { $0.executor.reports().contains { $0.standardOutputBytes > 6 } }
        }
        let second = try await ExecutorHarness(directory)
        let reports = await second.on { $0.executor.reports() }
        #expect(reports.map(\.command) == [order.command])
        #expect(reports.first?.exit == nil)
        await second.start(order)
        openGate(directory)
        let record = try await second.end(of: order.command)
        #expect(record.outcome == .exited(code: 0))
        #expect(await second.output(of: order.command).hasSuffix("\nfirst\nsecond\n"))
        #expect(try Files.read(directory.path + "/runs", limit: 10) == [10])
    }

    @Test func anEndWithoutAnAgentIsFoundLater() async throws {
        let directory = try TemporaryDirectory()
        let order = gated(directory)
        do {
            let first = try await ExecutorHarness(directory)
            await first.start(order)
            await first.wait { $0.executor.reports().contains { $0.standardOutputBytes > 6 } }
        }
        openGate(directory)
        let path = "\(directory.path)/executions/\(order.command)/journal"
        // The lock ends with the holder.
        let journal = try Descriptor.open(path, O_RDONLY)
        while flock(journal.number, LOCK_EX) != 0 {}
        flock(journal.number, LOCK_UN)
        let second = try await ExecutorHarness(directory)
        let exit = await second.on { $0.executor.reports().first?.exit }
        #expect(exit?.outcome == .exited(code: 0))
        #expect(await second.output(of: order.command).hasSuffix("second\n"))
    }

    /// Secret variables wait in memory only: what had not started when the agent died cannot be started any more.
    @Test func secretsThatWaitedAreGoneWithTheAgent() async throws {
        let directory = try TemporaryDirectory()
        let running = gated(directory)
        let waiting = shell("echo $TOKEN; touch \(directory.path)/ran") { $0.secretEnvironment = ["TOKEN": "unheard-of-value"] }
        do {
            let first = try await ExecutorHarness(directory) { $0.running = 1 }
            await first.start(running)
            await first.wait { $0.executor.reports().contains { $0.standardOutputBytes > 6 } }
            await first.start(waiting)
            // Nothing is told when an order is journaled: it is asked for.
            var journaled = 0
            for _ in 0..<1_000_000 where journaled < 2 { journaled = await first.on { $0.executor.reports().count } }
            try #require(journaled == 2)
        }
        let journal = try Files.read("\(directory.path)/executions/\(waiting.command)/journal", limit: 65_536)
        #expect(!String(decoding: journal, as: UTF8.self).contains("unheard-of-value"))
        let second = try await ExecutorHarness(directory) { $0.running = 1 }
        let exit = try #require(await second.on { observer in observer.executor.reports().first { $0.command == waiting.command }?.exit })
        guard case .startFailed(let code, let message) = exit.outcome else { throw SystemError("outcome", "\(exit.outcome)", code: EINVAL) }
        #expect(code == "secrets-gone" && message.contains("restarted before the start"))
        #expect(exit.started == .no)
        // What ran meanwhile is untouched by it, and the other does not run after all.
        openGate(directory)
        await second.start(running)
        #expect(try await second.end(of: running.command).outcome == .exited(code: 0))
        #expect(!Files.exists(directory.path + "/ran"))
    }

    @Test func aKilledHolderLeavesAnExactPrefixAndNoProgram() async throws {
        let directory = try TemporaryDirectory()
        let harness = try await ExecutorHarness(directory)
        let order = shell("echo $$; sleep 1000 & echo $!; wait")
        await harness.start(order)
        await harness.wait { observer in
            String(decoding: observer.bytes(order.command, .standardOutput), as: UTF8.self)
                .count(where: { $0 == "\n" }) == 2
        }
        let before = await harness.output(of: order.command)
        let pids = before.split(separator: "\n").compactMap { pid_t($0) }
        let leader = try #require(pids.first)
        kill(try ExecutorHarness.parent(of: leader), SIGKILL)
        let record = try await harness.end(of: order.command)
        #expect(record.outcome == .interrupted(reason: "holder-died"))
        #expect(record.started == .yes)
        #expect(record.standardOutputBytes == UInt64(before.utf8.count))
        #expect(await harness.output(of: order.command) == before)
        for pid in pids { #expect(try hasEnded(pid)) }
    }

    /// The state that the journal tells against what really happened, at every place where a holder can die.
    @Test(arguments: [
        ("holder.start-mark.before", Started.yes, 1), ("holder.start-mark.synced", .maybe, 0),
        ("holder.spawned", .maybe, 0), ("holder.running-mark.written", .yes, 0), ("holder.exit.write.before", .yes, 1),
        ("holder.exit.synced", .yes, 1), ("holder.exit.renamed", .yes, 1), ("holder.exit.told", .yes, 1),
    ])
    func aHolderDiesAtANamedPoint(point: String, started: Started, leastRuns: Int) async throws {
        let directory = try TemporaryDirectory()
        // Each holder dies there once; one that died before the mark may be followed by another.
        let harness = try await ExecutorHarness(
            directory, holderEnvironment: ["CM_KILL_POINTS=1", "CM_KILL_AT=\(point)"])
        let witness = directory.path + "/witness"
        let order = shell("echo ran >> \(witness)")
        await harness.start(order)
        let record = try await harness.end(of: order.command)
        let runs = (try Files.readIfPresent(witness, limit: 100) ?? []).count / 4
        #expect(runs <= 1)
        switch point {
        case "holder.start-mark.before":
            // Three holders died before the mark: certainly not started, and given up.
            guard case .startFailed(code: "holder-failed", _) = record.outcome else {
                Issue.record("\(record.outcome)")
                return
            }
            #expect(record.started == .no)
            #expect(runs == 0)
        case "holder.exit.renamed", "holder.exit.told":
            #expect(record.outcome == .exited(code: 0))
            #expect(runs == 1)
        default:
            #expect(record.outcome == .interrupted(reason: "holder-died"))
            #expect(record.started == started)
            #expect(runs >= leastRuns)
        }
    }

    @Test func aRebootEndsWhatWaitedAndWhatRan() async throws {
        let directory = try TemporaryDirectory()
        let command: CommandID
        do {
            let harness = try await ExecutorHarness(directory) { $0.holderProgram = "/bin/false" }
            let order = shell("true")
            command = order.command
            await harness.start(order)
            _ = try await harness.end(of: command)
        }
        // As the disk would be found after a power loss: the order, from another boot, and no end.
        let path = "\(directory.path)/executions/\(command)"
        try Files.remove(path + "/exit")
        var journal = try Files.read(path + "/journal", limit: 1 << 20)
        let boot = Array(Machine.bootID().utf8)
        let place = try #require((0..<journal.count - boot.count).first { Array(journal[$0..<($0 + boot.count)]) == boot })
        journal[place] ^= 1
        let body = Array(journal[4..<(journal.count - 4)])
        let checksum = CRC32C.checksum(body)
        journal.replaceSubrange((journal.count - 4)..., with: (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (8 * $0)) })
        try AtomicFile.write(journal, to: path + "/journal")
        let harness = try await ExecutorHarness(directory)
        let record = await harness.on { $0.executor.reports().first?.exit }
        #expect(record?.outcome == .interrupted(reason: "reboot"))
        #expect(record?.started == .no)
    }

    @Test func aDamagedJournalNeverRuns() async throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/executions/\(newCommand())"
        try Files.makeDirectories(path)
        try AtomicFile.write([1, 2, 3, 4, 5, 6, 7, 8, 9], to: path + "/journal")
        try Files.makeDirectories("\(directory.path)/executions/.new-half")
        let harness = try await ExecutorHarness(directory)
        let record = await harness.on { $0.executor.reports().first?.exit }
        #expect(record?.outcome == .interrupted(reason: "journal-damaged"))
        #expect(record?.started == .maybe)
        #expect(try Files.list("\(directory.path)/executions").count == 1)
    }
}
