import Glibc
import Synchronization
import Testing

@testable import System

@Suite struct PlacingTests {
    /// Below `/` a link with an absolute target is as good as any other, and there is no way out.
    @Test func theWholeSystemIsARootOfItsOwn() throws {
        let directory = try TemporaryDirectory()
        try Files.makeDirectory(directory.path + "/real")
        try AtomicFile.write([1, 2], to: directory.path + "/real/file")
        #expect(symlink(directory.path + "/real", directory.path + "/absolute") == 0)
        let whole = try BeneathRoot("/")
        let below = String(directory.path.dropFirst())
        #expect(try whole.open(below + "/absolute/file", O_RDONLY).status().size == 2)
        #expect(try whole.open(below + "/../../../../../../" + below + "/real/file", O_RDONLY).status().size == 2)
        let narrow = try BeneathRoot(directory.path)
        #expect(throws: SystemError.self) { _ = try narrow.open("absolute/file", O_RDONLY) }
        // Links of the kernel's own making lead past every check.
        #expect(throws: SystemError.self) { _ = try whole.open("proc/self/root/etc/hostname", O_RDONLY) }
    }

    @Test func namesStayInTheirDirectory() throws {
        let directory = try TemporaryDirectory()
        try Files.makeDirectory(directory.path + "/a")
        let place = PlaceDirectory(try Descriptor.open(directory.path + "/a", O_RDONLY | O_DIRECTORY))
        #expect(try place.path()?.hasSuffix("/a") ?? false)
        try place.open("new", O_WRONLY | O_CREAT | O_EXCL).write(([1] as [UInt8]).span.bytes)
        // Whatever is in the old place now.
        try Files.rename(directory.path + "/a", to: directory.path + "/b")
        try Files.makeDirectory(directory.path + "/a")
        try place.rename("new", to: "renamed")
        #expect(Files.exists(directory.path + "/b/renamed") && !Files.exists(directory.path + "/a/renamed"))
        try place.open("other", O_WRONLY | O_CREAT | O_EXCL).write(([2] as [UInt8]).span.bytes)
        do throws(SystemError) {
            try place.rename("other", to: "renamed", replaces: false)
            Issue.record("a file was replaced")
        } catch { #expect(error.alreadyExists) }
        #expect(try place.status("other")?.size == 1 && place.status("missing") == nil)
        try place.rename("other", to: "third", replaces: false)
        try place.makeDirectory("directory", mode: 0o700)
        try place.rename("directory", to: "moved", replaces: false)
        try place.remove("moved", directory: true)
        #expect(try place.names(limit: 10) == ["renamed", "third"])
        #expect(throws: SystemError.self) { _ = try place.names(limit: 1) }
        // A link in the last place is never followed.
        try place.makeLink("link", to: "renamed")
        #expect(try place.status("link")?.kind == .symbolicLink && place.readLink("link") == "renamed")
        #expect(throws: SystemError.self) { _ = try place.open("link", O_RDONLY) }
        try place.remove("missing")
        let file = try place.open("third", O_RDWR)
        for time in [1_600_000_000_123_456_789, -1_500_000_001] as [Int64] {
            try file.setModified(nanoseconds: time)
            #expect(try file.status().modifiedNanoseconds == time)
        }
        try file.setMode(0o640)
        #expect(try file.status().mode == 0o640)
        try Files.removeTree(directory.path + "/b")
        #expect(try place.path() == nil)
    }

    /// Many lines share few threads; each keeps its order.
    @Test(.timeLimit(.minutes(1))) func aLineKeepsItsOrder() async throws {
        let pool = BlockingPool(name: "lines", threads: 3, queue: 64)
        let lines = (0..<16).map { _ in SerialWork(on: pool) }
        let seen = Mutex([[Int]](repeating: [], count: 16))
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let left = Mutex(16)
            for number in 0..<200 {
                for (index, line) in lines.enumerated() {
                    #expect(line.submit { seen.withLock { $0[index].append(number) } })
                }
            }
            for line in lines {
                line.submit {
                    let isLast = left.withLock { left in
                        left -= 1
                        return left == 0
                    }
                    if isLast { continuation.resume() }
                }
            }
        }
        #expect(seen.withLock { $0 }.allSatisfy { $0 == Array(0..<200) })
    }
}
