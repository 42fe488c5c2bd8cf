import Crypto
import JSON
import System
import Testing

@testable import Kernel

@Suite(.timeLimit(.minutes(1))) struct FileStoreTests {
    @Test func aFileIsWrittenOnceAndReadByMany() async throws {
        let world = try await FilesFixture()
        let bytes = pattern(5_000)
        let writer = try await world.files.begin(NewFile(name: "report.pdf", size: 5_000), by: FilesFixture.alice)
        for start in stride(from: 0, to: 5_000, by: 700) {
            try await writer.append(Array(bytes[start..<min(start + 700, 5_000)]))
        }
        #expect(await problem { _ = try await world.files.open(writer.id) }?.code == "file-unfinished")
        let file = try await writer.seal(expecting: SHA256.digest(bytes))
        #expect(file.isWhole && file.size == 5_000 && file.digest == SHA256.digest(bytes) && file.name == "report.pdf")
        #expect(file.owner == "alice" && file.source == "upload" && file.createdAt == world.clock.now)
        #expect(file.expiresAt == world.clock.now + 7 * 86_400_000)
        #expect(try world.onDisk() == ["whole/\(file.id)"])
        let readers = [try await world.files.open(file.id), try await world.files.open(file.id)]
        #expect(try await readers[0].read(at: 0, count: 5_000) == bytes)
        #expect(try await readers[1].read(at: 4_990, count: 100) == Array(bytes[4_990...]))
        #expect(try await readers[0].read(at: 5_000, count: 1).isEmpty)
        #expect(await problem { try await writer.append([1]) }?.code == "file-whole")
        #expect(await problem { _ = try await world.files.resume(file.id) }?.code == "file-whole")
        for action in ["file.begin", "file.store"] { #expect(try await world.audited(action) == 1) }
        let kinds = world.events.page(after: EventCursor(run: world.events.run, sequence: 0)).events.map(\.kind)
        #expect(kinds == ["file.stored"])
    }

    @Test func aWriterGoesOnAtTheDurableOffset() async throws {
        let world = try await FilesFixture()
        let bytes = pattern(10_000)
        let writer = try await world.files.begin(NewFile(name: "a", size: 10_000), by: FilesFixture.alice)
        try await writer.append(Array(bytes[..<2_500]))
        #expect(try await writer.sync() == 2_500)
        try await writer.append(Array(bytes[2_500..<2_700]))
        #expect(writer.offset == 2_700 && writer.durable == 2_500)
        // As after a crash: the row knows of 2,500, the file has more.
        let next = try await world.reopened()
        #expect(try await next.files.get(writer.id).durable == 2_500)
        let second = try await next.files.resume(writer.id)
        #expect(second.offset == 2_500)
        try await second.append(Array(bytes[2_500..<6_000]))
        #expect(await second.suspend() == 6_000)
        #expect(await problem { try await second.append([1]) }?.code == "file-suspended")
        let third = try await next.files.resume(writer.id)
        #expect(third.offset == 6_000)
        #expect(await problem { _ = try await third.seal() }?.code == "file-incomplete")
        try await third.append(Array(bytes[6_000...]))
        #expect(await problem { try await third.append([1]) }?.code == "file-too-long")
        #expect(try await third.seal().digest == SHA256.digest(bytes))
        #expect(try await next.files.open(writer.id).read(at: 0, count: 10_000) == bytes)
    }

    @Test func bytesBecomeDurableByThemselves() async throws {
        let world = try await FilesFixture()
        let writer = try await world.files.begin(NewFile(name: "a"), by: FilesFixture.alice)
        try await writer.append(pattern(900))
        #expect(writer.durable == 0)
        try await writer.append(pattern(900, from: 900))
        try await writer.append(pattern(900, from: 1_800))
        // The checkpoint after the second append is waited for, at the latest, by the one that is due next.
        #expect(writer.durable >= 1_800)
    }

    @Test func theLaterWriterTakesTheFileOver() async throws {
        let world = try await FilesFixture()
        let first = try await world.files.begin(NewFile(name: "a"), by: FilesFixture.alice)
        try await first.append(pattern(100))
        try await first.sync()
        let second = try await world.files.resume(first.id)
        #expect(await problem { try await first.append([1]) }?.code == "file-taken-over")
        #expect(await problem { _ = try await first.seal() }?.code == "file-taken-over")
        try await second.append(pattern(100, from: 100))
        #expect(try await second.seal().digest == SHA256.digest(pattern(200)))
    }

    @Test func wrongBytesAreNotKept() async throws {
        let world = try await FilesFixture()
        let writer = try await world.files.begin(NewFile(name: "a"), by: FilesFixture.alice)
        try await writer.append([1, 2, 3])
        #expect(await problem { _ = try await writer.seal(expecting: SHA256.digest([1, 2, 4])) }?.code == "digest-mismatch")
        #expect(await problem { _ = try await world.files.get(writer.id) }?.code == "file-unknown")
        #expect(try world.onDisk().isEmpty && world.files.used == (0, 0))
        let discarded = try await world.files.begin(NewFile(name: "a", size: 77), by: FilesFixture.alice)
        try await discarded.discard(by: FilesFixture.alice)
        #expect(try world.onDisk().isEmpty && world.files.used == (0, 0))
        #expect(try await world.audited("file.discard") == 2)
    }

    @Test func aFullDiskIsToldAndTheSpaceGivenBack() async throws {
        let world = try await FilesFixture()
        let reserve: UInt64 = 256 << 20
        world.setFree(reserve + 1_000)
        #expect(await problem {
            _ = try await world.files.begin(NewFile(name: "a", size: 1_001), by: FilesFixture.alice)
        }?.status == 507)
        let writer = try await world.files.begin(NewFile(name: "a"), by: FilesFixture.alice)
        try await writer.append(pattern(500))
        world.setFree(reserve)
        let full = await problem { try await writer.append(pattern(500)) }
        #expect(full?.status == 507 && full?.code == "disk-full")
        #expect(await problem { try await writer.append([1]) }?.code == "disk-full")
        #expect(try world.onDisk().isEmpty && world.files.used == (0, 0))
        try await world.settings.set("file_reserve_mib", to: 0, by: FilesFixture.root)
        world.setFree(1_000)
        _ = try await world.stored(pattern(500))
    }

    @Test func theStoreHasItsLimits() async throws {
        let world = try await FilesFixture()
        try await world.settings.set("file_size_mib", to: 1, by: FilesFixture.root)
        try await world.settings.set("file_store_mib", to: 2, by: FilesFixture.root)
        func refusal(_ size: UInt64) async -> Problem? {
            await problem { _ = try await world.files.begin(NewFile(name: "a", size: size), by: FilesFixture.alice) }
        }
        #expect(await refusal(1 << 20 + 1)?.code == "file-too-large")
        #expect(await refusal(1 << 20 + 1)?.status == 413)
        let kept = try await world.files.begin(NewFile(name: "a", size: 1 << 20), by: FilesFixture.alice)
        let grows = try await world.files.begin(NewFile(name: "a"), by: FilesFixture.alice)
        try await grows.append(pattern(1 << 19))
        #expect(await refusal(1 << 20)?.code == "file-store-full", "what is announced counts")
        #expect(await problem { try await grows.append(pattern(1 << 20)) }?.code == "file-too-large")
        #expect(world.files.used == (1, 1 << 20))
        try await world.files.remove(kept.id, by: FilesFixture.alice)
        #expect(try world.onDisk().isEmpty && world.files.used == (0, 0))
    }

    @Test func aFailedSyncIsNotBelieved() async throws {
        let world = try await FilesFixture()
        let writer = try await world.files.begin(NewFile(name: "a"), by: FilesFixture.alice)
        try await writer.append(pattern(100))
        try await writer.sync()
        try await writer.append(pattern(100, from: 100))
        world.setSyncFails(true)
        #expect(await problem { _ = try await writer.seal() }?.status == 500)
        #expect(await writer.suspend() == 100)
        world.setSyncFails(false)
        let next = try await world.files.resume(writer.id)
        #expect(next.offset == 100)
        try await next.append(pattern(100, from: 100))
        #expect(try await next.seal().digest == SHA256.digest(pattern(200)))
    }

    @Test func onlyWhoMaySeesAFile() async throws {
        let world = try await FilesFixture()
        let file = try await world.stored([1])
        let right: Right = "file.read"
        #expect(try await world.files.get(file.id, for: FilesFixture.alice, right) == file)
        #expect(try await world.files.get(file.id, for: FilesFixture.root, right) == file)
        #expect(await problem { _ = try await world.files.get(file.id, for: FilesFixture.bob, right) }?.code == "file-unknown")
        let agent = Principal(kind: .agent, id: "alice")
        #expect(await problem { _ = try await world.files.get(file.id, for: agent, right) }?.code == "file-unknown")
        #expect(try await world.files.list(FileQuery(), for: FilesFixture.bob, right).isEmpty)
        #expect(try await world.files.list(FileQuery(), for: FilesFixture.root, right) == [file])
    }

    @Test func listsComeInPages() async throws {
        let world = try await FilesFixture()
        var ids: [FileID] = []
        for index in 0..<5 {
            world.clock.advance(1)
            ids.append(try await world.stored([1], { $0.name = "f\(index)" }).id)
        }
        let unfinished = try await world.files.begin(NewFile(name: "u", form: .tree), by: FilesFixture.alice)
        var query = FileQuery()
        query.limit = 2
        query.isWhole = true
        var seen: [FileID] = []
        for _ in 0..<3 {
            let page = try await world.files.list(query, for: FilesFixture.alice, "file.read")
            seen += page.map(\.id)
            query.before = page.last?.id
        }
        #expect(seen == ids.reversed())
        func only(_ change: (inout FileQuery) -> Void) async throws -> [FileID] {
            var query = FileQuery()
            change(&query)
            return try await world.files.list(query, for: FilesFixture.root, "file.read").map(\.id)
        }
        #expect(try await only { $0.name = "f3" } == [ids[3]])
        #expect(try await only { $0.form = .tree } == [unfinished.id])
        #expect(try await only { $0.isWhole = false } == [unfinished.id])
        #expect(try await only { $0.owner = (.user, "bob") } == [])
    }

    @Test(arguments: ["", ".", "..", "a/b", "a\nb", String(repeating: "x", count: 256)])
    func aNameIsNoPath(_ name: String) async throws {
        let world = try await FilesFixture()
        #expect(await problem { _ = try await world.files.begin(NewFile(name: name), by: FilesFixture.alice) }?.pointer == "/name")
        #expect(world.files.used == (0, 0))
    }
}
