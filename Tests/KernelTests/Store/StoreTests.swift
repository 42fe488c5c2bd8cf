import Glibc
import Kernel
import Testing

@Suite struct StoreTests {
    @Test func aWriteThatReturnedIsThereAfterReopening() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        try await store.insert(1)
        #expect(try await store.numbers() == [1])
        store.close()
        let again = try openStore(directory)
        #expect(try await again.numbers() == [1])
        again.close()
    }

    @Test func everyKindOfValueComesBackAsItWas() async throws {
        let directory = TemporaryDirectory()
        let store = try Store.open(directory: directory.path, migrations: [
            Migration(area: "kinds", version: 1, sql: "CREATE TABLE kinds (i INTEGER, d REAL, t TEXT, b BLOB, n TEXT) STRICT")
        ])
        try await store.write { (transaction) throws(StoreError) in
            _ = try transaction.run(
                "INSERT INTO kinds VALUES (?, ?, ?, ?, ?)", Int64.min, 0.5, "grüß\u{0}e", [0, 255] as [UInt8],
                nil as String?)
            _ = try transaction.run("INSERT INTO kinds VALUES (?, ?, ?, ?, ?)", 0, 0.0, "", [] as [UInt8], "")
        }
        let rows = try await store.read { (reader) throws(StoreError) in
            try reader.all("SELECT * FROM kinds") { (row) throws(StoreError) in
                "\(row.integer(0)) \(row.double(1)) \(row.text(2)) \(row.bytes(3)) \(row.optionalText(4) ?? "nil")"
            }
        }
        #expect(rows == ["\(Int64.min) 0.5 grüß\u{0}e [0, 255] nil", "0 0.0  [] "])
        store.close()
    }

    /// What is bound lies on a stack of 16 KiB, or is copied where it does not fit; both kinds in one statement.
    @Test func valuesBeyondTheStackOfTheConnectionComeBackAsTheyWere() async throws {
        let directory = TemporaryDirectory()
        let store = try Store.open(directory: directory.path, migrations: [
            Migration(area: "kinds", version: 1, sql: "CREATE TABLE kinds (a TEXT, b BLOB, c TEXT, d BLOB) STRICT")
        ])
        let texts = (0..<4).map { String(repeating: "ä\($0)", count: 4_000) }
        try await store.write { (transaction) throws(StoreError) in
            for text in texts {
                let bytes = Array(text.utf8.reversed())
                _ = try transaction.run("INSERT INTO kinds VALUES (?, ?, ?, ?)", text, bytes, "short \(text.count)", bytes)
            }
        }
        let rows = try await store.read { (reader) throws(StoreError) in
            try reader.all("SELECT * FROM kinds WHERE a <> ?", String(repeating: "z", count: 20_000)) { (row) throws(StoreError) in
                row.text(0) + row.text(2) + "\(row.bytes(1) == row.bytes(3) && row.bytes(1) == Array(row.text(0).utf8.reversed()))"
            }
        }
        #expect(rows == texts.map { $0 + "short \($0.count)true" })
        store.close()
    }

    /// A statement that runs inside the rows of another one, or of itself, has values of its own.
    @Test func statementsInsideTheRowsOfOthersKeepTheirValuesApart() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        for value in 1...5 { try await store.insert(value) }
        let found = try await store.read { (reader) throws(StoreError) -> [String] in
            var found: [String] = []
            try Self.above(reader, "1") { (outer) throws(StoreError) in
                try Self.above(reader, outer) { (inner) throws(StoreError) in found.append(outer + inner) }
            }
            return found
        }
        #expect(found == ["23", "24", "25", "34", "35", "45"])
        store.close()
    }

    private static func above(
        _ reader: borrowing Reader, _ floor: String, _ body: (String) throws(StoreError) -> Void
    ) throws(StoreError) {
        try reader.each("SELECT value FROM numbers WHERE CAST(value AS TEXT) > ? ORDER BY value", floor) { (row) throws(StoreError) in
            try body(String(row.integer(0)))
        }
    }

    /// Eight at once, five times each: from the second commit on all of them are a crowd.
    @Test func commitsOfACrowdAreSpaced() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory) { $0.commitSpacingNanoseconds = 100_000_000 }
        let clock = ContinuousClock()
        let start = clock.now
        await withTaskGroup(of: Void.self) { group in
            for task in 0..<8 {
                group.addTask { for round in 0..<5 { try? await store.insert(10 * task + round) } }
            }
        }
        #expect(clock.now - start >= .milliseconds(200))
        #expect(try await store.numbers().count == 40)
        store.close()
    }

    @Test func aRefusedBodyLeavesNoTraceAndHarmsNobody() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let outcomes = await withTaskGroup(of: (Int, Bool).self) { group in
            for value in 0..<1_000 {
                group.addTask {
                    do {
                        try await store.write { (transaction) throws(StoreError) in
                            _ = try transaction.run("INSERT INTO numbers VALUES (?, 'x')", value)
                            if value % 7 == 0 { throw .refused(.forbidden("a multiple of seven")) }
                        }
                        return (value, true)
                    } catch {
                        #expect((error as? Problem)?.status == 403)
                        return (value, false)
                    }
                }
            }
            return await group.reduce(into: [Int]()) { if $1.1 { $0.append($1.0) } }
        }
        #expect(outcomes.sorted() == (0..<1_000).filter { $0 % 7 != 0 })
        #expect(try await store.numbers() == outcomes.sorted())
        store.close()
    }

    @Test func aBrokenRuleIsAConflict() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        try await store.insert(5)
        await #expect(throws: Problem.self) { try await store.insert(5) }
        #expect(try await store.numbers() == [5])
        store.close()
    }

    @Test func aSecondCoreIsKeptOut() throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        let problem = #expect(throws: Problem.self) { _ = try openStore(directory) }
        #expect(problem?.code == "data-directory-in-use")
        store.close()
    }

    @Test func aNewerDatabaseIsRefused() throws {
        let directory = TemporaryDirectory()
        let newer = Migration(area: "numbers", version: 2, sql: "CREATE TABLE more (x INTEGER) STRICT")
        try Store.open(directory: directory.path, migrations: [numbersMigration, newer]).close()
        let problem = #expect(throws: Problem.self) { _ = try openStore(directory) }
        #expect(problem?.detail.contains("numbers is at 2") == true)
    }

    @Test func aFailingMigrationLeavesTheDatabaseAsItWas() async throws {
        let directory = TemporaryDirectory()
        try openStore(directory).close()
        let broken = Migration(area: "numbers", version: 2, sql: "CREATE TABLE more (x INTEGER) STRICT; CREATE TABLE numbers (y)")
        #expect(throws: Problem.self) {
            _ = try Store.open(directory: directory.path, migrations: [numbersMigration, broken])
        }
        let store = try openStore(directory)
        try await store.insert(1)
        store.close()
    }

    @Test func theFilesAreTheirOwnersAlone() throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        for name in ["core.sqlite3", "core.sqlite3-wal"] {
            var status = stat()
            #expect(stat(directory.path + "/" + name, &status) == 0)
            #expect(status.st_mode & 0o077 == 0)
        }
        store.close()
    }

    @Test func aFullDatabaseRefusesTheLargeAndStillTakesTheSmall() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory) { $0.maximumPages = 64 }
        let large = String(repeating: "x", count: 1 << 20)
        let results = await withTaskGroup(of: Int.self) { group in
            for value in 0..<20 {
                group.addTask {
                    do {
                        try await store.insert(value, note: value == 10 ? large : "small")
                        return 200
                    } catch let problem as Problem { return problem.status } catch { return 0 }
                }
            }
            return await group.reduce(into: [Int]()) { $0.append($1) }
        }
        #expect(results.sorted() == Array(repeating: 200, count: 19) + [507])
        #expect(try await store.numbers() == Array(0..<10) + Array(11..<20))
        store.close()
    }

    @Test func aClosedStoreRefuses() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        store.close()
        let write = await #expect(throws: Problem.self) { try await store.insert(1) }
        let read = await #expect(throws: Problem.self) { try await store.numbers() }
        #expect(write?.status == 503 && read?.status == 503)
    }

    @Test func aSlowReadIsEnded() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory) { $0.readMilliseconds = 20 }
        let problem = await #expect(throws: Problem.self) {
            try await store.read { (reader) throws(StoreError) in
                try reader.count("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
            }
        }
        #expect(problem?.code == "store-slow")
        store.close()
    }

    @Test func whatIsBeyondTheQueueIsRefusedAndTheRestIsWritten() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory) { $0.maximumQueuedRequests = 8 }
        let accepted = await withTaskGroup(of: Int?.self) { group in
            for value in 0..<1_000 {
                group.addTask {
                    do {
                        try await store.insert(value)
                        return value
                    } catch {
                        #expect((error as? Problem)?.code == "store-busy")
                        return nil
                    }
                }
            }
            return await group.reduce(into: [Int]()) { if let value = $1 { $0.append(value) } }
        }
        #expect(try await store.numbers() == accepted.sorted())
        #expect(!accepted.isEmpty)
        store.close()
    }
}
