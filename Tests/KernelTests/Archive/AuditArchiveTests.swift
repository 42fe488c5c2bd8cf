import Glibc
import JSON
import Reactor
import Testing

@testable import Kernel

@Suite(.timeLimit(.minutes(2))) struct AuditArchiveTests {
    private func verify(_ content: [UInt8], _ directory: TemporaryDirectory) throws -> AuditReport {
        let path = directory.path + "/concatenated.jsonl"
        let file = try #require(fopen(path, "w"))
        #expect(fwrite(content, 1, content.count, file) == content.count)
        fclose(file)
        return try AuditVerification.verify(file: path, dataDirectory: directory.path)
    }

    /// Records by their numbers, however often each stands there.
    private func sequences(_ content: [UInt8]) throws -> [Int64] {
        try content.split(separator: 0x0A).compactMap { try JSONValue(parsing: Array($0))["sequence"]?.integer }
    }

    @Test func itIsOffUntilARemoteIsSetAndOffAgainWithoutOne() async throws {
        let fixture = try await ArchiveFixture(TemporaryDirectory(), FakeObjects())
        try await writeActs(fixture.store, 20)
        #expect(try await fixture.archive.status().json == ["state": "off"])
        try await fixture.turnOn()
        #expect(try await fixture.wait { $0.row.position >= 20 }.row.position >= 20)
        try await fixture.settings.set("audit_archive_remote", to: "", by: ArchiveFixture.ada)
        #expect(try await fixture.wait { $0.state == .off }.state == .off)
        let before = fixture.objects.ended.count
        try await writeActs(fixture.store, 20)
        #expect(try await fixture.archive.status().state == .off)
        #expect(fixture.objects.ended.count == before)
        // Turning it on and off is in the trail by itself.
        let acts = try await fixture.audit.lines(after: 0).lines.filter { $0.entry.target == "audit_archive_remote" }
        #expect(acts.map(\.entry.action) == ["settings.change", "settings.change"])
        fixture.close()
    }

    @Test func segmentsSortVerifyAloneAndTogetherAndHoldEachRecordOnce() async throws {
        let fixture = try await ArchiveFixture(TemporaryDirectory(), FakeObjects())
        try await fixture.turnOn()
        for _ in 0..<4 {
            try await writeActs(fixture.store, 7)
            let newest = fixture.audit.newest
            #expect(try await fixture.wait { $0.row.position >= newest }.row.position >= newest)
        }
        let status = try await fixture.wait { $0.state == .current }
        #expect(status.json["error"] == nil && status.json["behind"] == .integer(Int64(status.newest - status.row.position)))
        #expect(status.row.segments == UInt64(fixture.objects.ended.count) && status.row.segments >= 4)
        for (key, content) in fixture.objects.objects {
            let report = try verify(content, fixture.directory)
            #expect(report.fault == nil, "\(key)")
            #expect(key == "backup/" + ArchiveNames.segment("audit/", report.first, report.last))
        }
        let report = try verify(fixture.concatenated(), fixture.directory)
        #expect(report.fault == nil && report.first == 1 && report.last == status.row.position && report.records == report.last)
        #expect(try sequences(fixture.concatenated()) == Array(1...Int64(report.last)))
        fixture.close()
    }

    @Test func segmentsInTheWrongOrderOrWithOneMissingOrDoubledAreNamed() async throws {
        let fixture = try await ArchiveFixture(TemporaryDirectory(), FakeObjects())
        try await fixture.turnOn()
        for _ in 0..<3 {
            try await writeActs(fixture.store, 7)
            let newest = fixture.audit.newest
            _ = try await fixture.wait { $0.row.position >= newest }
        }
        let parts = fixture.objects.objects.sorted { $0.key < $1.key }.map(\.value)
        try #require(parts.count >= 3)
        let second = UInt64(try #require(try sequences(parts[1]).first))
        let third = UInt64(try #require(try sequences(parts[2]).first))
        #expect(try verify(parts[0] + parts[2], fixture.directory).fault?.record == second)
        #expect(try verify(parts[0] + parts[0], fixture.directory).fault?.record == second)
        #expect(try verify(parts[0] + parts[1] + parts[1], fixture.directory).fault?.record == second)
        #expect(try verify(parts[1] + parts[0], fixture.directory).fault != nil)
        #expect(try verify(parts[1] + parts[2], fixture.directory).fault == nil)
        let cut = parts[0].split(separator: 0x0A).dropLast().joined(separator: [0x0A]) + [0x0A]
        #expect(try verify(cut + parts[1], fixture.directory).fault?.record == second)
        #expect(third > second)
        let stranger = try await ArchiveFixture(TemporaryDirectory(), FakeObjects())
        try await stranger.turnOn()
        try await writeActs(stranger.store, 7)
        _ = try await stranger.wait { $0.row.position > 0 }
        let foreign = stranger.concatenated()
        #expect(throws: Problem.self) { try verify(parts[0] + foreign, fixture.directory) }
        stranger.close()
        fixture.close()
    }

    @Test func anAnswerThatGotLostBringsTheSameBytesUnderTheSameNameAlsoAfterARestart() async throws {
        let directory = TemporaryDirectory()
        let objects = FakeObjects()
        objects.state.withLock { $0.losesAnswers = 1_000 }
        var fixture = try await ArchiveFixture(directory, objects)
        try await fixture.turnOn()
        try await writeActs(fixture.store, 12)
        var status = try await fixture.wait { $0.state == .failing && $0.attempts >= 2 }
        #expect(status.row.position == 0 && status.row.segments == 0)
        let key = try #require(status.json["next_key"]?.string)
        let before = try #require(objects.objects["backup/" + key])
        fixture.close()

        // The core is gone and comes back; meanwhile the trail has grown and the settings are others.
        fixture = try await ArchiveFixture(directory, objects, isStarted: false)
        try await fixture.turnOn(records: 3)
        try await writeActs(fixture.store, 12)
        objects.state.withLock { $0.losesAnswers = 0 }
        fixture.archive.start(on: fixture.loop) { _ in }
        let newest = fixture.audit.newest
        status = try await fixture.wait { $0.row.position >= newest }
        #expect(status.row.position >= newest)
        #expect(objects.objects["backup/" + key] == before)
        #expect(Set(objects.ended.prefix { $0 == "backup/" + key }).count == 1)
        let report = try verify(fixture.concatenated(), directory)
        #expect(report.fault == nil && report.records == status.row.position)
        #expect(try sequences(fixture.concatenated()) == Array(1...Int64(report.last)))
        fixture.close()
    }

    @Test func aStoreThatRefusesIsToldOnceAndTriedAgain() async throws {
        let fixture = try await ArchiveFixture(TemporaryDirectory(), FakeObjects(), isStarted: false)
        // It fails in the same way until the test has seen it.
        fixture.objects.state.withLock {
            $0.failures = Array(repeating: ObjectStoreError("cloud-denied", "SignatureDoesNotMatch"), count: 1_000)
            $0.wrongSizes = 1_000
        }
        let start = fixture.events.end
        try await fixture.turnOn()
        try await writeActs(fixture.store, 12)
        fixture.archive.start(on: fixture.loop) { _ in }
        var status = try await fixture.wait { $0.state == .failing && $0.attempts >= 2 }
        let error = status.json["error"]
        #expect(error?["code"] == "cloud-denied" && error?["text"]?.string?.contains("SignatureDoesNotMatch") == true)
        #expect((error?["since_ms"]?.integer ?? 0) > 0 && (error?["next_ms"]?.integer ?? 0) >= (error?["since_ms"]?.integer ?? 0))
        #expect(status.json["behind"] == .integer(Int64(status.newest)))
        fixture.objects.state.withLock { $0.failures = [] }
        fixture.archive.storeChanged()
        status = try await fixture.wait { $0.json["error"]?["code"] == "object-store-size" }
        #expect(status.json["error"]?["code"] == "object-store-size" && status.attempts >= 3)
        #expect(status.row.position == 0)
        fixture.objects.state.withLock { $0.wrongSizes = 0 }
        fixture.archive.storeChanged()
        let newest = fixture.audit.newest
        status = try await fixture.wait { $0.row.position >= newest && $0.state == .current }
        #expect(status.row.position >= newest && status.json["error"] == nil)
        let kinds = fixture.events.page(after: start).events.map(\.kind).filter { $0.hasPrefix("audit.") }
        #expect(kinds == ["audit.archive-failed", "audit.archive-recovered"])
        let text = fixture.metrics.exposition()
        #expect(!text.contains("client_manager_audit_archive_failures_total 0\n"))
        #expect(text.contains("client_manager_audit_archive_segments_total \(status.row.segments)\n"))
        #expect(text.contains("client_manager_audit_archive_behind 0\n"))
        #expect(fixture.objects.state.withLock { $0.aborted } == 0)
        fixture.close()
    }

    @Test func withoutAStoreItWaitsSaysSoAndGoesOnWhenOneComes() async throws {
        let objects = FakeObjects()
        objects.state.withLock { $0.isThere = false }
        let fixture = try await ArchiveFixture(TemporaryDirectory(), objects)
        let start = fixture.events.end
        try await fixture.turnOn()
        try await writeActs(fixture.store, 12)
        let newest = fixture.audit.newest
        var status = try await fixture.wait { $0.state == .waiting && $0.json["error"] != nil }
        #expect(status.json["error"]?["code"] == "object-store-absent")
        #expect(fixture.metrics.exposition().contains("client_manager_audit_archive_behind \(newest)\n"))
        // A plugin that is loaded a moment after the core is no news, however often one looks for it.
        for _ in 0..<3 {
            fixture.archive.storeChanged()
            await fixture.loop.sleep(milliseconds: 20)
        }
        #expect(!fixture.events.page(after: start).events.contains { $0.kind.hasPrefix("audit.") })
        objects.state.withLock { $0.isThere = true }
        fixture.archive.storeChanged()
        status = try await fixture.wait { $0.row.position >= newest }
        #expect(status.row.position >= newest)
        #expect(fixture.metrics.exposition().contains("client_manager_audit_archive_failures_total 0\n"))
        fixture.close()
    }

    @Test func retentionLeavesWhatIsNotArchived() async throws {
        let objects = FakeObjects()
        let fixture = try await ArchiveFixture(TemporaryDirectory(), objects, isStarted: false)
        try await writeActs(fixture.store, 10)
        try await fixture.audit.checkpoint()
        try await fixture.turnOn()
        try await fixture.settings.set("audit_retention_days", to: 1, by: ArchiveFixture.ada)
        let later = unixMilliseconds() + 2 * 86_400_000
        #expect(try await fixture.audit.retentionWaitsForArchive(now: later))
        try await fixture.audit.applyRetention(now: later)
        #expect(try await fixture.audit.lines(after: 0).lines.first?.entry.sequence == 1)

        fixture.archive.start(on: fixture.loop) { _ in }
        let newest = fixture.audit.newest
        let status = try await fixture.wait { $0.row.position >= newest }
        try await fixture.audit.checkpoint()
        try await fixture.audit.applyRetention(now: later)
        let first = try #require(try await fixture.audit.lines(after: 0).lines.first?.entry.sequence)
        #expect(first == status.row.position + 1)
        #expect(try await fixture.audit.verify().fault == nil)
        fixture.close()
    }

    @Test func whatRetentionTookWhileItWasOffIsTold() async throws {
        let fixture = try await ArchiveFixture(TemporaryDirectory(), FakeObjects())
        try await fixture.turnOn()
        try await writeActs(fixture.store, 10)
        let archived = fixture.audit.newest
        _ = try await fixture.wait { $0.row.position >= archived && $0.state == .current }
        try await fixture.settings.set("audit_archive_remote", to: "", by: ArchiveFixture.ada)
        _ = try await fixture.wait { $0.state == .off }
        try await writeActs(fixture.store, 10)
        let last = try #require(try await fixture.audit.checkpoint()).sequence
        #expect(try await fixture.audit.cut(olderThan: .max >> 1, by: ArchiveFixture.ada) == last)
        try await fixture.turnOn()
        let status = try await fixture.wait { $0.row.position > last }
        // The act of turning it off may have come into one more segment.
        let ends = fixture.objects.objects.keys.compactMap { UInt64($0.dropLast(6).suffix(19)) }
        let kept = try #require(ends.filter { $0 <= last }.max())
        #expect(kept >= archived && status.row.missing == last - kept)
        let told = try await fixture.audit.lines(after: 0).lines.filter { $0.entry.action == "audit.archive-gap" }
        #expect(told.count == 1 && told.first?.entry.outcome == "failed")
        #expect(told.first?.entry.detail.contains("\"through\":\(last)") == true)
        // What came after begins at the cut, and verifies.
        let after = fixture.objects.objects.filter { $0.key >= "backup/" + ArchiveNames.segment("audit/", last + 1, 0) }
        #expect(try verify(after.sorted { $0.key < $1.key }.flatMap { $0.value }, fixture.directory).fault == nil)
        fixture.close()
    }

    @Test func eachDestinationHasItsOwnPosition() async throws {
        let fixture = try await ArchiveFixture(TemporaryDirectory(), FakeObjects())
        try await fixture.turnOn()
        try await writeActs(fixture.store, 10)
        _ = try await fixture.wait { $0.row.position >= 10 }
        try await fixture.settings.set("audit_archive_remote", to: "other", by: ArchiveFixture.ada)
        try await fixture.settings.set("audit_archive_prefix", to: "x/y-", by: ArchiveFixture.ada)
        let newest = fixture.audit.newest
        let status = try await fixture.wait { $0.row.position >= newest && $0.destination?.name == "other/x/y-" }
        #expect(status.json["prefix"] == "x/y-")
        let report = try verify(fixture.objects.objects.filter { $0.key.hasPrefix("other/x/y-audit-") }.sorted { $0.key < $1.key }.flatMap { $0.value }, fixture.directory)
        #expect(report.fault == nil && report.first == 1 && report.last >= newest)
        try await fixture.settings.set("audit_archive_prefix", to: nil, by: ArchiveFixture.ada)
        try await fixture.settings.set("audit_archive_remote", to: "backup", by: ArchiveFixture.ada)
        let end = fixture.audit.newest
        _ = try await fixture.wait { $0.row.position >= end && $0.destination?.name == "backup/audit/" }
        #expect(Set(fixture.objects.ended).count == fixture.objects.ended.count)
        #expect(try verify(fixture.concatenated(), fixture.directory).fault == nil)
        fixture.close()
    }

    @Test func recordsAboutTheLastObjectAloneMakeNoSegment() async throws {
        let fixture = try await ArchiveFixture(TemporaryDirectory(), FakeObjects(), isStarted: false)
        try await writeActs(fixture.store, 3)
        let destination = try #require(ArchiveDestination(remote: "backup", prefix: "audit/"))
        try await fixture.audit.checkpoint()
        let own = "backup/" + ArchiveNames.segment("audit/", 1, 3)
        let (_, first) = try await plan(fixture, destination, own)
        #expect(first?.last == 3)
        try await fixture.store.write { (transaction) throws(StoreError) in
            try ArchivePosition.advance(transaction, ArchiveSegment(destination: destination, after: 0, last: 3), now: 5)
            try transaction.audit(AuditRecord(principal: .archive, action: "cloud.write", target: own))
        }
        try await fixture.audit.checkpoint()
        let (row, none) = try await plan(fixture, destination, own)
        #expect(none == nil && row.position == 3 && row.segments == 1 && row.lastKey == ArchiveNames.segment("audit/", 1, 3))
        #expect(try await plan(fixture, destination, nil).1?.last == 4)
        fixture.close()
    }

    private func plan(
        _ fixture: ArchiveFixture, _ destination: ArchiveDestination, _ own: String?
    ) async throws -> (ArchivePosition, ArchiveSegment?) {
        try await fixture.store.write { (transaction) throws(StoreError) in
            try ArchivePosition.plan(transaction, destination, records: 100, ownTarget: own)
        }
    }

    @Test func aSegmentIsClosedByNumberOrByTime() {
        func isDue(_ waiting: UInt64, _ now: UInt64) -> Bool {
            ArchivePace.isDue(waiting: waiting, records: 10, closed: 1_000_000, seconds: 60, now: now)
        }
        #expect(!isDue(0, 2_000_000))
        #expect(!isDue(9, 1_059_999))
        #expect(isDue(10, 1_000_001))
        #expect(isDue(1, 1_060_000))
        #expect(isDue(1, 999_999))
    }

    @Test func pausesGrowToFiveMinutesAndBeginAnew() {
        var pace = ArchivePace()
        #expect((0..<4).map { _ in pace.failed() } == [1_000, 2_000, 4_000, 8_000])
        for _ in 0..<100 { #expect(pace.failed() <= 300_000) }
        #expect(pace.failed() == 300_000)
        pace.succeeded()
        #expect(pace.failed() == 1_000)
    }

    struct Wrong: Sendable {
        let name: String
        let value: JSONValue
        let told: String
    }
    @Test(arguments: [
        Wrong(name: "audit_archive_remote", value: "a/b", told: "a remote's name"),
        Wrong(name: "audit_archive_remote", value: 1, told: "must be text"),
        Wrong(name: "audit_archive_remote", value: .string(String(repeating: "a", count: 65)), told: "64 are allowed"),
        Wrong(name: "audit_archive_prefix", value: "../x/", told: "between slashes"),
        Wrong(name: "audit_archive_prefix", value: "/x", told: "between slashes"),
        Wrong(name: "audit_archive_prefix", value: "a\u{1}", told: "control characters"),
        Wrong(name: "audit_archive_s", value: 0, told: "from 1 to"),
        Wrong(name: "audit_archive_records", value: 0, told: "from 1 to"),
    ])
    func aWrongSettingIsRefused(wrong: Wrong) async throws {
        let directory = TemporaryDirectory()
        let store = try Store.open(directory: directory.path, migrations: Settings.migrations)
        let settings = try await Settings.load(store: store, events: Events())
        let problem = await #expect(throws: Problem.self) { try await settings.set(wrong.name, to: wrong.value, by: ArchiveFixture.ada) }
        #expect(problem?.status == 400 && problem?.detail.contains(wrong.told) == true)
        store.close()
    }
}
