import AgentProtocol
import Crypto
import Glibc
import Program
import System
import Testing

@testable import Agent

@Suite struct UpgradeFilesTests {
    private func place() throws -> (TemporaryDirectory, UpgradeFiles, String) {
        let directory = try TemporaryDirectory()
        let program = directory.path + "/cm-agent"
        try AtomicFile.write(Array("old".utf8), to: program, mode: 0o755)
        return (directory, UpgradeFiles(dataDirectory: directory.path), program)
    }

    private func text(_ path: String) -> String? {
        (try? Files.read(path, limit: 1 << 16)).map { String(decoding: $0, as: UTF8.self) }
    }

    private func manifest(_ content: [UInt8], version: String = "0.2.0") throws -> ReleaseManifest {
        ReleaseManifest(
            version: try #require(ReleaseVersion(version)), platform: ReleasePlatform.own,
            sha256: SHA256.digest(content).hex, size: UInt64(content.count), created: 1)
    }

    private func content(_ text: String, version: String = "0.2.0") throws -> [UInt8] {
        Array(text.utf8) + ReleaseStamp.bytes(try #require(ReleaseVersion(version)))
    }

    @Test func stagedFilesAreCheckedAndGetTheProgramsMode() throws {
        let (directory, _, program) = try place()
        let staged = UpgradeFiles.staged(program)
        try AtomicFile.write(Array("left over".utf8), to: staged)
        let bytes = try content("new")
        let file = try StagedFile(staged)
        #expect(try file.append(Array(bytes.prefix(2))) == 2)
        #expect(try file.append(Array(bytes.dropFirst(2))) == UInt64(bytes.count))
        try file.finish(try manifest(bytes), like: program)
        #expect(try Files.read(staged, limit: 1 << 16) == bytes)
        #expect(try Files.status(staged).mode == 0o755)
        #expect(try UpgradeFiles.hash(staged) == SHA256.digest(bytes).hex)

        func refusal(_ bytes: [UInt8], _ manifest: ReleaseManifest) throws -> String? {
            let file = try StagedFile(staged)
            _ = try file.append(bytes)
            do throws(ReleaseRefusal) {
                try file.finish(manifest, like: program)
                return nil
            } catch { return error.code }
        }
        #expect(try refusal(try content("other"), try manifest(bytes)) == "release-hash")
        #expect(try refusal(bytes, try manifest(bytes, version: "0.3.0")) == "release-stamp")
        #expect(try refusal(Array("no stamp".utf8), try manifest(Array("no stamp".utf8))) == "release-stamp")
        withExtendedLifetime(directory) {}
    }

    @Test func aSwapKeepsTheOldProgramAndCanBeTakenBack() throws {
        let (directory, files, program) = try place()
        for round in ["first", "second"] {
            let before = text(program)
            try AtomicFile.write(Array(round.utf8), to: UpgradeFiles.staged(program), mode: 0o755)
            try files.swap(program)
            #expect(text(program) == round && text(UpgradeFiles.previous(program)) == before)
            #expect(!Files.exists(UpgradeFiles.staged(program)))
        }
        try files.restorePrevious(program)
        #expect(text(program) == "first")
        #expect(try Files.list(directory.path).sorted() == ["cm-agent"])
        // Cut off between keeping the old one and the rename: the second name is of the same file.
        #expect(link(program, UpgradeFiles.previous(program)) == 0)
        try AtomicFile.write(Array("third".utf8), to: UpgradeFiles.staged(program), mode: 0o755)
        try files.swap(program)
        #expect(text(program) == "third" && text(UpgradeFiles.previous(program)) == "first")
        #expect(try Files.list(directory.path).sorted() == ["cm-agent", "cm-agent.previous"])
    }

    @Test func journalsAreDurableAndDamagedOnesAreSetAside() throws {
        let (directory, files, _) = try place()
        #expect(try files.load() == nil)
        let machine = try UpgradeStateMachineTests.machine()
        try files.save(machine)
        #expect(try files.load() == machine)
        try files.forget()
        #expect(try files.load() == nil)
        try files.save(machine)
        try AtomicFile.write(Array("{".utf8), to: files.directory + "/journal.json")
        #expect(try files.load() == nil)
        #expect(try Files.list(files.directory) == ["journal.json.damaged"])
        #expect(try !files.isWatched())
        let lock = try files.watcherLock()
        #expect(try files.isWatched())
        withExtendedLifetime((lock, directory)) {}
    }
}

@Suite struct UpgradePolicyTests {
    private func refusal(_ policy: String?, _ from: String?, _ to: String) throws -> String? {
        let parsed = policy.map { LocalPolicy(parsing: Array($0.utf8)) } ?? .open
        return parsed.refusal(
            ofUpgradeFrom: from.flatMap { ReleaseVersion($0) }, to: try #require(ReleaseVersion(to)))
    }

    @Test func olderVersionsNeedTheMachinesConsent() throws {
        #expect(try refusal(nil, "0.1.0", "0.2.0") == nil)
        #expect(try refusal(nil, "0.2.0", "0.2.0") == nil)
        #expect(try refusal(nil, nil, "0.0.1") == nil)
        #expect(try refusal(nil, "0.2.0", "0.2.0-rc.1")?.contains("downgrades") == true)
        #expect(try refusal("{}", "0.2.0", "0.1.9") != nil)
        #expect(try refusal(#"{"downgrades": true}"#, "0.2.0", "0.1.9") == nil)
        #expect(try refusal(#"{"downgrades": true, "upgrades": false}"#, "0.2.0", "0.1.9") != nil)
        #expect(try refusal(#"{"upgrades": false}"#, "0.1.0", "0.2.0") != nil)
        #expect(try refusal(#"{"upgrades": 1}"#, "0.1.0", "0.2.0") != nil)
        #expect(try refusal("{", "0.1.0", "0.2.0") != nil)
    }
}
