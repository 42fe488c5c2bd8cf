import AgentProtocol
import Glibc
import JSON
import Testing

@testable import Kernel

/// A trail of acts that are worth telling apart: every field used, in every shape.
func writeActs(_ store: Store, _ count: Int) async throws {
    for number in 1...max(count, 1) where number <= count {
        let client = ClientID(high: UInt64(number) << 16, low: 7)
        let record = AuditRecord(
            principal: Principal(
                kind: .user, id: number % 2 == 0 ? "ada" : "bob", address: number % 3 == 0 ? nil : "192.0.2.\(number % 250)",
                correlation: "c\(number)"),
            action: number % 2 == 0 ? "command.submit" : "client.revoke",
            clients: number % 4 == 0 ? [] : [client], target: number % 5 == 0 ? nil : "t\(number)",
            outcome: number % 7 == 0 ? .refused : .allowed, reason: number % 7 == 0 ? "niet \"toegestaan\"\n" : "",
            detail: number % 2 == 0 ? ["argv": ["echo", "ä\u{1}\u{2028}"], "n": .integer(Int64(number)), "f": 1.5e300] : .null)
        try await store.write { (transaction) throws(StoreError) in try transaction.audit(record) }
    }
}

/// Changes the database behind the core's back.
func tamper(_ directory: TemporaryDirectory, _ sql: String) throws {
    let connection = try Connection(path: directory.path + "/core.sqlite3", mode: .writer, options: StoreOptions())
    try connection.execute(sql)
    connection.close()
}

@Suite struct AuditTests {
    private func trail(_ directory: TemporaryDirectory, _ count: Int, checkpointAt: Int? = nil) async throws {
        let store = try openStore(directory)
        let audit = Audit(store: store, settings: nil)
        if let checkpointAt {
            try await writeActs(store, checkpointAt)
            try await audit.checkpoint()
            try await writeActs(store, count - checkpointAt)
        } else {
            try await writeActs(store, count)
        }
        await audit.stop()
        store.close()
    }

