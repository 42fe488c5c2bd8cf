import CPluginABI
import Kernel
import Reactor
import Synchronization
import Web

/// One request that a plugin answers: now or later, from any thread, exactly once.
final class PluginRequest: PluginResource, ActingResource {
    let request: Request
    private let route: PluginRoute
    private let instance: PluginInstance
    let stream = Mutex<AnswerStream?>(nil)

    private struct State: ~Copyable {
        var result: Result<Response, Problem>?
        var waiter: UnsafeContinuation<Result<Response, Problem>, Never>?
        var isAnswered = false
        var isOver = false
    }
    private let state = Mutex(State())

    var principal: Principal { request.principal }

    private init(_ request: Request, _ route: PluginRoute, _ instance: PluginInstance) {
        self.request = request
        self.route = route
        self.instance = instance
    }

    /// The route's handler: on the connection's loop.
    static func handle(_ request: Request, _ route: PluginRoute, _ instance: PluginInstance) async -> Result<Response, Problem> {
        let pending = PluginRequest(request, route, instance)
        let handle = instance.keep(pending)
        instance.underway.add(1, ordering: .acquiringAndReleasing)
        guard pending.hand(to: handle) else {
            pending.end(handle)
            return .failure(Problem(503, "plugin-busy", "the plugin \"\(instance.id)\" has too much to do; try again", retryAfter: 1))
        }
        let timer = Timer {
            _ = pending.answer(.failure(Problem(504, "plugin-timeout", "the plugin \"\(instance.id)\" did not answer in time")), handle)
            pending.gone(handle)
        }
        request.loop.schedule(timer, afterMilliseconds: route.specification.timeoutMilliseconds)
        let result = await withTaskCancellationHandler {
            await pending.result()
        } onCancel: {
            // The peer has left: nobody waits for an answer.
            _ = pending.answer(.failure(Problem(499, "peer-gone", "the peer left before the answer")), handle)
            pending.gone(handle)
        }
        request.loop.cancel(timer)
        if case .success(let response) = result, case .stream = response.body { return result }
        pending.end(handle)
        return result
    }

    private func hand(to handle: cm_handle) -> Bool {
        guard let function = route.callbacks.request else { return false }
        let body = request.body
        let work: @Sendable () -> Void = { [route] in
            withBytes(body) { function(route.context.foreign.pointer, handle, $0) }
        }
        return route.specification.isInline ? instance.callInline("request", on: request.loop, work) : instance.call("request", work)
    }

    private func result() async -> Result<Response, Problem> {
        await withUnsafeContinuation { continuation in
            let result = state.withLock { state -> Result<Response, Problem>? in
                if state.result == nil { state.waiter = continuation }
                return state.result
            }
            if let result { continuation.resume(returning: result) }
        }
    }

    /// Any thread. CM_E_STATE when it was answered before.
    func answer(_ result: Result<Response, Problem>, _ handle: cm_handle, isStream: Bool = false) -> cm_status {
        let (isFirst, waiter) = state.withLock { state -> (Bool, UnsafeContinuation<Result<Response, Problem>, Never>?) in
            guard !state.isAnswered else { return (false, nil) }
            state.isAnswered = true
            state.result = result
            return (true, state.waiter.take())
        }
        guard isFirst else {
            instance.misuse("http.respond", "the request was answered already")
            return CM_E_STATE
        }
        // A whole answer ends the handle at once, so that a second one is CM_E_GONE whatever the timing.
        if !isStream { instance.forget(handle) }
        waiter?.resume(returning: result)
        return CM_OK
    }

    /// The peer left, or the time is over: the plugin hears of it once, if it still held the request.
    private func gone(_ handle: cm_handle) {
        stream.withLock { $0 }?.close()
        guard let function = route.callbacks.gone, !state.withLock({ $0.isOver }) else { return }
        instance.callAlways("gone") { [route] in function(route.context.foreign.pointer, handle) }
    }

    private func end(_ handle: cm_handle) {
        let isFirst = state.withLock { state in
            defer { state.isOver = true }
            return !state.isOver
        }
        guard isFirst else { return }
        instance.forget(handle)
        instance.underway.subtract(1, ordering: .acquiringAndReleasing)
    }

