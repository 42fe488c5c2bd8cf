import AgentProtocol
import Synchronization

/// What is kept of the output of one ended target.
public struct OutputSummary: Sendable, Equatable {
    /// Bytes kept of each stream.
    public var output: UInt64 = 0
    public var errors: UInt64 = 0
    /// The core dropped bytes because a limit was met.
    public var truncated = false
    /// Bytes that became asterisks because a filter that they had to pass was not there, or failed.
    public var withheld: UInt64 = 0
    /// The kept bytes themselves when they are few; else they are in the segments.
    public var inline: StreamPair<[UInt8]>?
    var extents: StreamPair<OutputExtents>?

    public init() { inline = StreamPair([], []) }
}

/// The output of one target while it runs. Bytes go in from the target's link, and out to the segment writer.
///
/// The first `inlineBytes` of both streams together stay in memory; with one more byte everything goes to the segments.
final class LiveOutput: Sendable {
    static let inlineBytes = 8 * 1_024

    struct State {
        /// Bytes taken from the agent, dropped ones included.
        var received = StreamPair<UInt64>(0, 0)
        /// Bytes that stand in `small`, `pending` or the segments.
        var kept = StreamPair<UInt64>(0, 0)
        var small = StreamPair<[UInt8]>([], [])
        var isSpilled = false
        /// Kept, not yet written to a segment.
        var pending = StreamPair<[UInt8]>([], [])
        var extents = StreamPair(OutputExtents(), OutputExtents())
        /// Over the present link.
        var granted = StreamPair<UInt64>(0, 0)
        var truncated = false
        /// The writer has it in its list.
        var isQueued = false
        var link: (any ExecutionLink)?
        /// Between what comes and what is kept, where the command was given secrets.
        var masks: StreamPair<OutputMaskStateMachine>?
        /// Between the masks and what is kept, where the command is bound to filters.
        var chains: StreamPair<OutputFilterChain>?
        /// Filters run without the lock: the streams belong to one caller until they are back.
        var isFiltering = false
    }

    /// Whose output it is.
    struct Source: Sendable {
        let command: CommandID
        let client: ClientID
    }

    let source: Source
    var command: CommandID { source.command }
    var client: ClientID { source.client }
    /// `nil`, as for nearly all commands: no filter.
    private let filters: OutputFilters?
    /// Bytes of both streams that are kept; more are dropped.
    let limit: UInt64
    let state = Mutex(State())

    /// - Parameters:
    ///   - mask: for each stream; `nil`: bytes are kept as they come.
    ///   - filtering: the filters that the command is bound to; `nil`: none.
    init(
        command: CommandID, client: ClientID, limit: UInt64, mask: OutputMaskStateMachine? = nil,
        filtering: (owners: [String], filters: OutputFilters)? = nil
    ) {
        source = Source(command: command, client: client)
        self.limit = limit
        filters = filtering?.filters
        guard mask != nil || filtering != nil else { return }
        let chain = filtering.map { OutputFilterChain($0.owners) }
        state.withLock { state in
            if let mask { state.masks = StreamPair(mask, mask) }
            if let chain { state.chains = StreamPair(chain, chain) }
        }
    }

    var withheld: UInt64 { filters == nil ? 0 : state.withLock { Self.withheld($0) } }

    private static func withheld(_ state: borrowing State) -> UInt64 {
        state.chains.map { $0.output.withheld + $0.errors.withheld } ?? 0
    }

    var received: StreamPair<UInt64> { state.withLock { $0.received } }

    /// Bytes of a stream that a watcher can read now.
    func readable(_ stream: OutputStream) -> UInt64 {
        state.withLock { $0.isSpilled ? $0.extents[stream].length : UInt64($0.small[stream].count) }
    }

    /// Its bytes are in the segments of the store, not in memory.
    var isSpilled: Bool { state.withLock { $0.isSpilled } }

    var summary: OutputSummary {
        state.withLock { state in
            var summary = OutputSummary()
            summary.output = state.kept.output
            summary.errors = state.kept.errors
            summary.truncated = state.truncated
            summary.withheld = Self.withheld(state)
            if state.isSpilled {
                summary.inline = nil
                summary.extents = state.extents
            } else {
                summary.inline = state.small
            }
            return summary
        }
    }

    enum Taken {
        /// Kept in memory, or nothing new in it.
        case small(Int)
        /// New bytes wait for the writer; `queue`: it has to be told.
        case pending(Int, queue: Bool)
        /// The bytes begin after the end of what was received; or they cannot be filtered now.
        case gap
    }

    /// Takes what is new of `bytes`, which continue the stream at `offset`.
    func take(_ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan, from link: any ExecutionLink) -> Taken {
        if let filters { return takeFiltered(stream, at: offset, bytes, from: link, filters) }
        return state.withLock { state in
            let have = state.received[stream]
            guard offset <= have else { return .gap }
            let old = have - offset
            guard UInt64(bytes.byteCount) > old else { return .small(0) }
            let new = bytes.extracting(Int(old)..<bytes.byteCount)
            Self.follow(link, &state)
            state.received[stream] += UInt64(new.byteCount)

            guard state.masks != nil else { return Self.keep(new, of: stream, &state, limit) }
            let ready = state.masks?[stream].take(new) ?? []
            return Self.keep(ready.span.bytes, of: stream, &state, limit)
        }
    }

