import Glibc
import System
import Testing

@Suite struct PaxTests {
    /// Reads an archive in pieces of so many bytes.
    private func read(_ archive: [UInt8], pieces: Int = .max) throws -> [(entry: PaxEntry, data: [UInt8])] {
        var machine = PaxReaderStateMachine()
        var members: [(entry: PaxEntry, data: [UInt8])] = []
        var start = 0
        while start < archive.count {
            let piece = Array(archive[start..<min(archive.count, start + min(pieces, archive.count))])
            start += piece.count
            var offset = 0
            loop: while true {
                switch try machine.next(piece.span, &offset) {
                case .entry(let entry): members.append((entry, []))
                case .data(let range): members[members.count - 1].data += piece[range]
                case .more: break loop
                case .end: return members
                }
            }
        }
        #expect(!machine.isComplete)
        return members
    }

    private func write(_ members: [(entry: PaxEntry, data: [UInt8])]) -> [UInt8] {
        var archive: [UInt8] = []
        for (entry, data) in members {
            PaxWriting.header(of: entry, to: &archive)
            archive += data
            archive.append(contentsOf: repeatElement(0, count: PaxWriting.padding(after: UInt64(data.count))))
        }
        return archive + PaxWriting.end
    }

    private let members: [(entry: PaxEntry, data: [UInt8])] = {
        let second: Int64 = 1_000_000_000
        let deep = Array(repeating: "directory", count: 30).joined(separator: "/")
        return [
            (PaxEntry(path: ".", kind: .directory, mode: 0o755, modifiedNanoseconds: 5 * second), []),
            (PaxEntry(path: "a", kind: .file, size: 3, mode: 0o4711, modifiedNanoseconds: 1_700_000_000 * second), [1, 2, 3]),
            (PaxEntry(path: "d/empty", kind: .file, mode: 0o600), []),
            (PaxEntry(path: "d/block", kind: .file, size: 512, mode: 0o600), [UInt8](repeating: 7, count: 512)),
            (PaxEntry(path: "d/many", kind: .file, size: 1_300, mode: 0o600, modifiedNanoseconds: -2 * second), [UInt8](repeating: 9, count: 1_300)),
            (PaxEntry(path: "d/ünïcode", kind: .symbolicLink, mode: 0o777, target: "../äöü"), []),
            (PaxEntry(path: "d/link", kind: .symbolicLink, mode: 0o777, target: String(repeating: "t", count: 200)), []),
            (PaxEntry(path: "d/hard", kind: .hardLink, mode: 0o600, target: "a"), []),
            (PaxEntry(path: deep, kind: .directory, mode: 0o700), []),
            (PaxEntry(path: deep + "/" + String(repeating: "n", count: 99), kind: .file, size: 1, mode: 0o644), [5]),
            (PaxEntry(path: String(repeating: "p", count: 90) + "/" + String(repeating: "n", count: 90), kind: .file, mode: 0o644), []),
            (PaxEntry(path: String(repeating: "n", count: 255), kind: .directory, mode: 0o700), []),
        ]
    }()

    @Test(arguments: [1, 7, 511, 512, 513, 10_000_000]) func whatIsWrittenIsRead(_ pieces: Int) throws {
        let read = try read(write(members), pieces: pieces)
        #expect(read.map(\.entry) == members.map(\.entry))
        #expect(read.map(\.data) == members.map(\.data))
    }

    @Test func hugeSizesHaveTheirPlace() throws {
        var archive: [UInt8] = []
        let entry = PaxEntry(path: "huge", kind: .file, size: 1 << 40, mode: 0o600)
        PaxWriting.header(of: entry, to: &archive)
        var machine = PaxReaderStateMachine()
        var offset = 0
        #expect(try machine.next(archive.span, &offset) == .entry(entry))
        #expect(offset == archive.count)
    }

