/// What can go wrong below the messages, with what the operator needs to know.
public struct TransportError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// A socket call failed; `message` names it.
        case system = "socket-error"
        case resolve = "name-not-resolved"
        case refused = "connection-refused"
        case reset = "connection-reset"
        case timeout = "timeout"
        case tls = "tls-error"
        /// The peer's certificate is not one that we trust.
        case untrusted = "certificate-not-trusted"
        case http = "http-error"
        case proxy = "proxy-error"
        case webSocket = "websocket-error"
        case tooLarge = "too-large"
        case closed = "closed"
        case invalid = "invalid-argument"
    }
    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "\(code.rawValue): \(message)" }
}
