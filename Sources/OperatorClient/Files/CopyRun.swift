import Glibc
import JSON
import System

/// One `cmctl cp`: sources, one after the other, to the target, over the core's store.
final class CopyRun {
    struct Options {
        var isRecursive = false
        var resumes = false
        var detaches = false
        var keeps = false
        /// Members of the transfer's request that were given.
        var members = JSONObject()
        var hasMode = false
    }

    private let invocation: Invocation
    private let session: Session
    private let core: Core
    private let options: Options
    private(set) var transfers: [JSONValue] = []

    init(_ invocation: Invocation, _ options: Options) throws(OperatorError) {
        self.invocation = invocation
        session = invocation.session
        core = try invocation.core
        self.options = options
    }

    // MARK: To clients

    func push(_ path: String, to remote: RemotePath, into directory: Bool) async throws(OperatorError) {
        let status: FileStatus
        do throws(SystemError) { status = try Files.status(path) } catch { throw .usage("\(path) cannot be read: \(error.reason)") }
        let isTree = status.kind == .directory
        guard !isTree || options.isRecursive else { throw .usage("\(path) is a directory", advice: "--recursive copies it with everything in it.") }
        let name = Invocation.lastPart(of: path)
        let target = directory ? RemotePath.joined(remote.trimmed, name) : remote.trimmed
        let stored = try await store(path, name: name, isTree: isTree)
        var members = options.members
        if !isTree, !options.hasMode { members["mode"] = .integer(Int64(status.mode)) }
        if !isTree { members["modified_ns"] = .integer(status.modifiedNanoseconds) }
        try await send(stored, name: name, to: RemotePath(selector: remote.selector, path: target), members)
    }

    /// The local file or tree in the store.
    private func store(_ path: String, name: String, isTree: Bool) async throws(OperatorError) -> JSONValue {
        let source: any UploadSource
        if isTree { source = try TreeSource(path) } else { source = try LocalFileSource(path) }
        let progress = ProgressLine(session.console, name + " → store", total: source.size)
        defer { progress.clear() }
        let upload = FileUpload(session, core: core, source, progress: progress)
        upload.advice = { _ in "The same command with --resume goes on with it." }
        if options.resumes, let size = source.size {
            if let found = try await stored(name, "whole", size), try matches(found, source) { return found }
            if let found = try await stored(name, "unfinished", size), let id = found["id"]?.string { return try await upload.resume(id) }
        }
        let file = try await upload.create(name: name, form: isTree ? "tree" : "file", keepSeconds: nil)
        if let tree = source as? TreeSource {
            progress.clear()
            for path in tree.skipped { session.console.complain("left out (neither file, directory nor link): " + Table.printable(path)) }
        }
        return file
    }

    private func stored(_ name: String, _ state: String, _ size: UInt64) async throws(OperatorError) -> JSONValue? {
        let answer = try await core.get(
            "/api/v1/files", query: [(name: "name", value: name), (name: "state", value: state), (name: "form", value: "file")])
        return answer["items"]?.array?.first { $0["size"]?.integer == Int64(clamping: size) }
    }

    private func matches(_ file: JSONValue, _ source: any UploadSource) throws(OperatorError) -> Bool {
        try source.seek(to: source.size ?? 0)
        if file["sha256"]?.string == source.digest.hex { return true }
        try source.seek(to: 0)
        return false
    }

    /// A stored file to clients; afterwards it goes from the store.
    private func send(_ stored: JSONValue, name: String, to remote: RemotePath, _ given: JSONObject) async throws(OperatorError) {
        guard let id = stored["id"]?.string else { throw OperatorError(.remoteFailure, "the core gave the file no id") }
        var group: String?
        if options.resumes { group = try await unfinished { $0["file"]?.string == id && $0["path"]?.string == remote.path } }
        if group == nil {
            var body = given
            body["direction"] = "push"
            body["selector"] = .string(remote.selector)
            body["path"] = .string(remote.path)
            body["file"] = .string(id)
            let made: JSONValue
            do throws(OperatorError) { made = try await core.post("/api/v1/transfers", .object(body)) } catch {
                await drop(id)
                throw error
            }
            guard let first = made["group"]?.string, made["count"]?.integer ?? 0 > 0 else {
                await drop(id)
                throw .usage("no client is found by '\(remote.selector)'")
            }
            group = first
            if options.detaches {
                transfers += made["items"]?.array ?? []
                return
            }
        }
        try await follow(group ?? "", name: name + " → " + remote.path)
        await drop(id)
    }

