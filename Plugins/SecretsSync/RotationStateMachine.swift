/// A rotation in two phases: the new version is placed beside the current one until enough clients have shown it, then takes its
/// place; the old one stays beside it for a while. Whatever goes wrong before that leads back to the old one.
///
/// A value without I/O: it is told how things stand and says what to do.
struct RotationStateMachine: Sendable, Equatable {
    enum Phase: String, Sendable {
        /// Placed beside the current one.
        case staging
        /// It is the current one; clients are to show it at its path.
        case switching
        /// Done but for the old one, which stays beside it.
        case overlap
        /// The old one is current again; clients are to show it.
        case returning
        case succeeded, failed
    }

    enum Action: Sendable, Equatable {
        /// The new version is wanted beside the current one.
        case stage
        /// The new version becomes current, the old one is kept beside it.
        case takeOver
        /// The old version becomes current again, nothing stands beside it.
        case goBack
        /// Nothing stands beside the current one any more.
        case retire
        /// A phase has begun in which there is nothing to do but to remember it.
        case record
        case finish
    }

    struct Rule: Sendable, Equatable {
        /// Of 100 files, how many must have shown the new version in each phase.
        var percent = 100
        /// Of each phase.
        var timeoutMilliseconds: UInt64 = 600_000
        var overlapMilliseconds: UInt64 = 0
        /// Clients that are not there count as well: the rotation waits for them.
        var countsOffline = false
    }

    let rule: Rule
    private(set) var phase: Phase
    private(set) var since: UInt64
    /// Why it went back.
    private(set) var code = ""
    private(set) var reason = ""

    /// How long clients may take to show the old version again before the job ends without them.
    static let returnMilliseconds: UInt64 = 60_000

    init(_ rule: Rule, now: UInt64) { (self.rule, phase, since) = (rule, .staging, now) }

    init(_ rule: Rule, phase: Phase, since: UInt64, code: String, reason: String) {
        (self.rule, self.phase, self.since, self.code, self.reason) = (rule, phase, since, code, reason)
    }

    var isOver: Bool { phase == .succeeded || phase == .failed }

    /// What makes the present phase true again after a restart.
    var entry: Action? {
        switch phase {
        case .staging: .stage
        case .switching, .overlap: .takeOver
        case .returning: .goBack
        case .succeeded, .failed: nil
        }
    }

    /// `standing` is that of the new version in its place of this phase; while returning, that of the old one.
    mutating func look(_ standing: Standing, now: UInt64) -> Action? {
        switch phase {
        case .staging:
            return judge(standing, now) { rotation in
                rotation.enter(.switching, now)
                return .takeOver
            }
        case .switching:
            return judge(standing, now) { rotation in
                rotation.enter(.overlap, now)
                return rotation.endOverlap(now) ?? .record
            }
        case .overlap: return endOverlap(now)
        case .returning:
            guard standing.waiting == 0 || now >= since + Self.returnMilliseconds else { return nil }
            enter(.failed, now)
            return .finish
        case .succeeded, .failed: return nil
        }
    }

    /// An operator ends it: back to the old version, or, when the new one has proven itself, only the overlap ends.
    mutating func cancel(now: UInt64) -> Action? {
        switch phase {
        case .staging, .switching: goBack("rotation-cancelled", "it was cancelled", now)
        case .overlap: retire(now)
        case .returning, .succeeded, .failed: nil
        }
    }

    private mutating func enter(_ phase: Phase, _ now: UInt64) {
        self.phase = phase
        since = now
    }

    private mutating func judge(_ standing: Standing, _ now: UInt64, _ go: (inout RotationStateMachine) -> Action?) -> Action? {
        let counted = rule.countsOffline ? standing.total : standing.total - standing.offline
        let needed = (counted * rule.percent + 99) / 100
        // Nobody is to have it: there is nothing to prove. Somebody is, and nobody is there: wait.
        if standing.total == 0 || (counted > 0 && standing.applied >= needed) {
            return go(&self)
        }
        if counted > 0, counted - standing.failed < needed {
            return goBack("rotation-failed", "\(standing.failed) of \(counted) files failed; \(needed) had to show it in phase \(phase.rawValue)", now)
        }
        guard now >= since + rule.timeoutMilliseconds else { return nil }
        return goBack(
            "rotation-timeout", "\(standing.applied) of \(counted) files showed it in time, \(needed) were needed in phase \(phase.rawValue)", now)
    }

    private mutating func goBack(_ code: String, _ reason: String, _ now: UInt64) -> Action {
        (self.code, self.reason) = (code, reason)
        enter(.returning, now)
        return .goBack
    }

    private mutating func endOverlap(_ now: UInt64) -> Action? {
        now >= since + rule.overlapMilliseconds ? retire(now) : nil
    }

    private mutating func retire(_ now: UInt64) -> Action {
        enter(.succeeded, now)
        return .retire
    }
}
