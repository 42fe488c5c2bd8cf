import Crypto
import Glibc
import JSON
import System
import Testing

@testable import OperatorClient

/// A core with one client, its file system as a dictionary, and a store: as far as `cp`, `ls`, `rm`, `mv` and `mkdir` use them.
private final class PlayedFleet {
    static let client = "01J9Z3K5X6Q7R8S9T0V1W2X3Y4"
    var entries: [String: JSONValue] = [:]
    var stored: [String: (name: String, form: String, bytes: [UInt8])] = [:]
    var transfers: [JSONValue] = []
    var changes: [String] = []
    /// States that a new transfer goes through, one with each look.
    var states = ["running", "succeeded"]
    var pulled: [UInt8] = []
    var onLook: () -> Void = {}

    init(_ paths: [String: String]) {
        for (path, kind) in paths {
            entries[path] = [
                "name": .string(String(path.split(separator: "/").last ?? "/")), "kind": .string(kind), "size": 3, "mode": 0o640,
                "modified_ns": 1_700_000_000_000_000_000,
            ]
        }
    }

    func answer(_ request: APIRequest) throws(OperatorError) -> APIResponse {
        let parts = request.path.split(separator: "/").map(String.init)
        let body = (try? JSONValue(parsing: request.body ?? [])) ?? .null
        func query(_ name: String) -> String? { request.query.first { $0.name == name }?.value }
        switch (request.method, parts.dropFirst(2).first ?? "", parts.count) {
        case ("GET", "clients", 3):
            let found = query("selector") == "none" ? [] : [Self.client] + (query("selector") == "all" ? ["02"] : [])
            return ScriptedCore.json(["items": .array(found.map { ["id": .string($0), "state": "online"] }), "next": .null])
        case (_, "clients", _): return clientFiles(request, parts, body, query("path") ?? "")
        case (_, "files", _): return files(request, parts, body)
        case ("POST", "transfers", 3): return start(body)
        case ("POST", "transfers", 5):
            changes.append("\(parts[4]) \(parts[3])")
            states = ["cancelled"]
            return ScriptedCore.json([:])
        case ("GET", "transfers", 3):
            if query("group") == nil { return ScriptedCore.json(["items": [], "next": .null]) }
            onLook()
            let state = states.count > 1 ? states.removeFirst() : states[0]
            return ScriptedCore.json(["items": .array(transfers.map { set($0, state) }), "next": .null])
        default: return ScriptedCore.problem(404, "not-found", "nothing at \(request.path)")
        }
    }

    private func set(_ transfer: JSONValue, _ state: String) -> JSONValue {
        var object = transfer.object ?? [:]
        object["state"] = .string(state)
        if state == "failed" {
            object["code"] = "path-denied"
            object["reason"] = "permission denied"
        }
        return .object(object)
    }

    private func start(_ body: JSONValue) -> APIResponse {
        var object = body.object ?? [:]
        object["id"] = "T1"
        object["group"] = "T1"
        object["client"] = .string(Self.client)
        object["bytes"] = 3
        object["size"] = 3
        if body["direction"]?.string == "pull" {
            stored["F9"] = (name: "pulled", form: body["form"]?.string ?? "file", bytes: pulled)
            object["file"] = "F9"
            object["mode"] = 0o600
            object["modified_ns"] = 1_600_000_000_000_000_000
        }
        transfers = [.object(object)]
        return ScriptedCore.json(["group": "T1", "count": 1, "items": .array(transfers)], status: 201)
    }

    private func clientFiles(_ request: APIRequest, _ parts: [String], _ body: JSONValue, _ path: String) -> APIResponse {
        switch (request.method, parts.count > 5 ? parts[5] : "") {
        case ("GET", "status"):
            guard let entry = entries[path] else { return ScriptedCore.problem(404, "path-not-found", "nothing there") }
            return ScriptedCore.json(entry)
        case ("GET", ""):
            let found = entries.filter { key, _ in
                let directory = Files.parent(of: key) ?? ""
                return directory == path && key != "/"
            }
            return ScriptedCore.json(["items": .array(found.sorted { $0.key < $1.key }.map(\.value)), "next": .null])
        case ("DELETE", ""): changes.append("remove \(path) \(request.query.last?.value ?? "")")
        case ("POST", "directories"): changes.append("make \(body["path"]?.string ?? "") \(body["mode"]?.integer ?? -1) \(body["parents"]?.bool ?? false)")
        case ("POST", "rename"): changes.append("rename \(body["path"]?.string ?? "") \(body["target"]?.string ?? "") \(body["replace"]?.bool ?? false)")
        default: return ScriptedCore.problem(404, "not-found", "nothing")
        }
        return APIResponse(status: 204)
    }

