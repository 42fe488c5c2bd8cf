import Kernel
import Transport

/// What serves a request once it has passed authentication, limits, right and audit.
public enum RouteAction: Sendable {
    /// The answer is what the handler returns. It runs as a task on the connection's loop.
    case answer(Route.Handler)
    /// The answer is given later and from any thread, through the handle.
    case exchange(timeoutMilliseconds: UInt64, ExchangeHandler)
    /// As `exchange`, for a request that asks for a WebSocket: the handler answers it with `ResponseHandle.accept`, or with
    /// a refusal. Operators authenticate with the Authorization field or a one-time ticket in the query.
    case webSocket(WebSocketLimits, timeoutMilliseconds: UInt64, ExchangeHandler)
}

/// Takes a request over. Called on the connection's loop and must not block; what it returns hears of body, drain and end.
public typealias ExchangeHandler = @Sendable (Request, ResponseHandle) -> (any ExchangeReceiver)?

/// Hears of one request. Called on the connection's loop: must not block.
public protocol ExchangeReceiver: AnyObject, Sendable {
    /// A piece of a streamed body, at most as much as `ResponseHandle.take` allowed; valid only during the call. With
    /// `isLast` it is the end, and may be empty.
    func body(_ piece: RawSpan, isLast: Bool)
    /// A write that was answered with `full` may be tried again.
    func drained()
    /// The peer left, or the time is over, before the answer was complete. Nothing is called after this.
    func gone()
}

extension ExchangeReceiver {
    public func body(_ piece: RawSpan, isLast: Bool) {}
    public func drained() {}
    public func gone() {}
}

/// Bounds of a route's WebSockets.
public struct WebSocketLimits: Sendable {
    /// Of one message from the operator, in bytes.
    public var maximumMessage: Int
    /// Those that the route speaks; the first that the operator offers is taken.
    public var subprotocols: [String]

    public init(maximumMessage: Int = 64 << 10, subprotocols: [String] = []) {
        self.maximumMessage = maximumMessage
        self.subprotocols = subprotocols
    }
}