    @Test func aTrailVerifiesLiveAndClosed() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let audit = Audit(store: store, settings: nil)
        try await writeActs(store, 50)
        #expect(try await audit.verify().fault == nil)
        try await audit.checkpoint()
        let report = try await audit.verify()
        #expect(report.fault == nil)
        #expect(report.records == 50 && report.first == 1 && report.last == 50 && report.signedThrough == 50)
        store.close()
        #expect(try AuditVerification.verify(dataDirectory: directory.path) == report)
    }

    @Test func theChainGoesOnAfterARestart() async throws {
        let directory = TemporaryDirectory()
        try await trail(directory, 5)
        try await trail(directory, 5)
        let report = try AuditVerification.verify(dataDirectory: directory.path)
        #expect(report.fault == nil && report.last == 10)
    }

    @Test func aRefusedActLeavesNoRecordAndNoGap() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        await withTaskGroup(of: Void.self) { group in
            for number in 0..<500 {
                group.addTask {
                    _ = try? await store.write { (transaction) throws(StoreError) in
                        try transaction.audit(AuditRecord(
                            principal: Principal(kind: .user, id: "\(number)"), action: "test.act"))
                        if number % 3 == 0 { throw .refused(.forbidden("no")) }
                    }
                }
            }
        }
        let report = try await Audit(store: store, settings: nil).verify()
        #expect(report.fault == nil)
        #expect(report.records == UInt64((0..<500).filter { $0 % 3 != 0 }.count))
        store.close()
    }

    struct Change: Sendable, CustomTestStringConvertible {
        let sql: String
        let record: UInt64
        var testDescription: String { sql }
    }
    @Test(arguments: [
        "actor_kind = 'agent'", "actor = 'eve'", "address = NULL", "correlation = 'x'", "action = 'x.y'",
        "target = NULL", "clients = x''", "outcome = 'refused'", "reason = 'because'", "detail = '{}'",
        "time_ms = time_ms + 1", "hash = zeroblob(32)",
    ])
    func aChangedFieldIsFound(change: String) async throws {
        let directory = TemporaryDirectory()
        try await trail(directory, 20)
        try tamper(directory, "UPDATE audit_records SET \(change) WHERE sequence = 13")
        #expect(try AuditVerification.verify(dataDirectory: directory.path).fault?.record == 13)
    }

    @Test(arguments: [
        Change(sql: "DELETE FROM audit_records WHERE sequence = 1", record: 1),
        Change(sql: "DELETE FROM audit_records WHERE sequence <= 10", record: 1),
        Change(sql: "DELETE FROM audit_records WHERE sequence <= 10; DELETE FROM audit_checkpoints WHERE sequence < 10", record: 1),
        Change(sql: "DELETE FROM audit_records WHERE sequence = 13", record: 13),
        Change(sql: "DELETE FROM audit_records WHERE sequence > 15", record: 16),
        Change(sql: "DELETE FROM audit_records WHERE sequence > 15; DELETE FROM audit_checkpoints WHERE sequence > 15", record: 16),
        Change(sql: "DELETE FROM audit_records", record: 1),
        Change(sql: "DELETE FROM audit_records; DELETE FROM audit_checkpoints", record: 1),
        Change(sql: "UPDATE audit_records SET sequence = 99 WHERE sequence = 20", record: 20),
        Change(sql: "UPDATE audit_checkpoints SET signature = zeroblob(70) WHERE sequence = 10", record: 10),
        Change(sql: "UPDATE audit_checkpoints SET time_ms = 1 WHERE sequence = 10", record: 10),
        Change(
            sql: """
                CREATE TEMP TABLE a AS SELECT * FROM audit_records WHERE sequence IN (7, 8);
                UPDATE audit_records SET (actor, hash) = (SELECT actor, hash FROM a WHERE a.sequence = 8) WHERE sequence = 7;
                UPDATE audit_records SET (actor, hash) = (SELECT actor, hash FROM a WHERE a.sequence = 7) WHERE sequence = 8
                """, record: 7),
    ])
    func aMissingMovedOrForgedRecordIsFound(change: Change) async throws {
        let directory = TemporaryDirectory()
        try await trail(directory, 20, checkpointAt: 10)
        try tamper(directory, change.sql)
        #expect(try AuditVerification.verify(dataDirectory: directory.path).fault?.record == change.record)
    }

    @Test func aTailThatWasCutStaysMissingWhenTheCoreGoesOn() async throws {
        let directory = TemporaryDirectory()
        try await trail(directory, 20)
        try tamper(directory, "DELETE FROM audit_records WHERE sequence > 15")
        try await trail(directory, 5)
        #expect(try AuditVerification.verify(dataDirectory: directory.path).fault?.record == 16)
    }

    @Test func aTailThatWasRewrittenWithFittingHashesIsFoundByTheCheckpoint() async throws {
        let directory = TemporaryDirectory()
        try await trail(directory, 20)
        // As one would who knows the chain but not the key: cut, and let a core of one's own write other records.
        try tamper(directory, "DELETE FROM audit_records WHERE sequence > 15; DELETE FROM audit_checkpoints")
        let store = try openStore(directory)
        try await writeActs(store, 5)
        store.close()
        try tamper(directory, "DELETE FROM audit_checkpoints")
        let report = try AuditVerification.verify(dataDirectory: directory.path)
        #expect(report.last == 20)
        #expect(report.fault != nil)
    }

    @Test func retentionCutsAtACheckpointAndTheRestVerifies() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let audit = Audit(store: store, settings: nil)
        try await writeActs(store, 10)
        try await audit.checkpoint()
        try await writeActs(store, 10)
        try await audit.checkpoint()
        try await writeActs(store, 10)
        let cut = try await audit.cut(olderThan: .max >> 1, by: Principal(kind: .user, id: "ada"))
        #expect(cut == 20)
        let report = try await audit.verify()
        #expect(report.fault == nil)
        #expect(report.first == 21 && report.last == 31)
        #expect(try await audit.cut(olderThan: 1, by: Principal(kind: .user, id: "ada")) == nil)
        // What retention removed may not be passed off as more than it was.
        store.close()
        try tamper(directory, "DELETE FROM audit_records WHERE sequence <= 22")
        #expect(try AuditVerification.verify(dataDirectory: directory.path).fault != nil)
    }

    @Test func anExportVerifiesAndEveryDamageToItIsNamed() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let audit = Audit(store: store, settings: nil)
        try await writeActs(store, 10)
        try await audit.checkpoint()
        try await writeActs(store, 20)
        let lines = try await exported(audit).split(separator: "\n").map(String.init)
        let file = directory.path + "/export.jsonl"
        func verify(_ lines: [String]) throws -> AuditReport {
            try #require(write(lines.joined(separator: "\n") + "\n", file))
            return try AuditVerification.verify(file: file, dataDirectory: directory.path)
        }
        let report = try verify(lines)
        #expect(report.fault == nil && report.records == 30 && report.checkpoints == 2)
        #expect(lines.count == 33)

        #expect(try verify(Array(lines.dropLast())).fault?.record == 31)
        #expect(try verify(Array(lines.dropLast(2))).fault?.record == 30)
        #expect(try verify(Array(lines[..<20])).fault != nil)
        var changed = lines
        changed.remove(at: 5)
        #expect(try verify(changed).fault?.record == 5)
        changed = lines
        changed[4] = changed[4].replacing("ada", with: "eve")
        #expect(try verify(changed).fault?.record == 4)
        changed = lines
        changed[4] = "{\"note\":1," + changed[4].dropFirst()
        #expect(try verify(changed).fault?.record == 4)
        changed = lines
        changed.swapAt(7, 8)
        #expect(try verify(changed).fault?.record == 7)
        changed = lines
        changed.remove(at: 11)
        #expect(try verify(changed).fault == nil)  // A checkpoint in the middle may go: the last one covers it all.
        #expect(throws: Problem.self) { try verify(Array(lines.dropFirst())) }
        #expect(throws: Problem.self) { try verify([]) }

        let other = TemporaryDirectory()
        let stranger = try openStore(other)
        stranger.close()
        _ = try verify(lines)
        #expect(throws: Problem.self) { try AuditVerification.verify(file: file, dataDirectory: other.path) }
        store.close()
    }

    @Test func anExportOfACutTrailVerifies() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let audit = Audit(store: store, settings: nil)
        try await writeActs(store, 10)
        try await audit.checkpoint()
        try await writeActs(store, 5)
        _ = try await audit.cut(olderThan: .max >> 1, by: Principal(kind: .user, id: "ada"))
        let file = directory.path + "/export.jsonl"
        #expect(write(try await exported(audit), file))
        let report = try AuditVerification.verify(file: file, dataDirectory: directory.path)
        #expect(report.fault == nil && report.first == 11 && report.last == 16)
        store.close()
    }

    @Test func piecesOfAnExportStaySmallWhenItsRecordsAreLarge() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let audit = Audit(store: store, settings: nil)
        let principal = Principal(kind: .user, id: "ada")
        let record = AuditRecord(
            principal: principal, action: "command.submit", clients: (1...1_000).map { ClientID(high: $0 << 16, low: 7) })
        for _ in 0..<20 { try await store.write { (transaction) throws(StoreError) in try transaction.audit(record) } }
        try await writeActs(store, 300)
        var export = try await AuditExport(audit)
        var pieces: [[UInt8]] = []
        while let piece = try await export.next() { pieces.append(piece) }
        let longest = pieces.flatMap { $0.split(separator: UInt8(ascii: "\n")) }.map(\.count).max() ?? 0
        #expect(longest > 16_000)
        #expect(pieces.allSatisfy { $0.count <= AuditExport.pieceBytes + longest })
        #expect(pieces.allSatisfy { $0.split(separator: UInt8(ascii: "\n")).count <= 257 })
        let file = directory.path + "/export.jsonl"
        #expect(write(String(decoding: pieces.joined(), as: UTF8.self), file))
        let report = try AuditVerification.verify(file: file, dataDirectory: directory.path)
        #expect(report.fault == nil && report.last == 320)
        store.close()
    }

    private func exported(_ audit: Audit) async throws -> String {
        var export = try await AuditExport(audit)
        var text: [UInt8] = []
        while let piece = try await export.next() { text += piece }
        return String(decoding: text, as: UTF8.self)
    }

    private func write(_ text: String, _ path: String) -> Bool {
        guard let file = fopen(path, "w") else { return false }
        defer { fclose(file) }
        return fputs(text, file) >= 0
    }

    @Test func queriesFindWhatTheyShouldPageByPage() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let audit = Audit(store: store, settings: nil)
        try await writeActs(store, 40)
        func all(_ filter: AuditFilter) async throws -> [UInt64] {
            var found: [UInt64] = []
            var before: UInt64?
            for _ in 0..<50 {
                let page = try await audit.query(filter, before: before, limit: 3)
                found += page.lines.map(\.entry.sequence)
                guard let next = page.next else { break }
                before = next
            }
            return found
        }
        #expect(try await all(AuditFilter()) == (1...40).reversed())
        var filter = AuditFilter()
        filter.actor = "ada"
        #expect(try await all(filter) == (1...40).reversed().filter { $0 % 2 == 0 })
        filter.outcome = .refused
        #expect(try await all(filter) == [28, 14])
        filter = AuditFilter()
        filter.action = "client.*"
        #expect(try await all(filter) == (1...40).reversed().filter { $0 % 2 == 1 })
        filter = AuditFilter()
        filter.client = ClientID(high: 3 << 16, low: 7)
        #expect(try await all(filter) == [3])
        filter = AuditFilter()
        filter.since = .max >> 1
        #expect(try await all(filter).isEmpty)
        filter.since = 1
        filter.until = .max >> 1
        #expect(try await all(filter).count == 40)
        let after = try await audit.lines(after: 37)
        #expect(after.lines.map(\.entry.sequence) == [38, 39, 40])
        #expect(after.next == nil)
        store.close()
    }
}
