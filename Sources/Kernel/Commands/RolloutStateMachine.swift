/// In which order the targets of one command or upgrade get their turn, as a value: concurrency window, waves, error budget.
///
/// Targets are known by their index. A target that holds a place in the window has been given its turn by `next` and has
/// neither ended nor been parked. A parked target (its client is offline and the command waits for it) holds no place,
/// and no wave waits for it, so that one absent client cannot stop a rollout.
struct RolloutStateMachine: Sendable, Equatable {
    private let count: Int
    /// Most targets in flight; `Int.max` for no bound.
    private let concurrency: Int
    /// Sizes of the first waves; what remains after them is the last wave.
    private let waves: [Int]
    /// Errors that are tolerated; one more stops the rest. `nil` for no bound.
    private let errorBudget: Int?

    /// The first target that never had a turn.
    private var cursor: Int
    /// One past the last target of the waves that have begun.
    private var waveEnd: Int
    private var waveIndex = 0
    private(set) var inFlight = 0
    private(set) var errors = 0
    private(set) var isStopped = false
    /// Parked or returned targets whose client is back, in the order of their return.
    private var returned: [Int] = []
    private var returnedHead = 0

    init(count: Int, concurrency: Int?, waves: [Int], errorBudget: Int?) {
        self.count = count
        self.concurrency = concurrency ?? .max
        self.waves = waves
        self.errorBudget = errorBudget
        cursor = 0
        waveEnd = min(count, waves.first ?? count)
    }

    /// The next target whose turn it is; it holds a place from now on. `nil`: nothing may begin now.
    mutating func next() -> Int? {
        guard !isStopped, inFlight < concurrency else { return nil }
        if returnedHead < returned.count {
            let index = returned[returnedHead]
            returnedHead += 1
            if returnedHead == returned.count {
                returned.removeAll(keepingCapacity: false)
                returnedHead = 0
            }
            inFlight += 1
            return index
        }
        if cursor == waveEnd, cursor < count, inFlight == 0 {
            waveIndex += 1
            waveEnd = waveIndex < waves.count ? min(count, waveEnd + waves[waveIndex]) : count
        }
        guard cursor < waveEnd else { return nil }
        defer { cursor += 1 }
        inFlight += 1
        return cursor
    }

    /// After a restart of the core: these indexes before `cursor` are already out of its hands.
    mutating func resume(at cursor: Int, inFlight: Int, errors: Int) {
        self.cursor = cursor
        while waveEnd < cursor {
            waveIndex += 1
            waveEnd = waveIndex < waves.count ? min(count, waveEnd + waves[waveIndex]) : count
        }
        self.inFlight = inFlight
        self.errors = errors
        if let errorBudget, errors > errorBudget { isStopped = true }
    }

    /// Whether the target has had a turn.
    func hasBegun(_ index: Int) -> Bool { index < cursor }

    /// A target that held a place gives it back without an end.
    mutating func park() { inFlight -= 1 }

    /// A parked target can go on: it gets a turn before those that had none.
    mutating func comeBack(_ index: Int) { returned.append(index) }

    /// - Parameter heldPlace: false for one that never had a turn or was parked.
    /// - Returns: true when this end used up the error budget: the rest is to be aborted.
    mutating func ended(_ state: FinalState, heldPlace: Bool) -> Bool {
        ended(isError: state.countsAsError, heldPlace: heldPlace)
    }

    mutating func ended(isError: Bool, heldPlace: Bool) -> Bool {
        if heldPlace { inFlight -= 1 }
        guard isError else { return false }
        errors += 1
        guard let errorBudget, errors > errorBudget, !isStopped else { return false }
        isStopped = true
        return true
    }

    /// No further target gets a turn (cancelled).
    mutating func stop() { isStopped = true }
}
