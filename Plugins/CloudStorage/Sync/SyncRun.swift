import JSON
import PluginKit

/// One attempt at a synchronisation, on a thread of its own: lists, plan, several copies at a time, removals last.
final class SyncRun: Sendable {
    struct Order: Sendable {
        var from: (remote: String, prefix: String)
        var to: (remote: String, prefix: String)
        var comparison: SyncPlan.Comparison
        var removes: Bool
        var isDry: Bool
        var filter: Filter
    }
    private struct Tally {
        var running = 0
        var done: [SyncPlan.Step.Act: Int] = [:]
        var same = 0
        var bytes: Int64 = 0
        var failures: [(key: String, error: CloudError)] = []
        var failed = 0
        var steps = 0
    }

    static let mostObjects = 250_000
    private static let parallel = 4

    private let cloud: Cloud
    private let order: Order
    private let from: any ObjectStore
    private let to: any ObjectStore
    private let attempt: JobAttempt
    private let cancellation: Cancellation
    private let report: Report
    private let uploads: JobUploads
    private let tally = Monitor(Tally())

    init(_ cloud: Cloud, _ remotes: Remotes, _ order: Order, _ attempt: JobAttempt, _ cancellation: Cancellation) throws(CloudError) {
        self.cloud = cloud
        self.order = order
        self.attempt = attempt
        self.cancellation = cancellation
        from = try remotes.open(order.from.remote)
        to = try remotes.open(order.to.remote)
        report = Report(cloud, job: attempt.id)
        uploads = JobUploads(cloud, remotes)
    }

    /// What the job's result says.
    func run() throws(CloudError) -> JSONObject {
        attempt.progress(0, "listing")
        try report.begin()
        let source = try objects(from, order.from.prefix)
        let target = try objects(to, order.to.prefix)
        let plan = SyncPlan(source, target, order.comparison, removes: order.removes)
        tally.update {
            $0.same = plan.same
            $0.steps = plan.steps.count
        }
        let copies = plan.steps.filter { $0.act != .remove }
        for step in copies {
            try waitForRoom(Self.parallel)
            tally.update { $0.running += 1 }
            let isTaken = cloud.movers.submit { [self] in
                let result = S3Upload.caught { () throws(CloudError) in try take(step, source[step.key], target[step.key]) }
                note(step, result)
            }
            if !isTaken {
                tally.update { $0.running -= 1 }
                try settle()
                throw CloudError(.busy, "too many copies wait")
            }
        }
        try settle()
        // Nothing is removed from a copy that is not whole.
        let removals = plan.steps.filter { $0.act == .remove }
        if tally.update({ $0.failed == 0 }) { try remove(removals) }
        try report.finish()
        return try result(left: plan.left)
    }

