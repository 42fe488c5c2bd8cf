import AgentProtocol
import Glibc
import System
import Testing

@testable import Kernel

/// Trees between a kernel and a real `cm-agent`.
@Suite struct TreeTransferTests {
    static func member(_ path: String, _ kind: PaxEntry.Kind, _ bytes: [UInt8] = [], target: String = "", mode: UInt16 = 0o644) -> [UInt8] {
        var output: [UInt8] = []
        PaxWriting.header(
            of: PaxEntry(
                path: path, kind: kind, size: UInt64(bytes.count), mode: mode, modifiedNanoseconds: 1_500_000_000_000_000_000,
                target: target), to: &output)
        output += bytes
        output.append(contentsOf: repeatElement(0, count: PaxWriting.padding(after: UInt64(bytes.count))))
        return output
    }

    static func store(_ archive: [UInt8], _ fixture: ChannelsFixture) async throws -> StoredFile {
        let writer = try await fixture.kernel.files.begin(
            NewFile(name: "tree.tar", form: .tree, size: UInt64(archive.count)), by: ChannelsFixture.administrator)
        var start = 0
        while start < archive.count {
            let end = min(start + 1 << 20, archive.count)
            try await writer.append(Array(archive[start..<end]))
            start = end
        }
        return try await writer.seal()
    }

    private static func archive(files: Int) -> [UInt8] {
        var archive = member("d", .directory, mode: 0o750) + member("d/deep", .directory, mode: 0o700)
        for index in 0..<files {
            archive += member("d/deep/f\(index)", .file, TransfersTests.pattern(index % 3_000, seed: UInt8(truncatingIfNeeded: index)))
        }
        archive += member("d/link", .symbolicLink, target: "deep/f1", mode: 0o777)
        archive += member("d/same", .hardLink, target: "d/deep/f2")
        archive += member("big", .file, TransfersTests.pattern(300_000), mode: 0o600)
        archive += member("implied/parent/x", .file, [1, 2, 3])
        return archive + PaxWriting.end
    }

    private static func check(_ place: String, files: Int) throws {
        for index in stride(from: 0, to: files, by: 97) {
            let bytes = try Files.read(place + "/d/deep/f\(index)", limit: 1 << 20)
            #expect(bytes == TransfersTests.pattern(index % 3_000, seed: UInt8(truncatingIfNeeded: index)), "f\(index)")
        }
        #expect(try Files.list(place + "/d/deep").count == files)
        #expect(try Files.readLink(place + "/d/link") == "deep/f1")
        #expect(try Files.status(place + "/d/same").inode == Files.status(place + "/d/deep/f2").inode)
        #expect(try Files.read(place + "/big", limit: 1 << 20) == TransfersTests.pattern(300_000))
        #expect(try Files.status(place + "/big").mode == 0o600)
        #expect(try Files.read(place + "/implied/parent/x", limit: 10) == [1, 2, 3])
        for directory in ["/d", "/d/deep"] {
            let status = try Files.status(place + directory)
            #expect(status.modifiedNanoseconds == 1_500_000_000_000_000_000, "\(directory)")
        }
        #expect(try Files.status(place + "/d").mode == 0o750 && Files.status(place + "/d/deep").mode == 0o700)
    }

