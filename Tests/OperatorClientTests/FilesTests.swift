import Crypto
import Glibc
import JSON
import System
import Testing

@testable import OperatorClient

/// A directory that goes away with its owner.
private final class Folder {
    let path: String
    init() throws {
        path = "/tmp/cm-cp-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try Files.makeDirectory(path)
    }
    deinit { try? Files.removeTree(path) }

    func write(_ name: String, _ bytes: [UInt8], mode: mode_t = 0o644) throws -> String {
        let place = path + "/" + name
        if let parent = Files.parent(of: place) { try Files.makeDirectories(parent) }
        try AtomicFile.write(bytes, to: place, mode: mode)
        return place
    }
}

/// The managed store of a core, as far as `cmctl` uses it. It may break connections and forget what is not durable.
private final class PlayedStore {
    struct File {
        var name: String
        var form: String
        var size: Int?
        var bytes: [UInt8] = []
        var isWhole = false
    }
    var files: [String: File] = [:]
    /// Uploads break off after so many bytes, one after the other.
    var breaks: [Int] = []
    var downloads = 0

    func json(_ id: String) -> JSONValue {
        guard let file = files[id] else { return .null }
        return [
            "id": .string(id), "name": .string(file.name), "form": .string(file.form),
            "state": .string(file.isWhole ? "whole" : "unfinished"), "size": file.isWhole ? .integer(Int64(file.bytes.count)) : file.size.map { .integer(Int64($0)) } ?? .null,
            "offset": .integer(Int64(file.bytes.count)), "sha256": file.isWhole ? .string(SHA256.digest(file.bytes).hex) : .null,
        ]
    }

    func begin(name: String, form: String, size: Int?) -> String {
        let digits = String(files.count + 1)
        let id = String(repeating: "0", count: 26 - digits.count) + digits
        files[id] = File(name: name, form: form, size: size)
        return id
    }

    func answer(_ request: APIRequest) throws(OperatorError) -> APIResponse {
        let parts = request.path.split(separator: "/").map(String.init)
        let body = (try? JSONValue(parsing: request.body ?? [])) ?? .null
        switch (request.method, parts.count) {
        case ("POST", 3):
            let id = begin(name: body["name"]?.string ?? "", form: body["form"]?.string ?? "file", size: body["size"]?.integer.map { Int($0) })
            return ScriptedCore.json(json(id), status: 201)
        case ("PATCH", 4), ("PUT", 4), ("POST", 4): return try append(request, parts[3])
        case ("GET", 4):
            guard files[parts[3]] != nil else { return ScriptedCore.problem(404, "file-unknown", "no file") }
            return ScriptedCore.json(json(parts[3]))
        case ("GET", 5): return content(request, parts[3])
        default: return ScriptedCore.problem(404, "not-found", "nothing at \(request.path)")
        }
    }

    private func append(_ request: APIRequest, _ name: String) throws(OperatorError) -> APIResponse {
        let isNew = request.method != "PATCH"
        let id = isNew ? begin(name: name, form: "file", size: nil) : name
        guard var file = files[id] else { return ScriptedCore.problem(404, "file-unknown", "no file") }
        let offset = isNew ? 0 : Int(request.headers.first { $0.name == "upload-offset" }?.value ?? "") ?? -1
        guard offset == file.bytes.count else { return ScriptedCore.problem(409, "offset-mismatch", "another offset") }
        let bytes = request.body ?? []
        if !breaks.isEmpty {
            file.bytes += bytes.prefix(breaks.removeFirst())
            files[id] = file
            throw OperatorError(.unreachable, "the connection broke")
        }
        file.bytes += bytes
        file.isWhole = isNew || file.bytes.count == file.size || request.query.contains { $0.name == "complete" }
        files[id] = file
        return ScriptedCore.json(json(id), status: isNew ? 201 : 200)
    }

    private func content(_ request: APIRequest, _ id: String) -> APIResponse {
        guard let file = files[id] else { return ScriptedCore.problem(404, "file-unknown", "no file") }
        downloads += 1
        let range = request.headers.first { $0.name == "range" }?.value
        let start = range.flatMap { Int($0.dropFirst(6).dropLast()) } ?? 0
        return APIResponse(status: start > 0 ? 206 : 200, body: Array(file.bytes[start...]))
    }
}

