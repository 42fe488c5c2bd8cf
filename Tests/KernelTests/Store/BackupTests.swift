import Glibc
import Testing

@testable import Kernel

@Suite struct BackupTests {
    @Test func aBackupOfALiveStoreRestoresWhatWasAcknowledgedBeforeIt() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        try await writeActs(store, 10)
        for value in 0..<50 { try await store.insert(value) }
        let copy = TemporaryDirectory()
        let made = try Backup.make(dataDirectory: directory.path, to: copy.path + "/backup")
        try await store.insert(1_000)
        store.close()
        let restored = try Backup.restore(from: copy.path + "/backup", dataDirectory: copy.path + "/restored")
        #expect(restored == made)
        let again = try Store.open(directory: copy.path + "/restored", migrations: [numbersMigration])
        #expect(try await again.numbers() == Array(0..<50))
        #expect(again.auditKey == store.auditKey)
        #expect(try await Audit(store: again, settings: nil).verify().records == 10)
        again.close()
    }

    @Test func aDamagedOrIncompleteBackupIsRefused() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        try await store.insert(1)
        store.close()
        let copy = TemporaryDirectory()
        let backup = copy.path + "/backup"
        _ = try Backup.make(dataDirectory: directory.path, to: backup)
        #expect(throws: Problem.self) { try Backup.make(dataDirectory: directory.path, to: backup) }
        #expect(throws: Problem.self) { try Backup.restore(from: backup, dataDirectory: directory.path) }

        let file = try #require(fopen(backup + "/keys/audit.pem", "a"))
        fputs("\n", file)
        fclose(file)
        let problem = #expect(throws: Problem.self) {
            try Backup.restore(from: backup, dataDirectory: copy.path + "/one")
        }
        #expect(problem?.code == "backup-damaged")
        unlink(backup + "/backup.json")
        #expect(throws: Problem.self) { try Backup.restore(from: backup, dataDirectory: copy.path + "/two") }
    }

    @Test(arguments: ["../evil", "/etc/evil", "a/../../evil", "", "a//b", "."])
    func aNameThatLeavesTheDirectoryIsRefused(name: String) {
        #expect(throws: Problem.self) {
            try BackupFile([
                "name": .string(name), "bytes": 0, "mode": 384, "sha256": .string(String(repeating: "0", count: 64)),
            ])
        }
    }
}
