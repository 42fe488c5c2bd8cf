/// One call of the core's API.
public struct APIRequest: Sendable, Equatable {
    public var method: String
    /// Percent-encoded path.
    public var path: String
    public var query: [(name: String, value: String)] = []
    public var body: [UInt8]?
    /// Names in lower case.
    public var headers: [(name: String, value: String)] = []

    public init(_ method: String, _ path: String, body: [UInt8]? = nil) {
        self.method = method
        self.path = path
        self.body = body
    }

    /// Path and query as they stand on the request line.
    public var target: String {
        guard !query.isEmpty else { return path }
        let pairs = query.map { Self.encoded($0.name) + "=" + Self.encoded($0.value) }
        return path + (path.contains("?") ? "&" : "?") + pairs.joined(separator: "&")
    }

    public static func == (left: APIRequest, right: APIRequest) -> Bool {
        left.method == right.method && left.target == right.target && left.body == right.body
            && left.headers.elementsEqual(right.headers) { $0 == $1 }
    }

    /// Percent-encodes everything outside RFC 3986's unreserved characters: safe as a path segment and in a query.
    public static func encoded(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                result.unicodeScalars.append(UnicodeScalar(byte))
            default:
                let hexadecimal = String(byte, radix: 16, uppercase: true)
                result += (byte < 16 ? "%0" : "%") + hexadecimal
            }
        }
        return result
    }
}

public struct APIResponse: Sendable {
    public var status: Int
    /// Names in lower case.
    public var headers: [(name: String, value: String)]
    /// Empty when the body went to a `stream` call's receiver.
    public var body: [UInt8]

    public init(status: Int, headers: [(name: String, value: String)] = [], body: [UInt8] = []) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    public func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
}

/// What carries a request to the core and its answer back. Tests put a scripted one here.
public protocol APITransport {
    /// The whole answer, at most 64 MiB of body. Throws only `.unreachable` errors; a status is not an error here.
    func send(_ request: APIRequest) async throws(OperatorError) -> APIResponse

    /// Hands the body of a 2xx answer over piece by piece as it arrives; any other answer comes back whole.
    func stream(
        _ request: APIRequest, _ receive: (_ piece: [UInt8]) async throws(OperatorError) -> Void
    ) async throws(OperatorError) -> APIResponse

    /// Sends a body that comes piece by piece, at the core's pace; `next` gives `nil` after the last. The core may answer
    /// before the end. `length`: `nil` for one that is not known.
    func upload(
        _ request: APIRequest, length: UInt64?, _ next: () async throws(OperatorError) -> [UInt8]?
    ) async throws(OperatorError) -> APIResponse

    /// Opens a WebSocket; `receive` hears of each message, on the caller's loop.
    func webSocket(
        _ request: APIRequest, _ receive: @escaping (APIMessage) -> Void
    ) async throws(OperatorError) -> any APISocket

    /// Ends a running `stream` call with an error. Does nothing when there is none.
    func interrupt()
}

extension APITransport {
    /// For ways that carry whole requests alone.
    public func upload(
        _ request: APIRequest, length: UInt64?, _ next: () async throws(OperatorError) -> [UInt8]?
    ) async throws(OperatorError) -> APIResponse {
        throw OperatorError(.unreachable, "this way to the core carries no streams")
    }

    /// For ways that carry requests alone.
    public func webSocket(
        _ request: APIRequest, _ receive: @escaping (APIMessage) -> Void
    ) async throws(OperatorError) -> any APISocket {
        throw OperatorError(.unreachable, "this way to the core carries no WebSockets")
    }
}

public enum APIMessage: Sendable, Equatable {
    case binary([UInt8])
    case text([UInt8])
}

/// An open WebSocket to the core. Confined to its loop.
public protocol APISocket: AnyObject {
    func send(_ bytes: [UInt8])
    func send(text: [UInt8])
    func close()
    var isClosed: Bool { get }
    /// Returns after this time, at the end of the connection, or after `wake`.
    func wait(milliseconds: UInt64) async
    func wake()
}
