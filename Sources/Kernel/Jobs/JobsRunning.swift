import JSON
import Reactor
import System

/// From waiting to running and back: claims, time-outs, what a restart finds.
extension Jobs {
    /// Takes up or gives up what ran when the core went away, then runs what is due until `stop`. All kinds of the core
    /// are registered by then; those of plugins come when they come.
    public func start(on loop: EventLoop) {
        state.withLock { $0.loop = loop }
        loop.spawn { await self.run(on: loop) }
    }

    /// No new attempts. What runs is found by the next start.
    public func stop() {
        state.withLock { $0.isStopped = true }
        wakeup.signal()
    }

    var isStopped: Bool { state.withLock { $0.isStopped } }

    private func run(on loop: EventLoop) async {
        while !isStopped {
            do throws(Problem) {
                try await recover()
                break
            } catch {
                report(error)
                await wakeup.wait(milliseconds: 1_000, on: loop)
            }
        }
        var sweptAt: UInt64 = 0
        while !isStopped {
            var pause: UInt64 = 1_000
            do throws(Problem) {
                pause = try await turn()
                if now() >= sweptAt + 60_000 {
                    try await sweep()
                    sweptAt = now()
                }
            } catch {
                report(error)
            }
            guard !isStopped else { return }
            await wakeup.wait(milliseconds: max(pause, 1), on: loop)
        }
    }

    /// What ran when the last core ended: kinds whose work goes on elsewhere take it up again, the rest was interrupted.
    func recover() async throws(Problem) {
        let limits = limits
        let found = try await store.read { (reader) throws(StoreError) in
            var query = JobRows.select()
            query.and("state = 'running'")
            return try JobRows.all(query, reader, limits)
        }
        for job in found {
            let (kind, isHeld) = state.withLock { ($0.kinds[job.kind], $0.running[job.id] != nil) }
            guard !isHeld else { continue }
            if let kind, kind.reattach != nil {
                begin(job, kind, isAgain: true)
                if job.machine.isCancelRequested, let running = askToEnd(job.id, now()) { running.kind.cancel(running.lease) }
            } else {
                let lease = lease(job, endsBy: 0)
                try await settleOrThrow(
                    lease, .interrupted(reason: "the core ended while attempt \(job.machine.attempt) ran"))
            }
        }
    }

    /// One look at everything that time or news make due.
    /// - Returns: milliseconds until the next one is needed.
    func turn() async throws(Problem) -> UInt64 {
        await endOverdue()
        let now = now()
        let (isDue, free, left): (Bool, [(kind: String, places: Int)], Int) = state.withLock { state in
            state.earlyCancels = []
            var busy: [String: Int] = [:]
            for running in state.running.values { busy[running.lease.kind, default: 0] += 1 }
            var free: [(kind: String, places: Int)] = []
            for kind in state.kinds.values {
                let places = min(kind.concurrency - busy[kind.name, default: 0], Self.claimsOfOneKind)
                if places > 0 { free.append((kind.name, places)) }
            }
            let isDue = state.hasNews || state.nextDue <= now
            state.hasNews = false
            return (isDue, free, max(0, limits.runningAttempts - state.running.count))
        }
        if isDue {
            do throws(Problem) {
                // In another order each time: when the places of all together are few, no kind always comes last.
                try await claim(free.sorted { $0.kind < $1.kind }, from: Int(clamping: random() >> 33), left, now)
            } catch {
                state.withLock { $0.hasNews = true }
                throw error
            }
        }
        return state.withLock { state in
            guard !state.hasNews else { return 0 }
            var next = min(state.nextDue, now + 60_000)
            for running in state.running.values {
                next = min(next, running.endAsked?.fencedAt ?? running.lease.endsBy)
            }
            return next > now ? next - now : 0
        }
    }

    /// In one turn.
    private static let claimsOfOneKind = 64

    /// - Parameter left: places for attempts of all kinds together.
    private func claim(
        _ free: [(kind: String, places: Int)], from first: Int, _ left: Int, _ now: UInt64
    ) async throws(Problem) {
        let limits = limits
        let chance = chance()
        // What is made from here on lowers it again.
        state.withLock { $0.nextDue = .max }
        killPoint("job.claim.before")
        let (claimed, expired, next) = try await store.write {
            (transaction) throws(StoreError) -> ([Job], [Job], UInt64) in
            try transaction.run(
                """
                UPDATE jobs SET ready = 1
                WHERE state = 'waiting' AND ready = 0 AND waits_for_children = 0 AND due_ms <= ?
                """, now)
            var query = JobRows.select()
            query.and("state = 'waiting' AND deadline_ms IS NOT NULL AND deadline_ms <= ?", .integer(Int64(clamping: now)))
            query.append(" LIMIT 256")
            var expired: [Job] = []
            for var job in try JobRows.all(query, transaction, limits)
            where job.machine.apply(.deadlinePassed, now: now, random: chance) {
                try Self.save(job, now: now, transaction, limits)
                expired.append(job)
            }
            var claimed: [Job] = []
            for index in free.indices where claimed.count < left {
                let (kind, places) = free[(index + first) % free.count]
                var query = JobRows.select()
                query.and("ready = 1 AND kind = ?", .text(kind))
                query.append(
                    " ORDER BY priority DESC, due_ms, id LIMIT ?", .integer(Int64(min(places, left - claimed.count))))
                for var job in try JobRows.all(query, transaction, limits) {
                    let fence = try JobRows.nextFence(transaction)
                    guard job.machine.apply(.started(fence: fence), now: now, random: chance) else { continue }
                    try JobRows.save(job, now: now, transaction)
                    claimed.append(job)
                }
            }
            let due = try transaction.first(
                "SELECT min(due_ms) FROM jobs WHERE state = 'waiting' AND ready = 0 AND waits_for_children = 0"
            ) { (row) throws(StoreError) in row.optionalUnsigned(0) } ?? nil
            let deadline = try transaction.first(
                "SELECT min(deadline_ms) FROM jobs WHERE state = 'waiting' AND deadline_ms IS NOT NULL"
            ) { (row) throws(StoreError) in row.optionalUnsigned(0) } ?? nil
            return (claimed, expired, min(due ?? .max, deadline ?? .max))
        }
        killPoint("job.claim.after")
        state.withLock { state in
            state.nextDue = min(state.nextDue, next)
            // There may be more of its kind.
            if claimed.count >= Self.claimsOfOneKind { state.hasNews = true }
        }
        for job in expired { ended(job) }
        for job in claimed {
            guard let kind = state.withLock({ $0.kinds[job.kind] }) else {
                await settle(lease(job, endsBy: 0), .notBegun(reason: "its kind went away"))
                continue
            }
            do throws(Problem) {
                try owners.require(kind.rights, job.owner, for: kind.name, correlation: job.id.description)
            } catch {
                await settle(lease(job, endsBy: 0), .failed(code: error.code, reason: error.detail, again: .never))
                continue
            }
            begin(job, kind, isAgain: false)
            tellState(job)
        }
    }

