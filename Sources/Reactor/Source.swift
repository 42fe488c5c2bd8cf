import CLinux

/// What epoll reported for a descriptor, edge-triggered: act until the call says EAGAIN, because it is not said again.
public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let readable = Readiness(rawValue: EPOLLIN.rawValue)
    public static let writable = Readiness(rawValue: EPOLLOUT.rawValue)
    /// The peer has shut down its sending side (or all): read on until 0, even after a short read.
    public static let peerClosed = Readiness(rawValue: EPOLLRDHUP.rawValue | EPOLLHUP.rawValue)
    public static let failed = Readiness(rawValue: EPOLLERR.rawValue)
}

/// A descriptor that an event loop watches. Subclass it; everything happens on the loop that it was added to.
///
/// The loop keeps it alive from `add` until `remove` and the end of that turn. Closing the descriptor is the owner's
/// business, after `remove`.
open class Source {
    public final let descriptor: Int32

    public init(descriptor: Int32) { self.descriptor = descriptor }

    open func ready(_ readiness: Readiness) {}
}
