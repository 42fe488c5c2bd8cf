import Synchronization

/// The way from a task on a loop to a plugin's own thread and back, for callbacks that a task drives at the plugin's pace.
///
/// One piece of work at a time. `close` lets go of a waiting task: for plugins whose thread will not come back.
final class Handover: Sendable {
    private struct State: ~Copyable {
        var waiter: UnsafeContinuation<Void, Never>?
        var isClosed = false
    }
    private let state = Mutex(State())

    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Runs `work` on the plugin's own thread and returns when it has run, or when there is no hope that it will.
    /// - Returns: false when it did not run: the plugin's queue is full, or it is over.
    func run(_ function: StaticString, on instance: PluginInstance, _ work: @escaping @Sendable () -> Void) async -> Bool {
        let isTaken = Atomic<Bool>(false)
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let mayWait = state.withLock { state in
                guard !state.isClosed else { return false }
                state.waiter = continuation
                return true
            }
            guard mayWait else { return continuation.resume() }
            let taken = instance.call(function) { [self] in
                if !isClosed { work() }
                wake()
            }
            isTaken.store(taken, ordering: .relaxed)
            if !taken { wake() }
        }
        return isTaken.load(ordering: .relaxed)
    }

    private func wake() { state.withLock { $0.waiter.take() }?.resume() }

    /// No work begins after this; what runs goes on to its end.
    func close() {
        state.withLock { state in
            state.isClosed = true
            return state.waiter.take()
        }?.resume()
    }
}