    // MARK: Past the core

    func direct(_ remote: RemotePath, _ direction: String, _ url: String, _ given: JSONObject) async throws(OperatorError) {
        var body = options.members
        if direction == "pull" { for key in ["mode", "replace", "make_parents"] { body[key] = nil } }
        for member in given { body[member.key] = member.value }
        body["direction"] = .string(direction)
        body["selector"] = .string(remote.selector)
        body["path"] = .string(remote.path)
        body["url"] = .string(url)
        let made = try await core.post("/api/v1/transfers", .object(body))
        guard let group = made["group"]?.string, made["count"]?.integer ?? 0 > 0 else {
            throw .usage("no client is found by '\(remote.selector)'")
        }
        if options.detaches {
            transfers += made["items"]?.array ?? []
        } else {
            _ = try await follow(group, name: Invocation.lastPart(of: remote.path) + (direction == "push" ? " ← URL" : " → URL"))
        }
    }

    // MARK: From clients

    func pull(_ remote: RemotePath, to target: String, into directory: Bool) async throws(OperatorError) {
        let files = try await invocation.clientFiles(remote)
        let paths = try await files.expand(remote.trimmed)
        guard paths.count == 1 || directory else {
            throw .usage("\(remote.path) finds \(paths.count) files", advice: "Several files need a directory to be copied to.")
        }
        for path in paths {
            let name = Invocation.lastPart(of: path)
            let (stored, transfer) = try await fetch(path, from: files)
            let place = directory ? RemotePath.joined(target, name) : target
            let progress = ProgressLine(session.console, name + " ← store", total: nil)
            defer { progress.clear() }
            if stored["form"]?.string == "tree" {
                try await TreeDownload(session, core: core, progress: progress).fetch(stored, to: place)
            } else {
                try await FileDownload(session, core: core, progress: progress).fetch(
                    stored, to: place, mode: mode_t(truncatingIfNeeded: transfer["mode"]?.integer ?? 0o644) & 0o777,
                    modifiedNanoseconds: transfer["modified_ns"]?.integer, resumes: options.resumes)
            }
            await drop(stored["id"]?.string ?? "")
        }
    }

    /// A client's file or tree in the store, and the transfer that brought it.
    private func fetch(_ path: String, from files: ClientFiles) async throws(OperatorError) -> (JSONValue, JSONValue) {
        guard let status = try await files.status(path) else { throw OperatorError(.remoteFailure, "\(path) is not there") }
        let isTree = status["kind"]?.string == "directory"
        guard !isTree || options.isRecursive else { throw .usage("\(path) is a directory", advice: "--recursive copies it with everything in it.") }
        let form = isTree ? "tree" : "file"
        if options.resumes, let found = try await fetched(path, form, files.client) { return found }
        var group: String?
        if options.resumes {
            group = try await unfinished {
                $0["direction"]?.string == "pull" && $0["client"]?.string == files.client && $0["path"]?.string == path && $0["form"]?.string == form
            }
        }
        if group == nil {
            var body = options.members
            for key in ["mode", "modified_ns", "replace", "make_parents"] { body[key] = nil }
            body["direction"] = "pull"
            body["clients"] = [.string(files.client)]
            body["path"] = .string(path)
            body["form"] = .string(form)
            group = try await core.post("/api/v1/transfers", .object(body))["group"]?.string
        }
        let items = try await follow(group ?? "", name: Invocation.lastPart(of: path) + " → store")
        guard let transfer = items.first, let id = transfer["file"]?.string else {
            throw OperatorError(.remoteFailure, "the transfer ended without a file")
        }
        return (try await core.get("/api/v1/files/\(APIRequest.encoded(id))"), transfer)
    }

