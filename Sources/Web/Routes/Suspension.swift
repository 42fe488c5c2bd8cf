import Kernel
import Reactor
import Synchronization

/// The routes of one plugin do not answer for now: it was fenced, or its next version takes over. Requests are refused,
/// or wait a bounded time.
final class Suspension: Sendable {
    /// Requests that may wait at once, and the bytes of their bodies.
    static let maximumWaiting = 1_024
    static let maximumBytes = 16 << 20

    private struct State: ~Copyable {
        var isLifted = false
        var waiting: [UInt64: UnsafeContinuation<Void, Never>] = [:]
        var next: UInt64 = 0
        var bytes = 0
    }
    private let owner: RouteOwner
    private let mode: SuspensionMode
    private let state = Mutex(State())

    init(_ owner: RouteOwner, _ mode: SuspensionMode) {
        self.owner = owner
        self.mode = mode
    }

    /// Returns when the suspension is over: look at the table again. Throws when it lasts too long, or too many wait.
    /// - Parameters:
    ///   - bytes: what the request holds while it waits.
    ///   - loop: the caller's own.
    func wait(holding bytes: Int, on loop: EventLoop) async throws(Problem) {
        guard case .queue(_, let milliseconds) = mode else { throw problem }
        let number = state.withLock { state -> UInt64? in
            guard state.waiting.count < Suspension.maximumWaiting, state.bytes + bytes <= Suspension.maximumBytes else {
                return nil
            }
            state.next += 1
            state.bytes += bytes
            return state.next
        }
        guard let number else { throw problem }
        defer { state.withLock { $0.bytes -= bytes } }
        let timer = Timer { [self] in state.withLock { $0.waiting.removeValue(forKey: number) }?.resume() }
        loop.schedule(timer, afterMilliseconds: milliseconds)
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let isLifted = state.withLock { state in
                if !state.isLifted { state.waiting[number] = continuation }
                return state.isLifted
            }
            if isLifted { continuation.resume() }
        }
        loop.cancel(timer)
        guard state.withLock({ $0.isLifted }) else { throw problem }
    }

    /// Lets everything that waits go on.
    func lift() {
        let waiting = state.withLock { state in
            state.isLifted = true
            defer { state.waiting = [:] }
            return Array(state.waiting.values)
        }
        for continuation in waiting { continuation.resume() }
    }

    var problem: Problem {
        let (reason, seconds) = switch mode {
        case .refuse(let reason, let seconds): (reason, seconds)
        case .queue(let reason, _): (reason, 1)
        }
        return Problem(503, "plugin-suspended", "the plugin \"\(owner.id)\" does not answer at present: \(reason)", retryAfter: seconds)
    }
}