    @Test func otherTarsAreReadAndReadOurs() throws {
        let directory = try TemporaryDirectory()
        let names = ["short", String(repeating: "l", count: 180), "ünï"]
        try Files.makeDirectories(directory.path + "/tree/sub")
        for name in names { try AtomicFile.write(Array(name.utf8), to: "\(directory.path)/tree/sub/\(name)", mode: 0o640) }
        #expect(symlink("sub/short", directory.path + "/tree/link") == 0)
        for format in ["pax", "gnu", "ustar", "posix"] {
            let archive = "\(directory.path)/\(format).tar"
            let status = system("tar --format=\(format) -C \(directory.path)/tree -cf \(archive) . 2>/dev/null")
            // A plain old header has no room for the long name.
            if format != "ustar" { #expect(status == 0) }
            let found = try read(try Files.read(archive, limit: 1 << 20))
            for name in names where format != "ustar" || name.utf8.count < 100 {
                let member = try #require(found.first { $0.entry.path.hasSuffix("sub/\(name)") }, "\(format) \(name)")
                #expect(member.data == Array(name.utf8) && member.entry.kind == .file && member.entry.mode == 0o640)
                #expect(abs(member.entry.modifiedNanoseconds / 1_000_000_000 - Int64(time(nil))) < 600)
            }
            let link = try #require(found.first { $0.entry.kind == .symbolicLink })
            #expect(link.entry.target == "sub/short")
        }
        let ours = directory.path + "/ours.tar"
        try AtomicFile.write(write(members.filter { $0.entry.kind != .hardLink }), to: ours)
        try Files.makeDirectory(directory.path + "/out")
        #expect(system("tar -C \(directory.path)/out -xf \(ours)") == 0)
        let status = try Files.status(directory.path + "/out/d/many")
        #expect(status.size == 1_300 && status.mode == 0o600 && status.modifiedNanoseconds == -2_000_000_000)
        #expect(try Files.readLink(directory.path + "/out/d/ünïcode") == "../äöü")
    }

    @Test func whatIsNoArchiveIsRefused() throws {
        let good = write(members)
        #expect(throws: PaxReaderStateMachine.Fault.self) { try read([UInt8](repeating: 0x41, count: 2_000)) }
        for index in [0, 100, 124, 148, 156, 257] {
            var bad = good
            bad[index] ^= 0x55
            #expect(throws: PaxReaderStateMachine.Fault.self, "byte \(index)") { try read(bad) }
        }
        var gap = write([members[1]]).dropLast(512) + write([members[2]])
        #expect(throws: PaxReaderStateMachine.Fault.self) { try read(Array(gap)) }
        gap = []
        #expect(try read(Array(good.dropLast(1_024))).count == members.count, "an end that is cut off is told by isComplete")
        // An extended header that promises a gigabyte is not waited for.
        var header: [UInt8] = []
        PaxWriting.header(of: PaxEntry(path: "x", kind: .file, size: 1 << 30, mode: 0), to: &header)
        header[156] = 0x78
        var sum = 0
        for index in 0..<512 { sum += (148..<156).contains(index) ? 0x20 : Int(header[index]) }
        let digits = Array(String(sum, radix: 8).utf8)
        for (index, digit) in ([UInt8](repeating: 0x30, count: 6 - digits.count) + digits).enumerated() { header[148 + index] = digit }
        #expect(throws: PaxReaderStateMachine.Fault.self) { try read(header) }
    }

    @Test func waysOutAreSeen() {
        func entry(_ path: String, _ target: String? = nil) -> PaxEntry {
            PaxEntry(path: path, kind: target == nil ? .file : .symbolicLink, mode: 0, target: target ?? "")
        }
        for path in ["/etc/passwd", "..", "a/../b", "a/..", "../a", ""] { #expect(!entry(path).isBelow, "\(path)") }
        for path in [".", "a", "./a", "a/b", "a..b", "..a"] { #expect(entry(path).isBelow, "\(path)") }
        #expect(entry("./a//b").parts.map { $0.map(String.init) } == ["a", "b"])
        for (path, target) in [("a", "/etc"), ("a", ".."), ("a/b", "../.."), ("a/b", "c/../../.."), ("a", "")] {
            #expect(!entry(path, target).targetIsBelow, "\(path) \(target)")
        }
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d"), ("a", "./b/../c")] {
            #expect(entry(path, target).targetIsBelow, "\(path) \(target)")
        }
    }
}
