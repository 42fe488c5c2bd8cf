import API
import Glibc
import JSON
import Kernel
import Synchronization
import Testing

@testable import Transport
@testable import Web

/// A managed store behind its routes and a real server, in a directory of its own. "root" may use everybody's files.
private final class FilesAPI: Sendable {
    private let directory: String
    private let store: Store
    let settings: Settings
    let files: FileStore
    let web: WebFixture

    init(rights: Set<Right> = [.readFiles, .writeFiles]) async throws {
        var template = Array("/tmp/cm-files-XXXXXX".utf8CString)
        directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        store = try Store.open(directory: directory, migrations: Settings.migrations + FileStore.migrations)
        let events = Events()
        settings = try await Settings.load(store: store, events: events)
        files = try await FileStore.open(
            directory: directory + "/files", store: store, settings: settings, events: events
        ) { principal, _ in principal.id == "root" }
        web = try await WebFixture(fileRoutes(files), rights: rights)
    }

    deinit {
        store.close()
        // Made by mkdtemp above, so it holds nothing of others.
        for folder in ["files/whole", "files/unfinished", "files", "keys", ""] {
            let path = directory + "/" + folder
            guard let listing = opendir(path) else { continue }
            while let entry = readdir(listing) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                unlink(path + "/" + name)
            }
            closedir(listing)
            rmdir(path)
        }
    }

    /// Status, fields in lower case and body of one request.
    func call(
        _ method: String, _ path: String, token: String = "alice", headers: [String] = [], body: [UInt8] = []
    ) throws -> Answer {
        Answer(try web.call(method, "/api/v1/files" + path, token: token, headers: headers, body: body))
    }

    struct Answer {
        let status: Int
        let fields: [String: String]
        let body: String
        var json: JSONValue { (try? JSONValue(parsing: body)) ?? .null }
        subscript(name: String) -> String? { fields[name] }

        init(_ text: String) {
            let lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)
            status = lines.first.flatMap { Int($0.dropFirst(9).prefix(3)) } ?? 0
            let end = lines.firstIndex(of: "") ?? lines.endIndex
            var fields: [String: String] = [:]
            for line in lines[..<end].dropFirst() {
                let parts = line.split(separator: ":", maxSplits: 1)
                if parts.count == 2 { fields[parts[0].lowercased()] = String(parts[1].drop { $0 == " " }) }
            }
            self.fields = fields
            body = lines[min(end + 1, lines.endIndex)...].joined(separator: "\r\n")
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct FileRoutesTests {
    private let text: [UInt8] = (0..<200_000).map { (index: Int) -> UInt8 in UInt8(0x41 + (index * 7 + index / 512) % 26) }
    private func string(_ bytes: some Sequence<UInt8>) -> String { String(decoding: Array(bytes), as: UTF8.self) }

    @Test(arguments: ["PUT", "POST"]) func aFileGoesInAndOutInOneRequest(_ method: String) async throws {
        let api = try await FilesAPI()
        let stored = try api.call(method, "/r%C3%A9port%201.txt?keep_s=3600&form=tree", body: text)
        #expect(stored.status == 201 && stored.json["name"]?.string == "réport 1.txt" && stored.json["form"]?.string == "tree")
        #expect(stored.json["size"]?.integer == 200_000 && stored.json["state"]?.string == "whole")
        let created = try #require(stored.json["created_ms"]?.integer)
        #expect(abs(try #require(stored.json["expires_ms"]?.integer) - created - 3_600_000) < 60_000)
        let id = try #require(stored.json["id"]?.string)
        #expect(stored["location"] == "/api/v1/files/\(id)" && stored["upload-offset"] == "200000")
        let back = try api.call("GET", "/\(id)/content")
        #expect(back.status == 200 && back.body == string(text) && back["content-length"] == "200000")
        #expect(back["etag"] == "\"\(try #require(stored.json["sha256"]?.string))\"" && back["accept-ranges"] == "bytes")
        #expect(back["content-disposition"] == "attachment; filename*=UTF-8''r%C3%A9port%201.txt")
        #expect(back["content-type"] == "application/x-tar" && back["repr-digest"] == stored["repr-digest"])
        let operation = try JSONValue(parsing: api.web.table.document().bytes)["paths"]?["/api/v1/files/{file}/content"]?["get"]
        for status in ["200", "206"] {
            #expect(operation?["responses"]?[status]?["content"]?.object?.map(\.key) == ["application/octet-stream", "application/x-tar"])
        }
        let head = try api.call("HEAD", "/\(id)/content")
        #expect(head.status == 200 && head.body.isEmpty && head["content-length"] == "200000")
        #expect(api.web.gate.records.withLock { $0 } == Array(repeating: "file.read alice /api/v1/files/\(id)/content", count: 2))
        #expect(try api.call("DELETE", "/\(id)").status == 204)
        #expect(try api.call("GET", "/\(id)").status == 404)
    }

    @Test func rangesAreServed() async throws {
        let api = try await FilesAPI()
        let id = try #require(try api.call("PUT", "/a", body: text).json["id"]?.string)
        let tag = try #require(try api.call("HEAD", "/\(id)/content")["etag"])
        let cases: [(range: String, expected: Range<Int>)] = [
            ("bytes=0-0", 0..<1), ("bytes=100000-", 100_000..<200_000), ("bytes=-3", 199_997..<200_000),
            ("bytes=199990-999999", 199_990..<200_000), ("bytes=-999999", 0..<200_000),
        ]
        for (range, expected) in cases {
            let answer = try api.call("GET", "/\(id)/content", headers: ["Range: \(range)", "If-Range: \(tag)"])
            #expect(answer.status == 206 && answer.body == string(text[expected]), "\(range)")
            #expect(answer["content-range"] == "bytes \(expected.lowerBound)-\(expected.upperBound - 1)/200000")
        }
        for range in ["bytes=200000-", "bytes=-0"] {
            let answer = try api.call("GET", "/\(id)/content", headers: ["Range: \(range)"])
            #expect(answer.status == 416 && answer["content-range"] == "bytes */200000" && answer.body.isEmpty, "\(range)")
        }
        for field in ["Range: bytes=5-1", "Range: bytes=0-1,3-4", "Range: lines=0-1", "Range: bytes=x-"] {
            #expect(try api.call("GET", "/\(id)/content", headers: [field]).status == 200, "\(field)")
        }
        let other = try api.call("GET", "/\(id)/content", headers: ["Range: bytes=0-0", "If-Range: \"other\""])
        #expect(other.status == 200 && other.body.utf8.count == 200_000)
        #expect(try api.call("GET", "/\(id)/content", headers: ["If-None-Match: \(tag)"]).status == 304)
    }

    @Test func anInterruptedUploadGoesOnWhereItIsDurable() async throws {
        let api = try await FilesAPI()
        let client = try api.web.client()
        try client.send("PUT /api/v1/files/a HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer alice\r\nContent-Length: 200000\r\n\r\n")
        try client.send(Array(text[..<120_000]))
        client.endSending()
        _ = client.rest()
        // The connection is gone; its handler makes durable what came and lets go.
        var listed = JSONValue.null
        for _ in 0..<200 {
            listed = try api.call("GET", "?state=unfinished&name=a").json["items"]?.array?.first ?? .null
            if listed["offset"]?.integer == 120_000 { break }
            usleep(10_000)
        }
        let id = try #require(listed["id"]?.string)
        #expect(listed["offset"]?.integer == 120_000)
        let head = try api.call("HEAD", "/\(id)")
        #expect(head["upload-offset"] == "120000" && head["upload-length"] == "200000" && head.body.isEmpty)
        #expect(try api.call("GET", "/\(id)/content").json["code"]?.string == "file-unfinished")
        let wrong = try api.call("PATCH", "/\(id)", headers: ["Upload-Offset: 1"], body: Array(text[1..<9]))
        #expect(wrong.status == 409 && wrong.json["code"]?.string == "offset-mismatch")
        let part = try api.call("PATCH", "/\(id)", headers: ["Upload-Offset: 120000"], body: Array(text[120_000..<150_000]))
        #expect(part.status == 200 && part["upload-offset"] == "150000" && part.json["state"]?.string == "unfinished")
        let more = try api.call("PATCH", "/\(id)", body: [1])
        #expect(more.status == 400, "without a position")
        let other = try api.call("PATCH", "/\(id)", headers: ["Content-Range: bytes 150000-150000/150001"], body: [1])
        #expect(other.status == 400, "another length than announced")
        let last = try api.call(
            "PUT", "/\(id)", headers: ["Content-Range: bytes 150000-199999/200000"], body: Array(text[150_000...]))
        #expect(last.status == 200 && last.json["state"]?.string == "whole")
        #expect(try api.call("GET", "/\(id)/content").body == string(text))
        #expect(try api.call("PATCH", "/\(id)", headers: ["Upload-Offset: 200000"], body: [1]).json["code"]?.string == "file-whole")
    }

    @Test func anUploadMayBeAnnouncedFirst() async throws {
        let api = try await FilesAPI()
        func begin(_ json: JSONValue) throws -> FilesAPI.Answer {
            try api.call("POST", "", headers: ["Content-Type: application/json"], body: json.serialized())
        }
        let known = try begin(["name": "a", "size": 5, "form": "tree", "keep_s": 60])
        let id = try #require(known.json["id"]?.string)
        #expect(known.status == 201 && known["location"] == "/api/v1/files/\(id)" && known["upload-offset"] == "0")
        #expect(known.json["form"]?.string == "tree" && known["upload-length"] == "5")
        let whole = try api.call("PATCH", "/\(id)", headers: ["Upload-Offset: 0"], body: Array("hello".utf8))
        #expect(whole.json["state"]?.string == "whole")
        let finished = try #require(whole.json["finished_ms"]?.integer)
        #expect(whole.json["expires_ms"]?.integer == finished + 60_000)
        let open = try #require(try begin(["name": "b"]).json["id"]?.string)
        _ = try api.call("PATCH", "/\(open)", headers: ["Upload-Offset: 0"], body: Array("hel".utf8))
        let end = try api.call("PATCH", "/\(open)?complete=true", headers: ["Upload-Offset: 3"], body: Array("lo".utf8))
        #expect(end.json["state"]?.string == "whole" && end.json["size"]?.integer == 5)
        #expect(end.json["sha256"] == whole.json["sha256"])
        #expect(try begin(["name": "a/b"]).json["pointer"]?.string == "/name")
    }

    @Test func digestsAreChecked() async throws {
        let api = try await FilesAPI()
        let good = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"
        let hex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        let hello = Array("hello".utf8)
        for field in ["Repr-Digest: \(good)", "Content-Digest: md5=:AA==:, \(good)", "Repr-Digest: unknown=:AA==:"] {
            let answer = try api.call("PUT", "/a", headers: [field], body: hello)
            #expect(answer.status == 201 && answer["repr-digest"] == good, "\(field)")
        }
        #expect(try api.call("PUT", "/a?sha256=\(hex)", body: hello).status == 201)
        let before = api.files.used.files
        for (path, field) in [("/a", "Repr-Digest: \(good)"), ("/a?sha256=\(hex)", "X: y")] {
            let answer = try api.call("PUT", path, headers: [field], body: Array("hellO".utf8))
            #expect(answer.status == 422 && answer.json["code"]?.string == "digest-mismatch")
        }
        #expect(try api.call("PUT", "/a", headers: ["Repr-Digest: sha-256=nonsense"], body: hello).status == 400)
        #expect(try api.call("PUT", "/a?sha256=\(String(repeating: "x", count: 64))", body: hello).status == 400)
        #expect(api.files.used.files == before, "nothing is kept of what is wrong")
    }

    @Test func chunkedBodiesAndAnnouncedSizes() async throws {
        let api = try await FilesAPI()
        let client = try api.web.client()
        try client.send("PUT /api/v1/files/a?size=5 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer alice\r\nTransfer-Encoding: chunked\r\n\r\n")
        try client.send("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
        #expect(FilesAPI.Answer(client.rest()).json["size"]?.integer == 5)
        let short = try api.call("PUT", "/a?size=6", body: Array("hello".utf8))
        #expect(short.status == 409 && short.json["code"]?.string == "file-incomplete")
        let long = try api.call("PUT", "/a?size=4", body: Array("hello".utf8))
        #expect(long.status == 400 && long.json["code"]?.string == "file-too-long")
        #expect(try api.call("PUT", "/empty").json["size"]?.integer == 0)
    }

    @Test func whatDoesNotFitIsRefusedBeforeItIsSent() async throws {
        let api = try await FilesAPI()
        try await api.settings.set("file_size_mib", to: 1, by: Principal(kind: .user, id: "root"))
        let client = try api.web.client()
        try client.send("PUT /api/v1/files/a HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer alice\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n")
        let answer = client.until("\r\n\r\n")
        #expect(answer.hasPrefix("HTTP/1.1 413"), "\(answer)")
        #expect(api.files.used.files == 0)
    }

    @Test func nobodyUsesTheFilesOfOthers() async throws {
        let api = try await FilesAPI()
        let id = try #require(try api.call("PUT", "/a", body: text).json["id"]?.string)
        let begun = try #require(try api.call("POST", "", headers: ["Content-Type: application/json"], body: Array("{\"name\":\"u\"}".utf8)).json["id"]?.string)
        for (method, path, headers) in [
            ("GET", "/\(id)", []), ("GET", "/\(id)/content", []), ("DELETE", "/\(id)", []),
            ("PATCH", "/\(begun)", ["Upload-Offset: 0"]), ("PUT", "/\(begun)", ["Content-Range: bytes 0-0/*"]),
        ] as [(String, String, [String])] {
            let body: [UInt8] = method == "PATCH" || method == "PUT" ? [1] : []
            #expect(try api.call(method, path, token: "bob", headers: headers, body: body).json["code"]?.string == "file-unknown", "\(method)")
        }
        #expect(try api.call("GET", "", token: "bob").json["items"]?.array?.isEmpty == true)
        #expect(try api.call("GET", "", token: "root").json["items"]?.array?.count == 2)
        #expect(try api.call("GET", "/\(id)/content", token: "root").status == 200)
        #expect(try api.call("GET", "/nonsense").status == 400)
    }

    @Test(arguments: [Right.readFiles, .writeFiles]) func eachRouteNeedsItsRight(_ right: Right) async throws {
        let api = try await FilesAPI(rights: [right])
        let id = "0123456789ABCDEFGHJKMNPQRS"
        let json = ["Content-Type: application/json"]
        for (method, path, headers, needed) in [
            ("GET", "", [], .readFiles), ("GET", "/\(id)", [], .readFiles), ("GET", "/\(id)/content", [], .readFiles),
            ("POST", "", json, .writeFiles), ("PUT", "/a", [], .writeFiles), ("POST", "/a", [], .writeFiles),
            ("PATCH", "/\(id)", ["Upload-Offset: 0"], .writeFiles), ("DELETE", "/\(id)", [], .writeFiles),
        ] as [(String, String, [String], Right)] {
            let body = path.isEmpty && method == "POST" ? Array("{\"name\":\"u\"}".utf8) : []
            let status = try api.call(method, path, headers: headers, body: body).status
            #expect((status == 403) == (needed != right), "\(method) \(path): \(status)")
        }
    }

    @Test func listsComeInPages() async throws {
        let api = try await FilesAPI()
        var ids: Set<String> = []
        for name in ["a", "b", "c"] { ids.insert(try #require(try api.call("PUT", "/\(name)").json["id"]?.string)) }
        let first = try api.call("GET", "?limit=2").json
        let next = try #require(first["next"]?.string)
        let second = try api.call("GET", "?limit=2&cursor=\(next)").json
        let seen = [first, second].flatMap { $0["items"]?.array ?? [] }.compactMap { $0["id"]?.string }
        #expect(Set(seen) == ids && seen.count == 3 && second["next"] == .null)
        #expect(try api.call("GET", "?form=tree").json["items"]?.array?.isEmpty == true)
        #expect(try api.call("GET", "?cursor=x").status == 400)
    }
}