    @Test(.timeLimit(.minutes(2))) func aTreeGoesThereAndComesBack() async throws {
        try await ChannelsFixture.run { fixture in
            let file = try await Self.store(Self.archive(files: 2_500), fixture)
            let place = try TransfersTests.place(fixture)
            let pushed = try await TransfersTests.wait(try await TransfersTests.push(file.id, to: place + "/tree", fixture), fixture)
            #expect(pushed.state == .succeeded && pushed.entries == 2_506, "\(pushed.machine.code) \(pushed.machine.reason) \(pushed.entries)")
            try Self.check(place + "/tree", files: 2_500)
            #expect(!(try Files.list(place + "/tree").contains { $0.hasPrefix(".cm-transfer") }))

            #expect(mkfifo(place + "/tree/pipe", 0o600) == 0)
            let pulled = try await TransfersTests.wait(
                try await TransfersTests.pull(place + "/tree", fixture) { $0.form = .tree }, fixture)
            #expect(pulled.state == .succeeded && pulled.name == "tree.tar", "\(pulled.machine.code) \(pulled.machine.reason)")
            // What came is a tree that can be pushed again.
            let again = try await TransfersTests.wait(
                try await TransfersTests.push(try #require(pulled.file), to: place + "/again", fixture), fixture)
            #expect(again.state == .succeeded, "\(again.machine.code) \(again.machine.reason)")
            #expect(try Files.list(place + "/again/d/deep").count == 2_500 && !Files.exists(place + "/again/pipe"))
            #expect(try Files.read(place + "/again/big", limit: 1 << 20) == TransfersTests.pattern(300_000))
            #expect(try Files.status(place + "/again/d/deep").modifiedNanoseconds == 1_500_000_000_000_000_000)
            let skipped = try await TransfersTests.wait(
                try await TransfersTests.push(try #require(pulled.file), to: place + "/no-links", fixture) { $0.links = .skip }, fixture)
            #expect(skipped.state == .succeeded && skipped.skipped == 1 && !Files.exists(place + "/no-links/d/link"))
            #expect(try await TransfersTests.isClean(fixture))
        }
    }

    @Test(.timeLimit(.minutes(2))) func nothingLeadsOutOfATree() async throws {
        try await ChannelsFixture.run { fixture in
            let place = try TransfersTests.place(fixture)
            try Files.makeDirectory(place + "/outside")
            let hostile: [([UInt8], String)] = [
                (Self.member("../outside/x", .file, [1]), "path-not-allowed"),
                (Self.member("a/../../outside/x", .file, [1]), "path-not-allowed"),
                (Self.member("/etc/cm-test", .file, [1]), "path-not-allowed"),
                (Self.member("l", .symbolicLink, target: "../outside"), "link-leads-out"),
                (Self.member("l", .symbolicLink, target: "/etc"), "link-leads-out"),
                (Self.member("l", .hardLink, target: "../outside/x"), "link-leads-out"),
                // Through a link that was there before.
                (Self.member("way/x", .file, [1]), "path-not-allowed"),
                ([UInt8](repeating: 7, count: 2_048), "tree-malformed"),
            ]
            for (index, (bytes, code)) in hostile.enumerated() {
                let target = place + "/t\(index)"
                try Files.makeDirectory(target)
                #expect(symlink("../outside", target + "/way") == 0)
                let file = try await Self.store(Self.member("good", .file, [9]) + bytes + PaxWriting.end, fixture)
                let end = try await TransfersTests.wait(try await TransfersTests.push(file.id, to: target, fixture), fixture)
                #expect(end.state == .failed && end.machine.code == code, "\(index): \(end.machine.code) \(end.machine.reason)")
                #expect(try Files.list(target).allSatisfy { !$0.hasPrefix(".cm-transfer") })
            }
            #expect(try Files.list(place + "/outside").isEmpty)
            #expect(try await TransfersTests.isClean(fixture))
        }
    }

    @Test(.timeLimit(.minutes(2))) func aTreeGoesOnAfterRestarts() async throws {
        try await ChannelsFixture.run { fixture in
            let archive = Self.archive(files: 4_000)
            let file = try await Self.store(archive, fixture)
            let place = try TransfersTests.place(fixture)
            let size = UInt64(archive.count)
            try await TransfersTests.hold(fixture.kernel, kib: 512)
            let id = try await TransfersTests.push(file.id, to: place + "/tree", fixture)
            try await TransfersTests.wait(id, fixture) { $0.bytes > size / 10 }
            fixture.killAgent()
            // Whole files only, whatever was under way.
            for name in (try? Files.list(place + "/tree/d/deep")) ?? [] {
                let index = try #require(Int(name.dropFirst()))
                #expect(try Files.status(place + "/tree/d/deep/" + name).size == UInt64(index % 3_000), "\(name)")
            }
            try fixture.startAgent()
            try await TransfersTests.wait(id, fixture) { $0.bytes > size / 5 }
            try await fixture.restartCore()
            try await TransfersTests.letGo(fixture.kernel)
            let end = try await TransfersTests.wait(id, fixture)
            #expect(end.state == .succeeded, "\(end.machine.code) \(end.machine.reason)")
            try Self.check(place + "/tree", files: 4_000)

            try await TransfersTests.hold(fixture.kernel, kib: 512)
            let pull = try await TransfersTests.pull(place + "/tree", fixture) { $0.form = .tree }
            try await TransfersTests.wait(pull, fixture) { $0.bytes > size / 10 }
            fixture.killAgent()
            try fixture.startAgent()
            try await TransfersTests.wait(pull, fixture) { $0.bytes > size / 5 }
            try await fixture.restartCore()
            try await TransfersTests.letGo(fixture.kernel)
            let pulled = try await TransfersTests.wait(pull, fixture)
            #expect(pulled.state == .succeeded, "\(pulled.machine.code) \(pulled.machine.reason)")
            let again = try await TransfersTests.wait(
                try await TransfersTests.push(try #require(pulled.file), to: place + "/again", fixture), fixture)
            #expect(again.state == .succeeded)
            #expect(try Files.list(place + "/again/d/deep").count == 4_000)
        }
    }
}
