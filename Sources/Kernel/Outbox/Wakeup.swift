import Reactor
import Synchronization

/// One task sleeps, others wake it. A signal that comes while it is awake is kept. Any thread; `wait` on a loop.
final class Wakeup: Sendable {
    private struct State: ~Copyable {
        var signalled = false
        var waiter: UnsafeContinuation<Void, Never>?
        var turn: UInt64 = 0
    }
    private let state = Mutex(State())

    func signal() {
        state.withLock { state in
            if state.waiter == nil { state.signalled = true }
            return state.waiter.take()
        }?.resume()
    }

    /// Returns at the next signal or when the time is over.
    func wait(milliseconds: UInt64, on loop: EventLoop) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let turn: UInt64? = state.withLock { state in
                if state.signalled {
                    state.signalled = false
                    return nil
                }
                state.waiter = continuation
                state.turn += 1
                return state.turn
            }
            guard let turn else { return continuation.resume() }
            loop.onLoop {
                loop.schedule(Timer { self.timeOut(turn) }, afterMilliseconds: milliseconds)
            }
        }
    }

    private func timeOut(_ turn: UInt64) {
        state.withLock { $0.turn == turn ? $0.waiter.take() : nil }?.resume()
    }
}