    func lease(_ job: Job, endsBy: UInt64) -> JobLease {
        JobLease(
            job: job.id, kind: job.kind, attempt: job.machine.attempt, fence: job.machine.fence,
            arguments: (try? JSONValue(parsing: job.arguments)) ?? [:], checkpoint: job.checkpoint, owner: job.owner,
            correlation: job.correlation, begunAt: job.machine.startedAt ?? 0, endsBy: endsBy)
    }

    private func begin(_ job: Job, _ kind: JobKind, isAgain: Bool) {
        let endsBy = min((job.machine.startedAt ?? now()) + job.timeoutMilliseconds, job.machine.deadline ?? .max)
        let lease = lease(job, endsBy: endsBy)
        let now = now()
        let (loop, isCancelled) = state.withLock { state in
            var running = Running(lease: lease, kind: kind, deadline: job.machine.deadline)
            // Whoever cancels it from here on finds it among those that run.
            let isCancelled = state.earlyCancels.remove(job.id) != nil
            if isCancelled { running.endAsked = ("cancelled", now + kind.cancelGraceMilliseconds) }
            state.running[job.id] = running
            return (state.loop, isCancelled)
        }
        defer { if isCancelled { kind.cancel(lease) } }
        killPoint("job.begin.before")
        switch kind.work {
        case .delegated(let start): start(lease)
        case .task(let work):
            guard let loop = loop ?? EventLoop.current else { return }
            loop.spawn {
                if !isAgain {
                    await self.finishSurely(lease, await work(lease), on: loop)
                } else if let outcome = await kind.reattach?(lease) {
                    await self.finishSurely(lease, outcome, on: loop)
                } else {
                    await self.settle(
                        lease, .interrupted(reason: "the core ended while attempt \(lease.attempt) ran"))
                }
            }
        }
    }

    /// Asks attempts whose time is over to end; fences those that were asked and did not.
    private func endOverdue() async {
        let now = now()
        var ask: [Running] = []
        var fence: [Running] = []
        state.withLock { state in
            for (id, running) in state.running {
                if let asked = running.endAsked {
                    if asked.fencedAt <= now { fence.append(running) }
                } else if running.lease.endsBy <= now {
                    let code = (running.deadline ?? .max) <= now ? "deadline-passed" : "timed-out"
                    state.running[id]?.endAsked = (code, now + running.kind.cancelGraceMilliseconds)
                    ask.append(running)
                }
            }
        }
        for running in ask { running.kind.cancel(running.lease) }
        for running in fence {
            await settle(running.lease, Self.event(running.endAsked?.code ?? "", .cancelled, answered: false))
        }
    }

    /// What an outcome means for an attempt that was asked to end for this reason.
    static func event(_ asked: String, _ outcome: JobOutcome, answered: Bool) -> JobStateMachine.Event {
        switch outcome {
        case .succeeded: return .succeeded
        case .failed(let code, let reason, let again): return .failed(code: code, reason: reason, again: again)
        case .notBegun(let reason): return .notBegun(reason: reason)
        case .afterChildren: return .afterChildren
        case .cancelled:
            switch asked {
            case "timed-out":
                let reason = "the attempt took longer than its time-out" + (answered ? "" : " and did not end when asked to")
                return .failed(code: "timed-out", reason: reason, again: .ifIdempotent)
            case "deadline-passed": return .deadlinePassed
            default: return .cancelled
            }
        }
    }

    /// A full or broken disk delays the record of an end, it does not lose it while this process lives.
    private func finishSurely(_ lease: JobLease, _ outcome: JobOutcome, on loop: EventLoop) async {
        while !isStopped {
            do throws(Problem) {
                try await finish(lease, outcome)
                return
            } catch {
                guard error.code != "job-fenced" else { return }
                report(error)
                await loop.sleep(milliseconds: 1_000)
            }
        }
    }

    /// Ends an attempt from the core's side; one that has ended already is left alone.
    func settle(_ lease: JobLease, _ event: JobStateMachine.Event) async {
        do throws(Problem) {
            try await settleOrThrow(lease, event)
        } catch {
            if error.code != "job-fenced" { report(error) }
        }
    }

    private func settleOrThrow(_ lease: JobLease, _ event: JobStateMachine.Event) async throws(Problem) {
        do throws(Problem) {
            _ = try await end(lease, event, result: nil) { (_) throws(StoreError) in }
        } catch {
            guard error.code == "job-fenced" else { throw error }
        }
    }
}