@Suite(.timeLimit(.minutes(1))) struct FilesTests {
    private func pattern(_ count: Int) -> [UInt8] { (0..<count).map { (index: Int) -> UInt8 in UInt8(truncatingIfNeeded: index &* 7 &+ index >> 9) | 1 } }

    @Test func anUploadGoesOnWhereItIsDurable() async throws {
        let (folder, store) = (try Folder(), PlayedStore())
        let bytes = pattern(1_500_000)
        let path = try folder.write("big.bin", bytes)
        store.breaks = [0, 300_000, 700_001]
        let bench = Bench(store.answer)
        #expect(await bench.run("files", "upload", path, "--keep", "2h", "--output", "json") == .success)
        let file = try #require(store.files.values.first)
        #expect(file.bytes == bytes && file.isWhole && file.name == "big.bin" && store.files.count == 1)
        #expect(bench.core.requests.first?.body.flatMap { try? JSONValue(parsing: $0) }?["keep_s"]?.integer == 7_200)
        #expect(bench.console.output.contains(SHA256.digest(bytes).hex))
    }

    @Test func anUploadOfAnEarlierRunIsGoneOnWith() async throws {
        let (folder, store) = (try Folder(), PlayedStore())
        let bytes = pattern(900_000)
        let path = try folder.write("a", bytes)
        store.breaks = Array(repeating: 0, count: 20)
        let first = Bench(store.answer)
        #expect(await first.run("files", "upload", path) == .unreachable)
        #expect(first.console.errors.contains("--resume"))
        let id = try #require(store.files.keys.first)
        store.files[id]?.bytes = Array(bytes[..<400_000])
        store.breaks = []
        #expect(await Bench(store.answer).run("files", "upload", path, "--resume", id) == .success)
        #expect(store.files[id]?.bytes == bytes)
        #expect(await Bench(store.answer).run("files", "upload", path, "--resume", id) == .usage, "whole already")
        let other = store.begin(name: "a", form: "file", size: 5)
        #expect(await Bench(store.answer).run("files", "upload", path, "--resume", other) == .usage, "another size")
    }

    @Test func whatChangedMeanwhileIsNotCalledGood() async throws {
        let (folder, store) = (try Folder(), PlayedStore())
        let path = try folder.write("a", pattern(900_000))
        let id = store.begin(name: "a", form: "file", size: 900_000)
        store.files[id]?.bytes = [UInt8](repeating: 0, count: 400_000)
        let bench = Bench(store.answer)
        #expect(await bench.run("files", "upload", path, "--resume", id) == .remoteFailure)
        #expect(bench.console.errors.contains("SHA-256"))
    }

    @Test func smallFilesGoInOneRequest() async throws {
        let (folder, store) = (try Folder(), PlayedStore())
        let path = try folder.write("small ü.txt", Array("hello".utf8))
        let bench = Bench(store.answer)
        #expect(await bench.run("files", "upload", path, "--name", "other name") == .success)
        #expect(bench.core.requests.map(\.method) == ["PUT"] && store.files.values.first?.name == "other%20name")
        #expect(await Bench(store.answer).run("files", "upload", folder.path + "/none") == .usage)
        #expect(await Bench(store.answer).run("files", "upload", folder.path) == .usage, "a directory without --recursive")
    }

    @Test func aDownloadIsWholeOrNotThere() async throws {
        let (folder, store) = (try Folder(), PlayedStore())
        let id = store.begin(name: "data", form: "file", size: nil)
        let bytes = pattern(100_000)
        store.files[id]?.bytes = bytes
        store.files[id]?.isWhole = true
        let target = folder.path + "/out"
        #expect(await Bench(store.answer).run("files", "download", id, target) == .success)
        #expect(try Files.read(target, limit: 1 << 20) == bytes)
        #expect(try Files.list(folder.path) == ["out"])
        #expect(await Bench(store.answer).run("files", "download", id, folder.path) == .success)
        #expect(try Files.list(folder.path).sorted() == ["data", "out"], "into a directory by its name")
        // What an earlier run left is used, and compared.
        let part = FileDownload.part(of: target, id)
        try AtomicFile.write(Array(bytes[..<60_000]), to: part)
        let again = Bench(store.answer)
        #expect(await again.run("files", "download", id, target, "--resume") == .success)
        #expect(again.core.requests.last?.headers.contains { $0 == ("range", "bytes=60000-") } == true)
        #expect(try Files.read(target, limit: 1 << 20) == bytes)
        try AtomicFile.write([UInt8](repeating: 9, count: 60_000), to: part)
        try AtomicFile.write(Array("old".utf8), to: target)
        #expect(await Bench(store.answer).run("files", "download", id, target, "--resume") == .remoteFailure)
        #expect(try Files.read(target, limit: 100) == Array("old".utf8), "the old file stays")
        #expect(!Files.exists(part))
    }

    @Test func aTreeIsAnArchiveThatTarReads() async throws {
        let (folder, store) = (try Folder(), PlayedStore())
        _ = try folder.write("tree/a.txt", Array("a".utf8), mode: 0o600)
        _ = try folder.write("tree/sub/b.bin", pattern(700_000))
        _ = try folder.write("tree/sub/empty", [])
        #expect(symlink("a.txt", folder.path + "/tree/link") == 0)
        #expect(mkfifo(folder.path + "/tree/pipe", 0o600) == 0)
        store.breaks = [0, 100_000]
        let bench = Bench(store.answer)
        #expect(await bench.run("files", "upload", "-r", folder.path + "/tree") == .success)
        #expect(bench.console.errors.contains("tree/pipe"))
        let file = try #require(store.files.values.first)
        #expect(file.form == "tree" && file.name == "tree")
        let archive = try folder.write("tree.tar", file.bytes)
        #expect(system("mkdir \(folder.path)/out && tar -xf \(archive) -C \(folder.path)/out && diff -r --no-dereference \(folder.path)/tree/sub \(folder.path)/out/sub") == 0)
        #expect(try Files.readLink(folder.path + "/out/link") == "a.txt")
        #expect(try Files.status(folder.path + "/out/a.txt").mode == 0o600)
    }

    @Test func progressHasRateAndTimeLeft() {
        var progress = ProgressStateMachine("disk.img", total: 1_000 << 20, now: 0)
        #expect(progress.secondsLeft == nil && progress.line(width: 80).contains("  0%"))
        for second in 1...10 { progress.moved(to: UInt64(second * 50) << 20, now: UInt64(second) * 1_000) }
        #expect(progress.secondsLeft == 10)
        let line = progress.line(width: 80)
        #expect(line.contains("50 MiB/s") && line.contains("0:10") && line.contains(" 50% [") && line.count <= 80, "\(line)")
        #expect(progress.line(width: 30).count <= 30)
        let unknown = ProgressStateMachine("x", total: nil, done: 5, now: 0)
        #expect(unknown.line(width: 80) == "x  5 B")
        #expect(ProgressStateMachine.time(3_725) == "1:02:05" && ProgressStateMachine.bytes(1_536) == "1.5 KiB")
    }
}
