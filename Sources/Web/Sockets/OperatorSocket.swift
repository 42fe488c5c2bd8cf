import Kernel
import Reactor
import Synchronization
import Transport

/// Hears of one operator's WebSocket. Called on its loop: must not block.
public protocol OperatorSocketReceiver: AnyObject, Sendable {
    /// A whole message; the bytes are valid only during the call. Text has been checked to be UTF-8.
    func message(_ payload: RawSpan, isText: Bool)
    func pong(_ payload: RawSpan)
    /// A send that was answered with `full` may be tried again.
    func drained()
    /// The end, by whichever side; the last call, exactly once. `code` as in RFC 6455 §7.4.
    func closed(_ code: UInt16, _ reason: String)
}

extension OperatorSocketReceiver {
    public func pong(_ payload: RawSpan) {}
    public func drained() {}
}

/// A WebSocket between an operator and what serves its route. Every call may come from any thread; what is sent before the
/// upgrade is through goes out after it.
///
/// On the socket's own loop a message goes straight into the connection. From other threads it is copied into a buffer
/// that the loop empties with one wake for many messages.
public final class OperatorSocket: Sendable {
    /// Bytes that may wait for the loop or the peer before sends are refused.
    public static let highMark = WebSocketConnection.highMark

    struct Frame: Sendable {
        let count: Int
        let isText: Bool
    }

    private enum Phase { case connecting, open, closing, closed }

    private struct State: ~Copyable {
        var phase = Phase.connecting
        var bytes: [UInt8] = []
        var frames: [Frame] = []
        var isPosted = false
        /// The connection holds more than its high mark.
        var isFull = false
        var wantsDrained = false
        var close: (code: WebSocketCloseCode, reason: String)?
        var pausesReading = false
        var bridge: Confined<SocketBridge>?
        /// Made once, so that a wake allocates nothing; nil after the end, which breaks its cycle.
        var flush: Flush?
    }
    private typealias Flush = @Sendable () -> Void
    private let state = Mutex(State())
    private let loop: EventLoop
    let receiver: any OperatorSocketReceiver

    init(_ receiver: any OperatorSocketReceiver, on loop: EventLoop) {
        self.receiver = receiver
        self.loop = loop
        state.withLock { $0.flush = { [self] in flushNow() } }
    }

    /// Sends one message, or says why not. Text must be UTF-8: the peer ends the connection otherwise.
    public func send(_ message: RawSpan, isText: Bool = false) -> WriteOutcome {
        let count = message.byteCount
        var due: Flush?
        let (outcome, direct) = message.withUnsafeBytes { bytes in
            state.withLock { state -> (WriteOutcome, Confined<SocketBridge>?) in
                guard state.phase == .open || state.phase == .connecting else { return (.gone, nil) }
                guard !state.isFull, state.bytes.count < OperatorSocket.highMark else {
                    state.wantsDrained = true
                    return (.full, nil)
                }
                if state.frames.isEmpty, state.phase == .open, loop.isCurrent { return (.accepted, state.bridge) }
                state.bytes.append(contentsOf: bytes)
                state.frames.append(Frame(count: count, isText: isText))
                due = Self.flushDue(&state)
                return (.accepted, nil)
            }
        }
        post(due)
        guard let direct else { return outcome }
        let (sent, isFull) = direct.assumeOnLoop { ($0.socket.send(message, isText: isText), $0.socket.isOverHighMark) }
        if isFull { state.withLock { $0.isFull = true } }
        return sent ? .accepted : .gone
    }

    public func send(_ message: [UInt8], isText: Bool = false) -> WriteOutcome { send(message.span.bytes, isText: isText) }

    /// Ends it after what was sent before; `closed` follows. Codes that must not be on the wire become 1011.
    public func close(_ code: UInt16 = 1000, _ reason: String = "") {
        let isAllowed = code == 1000 || code == 1001 || (1007...1014).contains(code) || (3000...4999).contains(code)
        post(state.withLock { state in
            guard state.phase == .open || state.phase == .connecting, state.close == nil else { return nil }
            state.close = (isAllowed ? WebSocketCloseCode(rawValue: code) : .internalError, reason)
            if state.phase == .open { state.phase = .closing }
            return Self.flushDue(&state)
        })
    }

    /// Back-pressure on the peer: nothing is read from it while this is off.
    public func receive(_ isOn: Bool) {
        post(state.withLock { state in
            state.pausesReading = !isOn
            return Self.flushDue(&state)
        })
    }

    private static func flushDue(_ state: inout State) -> Flush? {
        guard state.phase != .connecting, !state.isPosted, let flush = state.flush else { return nil }
        state.isPosted = true
        return flush
    }

    /// Outside the lock: the loop that this wakes takes it first of all, and would wait for whoever woke it.
    private func post(_ due: Flush?) {
        if let due { loop.post(due) }
    }

    // MARK: The loop's side

    /// The upgrade is through.
    func opened(_ bridge: Confined<SocketBridge>) {
        post(state.withLock { state in
            state.bridge = bridge
            state.phase = state.close == nil ? .open : .closing
            guard !state.frames.isEmpty || state.close != nil || state.pausesReading else { return nil }
            return Self.flushDue(&state)
        })
    }

    private func flushNow() {
        let bridge = state.withLock { state in
            state.isPosted = false
            return state.bridge
        }
        bridge?.assumeOnLoop { flush($0) }
    }

    private func flush(_ bridge: SocketBridge) {
        let (close, pauses) = state.withLock { state in
            swap(&state.bytes, &bridge.outgoing)
            swap(&state.frames, &bridge.frames)
            return (state.close, state.pausesReading)
        }
        bridge.sendOutgoing()
        bridge.setReading(!pauses)
        if let close { return bridge.socket.close(close.code, close.reason) }
        if hasRoom(isFull: bridge.socket.isOverHighMark) { receiver.drained() }
    }

    /// The connection can take more, or not. True when the sender waits to hear that it may go on.
    func hasRoom(isFull: Bool) -> Bool {
        state.withLock { state in
            state.isFull = isFull
            guard state.wantsDrained, !isFull, state.phase == .open, state.bytes.count < OperatorSocket.highMark else {
                return false
            }
            state.wantsDrained = false
            return true
        }
    }

    /// It has ended, or never came to be. Tells the receiver once.
    func ended(_ code: UInt16, _ reason: String) {
        let isFirst = state.withLock { state in
            defer {
                state.phase = .closed
                state.bytes = []
                state.frames = []
                state.bridge = nil
                state.flush = nil
            }
            return state.phase != .closed
        }
        if isFirst { receiver.closed(code, reason) }
    }
}
