import CPluginABI
import JSON
import Kernel
import Reactor
import Transport
import Web

let httpTable = HostTable(
    cm_http(
        head: head(of: cm_http.self), route_add: httpRouteAdd, route_remove: httpRouteRemove, asset_add: nil,
        request_get: httpRequestGet, request_may: httpRequestMay, request_more: nil, respond: httpRespond,
        respond_problem: httpRespondProblem, respond_begin: httpRespondBegin, respond_write: httpRespondWrite,
        respond_end: httpRespondEnd, respond_abort: httpRespondAbort, websocket_accept: nil, websocket_send: nil,
        websocket_receive: nil, websocket_close: nil, ticket_issue: nil))

/// A route under its handle; its context ends when the route is gone and the last of its requests is.
final class PluginRoute: PluginResource {
    let specification: RouteSpecification
    let callbacks: cm_route_callbacks
    let context: CallbackContext

    init(_ specification: RouteSpecification, _ callbacks: cm_route_callbacks, _ context: CallbackContext) {
        self.specification = specification
        self.callbacks = callbacks
        self.context = context
    }

    func retire(_ handle: cm_handle, of instance: PluginInstance) {
        _ = instance.pending.removeRoute(handle)
        context.end(on: instance)
    }
}

private func httpRouteAdd(
    _ host: OpaquePointer, _ specification: cm_text, _ callbacks: UnsafePointer<cm_route_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ route: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_route_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let failure = error
    let status = hostCall(host, .own, "http.route_add", error: error) { instance in
        guard let table, table.request != nil else {
            return error.set(CM_E_INVALID, "plugin-argument", "`request` is not set, or the head of the callbacks is not filled in")
        }
        guard let text = specification.bytes(limit: 65_536) else {
            return error.set(CM_E_TOO_LARGE, "plugin-argument", "a route's specification has at most 65,536 bytes")
        }
        guard instance.phase == .loading else {
            return error.set(CM_E_STATE, "plugin-phase", "routes are registered in `load`, so that they come and go in one step")
        }
        guard instance.count(of: PluginRoute.self) < RouteTable.Bound.routesPerPlugin else {
            return error.set(CM_E_BUSY, "plugin-too-many", "a plugin may have \(RouteTable.Bound.routesPerPlugin) routes")
        }
        do throws(Problem) {
            let specification = try RouteSpecification(parsing: text, grants: instance.grants)
            let made = PluginRoute(specification, table, ends)
            let handle = instance.keep(made)
            route.pointee = handle
            instance.pending.add(specification.route { await PluginRequest.handle($0, made, instance) }, handle)
            return CM_OK
        } catch {
            return failure.set(error)
        }
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func httpRouteRemove(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .own, "http.route_remove") { instance in
        guard let route = instance.resource(handle, PluginRoute.self) else { return CM_E_NOT_FOUND }
        instance.forget(handle)
        route.retire(handle, of: instance)
        if instance.phase == .running { instance.environment.routesChanged(instance) }
        return CM_OK
    }
}

// MARK: Requests

/// Finds a request that is not answered yet.
private func withRequest(
    _ host: OpaquePointer, _ handle: cm_handle, _ function: StaticString, _ body: (PluginRequest, PluginInstance) -> cm_status
) -> cm_status {
    hostCall(host, .any, function) { instance in
        guard let request = instance.resource(handle, PluginRequest.self) else {
            // Answered, or its peer left: which of the two, the plugin was told or did itself.
            return CM_E_GONE
        }
        return body(request, instance)
    }
}

private func httpRequestGet(
    _ host: OpaquePointer, _ handle: cm_handle, _ what: UInt32, _ name: cm_text, _ value: UnsafeMutablePointer<cm_buffer>
) -> cm_status {
    withRequest(host, handle, "http.request_get") { request, _ in
        guard let name = name.string(limit: 256) else { return CM_E_INVALID }
        let head = request.request
        let found: String?
        switch what {
        case UInt32(CM_REQUEST_METHOD): found = head.method.rawValue
        case UInt32(CM_REQUEST_PATH): found = head.path
        case UInt32(CM_REQUEST_PARAMETER): found = head[name].isEmpty ? nil : head[name]
        case UInt32(CM_REQUEST_QUERY): found = head.query.values(name).first
        case UInt32(CM_REQUEST_HEADER):
            // The credential is the core's business, not the plugin's.
            found = ["authorization", "cookie", "proxy-authorization"].contains(name) ? nil : head.headers[name]
        case UInt32(CM_REQUEST_ACTOR): found = head.principal.id
        case UInt32(CM_REQUEST_ADDRESS): found = head.address
        case UInt32(CM_REQUEST_CORRELATION): found = head.correlation
        default: return CM_E_INVALID
        }
        guard let found else { return CM_E_NOT_FOUND }
        return value.fill(found)
    }
}

private func httpRequestMay(_ host: OpaquePointer, _ handle: cm_handle, _ right: cm_text, _ client: cm_text) -> Int32 {
    var answer: Int32 = 0
    _ = withRequest(host, handle, "http.request_may") { request, instance in
        guard let right = right.string(limit: 64), let client = client.string(limit: 64) else { return CM_E_INVALID }
        answer = instance.environment.may(request.request.principal, Right(rawValue: right), client: client) ? 1 : 0
        return CM_OK
    }
    return answer
}

private func httpRespond(_ host: OpaquePointer, _ handle: cm_handle, _ status: UInt32, _ headers: cm_text, _ body: cm_bytes) -> cm_status {
    withRequest(host, handle, "http.respond") { request, instance in
        guard let fields = ResponseFields(status, headers) else { return misuse(instance, "http.respond") }
        guard let body = body.array(limit: 64 << 20) else { return CM_E_TOO_LARGE }
        return request.answer(.success(fields.response(.bytes(body))), handle)
    }
}

private func httpRespondProblem(
    _ host: OpaquePointer, _ handle: cm_handle, _ status: UInt32, _ code: cm_text, _ detail: cm_text
) -> cm_status {
    withRequest(host, handle, "http.respond_problem") { request, instance in
        guard (400...599).contains(status), let code = code.string(limit: 64), let detail = detail.string(limit: 4_096) else {
            return misuse(instance, "http.respond_problem")
        }
        return request.answer(.failure(Problem(Int(status), code.isEmpty ? "plugin" : code, detail)), handle)
    }
}

private func httpRespondBegin(
    _ host: OpaquePointer, _ handle: cm_handle, _ status: UInt32, _ headers: cm_text, _ length: Int64
) -> cm_status {
    withRequest(host, handle, "http.respond_begin") { request, instance in
        guard length >= -1, let fields = ResponseFields(status, headers) else { return misuse(instance, "http.respond_begin") }
        let stream = AnswerStream()
        request.stream.withLock { $0 = stream }
        let body = Response.Body.stream(length: length < 0 ? nil : UInt64(length)) { writer async throws(StreamClosed) in
            try await request.pump(stream, to: writer, handle)
        }
        return request.answer(.success(fields.response(body)), handle, isStream: true)
    }
}

private func httpRespondWrite(_ host: OpaquePointer, _ handle: cm_handle, _ piece: cm_bytes) -> cm_status {
    withRequest(host, handle, "http.respond_write") { request, _ in
        guard let stream = request.stream.withLock({ $0 }) else { return CM_E_STATE }
        guard let bytes = piece.array(limit: AnswerStream.highMark) else { return CM_E_TOO_LARGE }
        return stream.write(bytes)
    }
}

private func httpRespondEnd(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    withRequest(host, handle, "http.respond_end") { request, _ in request.stream.withLock { $0 }?.end(.whole) ?? CM_E_STATE }
}

private func httpRespondAbort(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    withRequest(host, handle, "http.respond_abort") { request, _ in request.stream.withLock { $0 }?.end(.broken) ?? CM_E_STATE }
}

private func misuse(_ instance: PluginInstance, _ function: StaticString) -> cm_status {
    instance.misuse(function, "status, headers or texts are not allowed: status 200 to 599, headers as lines \"name: value\"")
    return CM_E_INVALID
}

/// Status and headers of an answer, checked: a plugin cannot smuggle a second answer or take over the core's own fields.
struct ResponseFields {
    private let status: Int
    private let headers: HTTPHeaders

    private static let reserved: Set<String> = [
        "content-length", "transfer-encoding", "connection", "upgrade", "date", "server", "trailer", "keep-alive",
        "x-correlation-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset",
    ]

    init?(_ status: UInt32, _ text: cm_text) {
        guard (200...599).contains(status), let text = text.string(limit: 16_384) else { return nil }
        var headers: HTTPHeaders = [:]
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { return nil }
            let name = line[..<colon].lowercased()
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            guard !name.isEmpty, name.utf8.allSatisfy(Self.isNameByte), !Self.reserved.contains(name),
                value.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 })
            else { return nil }
            headers.add(name, String(value))
        }
        self.status = Int(status)
        self.headers = headers
    }

    func response(_ body: Response.Body) -> Response { Response(status: status, headers: headers, body: body) }

    /// RFC 9110 §5.1.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x61...0x7A, 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E...0x60, 0x7C, 0x7E: true
        default: false
        }
    }
}