    private func files(_ request: APIRequest, _ parts: [String], _ body: JSONValue) -> APIResponse {
        switch (request.method, parts.count) {
        case ("POST", 3):
            stored["F1"] = (name: body["name"]?.string ?? "", form: body["form"]?.string ?? "", bytes: [])
            return ScriptedCore.json(["id": "F1", "offset": 0], status: 201)
        case ("PATCH", 4): stored[parts[3]]?.bytes += request.body ?? []
        case ("DELETE", 4):
            stored[parts[3]] = nil
            return APIResponse(status: 204)
        case ("GET", 5): return APIResponse(status: 200, body: stored[parts[3]]?.bytes ?? [])
        default: break
        }
        guard let file = stored[parts[3]] else { return ScriptedCore.problem(404, "file-unknown", "no file") }
        return ScriptedCore.json([
            "id": .string(parts[3]), "name": .string(file.name), "form": .string(file.form), "state": "whole",
            "size": .integer(Int64(file.bytes.count)), "sha256": .string(SHA256.digest(file.bytes).hex),
        ])
    }
}

@Suite(.timeLimit(.minutes(1))) struct CopyTests {
    private let client = PlayedFleet.client

    private func folder() throws -> String {
        let path = "/tmp/cm-copy-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try Files.makeDirectory(path)
        return path
    }

    @Test func aWordIsRemoteWithAClientAndAnAbsolutePath() {
        for word in ["a:b", "/a:/b", "./a:/b", "notes.txt", ":/a", "a/b:/c"] { #expect(RemotePath(word) == nil, "\(word)") }
        #expect(RemotePath("env=prod,role=db:/etc/hosts") == RemotePath(selector: "env=prod,role=db", path: "/etc/hosts"))
        #expect(RemotePath("name=\"web:1\":/")?.path == "/")
        #expect(RemotePath("a:/b//")?.trimmed == "/b" && RemotePath("a:/")?.trimmed == "/")
    }

    @Test func patternsMatchAsInShells() {
        let cases: [(String, [String], [String])] = [
            ("*.log", ["a.log", "x.log.log"], ["a.txt", ".a.log", "log"]), ("a?c", ["abc"], ["ac", "abbc"]),
            ("[a-c]x", ["ax", "cx"], ["dx", "x"]), ("[!a]x", ["bx"], ["ax"]), (".*", [".a"], ["a"]), ("a[", ["a["], ["a"]),
            ("*a*b*", ["xaxbx", "ab"], ["ba"]), ("\\*", ["*"], ["a"]), ("a*", ["a"], ["ba"]),
        ]
        for (pattern, good, bad) in cases {
            for name in good { #expect(GlobPattern(pattern).matches(name), "\(pattern) \(name)") }
            for name in bad { #expect(!GlobPattern(pattern).matches(name), "\(pattern) \(name)") }
        }
        #expect(GlobPattern("plain").isLiteral && GlobPattern("a\\*").isLiteral && !GlobPattern("a*").isLiteral)
        let long = String(repeating: "a", count: 5_000)
        #expect(!GlobPattern("*a*a*a*a*a*a*a*b").matches(long), "and quickly so")
    }

    @Test func aFileGoesOverTheStoreAndLeavesIt() async throws {
        let (folder, fleet) = (try folder(), PlayedFleet(["/tmp": "directory"]))
        defer { try? Files.removeTree(folder) }
        try AtomicFile.write(Array("abc".utf8), to: folder + "/a.txt", mode: 0o640)
        let bench = Bench(fleet.answer)
        #expect(await bench.run("cp", folder + "/a.txt", "\(client):/tmp", "--parents", "--rate-limit", "1000", "--within", "2m") == .success, "\(bench.console.errors)")
        let sent = try #require(fleet.transfers.first)
        #expect(sent["path"]?.string == "/tmp/a.txt" && sent["direction"]?.string == "push" && sent["file"]?.string == "F1", "into a directory by its name")
        #expect(sent["mode"]?.integer == 0o640 && sent["make_parents"]?.bool == true && sent["rate_limit"]?.integer == 1_000)
        #expect(sent["within_s"]?.integer == 120 && sent["offline"]?.string == "fail" && sent["selector"]?.string == client)
        #expect(fleet.stored.isEmpty, "the copy in the store has done its work")
        #expect(await Bench(fleet.answer).run("cp", "--keep", "--mode", "755", "--no-replace", folder + "/a.txt", "\(client):/srv/b") == .success)
        #expect(fleet.stored.count == 1 && fleet.transfers[0]["path"]?.string == "/srv/b")
        #expect(fleet.transfers[0]["mode"]?.integer == 0o755 && fleet.transfers[0]["replace"]?.bool == false)
        let detached = Bench(fleet.answer)
        #expect(await detached.run("cp", "--detach", folder + "/a.txt", "all:/srv/b") == .success)
        #expect(detached.console.output == "T1\n")
        for words in [["cp", folder], ["cp", "a", "b"], ["cp", folder, "\(client):/x"], ["cp", folder + "/none", "\(client):/x"]] {
            let refused = Bench(fleet.answer)
            let core = refused.core
            let outcome = await Cmctl(
                console: refused.console, environment: refused.environment, interrupts: refused.interrupts, files: refused.disk.files,
                pause: { _ in }, connect: { _ in core }).run(words)
            #expect(outcome == .usage, "\(words)")
        }
    }

    @Test func aFileComesWithItsModeAndTime() async throws {
        let (folder, fleet) = (try folder(), PlayedFleet(["/var/log/a.log": "file", "/var/log/b.log": "file", "/var/log/c.txt": "file", "/var": "directory", "/var/log": "directory"]))
        defer { try? Files.removeTree(folder) }
        fleet.pulled = Array("remote!".utf8)
        let bench = Bench(fleet.answer)
        #expect(await bench.run("cp", "\(client):/var/log/*.log", folder) == .success, "\(bench.console.errors)")
        #expect(try Files.list(folder).sorted() == ["a.log", "b.log"])
        #expect(try Files.read(folder + "/a.log", limit: 100) == fleet.pulled)
        let status = try Files.status(folder + "/a.log")
        #expect(status.mode == 0o600 && status.modifiedNanoseconds == 1_600_000_000_000_000_000)
        #expect(fleet.stored.isEmpty)
        #expect(await Bench(fleet.answer).run("cp", "\(client):/var/log/*.log", folder + "/one") == .usage, "two files need a directory")
        #expect(await Bench(fleet.answer).run("cp", "\(client):/var/log/*.zip", folder) == .remoteFailure, "nothing matches")
        #expect(await Bench(fleet.answer).run("cp", "\(client):/var/log", folder) == .usage, "a directory without --recursive")
        #expect(await Bench(fleet.answer).run("cp", "none:/var/log/a.log", folder) == .usage, "no such client")
    }

    @Test func aFailureIsToldAndControlCCancels() async throws {
        let (folder, fleet) = (try folder(), PlayedFleet([:]))
        defer { try? Files.removeTree(folder) }
        try AtomicFile.write(Array("abc".utf8), to: folder + "/a")
        fleet.states = ["running", "failed"]
        let bench = Bench(fleet.answer)
        #expect(await bench.run("cp", folder + "/a", "\(client):/x") == .remoteFailure)
        #expect(bench.console.errors.contains("permission denied [path-denied]"))
        fleet.states = ["running"]
        let second = Bench(fleet.answer)
        fleet.onLook = { _ = second.interrupts.raise() }
        #expect(await second.run("cp", folder + "/a", "\(client):/x") == .remoteFailure)
        #expect(fleet.changes == ["cancel T1"] && second.console.errors.contains("Cancelling"))
    }

    @Test func clientsFilesAreListedAndChanged() async throws {
        let fleet = PlayedFleet(["/": "directory", "/d": "directory", "/d/a": "file", "/d/b": "file", "/d/.hidden": "file", "/d/sub": "directory"])
        let list = Bench(fleet.answer)
        #expect(await list.run("ls", "\(client):/d") == .success)
        #expect(list.console.output.contains("-rw-r-----  3") && list.console.output.contains("drw-r-----") && !list.console.output.contains(".hidden"))
        let all = Bench(fleet.answer)
        #expect(await all.run("ls", "-a", "\(client):/d", "--output", "json") == .success)
        #expect(all.console.output.contains(".hidden"))
        #expect(await Bench(fleet.answer).run("ls", "\(client):/none") == .remoteFailure)
        #expect(await Bench(fleet.answer).run("rm", "\(client):/d/?") == .success)
        #expect(await Bench(fleet.answer).run("rm", "-r", "\(client):/d/sub") == .success)
        #expect(await Bench(fleet.answer).run("mkdir", "-p", "--mode", "700", "\(client):/d/x/y") == .success)
        #expect(await Bench(fleet.answer).run("mv", "\(client):/d/a", "/d/sub") == .success)
        #expect(await Bench(fleet.answer).run("mv", "--replace", "\(client):/d/a", "\(client):/d/z") == .success)
        #expect(fleet.changes == [
            "remove /d/a false", "remove /d/b false", "remove /d/sub true", "make /d/x/y 448 true", "rename /d/a /d/sub/a false",
            "rename /d/a /d/z true",
        ])
        for words in [["rm", "/d/a"], ["mv", "\(client):/d/a", "d"], ["mkdir", "\(client):/a", "--mode", "9"]] {
            let refused = Bench(fleet.answer)
            let core = refused.core
            let outcome = await Cmctl(
                console: refused.console, environment: refused.environment, interrupts: refused.interrupts, files: refused.disk.files,
                pause: { _ in }, connect: { _ in core }).run(words)
            #expect(outcome == .usage, "\(words)")
        }
    }

    @Test func aTreeIsUnpackedBeneathItsDirectoryOnly() throws {
        let folder = try folder()
        defer { try? Files.removeTree(folder) }
        try AtomicFile.write(Array("mine".utf8), to: folder + "/outside")
        var archive: [UInt8] = []
        func add(_ path: String, _ kind: PaxEntry.Kind, _ text: String = "", target: String = "") {
            PaxWriting.header(of: PaxEntry(path: path, kind: kind, size: kind == .file ? UInt64(text.utf8.count) : 0, mode: 0o640, modifiedNanoseconds: 5_000_000_000, target: target), to: &archive)
            guard kind == .file else { return }
            archive += Array(text.utf8)
            archive.append(contentsOf: repeatElement(0, count: PaxWriting.padding(after: UInt64(text.utf8.count))))
        }
        add(".", .directory)
        add("d", .directory)
        add("d/a", .file, "hello")
        add("../outside", .file, "theirs")
        add("/etc/evil", .file, "theirs")
        add("out", .symbolicLink, target: "..")
        add("in", .symbolicLink, target: "d/a")
        add("d/up", .symbolicLink, target: "../d")
        add("d/up/a", .file, "through a link")
        add("hard", .hardLink, target: "d/a")
        archive += PaxWriting.end
        let unpacker = try TreeUnpacker(folder + "/tree")
        // Through the link is refused by the kernel: nothing that came after it is made.
        #expect(throws: OperatorError.self) {
            for start in stride(from: 0, to: archive.count, by: 700) { try unpacker.take(Array(archive[start..<min(start + 700, archive.count)])) }
        }
        #expect(unpacker.skipped == ["../outside", "/etc/evil", "out"])
        #expect(try Files.read(folder + "/outside", limit: 10) == Array("mine".utf8))
        #expect(try Files.read(folder + "/tree/d/a", limit: 10) == Array("hello".utf8))
        #expect(try Files.readLink(folder + "/tree/in") == "d/a")
        let status = try Files.status(folder + "/tree/d/a")
        #expect(status.mode == 0o640 && status.modifiedNanoseconds == 5_000_000_000)
    }
}
