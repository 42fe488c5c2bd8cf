/// One file of one secret on one client: what is wanted there, what the client has shown to have, and what comes next.
///
/// A value without I/O. Times are milliseconds of the core's clock.
struct DeliveryStateMachine: Sendable, Equatable {
    enum Phase: String, Sendable {
        /// On its way: the client does not have what it should have.
        case wanted
        /// The client has shown the hash of the wanted version, but what had to be done after the change was not done.
        case delivered
        /// As `delivered`, and done.
        case applied
        /// The client, or the core, refused it; it is tried again ever more seldom.
        case failed
        /// It is to go from the client.
        case removing
    }

    enum Step: Sendable, Equatable {
        case put(Int)
        case remove
    }

    private(set) var phase = Phase.wanted
    /// Version that is to be there; `nil`: none.
    private(set) var wanted: Int?
    /// Version that the client showed last; `nil`: none that we know of.
    private(set) var placed: Int?
    /// Why it is not applied: a code for machines, a sentence for people.
    private(set) var code = ""
    private(set) var reason = ""
    /// Failures in a row.
    private(set) var failures = 0
    private(set) var retryAt: UInt64 = 0
    private(set) var isUnderway = false
    /// The client may have lost it (its memory is gone after a restart), or it lapses soon: show it again.
    private(set) var isDoubtful = true
    /// When `placed` was last shown.
    private(set) var confirmedAt: UInt64 = 0

    static let firstPause: UInt64 = 1_000
    static let longestPause: UInt64 = 300_000

    init(wanted: Int?) { want(wanted) }

    /// As it was stored: whatever was underway is not known any more.
    init(wanted: Int?, placed: Int?, phase: Phase, code: String, reason: String, confirmedAt: UInt64) {
        (self.wanted, self.placed, self.phase, self.code, self.reason, self.confirmedAt) = (wanted, placed, phase, code, reason, confirmedAt)
    }

    /// - Returns: whether anything changed.
    @discardableResult
    mutating func want(_ version: Int?) -> Bool {
        guard version != wanted || (version == nil && phase != .removing) else { return false }
        wanted = version
        phase = version == nil ? .removing : .wanted
        (code, reason, failures, retryAt) = ("", "", 0, 0)
        return true
    }

    /// Nothing more to do for a file that is to be gone and never was there, or is gone.
    var isOver: Bool { wanted == nil && placed == nil && phase == .removing && !isUnderway && !isDoubtful }

    /// The client has shown what is wanted, and nothing has happened since that would make that doubtful.
    var isConfirmed: Bool { wanted != nil && placed == wanted && !isDoubtful }

    private var isDone: Bool { phase == .applied && !isDoubtful }

    /// What to do now, if anything; it counts as underway until one of the answers below.
    mutating func next(now: UInt64) -> Step? {
        guard !isUnderway, retryAt <= now else { return nil }
        if let wanted {
            guard !isDone else { return nil }
            isUnderway = true
            return .put(wanted)
        }
        guard !isOver else { return nil }
        isUnderway = true
        return .remove
    }

    /// When to look again; `nil`: not before something happens.
    var wakeAt: UInt64? { !isUnderway && retryAt > 0 && !(wanted == nil ? isOver : isDone) ? retryAt : nil }

    /// The client holds this version now, by the hash that it showed. `fault`: why the hook did not do its work.
    mutating func confirmed(_ version: Int, hookFault fault: String?, now: UInt64) {
        isUnderway = false
        placed = version
        confirmedAt = now
        // Something else is wanted meanwhile.
        guard version == wanted else {
            (failures, retryAt) = (0, 0)
            return
        }
        isDoubtful = false
        guard let fault else {
            phase = .applied
            (code, reason, failures, retryAt) = ("", "", 0, 0)
            return
        }
        // The client tries a hook again when it is shown the file again.
        phase = .delivered
        (code, reason) = ("hook-failed", fault)
        pause(now)
    }

    private mutating func pause(_ now: UInt64) {
        failures += 1
        retryAt = now + min(Self.longestPause, Self.firstPause << UInt64(min(failures - 1, 20)))
    }

    /// The client holds no such file now.
    mutating func removed() {
        isUnderway = false
        placed = nil
        (failures, retryAt) = (0, 0)
        isDoubtful = wanted != nil
    }

    mutating func failed(_ code: String, _ reason: String, now: UInt64) {
        isUnderway = false
        pause(now)
        (self.code, self.reason) = (code, reason)
        if wanted != nil { phase = .failed }
    }

    /// The link broke while it was underway, or before: whether it arrived is not known. It goes on when the client is back.
    mutating func lost(now: UInt64) {
        isUnderway = false
        failures = 0
        // `refresh` is sooner; this is for a link that only seems to be there.
        retryAt = now + Self.firstPause
        isDoubtful = true
    }

    /// Show it again: the client is back, or the file would lapse. What was proven stands until the answer.
    mutating func refresh() {
        isDoubtful = true
        retryAt = 0
    }
}
