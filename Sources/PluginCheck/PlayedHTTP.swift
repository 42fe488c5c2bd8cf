import CPluginABI
import Glibc
import JSON
import PluginHost

// cm.http/1 of the played core: routes are taken down, requests are played by `PlayedTraffic`.

func httpRouteAdd(
    _ context: Context, _ specification: cm_text, _ callbacks: UnsafePointer<cm_route_callbacks>, _ own: Opaque,
    _ route: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.http/1 route_add"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_route_callbacks>.size, function)
    func refuse(_ status: cm_status, _ text: String) -> cm_status {
        callbacks.pointee.destroy?(own)
        return fail(status, error, text)
    }
    if let status = host.enter(function, .own) { return refuse(status, "played refusal") }
    let json = host.json(specification, function)
    let method = json["method"]?.string ?? ""
    let path = json["path"]?.string ?? ""
    let name = "\(method) \(path)"
    var faults: [String] = []
    if let fault = PluginRules.fault(ofRoute: host.bytes(specification, function), grants: host.note.capabilities) {
        faults.append(fault)
    }
    let area = path.hasPrefix("/api/v1/") ? path.dropFirst(8).prefix { $0 != "/" } : ""
    if !host.note.routes.contains(String(area)) { faults.append("its path is in none of the note's \"routes\"") }
    if callbacks.pointee.request == nil { faults.append("no callback request") }
    guard faults.isEmpty else {
        host.misuse("\(function) \(name): " + faults.joined(separator: ", "))
        return refuse(CM_E_INVALID, faults.joined(separator: ", "))
    }
    var registration = PlayedHost.Registration(
        kind: .route, name: name, context: own, destroy: callbacks.pointee.destroy, callbacks: .route(callbacks.pointee))
    registration.isInline = json["inline"]?.bool ?? false
    registration.pattern = path
    registration.method = method
    registration.streamsBody = json["stream_body"]?.bool ?? false
    route.pointee = host.register(registration)
    return CM_OK
}

func httpRouteRemove(_ context: Context, _ route: UInt64) -> cm_status {
    guard let host = core(context, "cm.http/1 route_remove") else { return CM_E_INVALID }
    if let status = host.enter("cm.http/1 route_remove", .own, canFail: false) { return status }
    return host.forget(route, .route, "cm.http/1 route_remove")
}

func httpAssetAdd(
    _ context: Context, _ path: cm_text, _ type: cm_text, _ content: cm_bytes, _ error: CError
) -> cm_status {
    guard let host = core(context, "cm.http/1 asset_add") else { return CM_E_INVALID }
    if let status = host.enter("cm.http/1 asset_add", .own) { return fail(status, error, "played refusal") }
    if host.text(path, "cm.http/1 asset_add").isEmpty { host.misuse("cm.http/1 asset_add: an empty path") }
    if host.text(type, "cm.http/1 asset_add").isEmpty { host.misuse("cm.http/1 asset_add: an empty content type") }
    return content.size > 4 << 20 ? fail(CM_E_TOO_LARGE, error, "more than 4 MiB") : CM_OK
}

/// The played request behind a handle, if it is still to be answered.
private func request(_ host: PlayedHost, _ handle: UInt64, _ function: StaticString) -> cm_status? {
    let task = host.with { $0.tasks[handle] }
    guard let task else {
        host.misuse("\(function): no request \(handle)")
        return CM_E_NOT_FOUND
    }
    guard task.isOver else { return nil }
    host.misuse("\(function): \(task.name) has been answered already")
    return CM_E_STATE
}

private func finish(_ host: PlayedHost, _ handle: UInt64) { host.with { $0.tasks[handle]?.isOver = true } }

func httpRequestGet(
    _ context: Context, _ handle: UInt64, _ what: UInt32, _ name: cm_text, _ value: CBuffer
) -> cm_status {
    let function: StaticString = "cm.http/1 request_get"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? request(host, handle, function) { return status }
    guard let task = host.with({ $0.tasks[handle] }) else { return CM_E_NOT_FOUND }
    let key = host.text(name, function)
    let answer: String? =
        switch what {
        case CM_REQUEST_METHOD: task.parameters["method"]
        case CM_REQUEST_PATH: task.parameters["path"]
        case CM_REQUEST_PARAMETER: task.parameters["{\(key)}"]
        case CM_REQUEST_QUERY: nil
        case CM_REQUEST_HEADER: key == "content-type" ? "application/json" : nil
        case CM_REQUEST_ACTOR: "check"
        case CM_REQUEST_ADDRESS: "127.0.0.1"
        case CM_REQUEST_CORRELATION: "check-1"
        default: nil
        }
    if what > CM_REQUEST_CORRELATION { host.misuse("\(function): \(what) is nothing that can be asked for") }
    if what == CM_REQUEST_PARAMETER, answer == nil {
        host.misuse("\(function): the path of \(task.name) has no {\(key)}")
    }
    guard let answer else { return CM_E_NOT_FOUND }
    return host.put(Array(answer.utf8), value, function)
}

func httpRequestMay(_ context: Context, _ handle: UInt64, _ right: cm_text, _ client: cm_text) -> Int32 {
    guard let host = core(context, "cm.http/1 request_may") else { return 0 }
    if host.enter("cm.http/1 request_may", .any, canFail: false) != nil { return 0 }
    return host.text(right, "cm.http/1 request_may").isEmpty ? 0 : 1
}

func httpRequestMore(_ context: Context, _ handle: UInt64, _ bytes: UInt64) -> cm_status {
    guard let host = core(context, "cm.http/1 request_more") else { return CM_E_INVALID }
    return host.enter("cm.http/1 request_more", .any) ?? request(host, handle, "cm.http/1 request_more") ?? CM_OK
}

