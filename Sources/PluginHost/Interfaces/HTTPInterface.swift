import CPluginABI
import JSON
import Kernel
import Reactor
import Transport
import Web

let httpTable = HostTable(
    cm_http(
        head: head(of: cm_http.self), route_add: httpRouteAdd, route_remove: httpRouteRemove, asset_add: httpAssetAdd,
        request_get: httpRequestGet, request_may: httpRequestMay, request_more: httpRequestMore, respond: httpRespond,
        respond_problem: httpRespondProblem, respond_begin: httpRespondBegin, respond_write: httpRespondWrite,
        respond_end: httpRespondEnd, respond_abort: httpRespondAbort, websocket_accept: httpWebSocketAccept,
        websocket_send: httpWebSocketSend, websocket_receive: httpWebSocketReceive, websocket_close: httpWebSocketClose,
        ticket_issue: httpTicketIssue))

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
            instance.pending.add(specification.route { PluginRequest.begin($0, $1, made, instance) }, handle)
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

private func httpAssetAdd(
    _ host: OpaquePointer, _ path: cm_text, _ contentType: cm_text, _ content: cm_bytes, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let failure = error
    return hostCall(host, .own, "http.asset_add", error: error) { instance in
        guard instance.phase == .loading else {
            return error.set(CM_E_STATE, "plugin-phase", "assets are registered in `load`, so that they come and go in one step")
        }
        guard let path = path.string(limit: 256), let type = contentType.string(limit: 64),
            let content = content.array(limit: ConsoleAssets.maximumBytes)
        else { return error.set(CM_E_INVALID, "plugin-argument", "a path of 256 bytes, a type of 64, and content of 4 MiB are allowed") }
        let asset = ConsoleAsset(path: path, contentType: type, content: content)
        do throws(Problem) {
            // Looked over now, so that the refusal comes from this call.
            _ = try ConsoleAssets.routes(of: RouteOwner(plugin: instance.id), instance.pending.assets + [asset])
            instance.pending.add(asset)
            return CM_OK
        } catch {
            return failure.set(error)
        }
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

private func httpRequestMore(_ host: OpaquePointer, _ handle: cm_handle, _ bytes: UInt64) -> cm_status {
    withRequest(host, handle, "http.request_more") { request, instance in
        guard request.specification.streamsBody else {
            instance.misuse("http.request_more", "the route does not stream its body")
            return CM_E_STATE
        }
        request.response.take(bytes)
        return CM_OK
    }
}

private func httpRespond(_ host: OpaquePointer, _ handle: cm_handle, _ status: UInt32, _ headers: cm_text, _ body: cm_bytes) -> cm_status {
    withRequest(host, handle, "http.respond") { request, instance in
        guard let fields = ResponseFields(status, headers) else { return misuse(instance, "http.respond") }
        guard body.size <= 64 << 20 else { return CM_E_TOO_LARGE }
        let isTaken = body.withSpan { request.response.respond(fields.status, fields.headers, body: $0) }
        guard isTaken else { return answeredTwice(instance, "http.respond") }
        request.end()
        return CM_OK
    }
}

private func httpRespondProblem(
    _ host: OpaquePointer, _ handle: cm_handle, _ status: UInt32, _ code: cm_text, _ detail: cm_text
) -> cm_status {
    withRequest(host, handle, "http.respond_problem") { request, instance in
        guard (400...599).contains(status), let code = code.string(limit: 64), let detail = detail.string(limit: 4_096) else {
            return misuse(instance, "http.respond_problem")
        }
        guard request.response.respond(Problem(Int(status), code.isEmpty ? "plugin" : code, detail)) else {
            return answeredTwice(instance, "http.respond_problem")
        }
        request.end()
        return CM_OK
    }
}

private func httpRespondBegin(
    _ host: OpaquePointer, _ handle: cm_handle, _ status: UInt32, _ headers: cm_text, _ length: Int64
) -> cm_status {
    withRequest(host, handle, "http.respond_begin") { request, instance in
        guard length >= -1, let fields = ResponseFields(status, headers) else { return misuse(instance, "http.respond_begin") }
        guard request.response.begin(fields.status, fields.headers, length: length < 0 ? nil : UInt64(length)) else {
            return answeredTwice(instance, "http.respond_begin")
        }
        return CM_OK
    }
}

private func httpRespondWrite(_ host: OpaquePointer, _ handle: cm_handle, _ piece: cm_bytes) -> cm_status {
    withRequest(host, handle, "http.respond_write") { request, instance in
        guard piece.size <= 1 << 20 else { return CM_E_TOO_LARGE }
        switch piece.withSpan({ request.response.write($0) }) {
        case .accepted: return CM_OK
        case .full: return CM_E_BUSY
        case .gone: return CM_E_GONE
        case .misuse:
            instance.misuse("http.respond_write", "the answer was not begun, was ended, or is longer than announced")
            return CM_E_STATE
        }
    }
}

private func httpRespondEnd(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    withRequest(host, handle, "http.respond_end") { request, instance in
        let isWhole = request.response.finish()
        request.end()
        if !isWhole { instance.misuse("http.respond_end", "the answer was not begun, or is shorter than announced") }
        return isWhole ? CM_OK : CM_E_STATE
    }
}

private func httpRespondAbort(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    withRequest(host, handle, "http.respond_abort") { request, _ in
        let isAborted = request.response.abort()
        request.end()
        return isAborted ? CM_OK : CM_E_STATE
    }
}

// MARK: WebSockets

private func httpWebSocketAccept(
    _ host: OpaquePointer, _ handle: cm_handle, _ callbacks: UnsafePointer<cm_websocket_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ socket: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_websocket_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = withRequest(host, handle, "http.websocket_accept") { request, instance in
        guard let table, table.message != nil, table.closed != nil else {
            return error.set(CM_E_INVALID, "plugin-argument", "`message` or `closed` is not set, or the head of the callbacks is not filled in")
        }
        guard request.specification.isWebSocket else {
            return error.set(CM_E_STATE, "plugin-phase", "only a request of a route \"WEBSOCKET\" can be accepted as one")
        }
        guard instance.count(of: PluginSocket.self) < 10_000 else {
            return error.set(CM_E_BUSY, "plugin-too-many", "the plugin holds 10,000 WebSockets")
        }
        let made = instance.environment.handles.next()
        let held = PluginSocket(request, table, ends, instance, as: made)
        // Before the upgrade, whose first message may come at once.
        socket.pointee = made
        instance.keep(held, as: made)
        instance.underway.add(1, ordering: .acquiringAndReleasing)
        guard let connection = request.response.accept(held) else {
            instance.forget(made)
            instance.underway.subtract(1, ordering: .acquiringAndReleasing)
            return error.set(CM_E_GONE, "peer-gone", "the peer left, or the request was answered")
        }
        held.connected(connection)
        request.end()
        return CM_OK
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func withSocket(
    _ host: OpaquePointer, _ handle: cm_handle, _ function: StaticString, _ body: (PluginSocket, PluginInstance) -> cm_status
) -> cm_status {
    hostCall(host, .any, function) { instance in
        guard let socket = instance.resource(handle, PluginSocket.self) else { return CM_E_GONE }
        return body(socket, instance)
    }
}

private func httpWebSocketSend(_ host: OpaquePointer, _ handle: cm_handle, _ kind: UInt32, _ payload: cm_bytes) -> cm_status {
    withSocket(host, handle, "http.websocket_send") { socket, _ in
        guard kind <= UInt32(CM_MESSAGE_TEXT) else { return CM_E_INVALID }
        guard payload.size <= 1 << 20 else { return CM_E_TOO_LARGE }
        return payload.withSpan { socket.send($0, isText: kind == UInt32(CM_MESSAGE_TEXT)) }
    }
}

private func httpWebSocketReceive(_ host: OpaquePointer, _ handle: cm_handle, _ on: UInt32) -> cm_status {
    withSocket(host, handle, "http.websocket_receive") { socket, _ in
        socket.receive(on != 0)
        return CM_OK
    }
}

private func httpWebSocketClose(_ host: OpaquePointer, _ handle: cm_handle, _ code: UInt32, _ reason: cm_text) -> cm_status {
    withSocket(host, handle, "http.websocket_close") { socket, _ in
        guard let code = UInt16(exactly: code), let reason = reason.string(limit: 123) else { return CM_E_INVALID }
        socket.close(code, reason)
        return CM_OK
    }
}

private func httpTicketIssue(
    _ host: OpaquePointer, _ handle: cm_handle, _ path: cm_text, _ ticket: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let failure = error
    return withRequest(host, handle, "http.ticket_issue") { request, instance in
        guard let path = path.string(limit: 1_024) else {
            return error.set(CM_E_INVALID, "plugin-argument", "the path has at most 1,024 bytes of UTF-8")
        }
        guard ticket.pointee.capacity >= 128 else {
            ticket.pointee.size = 128
            return CM_E_TOO_SMALL
        }
        guard let table = instance.environment.routeTable.withLock({ $0 }) else { return CM_E_UNAVAILABLE }
        do throws(Problem) {
            let text = try table.issueTicket(request.principal, path: path, origin: request.request.headers["origin"])
            return ticket.fill(text)
        } catch {
            return failure.set(error)
        }
    }
}

private func answeredTwice(_ instance: PluginInstance, _ function: StaticString) -> cm_status {
    instance.misuse(function, "the request was answered already, or its peer left")
    return CM_E_STATE
}

private func misuse(_ instance: PluginInstance, _ function: StaticString) -> cm_status {
    instance.misuse(function, "status, headers or texts are not allowed: status 200 to 599, headers as lines \"name: value\"")
    return CM_E_INVALID
}

/// Status and headers of an answer, checked: a plugin cannot smuggle a second answer or take over the core's own fields.
struct ResponseFields {
    let status: Int
    let headers: HTTPHeaders

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

    /// RFC 9110 §5.1.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x61...0x7A, 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E...0x60, 0x7C, 0x7E: true
        default: false
        }
    }
}
