import Synchronization

/// Work that blocks, done one after the other in the order in which it was given, on the threads of a pool. Many of these
/// share few threads; each takes its turn after some pieces.
public final class SerialWork: Sendable {
    private static let piecesPerTurn = 32

    private let pool: BlockingPool
    private struct State {
        var waiting: [@Sendable () -> Void] = []
        var isRunning = false
    }
    private let state = Mutex(State())

    public init(on pool: BlockingPool) { self.pool = pool }

    /// False: the pool is full, and `body` will not run.
    @discardableResult
    public func submit(_ body: @escaping @Sendable () -> Void) -> Bool {
        let isFirst = state.withLock { state in
            state.waiting.append(body)
            guard !state.isRunning else { return false }
            state.isRunning = true
            return true
        }
        guard isFirst else { return true }
        if pool.submit({ self.run() }) { return true }
        state.withLock { state in
            state.waiting.removeAll()
            state.isRunning = false
        }
        return false
    }

    private func run() {
        while true {
            let batch = state.withLock { state in
                let count = min(state.waiting.count, Self.piecesPerTurn)
                let batch = Array(state.waiting[..<count])
                state.waiting.removeFirst(count)
                if batch.isEmpty { state.isRunning = false }
                return batch
            }
            if batch.isEmpty { return }
            for body in batch { body() }
            // Others wait for the thread; when they are too many this one goes on.
            if state.withLock({ !$0.waiting.isEmpty }), pool.submit({ self.run() }) { return }
        }
    }
}