    private static func follow(_ link: any ExecutionLink, _ state: inout State) {
        guard state.link !== link else { return }
        // Each link begins with the first window, whatever was granted over the one before.
        state.link = link
        for stream in OutputStream.allCases {
            state.granted[stream] = state.received[stream] + WireLimits.initialWindowBytes
        }
    }

    /// The same in three steps, because filters are foreign code. The bytes count as received with the last one, so that a
    /// newer link which comes in between has the agent send them again.
    private func takeFiltered(
        _ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan, from link: any ExecutionLink, _ filters: OutputFilters
    ) -> Taken {
        guard filters.isOpen else { return .gap }
        enum Begun {
            case over(Taken)
            case window([UInt8], OutputFilterChain, new: UInt64)
        }
        let begun = state.withLock { state -> Begun in
            let have = state.received[stream]
            guard offset <= have, !state.isFiltering, let chain = state.chains?[stream] else { return .over(.gap) }
            let old = have - offset
            guard UInt64(bytes.byteCount) > old else { return .over(.small(0)) }
            let new = bytes.extracting(Int(old)..<bytes.byteCount)
            Self.follow(link, &state)
            state.isFiltering = true
            // A filter never sees what was given as secret.
            let window = state.masks?[stream].take(new) ?? new.withUnsafeBytes { Array($0) }
            return .window(window, chain, new: UInt64(new.byteCount))
        }
        switch begun {
        case .over(let taken): return taken
        case .window(let window, var chain, let new):
            let ready = chain.pass(window, isLast: false, of: source, stream, through: filters)
            return state.withLock { state in
                state.isFiltering = false
                state.chains?[stream] = chain
                state.received[stream] += new
                return Self.keep(ready.span.bytes, of: stream, &state, limit)
            }
        }
    }

    /// The streams have ended: what masks and filters have held back is kept. Nothing to do the second time.
    /// - Returns: `nil` when it cannot be filtered now.
    func finish() -> [Taken]? {
        if let filters { return finishFiltered(filters) }
        return state.withLock { state in
            guard state.masks != nil else { return [] }
            return OutputStream.allCases.map { stream in
                let rest = state.masks?[stream].finish() ?? []
                return rest.isEmpty ? .small(0) : Self.keep(rest.span.bytes, of: stream, &state, limit)
            }
        }
    }

    private func finishFiltered(_ filters: OutputFilters) -> [Taken]? {
        guard filters.isOpen else { return nil }
        let begun = state.withLock { state -> (StreamPair<[UInt8]>, StreamPair<OutputFilterChain>)? in
            guard !state.isFiltering, let chains = state.chains else { return nil }
            state.isFiltering = true
            var rest = StreamPair<[UInt8]>([], [])
            for stream in OutputStream.allCases { rest[stream] = state.masks?[stream].finish() ?? [] }
            return (rest, chains)
        }
        guard var (rest, chains) = begun else { return nil }
        for stream in OutputStream.allCases {
            rest[stream] = chains[stream].pass(rest[stream], isLast: true, of: source, stream, through: filters)
        }
        return state.withLock { state in
            state.isFiltering = false
            state.chains = chains
            return OutputStream.allCases.map { stream in
                let bytes = rest[stream]
                return bytes.isEmpty ? .small(0) : Self.keep(bytes.span.bytes, of: stream, &state, limit)
            }
        }
    }

    private static func keep(_ new: RawSpan, of stream: OutputStream, _ state: inout State, _ limit: UInt64) -> Taken {
        let room = limit - min(limit, state.kept.output + state.kept.errors)
        let count = min(new.byteCount, Int(clamping: room))
        if count < new.byteCount { state.truncated = true }
        guard count > 0 else {
            // Dropped or held back, but the agent needs credit to come to its end.
            let queue = !state.isQueued
            state.isQueued = true
            return .pending(0, queue: queue)
        }
        state.kept[stream] += UInt64(count)
        let total = state.small.output.count + state.small.errors.count + count
        if !state.isSpilled, total <= inlineBytes {
            append(new, count, to: &state.small[stream])
            return .small(count)
        }
        var added = count
        if !state.isSpilled {
            state.isSpilled = true
            added = total
            state.pending = state.small
            state.small = StreamPair([], [])
        }
        append(new, count, to: &state.pending[stream])
        let queue = !state.isQueued
        state.isQueued = true
        return .pending(added, queue: queue)
    }

    private static func append(_ bytes: RawSpan, _ count: Int, to array: inout [UInt8]) {
        bytes.withUnsafeBytes { array.append(contentsOf: $0.prefix(count)) }
    }
}
