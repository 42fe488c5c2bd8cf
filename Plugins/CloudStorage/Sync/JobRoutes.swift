import JSON
import PluginKit

/// `/api/v1/cloud/sync` and `/copy`: long work, as jobs. The rights on the remotes are checked here, before the job is put in.
struct JobRoutes {
    let cloud: Cloud
    let remotes: Remotes
    let dispatch: Dispatch
    let grants: Grants
    private static let base = "/api/v1/cloud"

    func add() throws(PluginError) {
        let (cloud, remotes, grants) = (cloud, remotes, grants)
        try dispatch.add(
            Route(
                .post, Self.base + "/sync", right: "cloud.use",
                summary: "Makes a tree of a remote or a client like one of a remote, or a remote's like a client's: copies what is new or differs. A job.", operation: Operations.sync),
            in: cloud.calls
        ) { request, body throws(CloudError) in
            var json = try Body.object(body, ["from", "to", "compare", "delete", "dry_run", "include", "exclude"])
            let isDry = try Remote.flag(json, "dry_run") ?? false
            let order = try Self.order(json)
            try Self.judge(request, remotes, order.from, writes: false, isDry: isDry)
            try Self.judge(request, remotes, order.to, writes: true, isDry: isDry)
            json = grants.sealed(json, for: request.actor)
            try cloud.record(
                "cloud.sync", as: .request(request), order.to.text,
                detail: ["from": .string(order.from.text), "delete": .bool(order.removes), "dry_run": .bool(isDry)])
            let job: JSONObject = ["kind": "cloud.sync", "arguments": .object(json)]
            let id = try CloudError.kept { () throws(PluginError) in try cloud.host.jobs().submit(job, as: .request(request)) }
            return { (flow) throws(CloudError) in flow.request.respond(202, json: ["job": .string(id)] as JSONObject) }
        }
        try dispatch.add(
            Route(
                .post, Self.base + "/copy", right: "cloud.use", summary: "Copies one object from remote to remote, or a file of the core's store or of a client to a remote, or back. A job.", operation: Operations.copyJob),
            in: cloud.calls
        ) { request, body throws(CloudError) in
            var json = try Body.object(body, ["from", "to", "way", "verify"])
            let copy = try CopyRun(cloud, remotes, json)
            switch copy.from {
            case .object(let remote, _): _ = try Access.remote(request, remotes, .read, named: remote)
            // The core says whether this is one of the asker's, now and when the job runs.
            case .file(let id): _ = try CloudError.kept { () throws(PluginError) in try cloud.host.files().get(id, as: .request(request)) }
            case .client(let id, _): guard request.may("transfer.create", client: id) else { throw Access.forbidden("transfer.create") }
            }
            if case .client(let id, _) = copy.to, !request.may("transfer.create", client: id) { throw Access.forbidden("transfer.create") }
            if case .object(let remote, _) = copy.to { _ = try Access.remote(request, remotes, .write, named: remote) }
            json = grants.sealed(json, for: request.actor)
            try cloud.record("cloud.copy", as: .request(request), copy.to.text, detail: ["from": .string(copy.from.text)])
            let job: JSONObject = ["kind": "cloud.copy", "arguments": .object(json)]
            let id = try CloudError.kept { () throws(PluginError) in try cloud.host.jobs().submit(job, as: .request(request)) }
            return { (flow) throws(CloudError) in flow.request.respond(202, json: ["job": .string(id)] as JSONObject) }
        }
        try addReports()
        try addKinds()
    }

    private func addReports() throws(PluginError) {
        let cloud = cloud
        try dispatch.add(
            Route(
                .get, Self.base + "/reports/{job}", right: "cloud.use", summary: "What a synchronisation did, as JSON lines; for whose job it is.",
                operation: Operations.report), in: cloud.streams
        ) { request, _ throws(CloudError) in
            let job = request.parameter("job") ?? ""
            // Whoever may see the job may see what it did.
            _ = try CloudError.kept { () throws(PluginError) in try cloud.host.jobs().get(job, as: .request(request)) }
            let size = try CloudError.kept { () throws(PluginError) in try cloud.store.size(Report.name(job)) }
            guard let size else { throw CloudError(.notFound, "job \"\(job.prefix(64))\" has no report") }
            return { (flow) throws(CloudError) in
                try flow.begin(200, headers: [("content-type", "application/jsonl")], length: Int64(size))
                var offset: UInt64 = 0
                while offset < size {
                    let piece = try CloudError.kept { () throws(PluginError) in try cloud.store.read(Report.name(job), from: offset, limit: 256 << 10) }
                    guard !piece.isEmpty else { throw CloudError(.internal, "the report ends early") }
                    let taken = Array(piece.prefix(Int(size - offset)))
                    try flow.write(taken)
                    offset += UInt64(taken.count)
                }
                flow.request.end()
            }
        }
    }

    // MARK: Kinds

