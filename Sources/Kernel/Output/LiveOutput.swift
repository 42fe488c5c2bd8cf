import AgentProtocol
import Synchronization

/// What is kept of the output of one ended target.
public struct OutputSummary: Sendable, Equatable {
    /// Bytes kept of each stream.
    public var output: UInt64 = 0
    public var errors: UInt64 = 0
    /// The core dropped bytes because a limit was met.
    public var truncated = false
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
    }

    let command: CommandID
    let client: ClientID
    /// Bytes of both streams that are kept; more are dropped.
    let limit: UInt64
    let state = Mutex(State())

    /// - Parameter mask: for each stream; `nil`: bytes are kept as they come.
    init(command: CommandID, client: ClientID, limit: UInt64, mask: OutputMaskStateMachine? = nil) {
        self.command = command
        self.client = client
        self.limit = limit
        if let mask { state.withLock { $0.masks = StreamPair(mask, mask) } }
    }

    var received: StreamPair<UInt64> { state.withLock { $0.received } }

    /// Bytes of a stream that a watcher can read now.
    func readable(_ stream: OutputStream) -> UInt64 {
        state.withLock { $0.isSpilled ? $0.extents[stream].length : UInt64($0.small[stream].count) }
    }

    var summary: OutputSummary {
        state.withLock { state in
            var summary = OutputSummary()
            summary.output = state.kept.output
            summary.errors = state.kept.errors
            summary.truncated = state.truncated
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
        /// The bytes begin after the end of what was received.
        case gap
    }

    /// Takes what is new of `bytes`, which continue the stream at `offset`.
    func take(_ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan, from link: any ExecutionLink) -> Taken {
        state.withLock { state in
            let have = state.received[stream]
            guard offset <= have else { return .gap }
            let old = have - offset
            guard UInt64(bytes.byteCount) > old else { return .small(0) }
            let new = bytes.extracting(Int(old)..<bytes.byteCount)
            if state.link !== link {
                // Each link begins with the first window, whatever was granted over the one before.
                state.link = link
                for stream in OutputStream.allCases {
                    state.granted[stream] = state.received[stream] + WireLimits.initialWindowBytes
                }
            }
            state.received[stream] += UInt64(new.byteCount)

            guard state.masks != nil else { return Self.keep(new, of: stream, &state, limit) }
            let ready = state.masks?[stream].take(new) ?? []
            return Self.keep(ready.span.bytes, of: stream, &state, limit)
        }
    }

    /// The streams have ended: what a mask has held back is kept. Nothing to do the second time.
    func finishMask() -> [Taken] {
        state.withLock { state in
            guard state.masks != nil else { return [] }
            return OutputStream.allCases.map { stream in
                let rest = state.masks?[stream].finish() ?? []
                return rest.isEmpty ? .small(0) : Self.keep(rest.span.bytes, of: stream, &state, limit)
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
