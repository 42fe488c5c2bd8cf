import Crypto
import JSON
import System
import Testing

@testable import Kernel

@Suite(.timeLimit(.minutes(1))) struct FileRetentionTests {
    @Test func filesGoWhenTheirTimeIsOver() async throws {
        let world = try await FilesFixture()
        let week = try await world.stored([1])
        let hour = try await world.stored([2], { $0.keepMilliseconds = 3_600_000 })
        let kept = try await world.stored([3], { $0.keepMilliseconds = 0 })
        #expect(kept.expiresAt == nil)
        try await world.settings.set("file_retention_days", to: 1, by: FilesFixture.root)
        let day = try await world.stored([4])
        func left() async throws -> Set<FileID> {
            try await world.files.expire()
            let ids = try await world.files.list(FileQuery(), for: FilesFixture.root, "file.read").map(\.id)
            #expect(Set(try world.onDisk()) == Set(ids.map { "whole/\($0)" }))
            return Set(ids)
        }
        #expect(try await left() == [week.id, hour.id, kept.id, day.id])
        world.clock.advance(3_600_000)
        #expect(try await left() == [week.id, kept.id, day.id])
        world.clock.advance(82_800_000)
        #expect(try await left() == [week.id, kept.id])
        world.clock.advance(86_400_000 * 400)
        #expect(try await left() == [kept.id])
        #expect(world.files.used == (1, 1))
        #expect(try await world.audited("file.expire") == 3)
    }

    @Test func anAbandonedUploadGoesAndOneInWorkStays() async throws {
        let world = try await FilesFixture()
        let hours: UInt64 = 3_600_000
        try await world.settings.set("file_unfinished_hours", to: 2, by: FilesFixture.root)
        let held = try await world.files.begin(NewFile(name: "held"), by: FilesFixture.alice)
        let left = try await world.files.begin(NewFile(name: "left"), by: FilesFixture.alice)
        try await left.append([1])
        await left.suspend()
        world.clock.advance(hours)
        let again = try await world.files.resume(left.id)
        try await again.append([2])
        await again.suspend()
        world.clock.advance(hours)
        try await world.files.expire()
        #expect(try world.onDisk() == ["unfinished/\(held.id)", "unfinished/\(left.id)"], "one is held, one was added to")
        world.clock.advance(hours)
        try await world.files.expire()
        #expect(try world.onDisk() == ["unfinished/\(held.id)"])
        try await held.append([1])
        #expect(try await held.seal().durable == 1)
    }

    @Test func whatATransferHoldsStays() async throws {
        let world = try await FilesFixture()
        let file = try await world.stored([1])
        try await world.store.write { (transaction) throws(StoreError) in
            try FileStore.hold(file.id, for: "transfer 1", transaction)
        }
        #expect(await problem { try await world.files.remove(file.id, by: FilesFixture.alice) }?.code == "file-in-use")
        world.clock.advance(86_400_000 * 8)
        try await world.files.expire()
        #expect(try await world.files.get(file.id) == file)
        try await world.store.write { (transaction) throws(StoreError) in
            try FileStore.release(holder: "transfer 1", transaction)
        }
        try await world.files.expire()
        #expect(try world.onDisk().isEmpty)
        #expect(await problem {
            try await world.store.write { (transaction) throws(StoreError) in
                try FileStore.hold(file.id, for: "transfer 1", transaction)
            }
        }?.code == "file-unknown")
    }

    @Test func aReaderKeepsWhatIsRemoved() async throws {
        let world = try await FilesFixture()
        let file = try await world.stored(pattern(100))
        let reader = try await world.files.open(file.id)
        try await world.files.remove(file.id, by: FilesFixture.alice)
        #expect(try await reader.read(at: 0, count: 100) == pattern(100))
        #expect(await problem { _ = try await world.files.open(file.id) }?.code == "file-unknown")
        #expect(await problem { try await world.files.remove(file.id, by: FilesFixture.alice) }?.code == "file-unknown")
    }

    @Test func theStartBringsRowsAndFilesTogether() async throws {
        let world = try await FilesFixture()
        let whole = try await world.stored(pattern(100))
        let misplaced = try await world.stored(pattern(50))
        let lost = try await world.stored(pattern(25))
        let unfinished = try await world.files.begin(NewFile(name: "u", size: 1_000), by: FilesFixture.alice)
        let root = world.directory.path + "/files"
        // As a crash between the commit and the rename leaves it.
        try Files.rename("\(root)/whole/\(misplaced.id)", to: "\(root)/unfinished/\(misplaced.id)")
        try Files.remove("\(root)/whole/\(lost.id)")
        let orphan = FileID(milliseconds: 1, random: (2, 3))
        for name in ["unfinished/\(orphan)", "whole/\(orphan)", "whole/notes.txt"] {
            try AtomicFile.write([1], to: "\(root)/\(name)")
        }
        let next = try await world.reopened()
        #expect(
            try next.onDisk() == [
                "whole/\(whole.id)", "whole/\(misplaced.id)", "whole/notes.txt", "unfinished/\(unfinished.id)",
            ], "a stranger's file is left alone")
        #expect(next.files.used == (3, 1_150))
        #expect(try await next.files.open(misplaced.id).read(at: 0, count: 50) == pattern(50))
        #expect(await problem { _ = try await next.files.get(lost.id) }?.code == "file-unknown")
        #expect(try await next.audited("file.lost") == 1)
    }
}
