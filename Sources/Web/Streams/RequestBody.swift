import Kernel
import Reactor
import Synchronization
import Transport

/// The body of a request while it arrives. Read by the handler's task on the connection's loop; while it does not ask, the
/// sender waits.
public final class RequestBody: Sendable {
    /// Bytes kept for the handler before the sender is made to wait.
    static let bound = 256 << 10

    private struct State: ~Copyable {
        var bytes: [UInt8] = []
        var total: UInt64 = 0
        var isComplete: Bool
        var fault: Problem?
        var waiting: UnsafeContinuation<Void, Never>?
    }
    private let state: Mutex<State>
    private let limit: Int
    /// Nil for a body that was there from the start.
    private let source: Confined<AnswerWriter>?

    /// A body that is there already.
    init(_ bytes: [UInt8]) {
        state = Mutex(State(bytes: bytes, isComplete: true))
        limit = bytes.count
        source = nil
    }

    init(_ source: Confined<AnswerWriter>, limit: Int) {
        state = Mutex(State(isComplete: false))
        self.limit = limit
        self.source = source
    }

    /// The next piece, nil after the last.
    /// - Throws: 413 beyond the route's limit, 400 when the sender left.
    public func next() async throws(Problem) -> [UInt8]? {
        source?.assumeOnLoop { $0.wantBody() }
        while true {
            let (piece, fault, isComplete) = state.withLock { state in
                defer { state.bytes = [] }
                return (state.bytes, state.fault, state.isComplete)
            }
            // What came before its sender left is the handler's.
            if !piece.isEmpty {
                source?.assumeOnLoop { $0.resumeBody() }
                return piece
            }
            if let fault { throw fault }
            if isComplete { return nil }
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
                let isReady = state.withLock { state in
                    let isReady = !state.bytes.isEmpty || state.isComplete || state.fault != nil
                    if !isReady { state.waiting = continuation }
                    return isReady
                }
                if isReady { continuation.resume() }
            }
        }
    }

    // MARK: The loop's side

    /// True when the sender should wait.
    func arrived(_ piece: RawSpan) -> Bool {
        let (waiting, isFull) = piece.withUnsafeBytes { bytes in
            state.withLock { state in
                state.total += UInt64(bytes.count)
                if state.total > UInt64(limit) {
                    state.bytes = []
                    state.fault = WebService.tooLarge(limit)
                } else if state.fault == nil {
                    state.bytes.append(contentsOf: bytes)
                }
                return (state.waiting.take(), state.bytes.count >= RequestBody.bound || state.fault != nil)
            }
        }
        waiting?.resume()
        return isFull
    }

    /// From any thread: nothing more is handed on, whatever has come.
    func cut(_ problem: Problem) {
        state.withLock { state -> UnsafeContinuation<Void, Never>? in
            guard !state.isComplete, state.fault == nil else { return nil }
            state.bytes = []
            state.fault = problem
            return state.waiting.take()
        }?.resume()
    }

    func completed() {
        state.withLock { state in
            state.isComplete = true
            return state.waiting.take()
        }?.resume()
    }

    func broken() {
        state.withLock { state in
            if !state.isComplete, state.fault == nil { state.fault = .invalid("the body ended before it was complete") }
            return state.waiting.take()
        }?.resume()
    }
}