func httpRespond(
    _ context: Context, _ handle: UInt64, _ status: UInt32, _ headers: cm_text, _ body: cm_bytes
) -> cm_status {
    let function: StaticString = "cm.http/1 respond"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? request(host, handle, function) { return status }
    checkAnswer(host, status, headers, function)
    _ = host.bytes(body, function)
    finish(host, handle)
    return CM_OK
}

private func checkAnswer(_ host: PlayedHost, _ status: UInt32, _ headers: cm_text, _ function: StaticString) {
    if !(200...599).contains(status) { host.misuse("\(function): status \(status)") }
    for line in host.text(headers, function).split(separator: "\n") where !line.contains(":") || line.contains("\r") {
        host.misuse("\(function): \"\(line.prefix(60))\" is no header line")
    }
}

func httpRespondProblem(
    _ context: Context, _ handle: UInt64, _ status: UInt32, _ code: cm_text, _ detail: cm_text
) -> cm_status {
    let function: StaticString = "cm.http/1 respond_problem"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? request(host, handle, function) { return status }
    if !(400...599).contains(status) { host.misuse("\(function): status \(status)") }
    if host.text(code, function).isEmpty { host.misuse("\(function): an empty code") }
    _ = host.text(detail, function)
    finish(host, handle)
    return CM_OK
}

func httpRespondBegin(
    _ context: Context, _ handle: UInt64, _ status: UInt32, _ headers: cm_text, _ length: Int64
) -> cm_status {
    let function: StaticString = "cm.http/1 respond_begin"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? request(host, handle, function) { return status }
    checkAnswer(host, status, headers, function)
    host.with { $0.tasks[handle]?.hasBegun = true }
    return CM_OK
}

/// A streamed answer must have begun.
private func begun(_ host: PlayedHost, _ handle: UInt64, _ function: StaticString) -> cm_status? {
    if host.with({ $0.tasks[handle]?.hasBegun ?? false }) { return nil }
    host.misuse("\(function) before respond_begin")
    return CM_E_STATE
}

func httpRespondWrite(_ context: Context, _ handle: UInt64, _ piece: cm_bytes) -> cm_status {
    let function: StaticString = "cm.http/1 respond_write"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? request(host, handle, function) ?? begun(host, handle, function) {
        return status
    }
    _ = host.bytes(piece, function)
    return CM_OK
}

func httpRespondEnd(_ context: Context, _ handle: UInt64) -> cm_status { ended(context, handle, "cm.http/1 respond_end") }
func httpRespondAbort(_ context: Context, _ handle: UInt64) -> cm_status { ended(context, handle, "cm.http/1 respond_abort") }

private func ended(_ context: Context, _ handle: UInt64, _ function: StaticString) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? request(host, handle, function) ?? begun(host, handle, function) {
        return status
    }
    finish(host, handle)
    return CM_OK
}

func httpWebSocketAccept(
    _ context: Context, _ handle: UInt64, _ callbacks: UnsafePointer<cm_websocket_callbacks>, _ own: Opaque,
    _ socket: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.http/1 websocket_accept"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_websocket_callbacks>.size, function)
    if let status = host.enter(function, .any) ?? request(host, handle, function) {
        callbacks.pointee.destroy?(own)
        return fail(status, error, "not accepted")
    }
    let name = host.with { $0.tasks[handle]?.name ?? "" }
    let number = host.register(
        .init(
            kind: .socket, name: name, context: own, destroy: callbacks.pointee.destroy,
            callbacks: .socket(callbacks.pointee)))
    socket.pointee = number
    host.with { state in
        state.tasks[handle]?.isOver = true
        state.tasks[handle]?.socketRegistration = number
    }
    return CM_OK
}

private func live(_ host: PlayedHost, _ socket: UInt64, _ function: StaticString) -> cm_status? {
    if host.with({ $0.registrations[socket]?.kind == .socket }) { return nil }
    return CM_E_GONE
}

func httpWebSocketSend(_ context: Context, _ socket: UInt64, _ kind: UInt32, _ payload: cm_bytes) -> cm_status {
    let function: StaticString = "cm.http/1 websocket_send"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? live(host, socket, function) { return status }
    if kind > CM_MESSAGE_TEXT { host.misuse("\(function): kind \(kind)") }
    let bytes = host.bytes(payload, function)
    if kind == CM_MESSAGE_TEXT, String(validating: bytes, as: UTF8.self) == nil {
        host.misuse("\(function): a text message that is not UTF-8")
    }
    return CM_OK
}

func httpWebSocketReceive(_ context: Context, _ socket: UInt64, _ on: UInt32) -> cm_status {
    let function: StaticString = "cm.http/1 websocket_receive"
    guard let host = core(context, function) else { return CM_E_INVALID }
    return host.enter(function, .any, canFail: false) ?? live(host, socket, function) ?? CM_OK
}

func httpWebSocketClose(_ context: Context, _ socket: UInt64, _ code: UInt32, _ reason: cm_text) -> cm_status {
    let function: StaticString = "cm.http/1 websocket_close"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any, canFail: false) ?? live(host, socket, function) { return status }
    if !(1000...4999).contains(code) { host.misuse("\(function): code \(code)") }
    if host.text(reason, function).utf8.count > 123 { host.misuse("\(function): a reason of more than 123 bytes") }
    return CM_OK
}

func httpTicketIssue(
    _ context: Context, _ handle: UInt64, _ path: cm_text, _ ticket: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.http/1 ticket_issue"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) ?? request(host, handle, function) { return fail(status, error, "no ticket") }
    return host.put(Array("check-ticket".utf8), ticket, function)
}