    private func addKinds() throws(PluginError) {
        let (cloud, remotes, grants) = (cloud, remotes, grants)
        let running = Attempts()
        let jobs = try cloud.host.jobs()
        var sync = JobKind("cloud.sync", summary: "Makes a tree of a remote, or of a client, like another one.", .idempotent)
        sync.concurrency = 4
        sync.timeoutSeconds = 86_400
        sync.retry = (attempts: 3, firstSeconds: 10, longestSeconds: 300)
        try jobs.kind(sync, cancel: { running.cancel($0) }) { attempt in
            running.run(attempt, cloud) { (cancellation) throws(CloudError) in
                let order = try Self.order(try grants.check(attempt))
                return try SyncRun(cloud, remotes, order, attempt, cancellation).run()
            }
        }
        var copy = JobKind("cloud.copy", summary: "Copies an object or a stored file from one place to another.", .idempotent)
        copy.concurrency = 8
        copy.timeoutSeconds = 86_400
        copy.retry = (attempts: 3, firstSeconds: 10, longestSeconds: 300)
        try jobs.kind(copy, cancel: { running.cancel($0) }) { attempt in
            running.run(attempt, cloud) { (cancellation) throws(CloudError) in
                try CopyRun(cloud, remotes, try grants.check(attempt)).run(attempt, cancellation)
            }
        }
    }

    // MARK: Reading

    /// Who asks may do on a client what the job does there: the core asks again, each time. A dry run only looks.
    private static func judge(
        _ request: Request, _ remotes: Remotes, _ place: SyncPlace, writes: Bool, isDry: Bool
    ) throws(CloudError) {
        switch place {
        case .remote(let name, _): _ = try Access.remote(request, remotes, writes && !isDry ? .write : .read, named: name)
        case .client(let id, _):
            let rights = ["file.read"] + (isDry ? [] : ["transfer.create"]) + (isDry || !writes ? [] : ["file.write"])
            for right in rights where !request.may(right, client: id) { throw Access.forbidden(right) }
        }
    }

    static func part(_ json: JSONObject, _ name: String, _ members: Set<String>) throws(CloudError) -> JSONObject {
        guard let object = json[name]?.object else { throw .invalid("\"\(name)\" must be an object") }
        for member in object where !members.contains(member.key) { throw .invalid("\"\(name)\" has no member \"\(member.key.prefix(64))\"") }
        return object
    }

    static func object(_ json: JSONObject, _ name: String) throws(CloudError) -> (remote: String, key: String) {
        let object = try part(json, name, ["remote", "key"])
        let key = try Body.text(object, "key")
        try Keys.check(key)
        return (try Body.text(object, "remote"), key)
    }

    static func order(_ json: JSONObject) throws(CloudError) -> SyncRun.Order {
        let word = try Remote.text(json, "compare") ?? "time"
        guard let comparison = SyncPlan.Comparison(rawValue: word) else { throw .invalid("\"compare\" is \"time\", \"size\" or \"hash\"") }
        func patterns(_ name: String) throws(CloudError) -> [String] {
            guard let value = json[name] else { return [] }
            guard let texts = value.array?.compactMap(\.string), texts.count == value.array?.count, texts.count <= 100, texts.allSatisfy({ $0.utf8.count <= 512 }) else {
                throw .invalid("\"\(name)\" must be at most 100 texts of at most 512 bytes")
            }
            return texts
        }
        let (from, to) = (try SyncPlace(json, "from"), try SyncPlace(json, "to"))
        guard !from.isClient || !to.isClient else { throw .invalid("one of \"from\" and \"to\" is in a remote") }
        guard !from.overlaps(to) else { throw .invalid("one tree must not lie in the other") }
        return SyncRun.Order(
            from: from, to: to, comparison: comparison, removes: try Remote.flag(json, "delete") ?? false,
            isDry: try Remote.flag(json, "dry_run") ?? false, filter: Filter(include: try patterns("include"), exclude: try patterns("exclude")))
    }
}

/// Attempts at jobs that run, so that they can be called off.
final class Attempts: Sendable {
    private let running = Monitor<[UInt64: Cancellation]>([:])

    func cancel(_ handle: UInt64) { running.update { $0[handle] }?.cancel() }

    func run(_ attempt: JobAttempt, _ cloud: Cloud, _ work: @escaping @Sendable (Cancellation) throws(CloudError) -> JSONObject) {
        let cancellation = Cancellation(under: cloud.stopping)
        running.update { $0[attempt.handle] = cancellation }
        let isTaken = cloud.streams.submit { [self] in
            do throws(CloudError) {
                attempt.succeed(.object(try work(cancellation)))
            } catch {
                let (code, reason) = (error.code, String(decoding: error.detail.utf8.prefix(1_000), as: UTF8.self))
                if error.isPassing || error.kind == .cancelled { attempt.fail(code, reason) } else { attempt.die(code, reason) }
            }
            running.update { $0[attempt.handle] = nil }
        }
        guard !isTaken else { return }
        running.update { $0[attempt.handle] = nil }
        attempt.fail(CloudError.Kind.busy.rawValue, "the cloud plugin has too much to do")
    }
}
