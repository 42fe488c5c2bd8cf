import AgentProtocol

/// One stream of one target on its way through the filters that its command is bound to, one after the other.
///
/// Lengths and offsets stay what the program wrote. A filter that is not there or fails is final for the stream: what it has
/// not let through, and everything after it, becomes asterisks, because half of a secret may stand before the gap. Only
/// line ends are left.
struct OutputFilterChain: Sendable, Equatable {
    private struct Stage: Sendable, Equatable {
        let owner: String
        /// Shown to the filter and held back by it.
        var held: [UInt8] = []
        /// Of what comes out next.
        var offset: UInt64 = 0
        var isBroken = false
    }
    private var stages: [Stage]
    private var isFinished = false
    /// Bytes that became asterisks for want of a filter.
    private(set) var withheld: UInt64 = 0

    init(_ owners: [String]) { stages = owners.map { Stage(owner: $0) } }

    var heldBytes: Int { stages.reduce(0) { $0 + $1.held.count } }

    /// What may be kept now. Calls foreign code: without a lock.
    /// - Parameter isLast: the stream has ended; everything comes out. Nothing to do the second time.
    mutating func pass(
        _ bytes: consuming [UInt8], isLast: Bool, of source: LiveOutput.Source, _ stream: OutputStream,
        through filters: OutputFilters
    ) -> [UInt8] {
        guard !isFinished else { return [] }
        isFinished = isLast
        var window = bytes
        for index in stages.indices {
            if !stages[index].held.isEmpty {
                window = stages[index].held + window
                stages[index].held = []
            }
            guard !window.isEmpty || (isLast && stages[index].offset > 0) else { continue }
            let piece = OutputFilterPiece(
                command: source.command, client: source.client, stream: stream, offset: stages[index].offset, isLast: isLast)
            let most = min(window.count, OutputFilters.heldBytes)
            if !stages[index].isBroken, let filter = filters.filter(of: stages[index].owner) {
                var span = window.mutableSpan
                if let keep = filter.filter(piece, &span), keep >= 0, keep <= most {
                    if !isLast, keep > 0 {
                        stages[index].held = Array(window.suffix(keep))
                        window.removeLast(keep)
                    }
                    stages[index].offset += UInt64(window.count)
                    continue
                }
            }
            stages[index].isBroken = true
            stages[index].offset += UInt64(window.count)
            withheld += UInt64(window.count)
            OutputMaskStateMachine.cover(&window)
        }
        return window
    }
}