    private func objects(_ store: any ObjectStore, _ prefix: String) throws(CloudError) -> [String: ObjectInfo] {
        var found: [String: ObjectInfo] = [:]
        var cursor: String?
        repeat {
            let page = try Retry(attempts: 3).run(cancellation) { (_) throws(CloudError) in
                try store.list(prefix: prefix, delimiter: false, cursor: cursor, limit: 1_000, cancellation)
            }
            for object in page.objects where !object.key.hasSuffix("/") && object.key.hasPrefix(prefix) {
                let key = String(decoding: object.key.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
                guard !key.isEmpty, order.filter.takes(key) else { continue }
                found[key] = object
            }
            guard found.count <= Self.mostObjects else { throw CloudError.invalid("a tree of more than \(Self.mostObjects) objects has to be taken in parts") }
            cursor = page.next
            if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
        } while cursor != nil
        return found
    }

    private func waitForRoom(_ most: Int) throws(CloudError) {
        while tally.wait(milliseconds: 250, { $0.running < most ? true : nil }) == nil {
            if cancellation.isCancelled { break }
        }
        if cancellation.isCancelled {
            try settle()
            throw CloudError(.cancelled, "the work was called off")
        }
    }

    private func settle() throws(CloudError) {
        while tally.wait(milliseconds: 3_600_000, { $0.running == 0 ? true : nil }) == nil {}
        if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
    }

    /// What was really done: a comparison may end in nothing to do.
    private func take(_ step: SyncPlan.Step, _ source: ObjectInfo?, _ target: ObjectInfo?) throws(CloudError) -> SyncPlan.Step.Act? {
        if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
        var act = step.act
        if act == .compare, let source, let target {
            guard try hash(from, source) != hash(to, target) else { return nil }
            act = .replace
        }
        if !order.isDry {
            let mover = Mover(cloud: cloud, uploads: uploads, job: attempt.id)
            _ = try mover.move(from, order.from.prefix + step.key, to, order.to.prefix + step.key, cancellation)
        }
        return act
    }

    /// MD5 of the content: from the store where it tells it, else of what it sends.
    private func hash(_ store: any ObjectStore, _ object: ObjectInfo) throws(CloudError) -> [UInt8] {
        if let md5 = object.md5.flatMap({ Text.bytes(hex: $0) }) { return md5 }
        let sink = HashingSink(.md5)
        _ = try store.read(object.key, range: nil, into: sink, cancellation)
        return sink.finish()
    }

    private func note(_ step: SyncPlan.Step, _ result: Result<SyncPlan.Step.Act?, CloudError>) {
        switch result {
        case .success(let act?): report.add(act.rawValue, step.key, step.size, nil)
        case .success(nil): break
        case .failure(let error): report.add("failed", step.key, step.size, error.detail)
        }
        let (done, all) = tally.update { tally in
            tally.running -= 1
            switch result {
            case .success(let act?):
                tally.done[act, default: 0] += 1
                tally.bytes += step.size
            case .success(nil): tally.same += 1
            case .failure(let error):
                tally.failed += 1
                if tally.failures.count < 20 { tally.failures.append((step.key, error)) }
            }
            return (tally.done.values.reduce(0, +) + tally.failed, tally.steps)
        }
        if all > 0 { attempt.progress(UInt32(min(1_000, done * 1_000 / all)), step.key) }
    }

    private func remove(_ steps: [SyncPlan.Step]) throws(CloudError) {
        var index = 0
        while index < steps.count {
            if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
            let batch = steps[index..<min(index + 1_000, steps.count)]
            index += batch.count
            let faults = order.isDry ? [] : try to.remove(batch.map { order.to.prefix + $0.key }, cancellation)
            let failed = Dictionary(faults.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
            for step in batch {
                if let fault = failed[order.to.prefix + step.key] {
                    report.add("failed", step.key, step.size, "\(fault.code) \(fault.message)")
                    tally.update { tally in
                        tally.failed += 1
                        if tally.failures.count < 20 { tally.failures.append((step.key, CloudError(.refused, "\(fault.code) \(fault.message)"))) }
                    }
                } else {
                    report.add(SyncPlan.Step.Act.remove.rawValue, step.key, step.size, nil)
                    tally.update { $0.done[.remove, default: 0] += 1 }
                }
            }
        }
    }

    private func result(left: Int) throws(CloudError) -> JSONObject {
        let tally = tally.update { $0 }
        let json: JSONObject = [
            "dry_run": .bool(order.isDry), "copied": .integer(Int64(tally.done[.copy] ?? 0)), "replaced": .integer(Int64(tally.done[.replace] ?? 0)),
            "removed": .integer(Int64(tally.done[.remove] ?? 0)), "same": .integer(Int64(tally.same)), "left": .integer(Int64(left)),
            "bytes": .integer(tally.bytes), "failed": .integer(Int64(tally.failed)), "report": .string("/api/v1/cloud/reports/" + attempt.id),
        ]
        guard tally.failed > 0 else { return json }
        for failure in tally.failures { attempt.log("\(failure.key): \(failure.error.detail)") }
        let first = tally.failures.first
        var error = first?.error ?? CloudError(.refused, "")
        error.text = "\(tally.failed) of \(tally.steps) could not be done; the first is \"\(first?.key ?? "")\": \(error.text)"
        throw error
    }
}
