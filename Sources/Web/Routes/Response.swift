import JSON
import Transport

/// What a handler answers. Status, headers, and a body that is whole or streamed.
public struct Response: Sendable {
    public enum Body: Sendable {
        case bytes([UInt8])
        /// Written piece by piece; the writer suspends while the peer does not read. `length` in bytes when known.
        case stream(length: UInt64?, @Sendable (ResponseWriter) async throws(StreamClosed) -> Void)
    }

    public var status: Int
    public var headers: HTTPHeaders
    public var body: Body

    public init(status: Int, headers: HTTPHeaders = [:], body: Body) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    public static func json(_ value: JSONValue, status: Int = 200) -> Response {
        json(bytes: value.serialized(), status: status)
    }

    /// Bytes that the caller knows to be one JSON value.
    public static func json(bytes: [UInt8], status: Int = 200) -> Response {
        var headers = HTTPHeaders.roomy
        headers.add("content-type", "application/json")
        return Response(status: status, headers: headers, body: .bytes(bytes))
    }

    /// 201 with `Location`.
    public static func created(_ value: JSONValue, at location: String) -> Response {
        var response = json(value, status: 201)
        response.headers.set("location", location)
        return response
    }

    public static func text(_ text: String, status: Int = 200, contentType: String = "text/plain; charset=utf-8")
        -> Response
    {
        Response(status: status, headers: ["content-type": contentType], body: .bytes(Array(text.utf8)))
    }

    /// 204.
    public static var empty: Response { Response(status: 204, body: .bytes([])) }

    public static func stream(
        contentType: String, length: UInt64? = nil, status: Int = 200,
        _ produce: @escaping @Sendable (ResponseWriter) async throws(StreamClosed) -> Void
    ) -> Response {
        Response(status: status, headers: ["content-type": contentType], body: .stream(length: length, produce))
    }

    public consuming func with(_ name: String, _ value: String) -> Response {
        headers.set(name, value)
        return self
    }

    /// With a strong validator; the pipeline answers 304 when the request has it in `If-None-Match`.
    public consuming func tagged(_ tag: String) -> Response { with("etag", "\"\(tag)\"") }
}

/// The peer went away, or the server stops: what is left of the body has no reader.
public struct StreamClosed: Error, Sendable {
    public init() {}
}
