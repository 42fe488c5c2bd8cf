import AgentProtocol
import JSON
import Reactor
import Testing

@testable import Kernel

@Suite(.timeLimit(.minutes(2))) struct OutputArchiveTests {
    private let large = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }

    @Test func itIsOffUntilARemoteIsSetAndThenBringsWhatIsKept() async throws {
        let fixture = try await OutputArchiveFixture()
        let link = await fixture.core.connect(0)
        let small = try await fixture.run(link, output: Array("hello".utf8), errors: Array("oh".utf8))
        #expect(try await fixture.archive.status().json == ["state": "off"])
        #expect(fixture.objects.ended.isEmpty)
        #expect(try await fixture.core.target(small).archived == nil)
        try await fixture.turnOn()
        let silent = try await fixture.run(link)
        let big = try await fixture.run(link, output: large)
        _ = try await fixture.wait { $0.row?.objects == 3 }
        let status = try await fixture.caughtUp()
        #expect(fixture.object(small) == Array("hello".utf8) && fixture.object(small, "stderr") == Array("oh".utf8))
        #expect(fixture.object(big) == large && fixture.object(big, "stderr") == nil)
        #expect(fixture.object(silent) == nil && fixture.objects.objects.count == 3)
        #expect(status.json["bytes"] == 300_007 && status.json["missing"] == 0 && status.json["error"] == nil)
        #expect(status.json["last_key"] == .string(fixture.key(big)))
        let place = try #require(try await fixture.core.target(small).archived)
        #expect(place.output == ArchivedObject(remote: "backup", key: fixture.key(small), bytes: 5) && place.errors?.bytes == 2)
        #expect(try await fixture.core.target(big).archived?.errors == nil)
        #expect(try await fixture.core.target(silent).archived == nil)
        let text = fixture.metrics.exposition()
        #expect(text.contains("client_manager_output_archive_objects_total 3\n"))
        #expect(text.contains("client_manager_output_archive_bytes_total 300007\n"))
        #expect(text.contains("client_manager_output_archive_behind 0\n"))
        try await fixture.settings.set("output_archive_remote", to: "", by: ArchiveFixture.ada)
        _ = try await fixture.run(link, output: large)
        #expect(try await fixture.wait { $0.state == .off }.state == .off)
        #expect(fixture.objects.ended.count == 3)
        fixture.close()
    }

    @Test func namesSortAsCommandsDo() async throws {
        let fixture = try await OutputArchiveFixture()
        let link = await fixture.core.connect(0)
        try await fixture.turnOn()
        var ids: [CommandID] = []
        for number in 0..<100 { ids.append(try await fixture.run(link, output: Array("\(number)".utf8))) }
        _ = try await fixture.wait { $0.row?.objects == 100 }
        #expect(fixture.objects.objects.keys.sorted() == ids.map { "backup/" + fixture.key($0) })
        #expect(ids.enumerated().allSatisfy { fixture.object($0.element) == Array("\($0.offset)".utf8) })
        #expect(Set(fixture.objects.ended).count == fixture.objects.ended.count)
        fixture.close()
    }

    @Test func whatEndsLaterThanOthersIsNotForgotten() async throws {
        let directory = CommandsDirectory()
        let objects = FakeObjects()
        var fixture = try await OutputArchiveFixture(directory, objects)
        var link = await fixture.core.connect(0)
        try await fixture.turnOn()
        let slow = try await fixture.core.submit().id
        _ = try await fixture.core.submit(.clients([fixture.core.clients[1]])) { $0.offline = .queue }
        let quick = try await fixture.run(link, output: [1])
        fixture.core.clock.advance(1)
        var status = try await fixture.wait { $0.row?.objects == 1 && $0.open == 2 }
        #expect(status.row?.objects == 1 && status.open == 2 && fixture.object(quick) == [1])
        fixture.close()

        fixture = try await OutputArchiveFixture(directory, objects)
        link = await fixture.core.connect(0, [
            ExecutionReport(command: slow, started: .yes, standardOutputBytes: 0, standardErrorBytes: 0, exit: nil)
        ])
        await fixture.end(link, slow, output: large)
        status = try await fixture.wait { $0.row?.objects == 2 }
        #expect(fixture.object(slow) == large && status.open == 1)
        await fixture.core.commands.clientGone(fixture.core.clients[1], code: "client-revoked")
        status = try await fixture.wait { $0.open == 0 }
        #expect(status.open == 0 && fixture.objects.objects.count == 2)
        fixture.close()
    }

    @Test func anAnswerThatGotLostBringsTheSameBytesUnderTheSameNameAlsoAfterARestart() async throws {
        let directory = CommandsDirectory()
        let objects = FakeObjects()
        objects.state.withLock { $0.losesAnswers = 1_000 }
        var fixture = try await OutputArchiveFixture(directory, objects)
        let link = await fixture.core.connect(0)
        try await fixture.turnOn()
        let first = try await fixture.run(link, output: large, errors: [9])
        let second = try await fixture.run(link, output: [1, 2, 3])
        var status = try await fixture.wait { $0.state == .failing && $0.attempts >= 2 }
        #expect(status.row?.objects == 0 && status.behind == 2)
        let before = try #require(fixture.object(first))
        fixture.close()
        objects.state.withLock { $0.losesAnswers = 0 }
        fixture = try await OutputArchiveFixture(directory, objects)
        status = try await fixture.wait { $0.row?.objects == 3 }
        #expect(status.row?.objects == 3 && status.row?.missing == 0)
        #expect(before == large && fixture.object(first) == large && fixture.object(first, "stderr") == [9])
        #expect(fixture.object(second) == [1, 2, 3] && objects.objects.count == 3)
        fixture.close()
    }

    @Test func aStoreThatRefusesIsToldOnceAndTriedAgainAndWhatWentWellStays() async throws {
        let fixture = try await OutputArchiveFixture(isStarted: false)
        fixture.objects.state.withLock {
            // Two rounds: the change of the setting brings the second one on at once.
            $0.failures = Array(repeating: ObjectStoreError("cloud-denied", "SignatureDoesNotMatch"), count: 2 * OutputArchive.lanes)
            $0.wrongSizes = 1
        }
        let start = fixture.events.end
        let link = await fixture.core.connect(0)
        var ids: [CommandID] = []
        for number in 0..<6 { ids.append(try await fixture.run(link, output: [UInt8(number)])) }
        try await fixture.turnOn()
        fixture.start()
        var status = try await fixture.wait { $0.state == .failing }
        #expect(status.json["error"]?["code"] == "cloud-denied")
        #expect(status.json["error"]?["text"]?.string?.contains("output/") == true)
        status = try await fixture.wait { $0.row?.objects == 6 && $0.state == .current }
        #expect(status.row?.objects == 6 && status.json["error"] == nil)
        #expect(ids.enumerated().allSatisfy { fixture.object($0.element) == [UInt8($0.offset)] })
        let kinds = fixture.events.page(after: start).events.map(\.kind).filter { $0.hasPrefix("output.") }
        #expect(kinds == ["output.archive-failed", "output.archive-recovered"])
        #expect(fixture.told.codes.withLock { Set($0) } == ["output-archive"])
        #expect(!fixture.metrics.exposition().contains("client_manager_output_archive_failures_total 0\n"))
        fixture.close()
    }

    @Test func withoutAStoreItWaitsSaysSoAndGoesOnWhenOneComes() async throws {
        let objects = FakeObjects()
        objects.state.withLock { $0.isThere = false }
        let fixture = try await OutputArchiveFixture(CommandsDirectory(), objects)
        let link = await fixture.core.connect(0)
        try await fixture.turnOn()
        let id = try await fixture.run(link, output: [5])
        var status = try await fixture.wait { $0.state == .waiting && $0.json["error"] != nil }
        #expect(status.json["error"]?["code"] == "object-store-absent" && status.behind == 1)
        objects.state.withLock { $0.isThere = true }
        fixture.archive.storeChanged()
        status = try await fixture.wait { $0.row?.objects == 1 }
        #expect(fixture.object(id) == [5])
        fixture.close()
    }

    @Test func maskedOutputIsMaskedThere() async throws {
        let fixture = try await OutputArchiveFixture()
        let link = await fixture.core.connect(0)
        try await fixture.turnOn()
        let id = try await fixture.core.submit { $0.secretEnvironment = ["KEY": "hunter2-hunter2"] }.id
        await fixture.end(link, id, output: Array("it is hunter2-hunter2!".utf8))
        _ = try await fixture.wait { $0.row?.objects == 1 }
        #expect(fixture.object(id) == Array("it is ***************!".utf8))
        fixture.close()
    }

    @Test func retentionWaitsForTheCopyAndThenTheReaderIsToldWhereItIs() async throws {
        let directory = CommandsDirectory()
        let objects = FakeObjects()
        var fixture = try await OutputArchiveFixture(directory, objects)
        var link = await fixture.core.connect(0)
        objects.state.withLock { $0.isThere = false }
        try await fixture.turnOn()
        try await fixture.settings.set("output_retention_days", to: 7, by: ArchiveFixture.ada)
        try await fixture.settings.set("command_retention_days", to: 60, by: ArchiveFixture.ada)
        let id = try await fixture.run(link, output: large)
        fixture.close()
        // The newest segment always stays: another one begins with another start.
        fixture = try await OutputArchiveFixture(directory, objects)
        link = await fixture.core.connect(0)
        let later = try await fixture.run(link, output: large)
        await fixture.age(days: 30)
        #expect(try await fixture.read(id).count == 1_024)
        #expect(try await fixture.archive.status().json["retention_waits"] == true)
        // Commands wait as well.
        await fixture.core.pass(40 * 86_400_000)
        #expect(try await fixture.core.states(id) == ["succeeded"])
        objects.state.withLock { $0.isThere = true }
        fixture.archive.storeChanged()
        _ = try await fixture.wait { $0.row?.objects == 2 && $0.behind == 0 }
        try await fixture.settings.set("command_retention_days", to: 0, by: ArchiveFixture.ada)
        await fixture.core.pass(61_000)
        #expect(try await fixture.archive.status().json["retention_waits"] == false)
        let problem = await #expect(throws: Problem.self) { try await fixture.read(id) }
        #expect(problem?.status == 410 && problem?.code == "output-archived")
        #expect(problem?.archived == ArchivedObject(remote: "backup", key: fixture.key(id), bytes: 300_000))
        #expect(try await fixture.read(later).count == 1_024)
        #expect(fixture.object(id) == large && fixture.object(later) == large)
        try await fixture.settings.set("command_retention_days", to: 60, by: ArchiveFixture.ada)
        await fixture.core.pass(61_000)
        await #expect(throws: Problem.self) { _ = try await fixture.core.commands.get(id) }
        fixture.close()
    }

    @Test func whenTheDiskLimitWinsItIsCountedAndTold() async throws {
        let directory = CommandsDirectory()
        let objects = FakeObjects()
        objects.state.withLock { $0.isThere = false }
        let large = Array(repeating: large, count: 2).flatMap { $0 }
        var fixture = try await OutputArchiveFixture(directory, objects)
        try await fixture.settings.set("output_store_mib", to: 1, by: ArchiveFixture.ada)
        var link = await fixture.core.connect(0)
        try await fixture.turnOn()
        let id = try await fixture.run(link, output: large, errors: [1])
        fixture.close()
        fixture = try await OutputArchiveFixture(directory, objects)
        link = await fixture.core.connect(0)
        let later = try await fixture.run(link, output: large)
        await fixture.age(days: 1)
        var status = try await fixture.archive.status()
        #expect(status.json["dropped_bytes"] == 600_001)
        let gone = await #expect(throws: Problem.self) { try await fixture.read(id) }
        #expect(gone?.code == "output-expired" && gone?.archived == nil)
        let start = fixture.events.end
        objects.state.withLock { $0.isThere = true }
        fixture.archive.storeChanged()
        status = try await fixture.wait { $0.row?.missing == 1 && $0.row?.objects == 1 }
        #expect(status.json["missing"] == 1 && fixture.object(later) == large && fixture.object(id) == nil)
        #expect(fixture.events.page(after: start).events.contains { $0.kind == "output.archive-lost" })
        #expect(fixture.told.codes.withLock { $0 }.contains("output-archive-gap"))
        #expect(fixture.metrics.exposition().contains("client_manager_output_archive_missing_total 1\n"))
        let audit = Audit(store: fixture.core.store, settings: fixture.settings)
        #expect(try await audit.lines(after: 0).lines.contains { $0.entry.action == "output.archive-gap" })
        fixture.close()
    }

    @Test func theArchiveOffHoldsNothingBack() async throws {
        let directory = CommandsDirectory()
        var fixture = try await OutputArchiveFixture(directory)
        var link = await fixture.core.connect(0)
        try await fixture.settings.set("output_retention_days", to: 7, by: ArchiveFixture.ada)
        let id = try await fixture.run(link, output: large)
        fixture.close()
        fixture = try await OutputArchiveFixture(directory)
        link = await fixture.core.connect(0)
        _ = try await fixture.run(link, output: large)
        await fixture.age(days: 30)
        let problem = await #expect(throws: Problem.self) { try await fixture.read(id) }
        #expect(problem?.code == "output-expired")
        fixture.close()
    }

    @Test func eachDestinationGetsEverything() async throws {
        let fixture = try await OutputArchiveFixture()
        let link = await fixture.core.connect(0)
        try await fixture.turnOn()
        let id = try await fixture.run(link, output: [1])
        _ = try await fixture.wait { $0.row?.objects == 1 }
        try await fixture.settings.set("output_archive_prefix", to: "x/y-", by: ArchiveFixture.ada)
        try await fixture.turnOn("other")
        _ = try await fixture.wait { $0.destination?.name == "other/x/y-" && $0.row?.objects == 1 }
        #expect(fixture.objects.objects["other/x/y-\(id)/\(fixture.core.clients[0]).stdout"] == [1])
        #expect(fixture.object(id) == [1])
        fixture.close()
    }

    @Test(arguments: [("output_archive_remote", "a/b"), ("output_archive_prefix", "../x/")])
    func aWrongSettingIsRefused(name: String, value: String) async throws {
        let fixture = try await OutputArchiveFixture(isStarted: false)
        let problem = await #expect(throws: Problem.self) {
            try await fixture.settings.set(name, to: .string(value), by: ArchiveFixture.ada)
        }
        #expect(problem?.status == 400)
        fixture.close()
    }
}
