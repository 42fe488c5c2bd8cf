import JSON
import PluginKit

/// One attempt at a synchronisation, on a thread of its own: lists, plan, several copies at a time, removals last.
final class SyncRun: Sendable {
    struct Order: Sendable {
        var from: SyncPlace
        var to: SyncPlace
        var comparison: SyncPlan.Comparison
        var removes: Bool
        var isDry: Bool
        var filter: Filter
    }
    private struct Tally {
        var running = 0
        var done: [SyncPlan.Step.Act: Int] = [:]
        var same = 0
        var skipped = 0
        var bytes: Int64 = 0
        var failures: [(key: String, error: CloudError)] = []
        var failed = 0
        var steps = 0
    }

    static let mostObjects = 250_000
    static var tooLarge: CloudError { .invalid("a tree of more than \(mostObjects) objects has to be taken in parts") }
    private static let parallel = 4

    private let cloud: Cloud
    private let order: Order
    private let from: any SyncSide
    private let to: any SyncSide
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
        from = try order.from.side(cloud, remotes, attempt)
        to = try order.to.side(cloud, remotes, attempt)
        report = Report(cloud, job: attempt.id)
        uploads = JobUploads(cloud, remotes)
    }

    /// What the job's result says. What lies in the core's store on its way stays there for an attempt that goes on, and for no other.
    func run() throws(CloudError) -> JSONObject {
        do throws(CloudError) {
            let result = try compareAndMove()
            FileLedger.dropAll(cloud, of: attempt.id, as: .job(attempt))
            return result
        } catch {
            let goesOn = error.isPassing || error.kind == .cancelled && !attempt.isUnwanted(cloud)
            if !goesOn { FileLedger.dropAll(cloud, of: attempt.id, as: .job(attempt)) }
            throw error
        }
    }

    private func compareAndMove() throws(CloudError) -> JSONObject {
        attempt.progress(0, "listing")
        try report.begin()
        var source = try from.tree(order.filter, isTarget: false, cancellation)
        let target = try to.tree(order.filter, isTarget: true, cancellation)
        skip(source.obstacles)
        skip(target.obstacles)
        refuse(&source, target)
        let plan = SyncPlan(source.objects, target.objects, order.comparison, removes: order.removes)
        tally.update {
            $0.same = plan.same
            $0.steps += plan.steps.count
        }
        try copy(plan, source, target)
        // Nothing is removed from a copy that is not whole.
        let removals = plan.steps.filter { $0.act == .remove }
        if tally.update({ $0.failed == 0 }), !removals.isEmpty {
            try remove(removals)
            try tidy(removals, source, target)
        }
        try report.finish()
        return try result(left: plan.left)
    }

    /// What is neither a file nor a directory takes no part.
    private func skip(_ obstacles: [String: String]) {
        for key in obstacles.keys.sorted() where order.filter.takes(key) {
            report.add("skip", key, 0, obstacles[key])
            tally.update { $0.skipped += 1 }
        }
    }

    /// What cannot be where it is to go, by its name, or would go through a link there.
    private func refuse(_ source: inout SyncTree, _ target: SyncTree) {
        let folders = order.to.isClient ? source.folders : [:]
        var refused: [(key: String, size: Int64, reason: String)] = folders.map { ($0.key, $0.value, "its key ends with a slash, and it has content") }
        for (key, object) in source.objects {
            if let fault = to.fault(of: key) {
                refused.append((key, object.size, fault))
            } else if let above = (SyncTree.above(key) + [key]).first(where: { target.obstacles[$0] != nil }) {
                refused.append((key, object.size, "\"\(above)\" is \(target.obstacles[above] ?? "") on the client, and is not replaced"))
            }
        }
        for one in refused.sorted(by: { $0.key < $1.key }) {
            source.objects[one.key] = nil
            fail(one.key, one.size, CloudError(.invalid, "refused: \(one.reason)"))
        }
        tally.update { $0.steps += refused.count }
    }

    private func copy(_ plan: SyncPlan, _ source: SyncTree, _ target: SyncTree) throws(CloudError) {
        for step in plan.steps where step.act != .remove {
            try waitForRoom(Self.parallel)
            tally.update { $0.running += 1 }
            let isTaken = cloud.movers.submit { [self] in
                let result = S3Upload.caught { () throws(CloudError) in try take(step, source.objects[step.key], target.objects[step.key]) }
                note(step, result)
            }
            if !isTaken {
                tally.update { $0.running -= 1 }
                try settle()
                throw CloudError(.busy, "too many copies wait")
            }
        }
        try settle()
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
            // One that a list tells already is got for the other side alone.
            let algorithm: Digest.Algorithm = source.md5 != nil || target.md5 != nil ? .md5 : .sha256
            guard try from.hash(source, algorithm, cancellation) != to.hash(target, algorithm, cancellation) else { return nil }
            act = .replace
        }
        if !order.isDry, let source { try move(source, step.key) }
        return act
    }

    private func move(_ source: ObjectInfo, _ key: String) throws(CloudError) {
        let mover = Mover(cloud: cloud, uploads: uploads, job: attempt.id)
        let hops = ClientMover(cloud: cloud, mover: mover, attempt: attempt, cancellation: cancellation)
        switch (from, to) {
        case (let from as RemoteSide, let to as RemoteSide):
            _ = try mover.move(from.store, source.key, to.store, to.prefix + key, cancellation)
        case (let from as ClientSide, let to as RemoteSide):
            _ = try hops.up(source, of: from.client, to.store, to.prefix + key)
        case (let from as RemoteSide, let to as ClientSide):
            _ = try hops.down(source, from.store, to: to.client, to.path(of: key))
        default: throw .invalid("one of \"from\" and \"to\" is in a remote")
        }
    }

    private func note(_ step: SyncPlan.Step, _ result: Result<SyncPlan.Step.Act?, CloudError>) {
        switch result {
        case .success(let act?): report.add(act.rawValue, step.key, step.size, nil)
        case .success(nil): break
        case .failure(let error): fail(step.key, step.size, error)
        }
        let (done, all) = tally.update { tally in
            tally.running -= 1
            switch result {
            case .success(let act?):
                tally.done[act, default: 0] += 1
                tally.bytes += step.size
            case .success(nil): tally.same += 1
            case .failure: break
            }
            return (tally.done.values.reduce(0, +) + tally.failed, tally.steps)
        }
        if all > 0 { attempt.progress(UInt32(min(1_000, done * 1_000 / all)), step.key) }
    }

    private func fail(_ key: String, _ size: Int64, _ error: CloudError) {
        report.add("failed", key, size, error.detail)
        tally.update { tally in
            tally.failed += 1
            if tally.failures.count < 20 { tally.failures.append((key, error)) }
        }
    }

    private func remove(_ steps: [SyncPlan.Step]) throws(CloudError) {
        var index = 0
        while index < steps.count {
            if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
            let batch = steps[index..<min(index + 1_000, steps.count)]
            index += batch.count
            let faults = order.isDry ? [] : try to.remove(batch.map(\.key), cancellation)
            let failed = Dictionary(faults.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
            for step in batch {
                if let fault = failed[step.key] {
                    fail(step.key, step.size, CloudError(.refused, "\(fault.code) \(fault.message)"))
                } else {
                    report.add(SyncPlan.Step.Act.remove.rawValue, step.key, step.size, nil)
                    tally.update { $0.done[.remove, default: 0] += 1 }
                }
            }
        }
    }

    /// Directories of a client that held something and hold nothing any more.
    private func tidy(_ removals: [SyncPlan.Step], _ source: SyncTree, _ target: SyncTree) throws(CloudError) {
        guard order.to.isClient, tally.update({ $0.failed == 0 }) else { return }
        let empty = target.emptied(Set(removals.map(\.key)), coming: source.objects.keys)
        for key in empty { report.add("remove-directory", key, 0, nil) }
        if !order.isDry { try to.removeDirectories(empty, cancellation) }
    }

    private func result(left: Int) throws(CloudError) -> JSONObject {
        let tally = tally.update { $0 }
        let json: JSONObject = [
            "dry_run": .bool(order.isDry), "copied": .integer(Int64(tally.done[.copy] ?? 0)), "replaced": .integer(Int64(tally.done[.replace] ?? 0)),
            "removed": .integer(Int64(tally.done[.remove] ?? 0)), "same": .integer(Int64(tally.same)), "left": .integer(Int64(left)), "skipped": .integer(Int64(tally.skipped)),
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
