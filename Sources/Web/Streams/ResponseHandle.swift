import Kernel
import Reactor
import Synchronization
import Transport

/// The answer to one request, given once and from any thread. Letting go of it without an answer is an answer too: 500, or
/// a broken-off stream.
public final class ResponseHandle: Sendable {
    let core: ResponseCore

    init(_ core: ResponseCore) { self.core = core }

    deinit { core.giveUp() }

    /// The whole answer. False: it was answered before, or nobody waits any more.
    @discardableResult
    public func respond(_ status: Int, _ headers: HTTPHeaders = [:], body: RawSpan) -> Bool {
        core.change { $0.respond(status, headers, body) }
    }

    @discardableResult
    public func respond(_ status: Int, _ headers: HTTPHeaders = [:], body: [UInt8] = []) -> Bool {
        respond(status, headers, body: body.span.bytes)
    }

    /// A problem document. False as `respond`.
    @discardableResult
    public func respond(_ problem: Problem) -> Bool {
        let response = problem.response(correlation: core.correlation)
        guard case .bytes(let bytes) = response.body else { return false }
        return respond(response.status, response.headers, body: bytes)
    }

    /// Begins a streamed answer, of `length` bytes if known. False as `respond`.
    public func begin(_ status: Int, _ headers: HTTPHeaders = [:], length: UInt64? = nil) -> Bool {
        core.change { $0.begin(status, headers, length: length) }
    }

    /// A piece of the streamed answer; copied.
    public func write(_ bytes: RawSpan) -> WriteOutcome { core.write(bytes) }
    public func write(_ bytes: [UInt8]) -> WriteOutcome { write(bytes.span.bytes) }

    /// The streamed answer is complete. False: there was none, or it is shorter than announced (it is then broken off).
    public func finish() -> Bool { core.change { $0.finish() } }

    /// Breaks the answer off so that its reader sees that it is not whole. False: it was complete, or over.
    @discardableResult
    public func abort() -> Bool { core.change { $0.abort() } }

    /// Up to so many more bytes of a streamed body may be delivered. Nothing is read, and no `100 Continue` sent, before
    /// the first call.
    public func take(_ bytes: UInt64) { core.take(bytes) }

    /// Answers a WebSocket route's request with the upgrade. `nil`: it is no such route, was answered before, or nobody
    /// waits any more.
    public func accept(_ receiver: any OperatorSocketReceiver) -> OperatorSocket? { core.accept(receiver) }
}

/// What the handle's threads and the connection's loop share. Keeps no reference to the handle, so that letting go of
/// that is noticed.
final class ResponseCore: Sendable {
    let correlation: String
    private let state = Mutex(ResponseStateMachine())
    private let bridge: Confined<ExchangeBridge>
    /// Kept, so that a flush allocates nothing.
    private let flush: @Sendable (ExchangeBridge) -> Void = { $0.flush() }

    private let isWebSocket: Bool

    init(_ bridge: Confined<ExchangeBridge>, correlation: String, isWebSocket: Bool) {
        self.bridge = bridge
        self.correlation = correlation
        self.isWebSocket = isWebSocket
    }

    func change(_ body: (inout ResponseStateMachine) -> Bool) -> Bool {
        let (result, mustPost) = state.withLock { state in (body(&state), state.needsPost()) }
        if mustPost { post() }
        return result
    }

    func write(_ bytes: RawSpan) -> WriteOutcome {
        state.withLock { state in
            let outcome = state.write(bytes)
            if state.needsPost() { post() }
            return outcome
        }
    }

    /// Always by mail, which keeps the order and never calls the handler from inside its own call.
    private func post() { bridge.post(flush) }

    func giveUp() {
        guard state.withLock({ $0.isWaiting }) else {
            _ = change { $0.abort() }
            return
        }
        let problem = Problem(500, "handler-gave-up", "what serves this operation gave the request up without an answer")
        let response = problem.response(correlation: correlation)
        guard case .bytes(let bytes) = response.body else { return }
        _ = change { $0.respond(response.status, response.headers, bytes.span.bytes) }
    }

    func take(_ bytes: UInt64) { bridge.post { $0.take(bytes) } }

    func accept(_ receiver: any OperatorSocketReceiver) -> OperatorSocket? {
        guard isWebSocket, state.withLock({ $0.upgrade() }) else { return nil }
        let socket = OperatorSocket(receiver, on: bridge.loop)
        bridge.post { $0.upgrade(socket) }
        return socket
    }

    // MARK: The loop's side

    func taken() -> ResponseStateMachine.Work { state.withLock { $0.take() } }
    func flushed(socketIsFull: Bool) -> Bool { state.withLock { $0.flushed(socketIsFull: socketIsFull) } }
    func end() -> Bool { state.withLock { $0.end() } }
    var isWaiting: Bool { state.withLock { $0.isWaiting } }
}