    /// Carries a streamed answer from the plugin's pieces to the connection, at the reader's pace.
    func pump(_ stream: AnswerStream, to writer: ResponseWriter, _ handle: cm_handle) async throws(StreamClosed) {
        defer { end(handle) }
        while true {
            switch await stream.next() {
            case .piece(let bytes, let isLowAgain):
                if isLowAgain, let function = route.callbacks.writable {
                    instance.callAlways("writable") { [route] in function(route.context.foreign.pointer, handle) }
                }
                do throws(StreamClosed) {
                    try await writer.write(bytes)
                } catch {
                    stream.close()
                    gone(handle)
                    throw error
                }
            case .whole: return
            case .broken: throw StreamClosed()
            }
        }
    }

    /// The plugin is over: whoever waits is told.
    func retire(_ handle: cm_handle, of instance: PluginInstance) {
        _ = answer(.failure(Problem(503, "plugin-stopped", "the plugin \"\(instance.id)\" has stopped", retryAfter: 1)), handle)
        _ = stream.withLock { $0 }?.end(.broken)
    }
}

/// Whoever acts in the name of a principal: requests, WebSockets, job attempts.
protocol ActingResource: Sendable {
    var principal: Principal { get }
}

/// Pieces of a streamed answer between the plugin's threads and the connection's loop, bounded.
final class AnswerStream: Sendable {
    enum Item: Sendable {
        case piece([UInt8], isLowAgain: Bool)
        case whole, broken
    }
    enum End: Sendable { case whole, broken }
    static let highMark = 1 << 20

    private struct State: ~Copyable {
        var pieces: [[UInt8]] = []
        var next = 0
        var bytes = 0
        var end: End?
        var isClosed = false
        /// A write was refused: `writable` is owed.
        var owesWritable = false
        var waiter: UnsafeContinuation<Item, Never>?
    }
    private let state = Mutex(State())

    /// From the plugin.
    func write(_ bytes: [UInt8]) -> cm_status {
        let (status, waiter) = state.withLock { state -> (cm_status, UnsafeContinuation<Item, Never>?) in
            if state.isClosed { return (CM_E_GONE, nil) }
            if state.end != nil { return (CM_E_STATE, nil) }
            if bytes.isEmpty { return (CM_OK, nil) }
            if let waiter = state.waiter.take() { return (CM_OK, waiter) }
            guard state.bytes == 0 || state.bytes + bytes.count <= Self.highMark else {
                state.owesWritable = true
                return (CM_E_BUSY, nil)
            }
            state.pieces.append(bytes)
            state.bytes += bytes.count
            return (CM_OK, nil)
        }
        waiter?.resume(returning: .piece(bytes, isLowAgain: false))
        return status
    }

    func end(_ how: End) -> cm_status {
        let (status, waiter) = state.withLock { state -> (cm_status, UnsafeContinuation<Item, Never>?) in
            if state.isClosed { return (CM_E_GONE, nil) }
            if state.end != nil { return (CM_E_STATE, nil) }
            state.end = how
            return (CM_OK, state.waiter.take())
        }
        waiter?.resume(returning: how == .whole ? .whole : .broken)
        return status
    }

    /// The reader is gone.
    func close() {
        state.withLock { state in
            state.isClosed = true
            state.pieces = []
            return state.waiter.take()
        }?.resume(returning: .broken)
    }

    func next() async -> Item {
        await withUnsafeContinuation { continuation in
            let item = state.withLock { state -> Item? in
                if state.isClosed { return .broken }
                if state.next < state.pieces.count {
                    let piece = state.pieces[state.next]
                    state.next += 1
                    state.bytes -= piece.count
                    if state.next == state.pieces.count {
                        state.pieces = []
                        state.next = 0
                    }
                    let isLowAgain = state.owesWritable && state.bytes <= Self.highMark / 2
                    if isLowAgain { state.owesWritable = false }
                    return .piece(piece, isLowAgain: isLowAgain)
                }
                if let end = state.end { return end == .whole ? .whole : .broken }
                state.waiter = continuation
                return nil
            }
            if let item { continuation.resume(returning: item) }
        }
    }
}
