import AgentProtocol

/// What Commands needs of an agent's link; `AgentLink` is the real one.
protocol ExecutionLink: AnyObject, Sendable {
    var client: ClientID { get }
    /// Sends the command's order.
    func send(_ command: LiveCommand)
    func cancel(_ command: CommandID)
    func grant(_ command: CommandID, _ stream: OutputStream, upTo offset: UInt64)
    /// The command's end is durable: the agent may forget it.
    func acknowledge(_ command: CommandID)
    /// When somebody last typed into a terminal of this client, monotonic nanoseconds; 0: never.
    var typedAt: UInt64 { get }
}

extension ExecutionLink {
    var typedAt: UInt64 { 0 }
}

extension AgentLink: ExecutionLink {}

/// How many targets of a command ended in each way.
public struct OutcomeCounts: Sendable, Equatable {
    private var counts = [11 of UInt32](repeating: 0)

    public init() {}

    public subscript(state: FinalState) -> Int {
        get { Int(counts[Int(state.rawValue)]) }
        set { counts[Int(state.rawValue)] = UInt32(clamping: newValue) }
    }

    public var total: Int { FinalState.allCases.reduce(0) { $0 + self[$1] } }
    public var errors: Int { FinalState.allCases.reduce(0) { $1.countsAsError ? $0 + self[$1] : $0 } }

    public static func == (left: OutcomeCounts, right: OutcomeCounts) -> Bool {
        FinalState.allCases.allSatisfy { left[$0] == right[$0] }
    }
}

/// One client of a live command.
struct LiveTarget {
    let client: ClientID
    var machine: TargetStateMachine
    /// It occupies a place of the command's window.
    var holdsPlace = false
    /// Its client is offline and the command waits for it.
    var isParked = false
    /// It has its turn and stands in its client's queue.
    var isQueued = false
    /// It counts as one of the client's active targets.
    var isActive = false
    /// Known not to have been sent as long as no mark says otherwise: a mark is made durable before its first order.
    var isDeferred: Bool
    /// Its exit has come over the present link and is being made durable.
    var isEnding = false
    /// There is a row for it in `command_marks`.
    var isMarked = false
    /// The command's version at its last change.
    var changed: UInt64 = 0
    /// Unix milliseconds of the last news: sent, started, output.
    var news: UInt64 = 0
    var output: LiveOutput?
    /// Kept for the caller who waits, while the command has few targets.
    var result: TargetResult?

    /// Its end is durable: it lets go of what it held, and says what that was.
    mutating func settle() -> (output: LiveOutput?, place: Bool, wasParked: Bool, wasActive: Bool) {
        _ = machine.apply(.recorded)
        let held = (output: output, place: holdsPlace, wasParked: isParked, wasActive: isActive)
        output = nil
        holdsPlace = false
        isActive = false
        isParked = false
        return held
    }
}

/// A finished target as the caller who waited for it gets it.
public final class TargetResult: Sendable {
    public let end: TargetEnd
    public let output: OutputSummary
    init(end: TargetEnd, output: OutputSummary) {
        self.end = end
        self.output = output
    }
}

