/// A system call of the reactor failed.
public struct ReactorError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Which call, for example `epoll_create1`.
    public let call: String
    public let errno: Int32

    public init(call: String, errno: Int32) {
        self.call = call
        self.errno = errno
    }

    public var description: String { "\(call) failed with errno \(errno)" }
}
