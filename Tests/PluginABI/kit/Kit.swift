import CPluginABI
import JSON
import PluginKit

/// Every part of PluginKit, used once against the core that `plugin check` plays; a wrong answer fails `load` or `start`
/// with its place.
final class Kit: Plugin {
    private let host: Host
    private let executor: Executor
    private var timers = 0
    private var seen = 0
    private var results: [Int] = []

    init(loading host: Host) throws(PluginError) {
        self.host = host
        executor = try host.executor()
        try expect(executor.isOwnThread, "load runs on the own thread")
        try expect(executor.now > 1_600_000_000_000, "a clock")
        try expect(try host.configuration().section().isEmpty, "an empty configuration")
        try expect(try host.configuration().text("/nothing") == nil, "no member")
        try routes()
        let metric = try host.metrics().define(.gauge, "things", "Things.")
        metric.set(3)
        metric.add(-1)
        var kind = JobKind("kit.work", summary: "Works.", .atMostOnce)
        kind.concurrency = 2
        kind.retry = (3, 1, 60)
        kind.arguments = ["type": "object"]
        let store = try host.store()
        let executor = executor
        try host.jobs().kind(kind, cancel: { _ in }) { attempt in
            // Ended on a worker thread: an attempt may be carried anywhere.
            do throws(PluginError) {
                try executor.blocking { work(attempt, store) }
            } catch {
                attempt.die("kit", "no worker")
            }
        }
    }

    private func routes() throws(PluginError) {
        let http = try host.http()
        let executor = executor
        try http.route(Route(.get, "/api/v1/kit/{name}", right: "kit.read", summary: "Answers later.")) { request, body in
            guard body.byteCount == 0, request.method == "GET", request.parameter("name") == "Ada", request.query("no") == nil,
                request.actor == "check", request.may("kit.read")
            else {
                request.problem(500, "kit", "the request is not what was asked for")
                return
            }
            do throws(PluginError) {
                try executor.blocking { request.respond(json: ["name": "Ada"] as JSONObject) }
            } catch {
                request.problem(error)
            }
        }
        var upload = Route(.put, "/api/v1/kit/{name}", right: "kit.write", summary: "Takes a stream.")
        upload.streamsBody = true
        upload.audit = "kit.put"
        try http.route(
            upload,
            configure: { handler in
                handler.body = { request, piece, isLast in
                    guard isLast else { return _ = request.more(65_536) }
                    request.begin(200, headers: [("content-type", "text/plain")])
                    _ = request.write([UInt8](piece))
                    request.end()
                }
            }
        ) { request, _ in request.more(65_536) }
        var echo = Route(.webSocket, "/api/v1/kit/echo", right: "kit.read", summary: "Echoes.")
        echo.isInline = true
        echo.messageLimit = 4096
        try http.route(echo) { request, _ in
            let socket = try? request.accept { handler in
                handler.message = { socket, kind, payload in _ = socket.send(payload, kind) }
                handler.closed = { _, code, _ in precondition(code == 1001) }
            }
            if socket == nil { request.problem(500, "kit", "no WebSocket") }
        }
        try http.asset("page.html", contentType: "text/html", Array("<p>kit</p>".utf8))
    }

    func start() throws(PluginError) {
        try memory()
        try files()
        try fleet()
        let crypto = try host.crypto()
        try expect(try crypto.random(16).count == 16, "random bytes")
        try expect(try crypto.sha256([1, 2, 3]) != crypto.hmacSHA256(key: [4], [1, 2, 3]), "digests")
        let secret = Array("secret".utf8)
        let sealed = try crypto.seal(secret, label: "token")
        try expect(sealed != secret, "sealed")
        try expect(try crypto.unseal(sealed, label: "token") == secret, "unsealed")
        let key = [UInt8](repeating: 7, count: 32)
        let encrypted = try crypto.encrypt(secret, key: key, associated: [1])
        try expect(encrypted != secret, "encrypted")
        try expect(try crypto.decrypt(encrypted, key: key, associated: [1]) == secret, "decrypted")

        let events = try host.events()
        let subscription = try events.subscribe(["client.*"]) { [host] kind, event in
            host.log.info("kit.event", ["kind": .string(kind), "event": event])
        }
        try events.publish("kit.started", subject: "x", ["n": 1])
        events.unsubscribe(subscription)
        _ = try events.subscribe(["job.*"]) { [self] _, _ in seen += 1 }
        _ = try host.audit().sink { sequence, record in sequence > 0 && record["action"] != nil }
        try host.audit().write("kit.start", target: "kit", detail: ["n": 1])

        let services = try host.services()
        let watch = try services.watch("com.example.other/1") { _ in }
        services.unwatch(watch)
        try refused(.notFound) { () throws(PluginError) in
            _ = try services.acquire("com.example.other/1", as: cm_head.self) { _ in }
        }

        try executor.timer(after: 10) { [self] in timers += 1 }
        executor.cancel(try executor.timer(after: 10, every: 10) {})
        try executor.post {}
        try executor.blocking({ 42 }, then: Confined(self, on: executor)) { kit, result in kit.results.append(result) }
        host.log.debug("kit.started")
    }

