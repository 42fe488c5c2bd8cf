import CPluginABI

// A plugin in Embedded Swift: one route, by the header alone. No runtime library, 40 KB, safe to load anywhere.
//
//   GET /api/v1/helloembedded/{name}   greets

/// The core's tables, written by `load` and read by callbacks, all of them on the plugin's own thread.
private struct Core {
    var context: OpaquePointer?
    var http: UnsafePointer<cm_http>?
}
nonisolated(unsafe) private var core = Core()

/// A literal as the core wants it: static storage, no copy.
private func text(_ literal: StaticString) -> cm_text {
    cm_text(
        data: UnsafeRawPointer(literal.utf8Start).assumingMemoryBound(to: CChar.self), size: UInt64(literal.utf8CodeUnitCount))
}

private func request(_ context: UnsafeMutableRawPointer?, _ request: UInt64, _ body: cm_bytes) {
    guard let host = core.context, let http = core.http, let get = http.pointee.request_get,
        let respond = http.pointee.respond, let problem = http.pointee.respond_problem
    else { return }
    let opening: StaticString = "Hello, "
    withUnsafeTemporaryAllocation(byteCount: 320, alignment: 1) { room in
        guard let start = room.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
        start.update(from: opening.utf8Start, count: opening.utf8CodeUnitCount)
        var name = cm_buffer(data: start + opening.utf8CodeUnitCount, capacity: 256, size: 0)
        guard get(host, request, CM_REQUEST_PARAMETER, text("name"), &name) == CM_OK else {
            _ = problem(host, request, 400, text("invalid"), text("the name may have 256 bytes"))
            return
        }
        let size = opening.utf8CodeUnitCount + Int(name.size)
        start[size] = UInt8(ascii: "!")
        _ = respond(
            host, request, 200, text("content-type: text/plain; charset=utf-8"),
            cm_bytes(data: start, size: UInt64(size + 1)))
    }
}

private func load(
    _ context: UnsafeMutableRawPointer?, _ host: UnsafePointer<cm_host>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    guard host.pointee.head.size >= UInt32(MemoryLayout<cm_host>.size), let get = host.pointee.interface_get else {
        return CM_E_UNSUPPORTED
    }
    var found: UnsafeRawPointer?
    // All of revision 1 is needed: with less the core refuses here.
    let status = get(host.pointee.context, text("cm.http/1"), UInt32(MemoryLayout<cm_http>.size), &found, error)
    guard status == CM_OK, let found else { return status == CM_OK ? CM_E_UNSUPPORTED : status }
    let http = found.assumingMemoryBound(to: cm_http.self)
    guard let add = http.pointee.route_add else { return CM_E_UNSUPPORTED }
    core = Core(context: host.pointee.context, http: http)
    var callbacks = cm_route_callbacks()
    callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_route_callbacks>.size), revision: 1)
    callbacks.request = request
    var route: UInt64 = 0
    return add(
        host.pointee.context,
        text(
            """
            {"method":"GET","path":"/api/v1/helloembedded/{name}","right":"helloembedded.read",
            "operation":{"summary":"Greets somebody.","responses":{"200":{"description":"The greeting."}}}}
            """), &callbacks, nil, &route, error)
}

private func start(_ context: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status { CM_OK }

private func stop(_ context: UnsafeMutableRawPointer?) {}

/// Made at the first call and never changed; the core copies it.
nonisolated(unsafe) private let plugin: UnsafeMutablePointer<cm_plugin> = {
    let plugin = UnsafeMutablePointer<cm_plugin>.allocate(capacity: 1)
    plugin.initialize(
        to: cm_plugin(
            head: cm_head(size: UInt32(MemoryLayout<cm_plugin>.size), revision: 1), context: nil,
            id: UnsafeRawPointer(pluginID.utf8Start).assumingMemoryBound(to: CChar.self),
            version: UnsafeRawPointer(pluginVersion.utf8Start).assumingMemoryBound(to: CChar.self),
            load: load, start: start, quiesce: nil, resume: nil, stop: stop))
    return plugin
}()

@c @implementation
public func cm_plugin_entry(_ hostMajor: UInt32, _ hostMinor: UInt32) -> UnsafePointer<cm_plugin>? {
    hostMajor == CM_ABI_MAJOR ? UnsafePointer(plugin) : nil
}