    /// What an earlier run has brought into the store already.
    private func fetched(_ path: String, _ form: String, _ client: String) async throws(OperatorError) -> (JSONValue, JSONValue)? {
        let answer = try await core.get(
            "/api/v1/transfers", query: [(name: "client", value: client), (name: "state", value: "succeeded"), (name: "limit", value: "100")])
        for transfer in answer["items"]?.array ?? [] {
            guard transfer["direction"]?.string == "pull", transfer["path"]?.string == path, transfer["form"]?.string == form,
                let id = transfer["file"]?.string
            else { continue }
            let response = try await core.transport.send(APIRequest("GET", "/api/v1/files/\(APIRequest.encoded(id))"))
            if response.status == 200, let file = try? JSONValue(parsing: response.body) { return (file, transfer) }
        }
        return nil
    }

    /// From client to client: over the store.
    func relay(_ remote: RemotePath, to target: RemotePath, into directory: Bool) async throws(OperatorError) {
        let files = try await invocation.clientFiles(remote)
        let paths = try await files.expand(remote.trimmed)
        guard paths.count == 1 || directory else {
            throw .usage("\(remote.path) finds \(paths.count) files", advice: "Several files need a directory: end the target with a slash.")
        }
        for path in paths {
            let name = Invocation.lastPart(of: path)
            let (stored, transfer) = try await fetch(path, from: files)
            var members = options.members
            if stored["form"]?.string == "file" {
                if !options.hasMode, let mode = transfer["mode"] { members["mode"] = mode }
                if let time = transfer["modified_ns"] { members["modified_ns"] = time }
            }
            let place = directory ? RemotePath.joined(target.trimmed, name) : target.trimmed
            try await send(stored, name: name, to: RemotePath(selector: target.selector, path: place), members)
        }
    }

    // MARK: Both ways

    /// The group of a transfer like this one that is not over; a paused one goes on.
    private func unfinished(_ isLike: (JSONValue) -> Bool) async throws(OperatorError) -> String? {
        for state in ["running", "waiting", "paused"] {
            let answer = try await core.get("/api/v1/transfers", query: [(name: "state", value: state), (name: "limit", value: "1000")])
            guard let found = answer["items"]?.array?.first(where: isLike), let id = found["id"]?.string else { continue }
            if state == "paused" { _ = try await core.post("/api/v1/transfers/\(APIRequest.encoded(id))/resume") }
            return found["group"]?.string
        }
        return nil
    }

    @discardableResult
    private func follow(_ group: String, name: String) async throws(OperatorError) -> [JSONValue] {
        let progress = ProgressLine(session.console, name, total: nil)
        defer { progress.clear() }
        let items = try await TransferFollowing(session, core: core, group: group, progress: progress).wait()
        transfers += items
        let failed = items.filter { $0["state"]?.string != "succeeded" }
        guard let first = failed.first else { return items }
        progress.clear()
        if items.count > 1 {
            for item in failed { session.console.complain("\(item["client"]?.string ?? ""): \(Self.reason(item))") }
            throw OperatorError(.remoteFailure, "\(failed.count) of \(items.count) clients did not get \(name)")
        }
        throw OperatorError(.remoteFailure, Self.reason(first))
    }

    private static func reason(_ item: JSONValue) -> String {
        guard let code = item["code"]?.string else { return item["state"]?.string ?? "failed" }
        return Table.printable("\(item["reason"]?.string ?? "failed") [\(code)]")
    }

    /// The copy in the store has done its work. What cannot be removed now goes by itself when its time is over.
    private func drop(_ id: String) async {
        guard !options.keeps, !id.isEmpty else { return }
        _ = try? await core.transport.send(APIRequest("DELETE", "/api/v1/files/\(APIRequest.encoded(id))"))
    }
}

