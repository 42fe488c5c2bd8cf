import CPluginABI
import JSON

/// What a route is. Authentication, limits, the right and the audit record are done before the plugin sees a request.
public struct Route: Sendable {
    public enum Method: String, Sendable {
        case get = "GET", post = "POST", put = "PUT", patch = "PATCH", delete = "DELETE", webSocket = "WEBSOCKET"
    }

    public var method: Method
    /// Below one of the areas of the plugin's note: "/api/v1/hello/{name}".
    public var path: String
    /// "hello.read": area.verb. Who may call it is the operator's decision.
    public var right: String
    /// The OpenAPI 3.1 operation object: summary, responses, parameters, requestBody. `init` fills in a summary and a
    /// response where there is none.
    public var operation: JSONObject
    public var bodyLimit: Int?
    public var streamsBody = false
    public var timeoutSeconds: Int?
    /// "hello.greet": each call leaves an audit record of this action.
    public var audit: String?
    /// Callbacks on the core's loops; needs the capability "inline".
    public var isInline = false
    /// Of a WebSocket: bytes of one message.
    public var messageLimit: Int?

    public init(_ method: Method, _ path: String, right: String, summary: String, operation: JSONObject = [:]) {
        self.method = method
        self.path = path
        self.right = right
        self.operation = operation
        if self.operation["summary"] == nil { self.operation["summary"] = .string(summary) }
        if self.operation["responses"] == nil { self.operation["responses"] = ["200": ["description": "The answer."]] }
    }

    var specification: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("method", method.rawValue)
            $0.field("path", path)
            $0.field("right", right)
            $0.field("operation", operation)
            $0.field("body_limit", ifPresent: bodyLimit)
            if streamsBody { $0.field("stream_body", true) }
            $0.field("timeout_s", ifPresent: timeoutSeconds)
            $0.field("audit", ifPresent: audit)
            if isInline { $0.field("inline", true) }
            $0.field("message_limit", ifPresent: messageLimit)
        }
        return writer.finish()
    }
}

/// What the core tells about the requests of one route, on the plugin's own thread (on the core's loops for an inline
/// route: then it must not touch the plugin's state without a lock).
public final class RouteHandler {
    let request: (Request, RawSpan) -> Void
    /// The next piece of a streamed body; `true` with the last one. More comes after `Request.more`.
    public var body: (Request, RawSpan, Bool) -> Void = { _, _, _ in }
    /// What waited for a slow reader is low again: go on with `Request.write`.
    public var writable: (Request) -> Void = { _ in }
    /// The peer left, or the time is over, before the answer ended.
    public var gone: (Request) -> Void = { _ in }
    fileprivate let table: HostTable<cm_http>

    fileprivate init(_ table: HostTable<cm_http>, _ request: @escaping (Request, RawSpan) -> Void) {
        self.table = table
        self.request = request
    }
}

/// `cm.http/1`: routes in the one API.
public struct HTTP: Sendable {
    let table: HostTable<cm_http>

    /// Adds a route. The handler answers now or later, from any thread, exactly once, within the route's time. Further
    /// callbacks are set in `configure`, before the first request can come.
    @discardableResult
    public func route(
        _ route: Route, configure: (RouteHandler) -> Void = { _ in }, _ request: @escaping (Request, RawSpan) -> Void
    ) throws(PluginError) -> Registration {
        guard let add = table.functions.route_add else { throw .missing("cm.http/1 route_add") }
        let handler = RouteHandler(table, request)
        configure(handler)
        var callbacks = cm_route_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_route_callbacks>.size), revision: 1)
        callbacks.request = routeRequest
        callbacks.body = routeBody
        callbacks.writable = routeWritable
        callbacks.gone = routeGone
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(handler).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.http/1 route_add") { error in
            route.specification.withText { add(table.context, $0, &callbacks, context, &handle, error) }
        }
        return Registration(handle: handle)
    }

    /// Requests that were accepted are still finished.
    public func remove(_ route: Registration) throws(PluginError) {
        guard let remove = table.functions.route_remove else { throw .missing("cm.http/1 route_remove") }
        try check(remove(table.context, route.handle), "cm.http/1 route_remove")
    }

    /// A page or module of the console, served under /console/plugins/ID/PATH; at most 4 MiB.
    public func asset(_ path: String, contentType: String, _ content: [UInt8]) throws(PluginError) {
        guard let add = table.functions.asset_add else { throw .missing("cm.http/1 asset_add") }
        try attempt("cm.http/1 asset_add") { error in
            path.withText { path in
                contentType.withText { type in content.withBytes { add(table.context, path, type, $0, error) } }
            }
        }
    }
}

extension Host {
    public func http() throws(PluginError) -> HTTP { HTTP(table: try interface(CM_INTERFACE_HTTP, cm_http())) }
}

private func routeRequest(_ context: UnsafeMutableRawPointer?, _ request: UInt64, _ body: cm_bytes) {
    withContext(context, as: RouteHandler.self) { handler in
        body.withSpan { handler.request(Request(table: handler.table, handle: request), $0) }
    }
}

private func routeBody(_ context: UnsafeMutableRawPointer?, _ request: UInt64, _ piece: cm_bytes, _ last: UInt32) {
    withContext(context, as: RouteHandler.self) { handler in
        piece.withSpan { handler.body(Request(table: handler.table, handle: request), $0, last != 0) }
    }
}

private func routeWritable(_ context: UnsafeMutableRawPointer?, _ request: UInt64) {
    withContext(context, as: RouteHandler.self) { $0.writable(Request(table: $0.table, handle: request)) }
}

private func routeGone(_ context: UnsafeMutableRawPointer?, _ request: UInt64) {
    withContext(context, as: RouteHandler.self) { $0.gone(Request(table: $0.table, handle: request)) }
}
