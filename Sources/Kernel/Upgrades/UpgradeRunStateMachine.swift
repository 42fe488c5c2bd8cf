import AgentProtocol

/// One upgrade while it runs, as a value: whose turn it is, who has been silent for too long, when it is over. Waves,
/// places and tolerated failures are those of `RolloutStateMachine`. Times in Unix milliseconds.
struct UpgradeRunStateMachine: Sendable {
    struct Target: Sendable {
        let client: ClientID
        var machine = UpgradeTargetStateMachine()
        /// It holds a place: since when it has had its turn, and waits for its client.
        var dueAt: UInt64?
    }

    struct Limits: Sendable, Equatable {
        /// How long an absent client is waited for when its turn has come.
        var waitMilliseconds: UInt64
        /// How long a client that has the order may say nothing.
        var answerMilliseconds: UInt64
    }

    private(set) var targets: [Target]
    private var places: [ClientID: Int] = [:]
    private var rollout: RolloutStateMachine
    private let limits: Limits
    /// Targets that hold a place.
    private var active: Set<Int> = []
    private(set) var open: Int
    private var changed: Set<Int> = []
    var isPaused = false
    /// Why nobody else gets a turn; `nil`: they do.
    private(set) var stopCode: String?

    /// - Parameter targets: in the order of their turns, as they stand.
    init(
        _ targets: [Target], parallel: Int?, waves: [Int], failures: Int?, limits: Limits
    ) {
        self.targets = targets
        self.limits = limits
        rollout = RolloutStateMachine(count: targets.count, concurrency: parallel, waves: waves, errorBudget: failures)
        open = targets.count { !$0.machine.state.isFinal }
        for (index, target) in targets.enumerated() {
            places[target.client] = index
            if target.machine.state != .waiting, !target.machine.state.isFinal { active.insert(index) }
        }
        let begun = targets.lastIndex { $0.machine.state != .waiting } ?? -1
        let errors = targets.count { $0.machine.state.countsAsFailure }
        rollout.resume(at: begun + 1, inFlight: active.count, errors: errors)
        // Those that had their turn while their clients were away.
        for index in targets.indices.prefix(begun + 1) where targets[index].machine.state == .waiting {
            rollout.comeBack(index)
        }
        if rollout.isStopped { stop("stopped", 0) }
    }

    var isOver: Bool { open == 0 }
    var failures: Int { rollout.errors }

    func target(of client: ClientID) -> Target? { places[client].map { targets[$0] } }

    /// The client has been sent the order and has not come to an end.
    func isUnderWay(_ client: ClientID) -> Bool { places[client].map { active.contains($0) && targets[$0].dueAt == nil } ?? false }

    /// What time and connections make due.
    /// - Returns: clients to be sent the order, once that is written down.
    mutating func turn(now: UInt64, isConnected: (ClientID) -> Bool) -> [ClientID] {
        var sent: [ClientID] = []
        for index in active.sorted() {
            if let since = targets[index].dueAt {
                give(index, since, now, isConnected, &sent)
            } else if now >= targets[index].machine.changedAt + limits.answerMilliseconds {
                apply(.silent, to: index, now)
            }
        }
        while !isPaused, let index = rollout.next() {
            active.insert(index)
            targets[index].dueAt = now
            give(index, now, now, isConnected, &sent)
        }
        return sent
    }

    private mutating func give(
        _ index: Int, _ since: UInt64, _ now: UInt64, _ isConnected: (ClientID) -> Bool, _ sent: inout [ClientID]
    ) {
        // One that never got it is not sent a release that others failed with, or that somebody holds back.
        if let stopCode { return skip(index, stopCode, now) }
        if isPaused { return }
        if isConnected(targets[index].client) {
            targets[index].dueAt = nil
            apply(.sent, to: index, now)
            sent.append(targets[index].client)
        } else if now >= since + limits.waitMilliseconds {
            skip(index, "client-offline", now)
        }
    }

    private mutating func skip(_ index: Int, _ code: String, _ now: UInt64) {
        targets[index].dueAt = nil
        apply(.skipped(code: code), to: index, now)
    }

    /// - Returns: false for a client that is none of this upgrade's.
    mutating func reported(_ report: UpgradeReport, by client: ClientID, now: UInt64) -> Bool {
        guard let index = places[client] else { return false }
        // One that was given up as silent holds no place any more; its row is set right, its failure stays counted.
        apply(.reported(report.progress, code: report.code, message: report.message), to: index, now)
        return true
    }

    /// Nobody else gets a turn.
    mutating func stop(_ code: String, _ now: UInt64) {
        if stopCode == nil { stopCode = code }
        rollout.stop()
        for index in targets.indices where targets[index].machine.state == .waiting { skip(index, code, now) }
    }

    private mutating func apply(_ event: UpgradeTargetStateMachine.Event, to index: Int, _ now: UInt64) {
        let before = targets[index].machine.state
        guard targets[index].machine.apply(event, now: now) else { return }
        changed.insert(index)
        let state = targets[index].machine.state
        if !before.isFinal, state.isFinal { open -= 1 }
        if before.isFinal, !state.isFinal { open += 1 }
        let heldPlace = active.contains(index)
        guard state.isFinal, heldPlace || before == .waiting else { return }
        active.remove(index)
        if rollout.ended(isError: state.countsAsFailure, heldPlace: heldPlace) { stop("stopped", now) }
    }

    /// What has to be written down since the last call.
    mutating func takeChanged() -> [(place: Int, target: Target)] {
        defer { changed = [] }
        return changed.sorted().map { ($0, targets[$0]) }
    }

    /// The store did not take them.
    mutating func putBack(_ places: [Int]) { changed.formUnion(places) }

    /// When time decides next.
    func deadline() -> UInt64 {
        active.map { index in
            targets[index].dueAt.map { $0 + limits.waitMilliseconds }
                ?? targets[index].machine.changedAt + limits.answerMilliseconds
        }.min() ?? .max
    }

    func counts() -> [UpgradeTargetState: Int] {
        var counts: [UpgradeTargetState: Int] = [:]
        for target in targets { counts[target.machine.state, default: 0] += 1 }
        return counts
    }
}
