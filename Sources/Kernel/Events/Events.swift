import JSON
import Reactor
import Synchronization

/// The last events in a bounded ring. Publishers never wait; readers pull by sequence, each at its own pace, so a
/// stopped reader costs one number. Who falls behind the ring is told how many events it missed.
///
/// Any thread, but not the store's writer.
public final class Events: Sendable {
    /// Tells the events of this process from an earlier one's.
    public let run: UInt64
    private let capacity: Int
    private let maximumBytes: Int

    private struct State: ~Copyable {
        /// Slot of sequence s: (s − 1) mod capacity.
        var ring: [(event: PublishedEvent, weight: Int)?] = []
        var newest: UInt64 = 0
        /// Lowest sequence that is still held.
        var oldest: UInt64 = 1
        var bytes = 0
        var waiters: [UInt64: UnsafeContinuation<Void, Never>] = [:]
        var nextWaiter: UInt64 = 0
    }
    private let state = Mutex(State())

    public init(run: UInt64 = unixMilliseconds(), capacity: Int = 16_384, maximumBytes: Int = 8 << 20) {
        self.run = run
        self.capacity = max(1, capacity)
        self.maximumBytes = maximumBytes
    }

    public func publish(_ event: Event) {
        let milliseconds = unixMilliseconds()
        let weight = PublishedEvent.weight(of: event)
        let waiters = state.withLock { state in
            state.newest += 1
            let published = PublishedEvent(event, sequence: state.newest, milliseconds: milliseconds)
            let slot = Int((state.newest - 1) % UInt64(capacity))
            if slot == state.ring.count { state.ring.append(nil) }
            if state.newest - state.oldest >= UInt64(capacity) { dropOldest(&state) }
            state.ring[slot] = (published, weight)
            state.bytes += weight
            while state.bytes > maximumBytes && state.oldest < state.newest { dropOldest(&state) }
            guard !state.waiters.isEmpty else { return state.waiters }
            defer { state.waiters = [:] }
            return state.waiters
        }
        for waiter in waiters.values { waiter.resume() }
    }

    private func dropOldest(_ state: inout State) {
        let slot = Int((state.oldest - 1) % UInt64(capacity))
        state.bytes -= state.ring[slot]?.weight ?? 0
        state.ring[slot] = nil
        state.oldest += 1
    }

    /// The position after the newest event: where a reader that wants only news begins.
    public var end: EventCursor { EventCursor(run: run, sequence: state.withLock { $0.newest }) }

    public struct Page: Sendable {
        public let events: [PublishedEvent]
        /// Events between the reader's position and the first of `events` that the ring no longer holds. After a
        /// restart their number is unknown and `restarted` is set.
        public let missed: UInt64
        public let restarted: Bool
        /// Where to go on.
        public let next: EventCursor
    }

    /// Up to `limit` events after `cursor`, at once.
    public func page(after cursor: EventCursor, limit: Int = 256) -> Page {
        state.withLock { state in
            let restarted = cursor.run != run
            // A position of an earlier run, or one that this run has not reached, means: from the oldest we have.
            let known = restarted || cursor.sequence > state.newest ? 0 : cursor.sequence
            let first = max(known + 1, state.oldest)
            var events: [PublishedEvent] = []
            var sequence = first
            while sequence <= state.newest && events.count < limit {
                if let event = state.ring[Int((sequence - 1) % UInt64(capacity))] { events.append(event.event) }
                sequence += 1
            }
            return Page(
                events: events, missed: restarted ? 0 : first - known - 1, restarted: restarted,
                next: EventCursor(run: run, sequence: max(first, sequence) - 1))
        }
    }

    /// Returns when there is something after `cursor`, when the time is over, or when the task is cancelled. On a loop.
    public func wait(after cursor: EventCursor, milliseconds: UInt64) async {
        let waiter = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        await withTaskCancellationHandler {
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
                let waits = state.withLock { state in
                    guard cursor.run == run, cursor.sequence == state.newest, !Task.isCancelled else { return false }
                    state.waiters[waiter] = continuation
                    return true
                }
                guard waits else { return continuation.resume() }
                if let loop = EventLoop.current {
                    loop.schedule(Timer { self.wake(waiter) }, afterMilliseconds: milliseconds)
                }
                if Task.isCancelled { wake(waiter) }
            }
        } onCancel: {
            wake(waiter)
        }
    }

    private func wake(_ waiter: UInt64) {
        state.withLock { $0.waiters.removeValue(forKey: waiter) }?.resume()
    }
}