/// A command that has targets without a durable end.
///
/// `@unchecked Sendable`: every mutable property is read and written only while the lock of `Commands.state` is held.
/// References travel between threads only to find the way back to it without a search. That lock also makes run-time checks
/// of exclusivity pointless, and there would be thirty for each command: no access to one of its properties lasts over a
/// call that can come back to the same one.
final class LiveCommand: @unchecked Sendable {
    let specification: CommandSpecification
    /// `nil` also for a command that was given some before the core was restarted: then no target of it starts any more,
    /// and what its running ones print is masked altogether.
    let secrets: CommandSecrets?
    let firstTarget: Int64
    @exclusivity(unchecked) var targets: [LiveTarget]
    @exclusivity(unchecked) var rollout: RolloutStateMachine
    /// Targets without a durable end.
    @exclusivity(unchecked) var open: Int
    /// Targets whose end has not been decided: the decision that makes it 0 also writes the summary.
    @exclusivity(unchecked) var undecided: Int
    /// Ends that are decided; `recorded` those of them that are durable.
    @exclusivity(unchecked) var decided = OutcomeCounts()
    @exclusivity(unchecked) var recorded = OutcomeCounts()
    @exclusivity(unchecked) var waiters = Few<Waiter>()
    /// Grows with every change that a watcher can see.
    @exclusivity(unchecked) private(set) var version: UInt64 = 1
    /// They wait for the next change. Kept apart from `waiters`, who wait for the end.
    @exclusivity(unchecked) var watchers = Few<Waiter>()
    /// Until then absent clients are waited for, whatever the policy says (after a restart of the core).
    @exclusivity(unchecked) var graceUntil: UInt64 = 0
    /// Its place in `CommandBook.live`, and in `CommandBook.waited` (-1: none).
    @exclusivity(unchecked) var place = -1
    @exclusivity(unchecked) var waitedPlace = -1

    struct Waiter {
        let continuation: UnsafeContinuation<Void, Never>
        /// Unix milliseconds.
        let deadline: UInt64
    }

    /// Results are kept in memory for the caller who waits only up to this many targets.
    static let keptResults = 64

    init(
        _ specification: CommandSpecification, firstTarget: Int64, targets: consuming [LiveTarget],
        secrets: CommandSecrets? = nil
    ) {
        self.specification = specification
        self.secrets = secrets
        self.firstTarget = firstTarget
        let count = targets.count
        self.targets = targets
        rollout = RolloutStateMachine(
            count: count, concurrency: specification.concurrency, waves: specification.waves,
            errorBudget: specification.errorBudget)
        open = count
        undecided = count
    }

    var id: CommandID { specification.id }

    /// What an agent is told.
    var order: Order {
        guard let secrets else { return specification.order }
        var order = specification.order
        order.secretEnvironment = secrets.variables
        return order
    }
    var isFinished: Bool { open == 0 }
    var lacksSecrets: Bool { !specification.secretNames.isEmpty && secrets == nil }

    /// For each stream of a target's output; `nil`: nothing is masked.
    var mask: OutputMaskStateMachine? {
        specification.secretNames.isEmpty ? nil : OutputMaskStateMachine(secrets?.patterns)
    }

    /// Notes a change of one target, for watchers.
    func touch(_ index: Int) {
        version += 1
        targets[index].changed = version
    }
}

/// A target of a live command by its index.
struct TargetReference {
    let command: LiveCommand
    let index: Int

    func isSame(as other: TargetReference) -> Bool { command === other.command && index == other.index }
    var row: Int64 { command.firstTarget + Int64(index) }
}

/// What a change of the book asks for; done after its lock was left.
struct BookEffects {
    var sends = Few<(link: any ExecutionLink, command: LiveCommand)>()
    var cancels = Few<(link: any ExecutionLink, command: CommandID)>()
    /// To be marked as sent on the disk, then sent by `dispatchMarked`.
    var marks: [TargetReference] = []
    /// Decided ends, to be made durable.
    var ends: [DecidedEnd] = []
    /// Commands that have ended altogether.
    var finished = Few<LiveCommand>()
    var resumes = Few<UnsafeContinuation<Void, Never>>()

    var isEmpty: Bool {
        sends.isEmpty && cancels.isEmpty && marks.isEmpty && ends.isEmpty && finished.isEmpty && resumes.isEmpty
    }
}

/// An object, since it goes from hand to hand: a copy would count a dozen references.
final class DecidedEnd: Sendable {
    let target: TargetReference
    let end: TargetEnd
    let output: LiveOutput?
    let isMarked: Bool
    /// Set on the last undecided target of a command with several: how all of them ended.
    let summary: OutcomeCounts?

    init(target: TargetReference, end: TargetEnd, output: LiveOutput?, isMarked: Bool, summary: OutcomeCounts?) {
        self.target = target
        self.end = end
        self.output = output
        self.isMarked = isMarked
        self.summary = summary
    }
}
