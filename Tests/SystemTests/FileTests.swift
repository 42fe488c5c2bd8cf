import Glibc
import System
import Testing

@Suite struct FileTests {
    @Test func atomicWriteReplacesWholeAndSetsMode() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/key"
        try AtomicFile.write(Array("first".utf8), to: path)
        try AtomicFile.write(Array("second, longer".utf8), to: path, mode: 0o640)
        #expect(try Files.read(path, limit: 100) == Array("second, longer".utf8))
        #expect(try Files.status(path).mode == 0o640)
        #expect(try Files.list(directory.path) == ["key"])
    }

    @Test func atomicWriteIntoMissingDirectoryNamesThePath() throws {
        let directory = try TemporaryDirectory()
        do {
            try AtomicFile.write([1], to: directory.path + "/missing/key")
            Issue.record("no error")
        } catch {
            #expect(error.isMissing)
            #expect(error.description.contains("/missing/key"))
            #expect(error.description.contains("No such file"))
        }
    }

    @Test func readRefusesMoreThanItsLimit() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/large"
        try AtomicFile.write([UInt8](repeating: 7, count: 5_000), to: path)
        #expect(try Files.read(path, limit: 5_000).count == 5_000)
        #expect(throws: SystemError("read", path, code: EFBIG)) { try Files.read(path, limit: 4_999) }
        // A file of /proc says size 0 and has content.
        #expect(try !Files.read("/proc/self/status", limit: 1 << 16).isEmpty)
    }

    @Test func removeTreeTakesLinksButNotTheirTargets() throws {
        let directory = try TemporaryDirectory()
        try Files.makeDirectories(directory.path + "/tree/a/b")
        try AtomicFile.write([1], to: directory.path + "/kept")
        symlink(directory.path + "/kept", directory.path + "/tree/a/link")
        symlink(directory.path, directory.path + "/tree/up")
        try Files.removeTree(directory.path + "/tree")
        #expect(!Files.exists(directory.path + "/tree"))
        #expect(Files.exists(directory.path + "/kept"))
    }

    @Test func directoryLockIsExclusiveAndEndsWithItsOwner() throws {
        let directory = try TemporaryDirectory()
        var first: DirectoryLock? = try DirectoryLock(directory: directory.path)
        #expect(first != nil)
        #expect(throws: SystemError.self) { try DirectoryLock(directory: directory.path) }
        #expect(try DirectoryLock.isHeld(directory: directory.path))
        first = nil
        #expect(try !DirectoryLock.isHeld(directory: directory.path))
    }

    @Test func beneathRootCannotBeLeft() throws {
        let directory = try TemporaryDirectory()
        try Files.makeDirectories(directory.path + "/root/inside")
        try AtomicFile.write(Array("secret".utf8), to: directory.path + "/secret")
        symlink("../secret", directory.path + "/root/way-out")
        symlink("inside", directory.path + "/root/way-in")
        let root = try BeneathRoot(directory.path + "/root")
        for path in ["../secret", "inside/../../secret", "/etc/passwd", "way-out"] {
            do throws(SystemError) {
                _ = try root.open(path, O_RDONLY)
                Issue.record("\(path) was opened")
            } catch {
                #expect(error.code == EXDEV, "\(path)")
            }
        }
        let file = try root.open("way-in/new", O_WRONLY | O_CREAT)
        try file.write(([1, 2, 3] as [UInt8]).span.bytes)
        #expect(try root.status("inside/new").size == 3)
        try root.makeDirectory("made")
        try root.rename("inside/new", to: "made/moved")
        #expect(throws: SystemError.self) { try root.remove("..") }
        #expect(throws: SystemError.self) { try root.rename("made/moved", to: "../stolen") }
        try root.remove("made/moved")
        try root.remove("made", directory: true)

        let strict = try BeneathRoot(directory.path + "/root", followsLinks: false)
        do throws(SystemError) {
            _ = try strict.open("way-in/new", O_RDONLY)
            Issue.record("a link was followed")
        } catch { #expect(error.code == ELOOP) }
    }

    @Test func poolRunsWorkAndRefusesWhatIsBeyondItsQueue() async throws {
        let pool = BlockingPool(name: "test", threads: 1, queue: 1)
        #expect(try await pool.run { 6 * 7 } == 42)
        do {
            _ = try await pool.run { () throws(SystemError) -> Int in throw SystemError("x", code: EIO) }
            Issue.record("no error")
        } catch {
            guard case .failed(let error) = error else { throw error }
            #expect(error.code == EIO)
        }

        // Both ends of a pipe as events: the one thread says that it is busy, and waits until it may go on.
        var busy: [Int32] = [0, 0]
        var goOn: [Int32] = [0, 0]
        pipe(&busy)
        pipe(&goOn)
        let (tell, wait) = (busy[1], goOn[0])
        #expect(pool.submit {
            var byte: UInt8 = 1
            write(tell, &byte, 1)
            read(wait, &byte, 1)
        })
        var byte: UInt8 = 0
        read(busy[0], &byte, 1)
        #expect(pool.submit {})
        #expect(!pool.submit {})
        do {
            _ = try await pool.run { 1 }
            Issue.record("accepted beyond the queue")
        } catch {
            guard case .full = error else { throw error }
        }
        write(goOn[1], &byte, 1)
        for descriptor in busy + goOn { close(descriptor) }
    }
}