extension Invocation {
    func copy() async throws(OperatorError) -> Outcome {
        var sources = operands["PATH"] ?? []
        guard sources.count > 1, let target = sources.popLast() else {
            throw .usage("cp needs a source and a target", advice: "Such as 'cmctl cp notes.txt name=web1:/tmp/'.")
        }
        let run = try CopyRun(self, try copyOptions())
        if let remote = RemotePath(target) {
            var into = remote.endsInSlash || sources.count > 1
            if !into { into = try await isClientDirectory(remote) }
            for source in sources {
                if let from = RemotePath(source) {
                    try await run.relay(from, to: remote, into: into)
                } else {
                    try await run.push(source, to: remote, into: into)
                }
            }
        } else {
            let isDirectory = (try? Files.status(target).kind) == .directory
            guard sources.count == 1 || isDirectory else { throw .usage("\(target) is no directory", advice: "Several sources need one.") }
            for source in sources {
                guard let from = RemotePath(source) else {
                    throw .usage("neither '\(source)' nor '\(target)' is a CLIENT:PATH", advice: "cp copies to, from and between clients.")
                }
                try await run.pull(from, to: target, into: isDirectory || target.hasSuffix("/"))
            }
        }
        return show(run)
    }

    private func show(_ run: CopyRun) -> Outcome {
        if session.isJSON {
            session.showRecord(["transfers": .array(run.transfers)])
        } else if flags.has("detach") {
            for transfer in run.transfers { console.print(transfer["id"]?.string ?? "") }
        }
        return .success
    }

    func copyDirect() async throws(OperatorError) -> Outcome {
        let remote = try RemotePath.required(operand("CLIENT:PATH") ?? "")
        let (from, to) = (flags.value("from"), flags.value("to"))
        guard let file = from ?? to, from == nil || to == nil else {
            throw .usage("give either --from FILE or --to FILE", advice: "The file holds the URL; - reads it from standard input.")
        }
        let words = String(decoding: try session.content(file), as: UTF8.self).split(whereSeparator: \.isWhitespace)
        guard let url = words.first, words.count == 1 else { throw .usage("\(file) does not hold one URL") }
        var given = JSONObject()
        if let text = flags.value("size") {
            guard let size = Int64(text) else { throw .usage("--size \(text): expected a whole number") }
            given["size"] = .integer(size)
        }
        if let hash = flags.value("sha256") { given["sha256"] = .string(hash) }
        let run = try CopyRun(self, try copyOptions())
        try await run.direct(remote, from == nil ? "pull" : "push", String(url), given)
        return show(run)
    }

    /// With several clients nobody knows: the path is taken as it stands.
    private func isClientDirectory(_ remote: RemotePath) async throws(OperatorError) -> Bool {
        var request = APIRequest("GET", "/api/v1/clients")
        request.query = [(name: "selector", value: remote.selector), (name: "limit", value: "2")]
        let (found, hasMore) = try await core.list(request, limit: 2)
        guard let first = found.first, let id = first["id"]?.string, found.count == 1, !hasMore, first["state"]?.string == "online" else { return false }
        return try await ClientFiles(core: core, client: id).isDirectory(remote.path)
    }

    private func copyOptions() throws(OperatorError) -> CopyRun.Options {
        var options = CopyRun.Options()
        options.isRecursive = flags.has("recursive")
        options.resumes = flags.has("resume")
        options.detaches = flags.has("detach")
        options.keeps = flags.has("keep") || flags.has("detach")
        if flags.has("no-replace") { options.members["replace"] = false }
        if flags.has("parents") { options.members["make_parents"] = true }
        if let mode = try octal("mode") {
            options.members["mode"] = .integer(mode)
            options.hasMode = true
        }
        if let links = flags.value("links") { options.members["links"] = .string(links) }
        if let rate = flags.value("rate-limit") {
            guard let number = Int64(rate) else { throw .usage("--rate-limit \(rate): expected a whole number") }
            options.members["rate_limit"] = .integer(number)
        }
        options.members["offline"] = .string(flags.value("offline") ?? "fail")
        if let within = flags.value("within") {
            guard let seconds = Self.seconds(within) else { throw .usage("--within \(within): expected a time such as 90s, 15m, 2d") }
            options.members["within_s"] = .integer(seconds)
        }
        return options
    }
}