    private func memory() throws(PluginError) {
        let store = try host.store()
        let long = [UInt8](repeating: 7, count: 5000)
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.expect("a", nil)
            try transaction.put("a", Array("one".utf8))
            try transaction.put("b", long)
            try transaction.put("c", [])
            try transaction.remove("c")
        }
        try expect(try store.get("a") == Array("one".utf8), "a value")
        try expect(try store.get("b") == long, "a value larger than the first buffer")
        try expect(try store.get("c") == nil, "a removed key")
        try expect(try store.list(prefix: "").items.prefix(2) == ["a", "b"], "keys in order")
        try expect(try store.append("log", [1, 2, 3]) >= 3, "a blob")
        try store.sync("log")
        try expect(try store.read("log", from: 1, limit: 1) == [2], "a range of a blob")
        try expect(try store.size("log").map { $0 >= 3 } == true, "its size")
        try store.removeBlob("log")
        try expect(try store.size("log") == nil, "no blob")
        (try store.begin()).discard()
    }

    private func files() throws(PluginError) {
        let files = try host.files()
        let writer = try files.create(["name": "a.bin"])
        try writer.append([1, 2, 3])
        let last: [UInt8] = [4]
        try writer.append(last.span.bytes)
        try expect(try writer.sync() == 4, "what is durable")
        writer.release()
        let again = try files.resume(writer.id)
        try expect(again.offset == 4, "where a file goes on")
        try expect(try again.seal()["size"]?.integer == 4, "a whole file")
        try expect(try files.get(writer.id)["name"]?.string == "a.bin", "its name")
        try expect(try files.list()["items"]?.array?.isEmpty == false, "a list of files")
        let reader = try files.open(writer.id)
        try expect(reader.size == 4, "its size")
        try expect(try reader.read(from: 1, limit: 2) == [2, 3], "a range of a file")
        try expect(try reader.read(from: 4).isEmpty, "its end")
        reader.close()
        try files.remove(writer.id)
        try refused(.notFound) { () throws(PluginError) in _ = try files.open(writer.id) }
        try files.create(["name": "b"]).discard()
        try refused(.notFound) { () throws(PluginError) in _ = try files.transfer(["direction": "pull", "clients": ["c-1"], "path": "/a"]) }
        try refused(.notFound) { () throws(PluginError) in _ = try files.watch("x") { _ in } }
        try refused(.notFound) { () throws(PluginError) in try files.cancelTransfer("x") }
        try refused(.notFound) { () throws(PluginError) in try files.clientList("c-1", "/srv", after: "a", limit: 10) { _ in } }
        try refused(.notFound) { () throws(PluginError) in try files.clientStatus("c-1", "/srv", follows: false) { _ in } }
        try refused(.notFound) { () throws(PluginError) in try files.clientHash("c-1", "/srv/a", .md5) { _ in } }
        try refused(.notFound) { () throws(PluginError) in try files.clientMakeDirectory("c-1", "/srv/b", parents: true, mode: 0o700) { _ in } }
        try refused(.notFound) { () throws(PluginError) in try files.clientRename("c-1", "/srv/a", to: "/srv/c", replaces: true) { _ in } }
        try refused(.notFound) { () throws(PluginError) in try files.clientRemove("c-1", "/srv/b", recursive: true) { _ in } }
    }

    private func fleet() throws(PluginError) {
        let clients = try host.clients()
        try expect(try clients.select("env=prod").items.isEmpty, "nobody")
        try expect(try clients.selectAsserted("env=prod").items.isEmpty, "nobody by labels either")
        try expect(!clients.isOnline("c-1"), "nobody is online")
        try refused(.notFound) { () throws(PluginError) in _ = try clients.get("c-1") }
        try refused(.notFound) { () throws(PluginError) in try clients.setLabels("c-1", [("a", "b"), ("c", nil)]) }
        let commands = try host.commands()
        try refused(.notFound) { () throws(PluginError) in _ = try commands.run(["clients": ["c-1"], "argv": ["true"]]) }
        try refused(.notFound) { () throws(PluginError) in _ = try commands.watch("x") { _ in } }
        try refused(.notFound) { () throws(PluginError) in try commands.cancel("x") }
        try refused(.notFound) { () throws(PluginError) in _ = try commands.output("x", of: "c-1") }
        try refused(.notFound) { () throws(PluginError) in
            _ = try commands.run(["clients": ["c-1"], "argv": ["true"]], secrets: [("TOKEN", "a value")])
        }
        let first = try commands.addFilter { _, _ in 0 }
        commands.removeFilter(first)
        // Played with two texts; the last bytes are held back until there are no more.
        _ = try commands.addFilter { piece, window in
            guard piece.command == "check", piece.client == "check", piece.stream == .output else { return nil }
            for place in window.indices where window[place] == 0x61 { window[place] = 0x2A }
            return piece.isLast ? 0 : min(window.count, 3)
        }
        let files = try host.privateFiles()
        try refused(.notFound) { () throws(PluginError) in
            try files.put(PrivateFiles.Specification(name: "key", lifetimeSeconds: 60), content: [1], on: "c-1") { _ in }
        }
        try refused(.notFound) { () throws(PluginError) in try files.remove("key", on: "c-1") { _ in } }
        try refused(.notFound) { () throws(PluginError) in try files.list(on: "c-1") { _ in } }
        let channels = try host.channels()
        try expect(try channels.list().isEmpty, "no channels")
        try refused(.notFound) { () throws(PluginError) in _ = try channels.open(["client": "c-1"], as: .plugin) { _ in } }
        try refused(.notFound) { () throws(PluginError) in _ = try channels.attach("x", from: 0, as: .plugin) { _ in } }
        let jobs = try host.jobs()
        try expect(try jobs.submit(["kind": "kit.work"]) == "check-job", "a job's id")
        try refused(.notFound) { () throws(PluginError) in _ = try jobs.get("x") }
        try refused(.notFound) { () throws(PluginError) in try jobs.cancel("x") }
    }

    func quiesce() throws(PluginError) {
        // A life without events has no timers either.
        try expect(timers > 0 || seen == 0, "the timer came")
        try expect(results == [42], "a worker's result came to the own thread")
    }

    func resume() throws(PluginError) {}

    private func expect(_ condition: Bool, _ what: String) throws(PluginError) {
        guard condition else { throw PluginError(.internal, "PluginKit: \(what)") }
    }

    /// Passes any failure on but the expected one.
    private func refused(
        _ status: PluginError.Status, _ body: () throws(PluginError) -> Void
    ) throws(PluginError) {
        do throws(PluginError) { try body() } catch where error.status == status { return }
        throw PluginError(.internal, "PluginKit: not refused")
    }
}

/// On a worker thread: an attempt may be carried anywhere.
private func work(_ attempt: JobAttempt, _ store: Store) {
    attempt.progress(500, "half")
    attempt.log("half")
    do throws(PluginError) {
        let transaction = try store.begin()
        try transaction.put("job", Array("done".utf8))
        try attempt.keep(Array("checkpoint".utf8), with: transaction)
        attempt.succeed(["attempt": .integer(attempt.number)])
    } catch {
        attempt.fail("kit", error.text)
    }
}

private let entry = PluginEntry(Kit.self, id: pluginID, version: pluginVersion)

@c @implementation
public func cm_plugin_entry(_ major: UInt32, _ minor: UInt32) -> UnsafePointer<cm_plugin>? { entry.table(major) }
