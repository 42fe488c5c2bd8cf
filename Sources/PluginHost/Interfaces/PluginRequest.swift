import CPluginABI
import Kernel
import Reactor
import Synchronization
import Web

/// One request that a plugin answers: now or later, from any thread, exactly once.
final class PluginRequest: PluginResource, ActingResource, ExchangeReceiver {
    let request: Request
    let response: ResponseHandle
    private let route: PluginRoute
    private let instance: PluginInstance
    private let handle: cm_handle
    private let isOver = Atomic<Bool>(false)

    var principal: Principal { request.principal }
    var specification: RouteSpecification { route.specification }

    private init(_ request: Request, _ response: ResponseHandle, _ route: PluginRoute, _ instance: PluginInstance) {
        self.request = request
        self.response = response
        self.route = route
        self.instance = instance
        handle = instance.environment.handles.next()
    }

    /// The route's handler: on the connection's loop.
    static func begin(
        _ request: Request, _ response: ResponseHandle, _ route: PluginRoute, _ instance: PluginInstance
    ) -> (any ExchangeReceiver)? {
        let pending = PluginRequest(request, response, route, instance)
        instance.keep(pending, as: pending.handle)
        instance.underway.add(1, ordering: .acquiringAndReleasing)
        guard pending.hand() else {
            pending.end()
            response.respond(Problem(503, "plugin-busy", "the plugin \"\(instance.id)\" has too much to do; try again", retryAfter: 1))
            return nil
        }
        return pending
    }

    private func hand() -> Bool {
        guard let function = route.callbacks.request else { return false }
        if route.specification.isInline {
            return instance.callInline("request", on: request.loop) {
                withBytes(request.body) { function(route.context.foreign.pointer, handle, $0) }
            }
        }
        return instance.call("request") { [route, handle, body = request.body] in
            withBytes(body) { function(route.context.foreign.pointer, handle, $0) }
        }
    }

    /// The answer is whole, or over: the handle is dead.
    func end() {
        guard !isOver.exchange(true, ordering: .acquiringAndReleasing) else { return }
        instance.forget(handle)
        instance.underway.subtract(1, ordering: .acquiringAndReleasing)
    }

    // MARK: From the connection's loop

    func body(_ piece: RawSpan, isLast: Bool) {
        guard let function = route.callbacks.body, !isOver.load(ordering: .acquiring) else { return }
        let last: UInt32 = isLast ? 1 : 0
        if route.specification.isInline {
            _ = instance.callInline("body", on: request.loop) {
                piece.withBytes { function(route.context.foreign.pointer, handle, $0, last) }
            }
        } else {
            // Bounded by what the plugin asked for.
            let bytes = piece.withUnsafeBytes { Array($0) }
            instance.callAlways("body") { [route, handle] in
                withBytes(bytes) { function(route.context.foreign.pointer, handle, $0, last) }
            }
        }
    }

    func drained() {
        guard let function = route.callbacks.writable, !isOver.load(ordering: .acquiring) else { return }
        instance.callAlways("writable") { [route, handle] in function(route.context.foreign.pointer, handle) }
    }

    func gone() {
        guard !isOver.load(ordering: .acquiring) else { return }
        end()
        guard let function = route.callbacks.gone else { return }
        instance.callAlways("gone") { [route, handle] in function(route.context.foreign.pointer, handle) }
    }

    /// The plugin is over: whoever waits is told.
    func retire(_: cm_handle, of instance: PluginInstance) {
        end()
        let isFirst = response.respond(
            Problem(503, "plugin-stopped", "the plugin \"\(instance.id)\" has stopped", retryAfter: 1))
        if !isFirst { response.abort() }
    }
}
