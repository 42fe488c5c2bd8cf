import CPluginABI
import Kernel
import Reactor
import Synchronization
import Web

/// An operator's WebSocket in a plugin's hands.
///
/// Inline, messages go straight from the connection to the plugin and back. Otherwise they wait, bounded, for the plugin's
/// thread, and the peer is not read while too many do.
final class PluginSocket: PluginResource, ActingResource, OperatorSocketReceiver {
    let principal: Principal
    private let isInline: Bool
    private let loop: EventLoop
    private let callbacks: cm_websocket_callbacks
    private let context: CallbackContext
    private let instance: PluginInstance
    private let handle: cm_handle
    private struct State: ~Copyable {
        var socket: OperatorSocket?
        var isOver = false
        /// On their way to the plugin's thread.
        var messages = 0
        var bytes = 0
        var isHeld = false
        var wantsReading = true
    }
    private let state = Mutex(State())
    static let maximumMessages = 1_024
    static let maximumBytes = 256 << 10

    init(
        _ request: PluginRequest, _ callbacks: cm_websocket_callbacks, _ context: CallbackContext, _ instance: PluginInstance,
        as handle: cm_handle
    ) {
        principal = request.principal
        isInline = request.specification.isInline
        loop = request.request.loop
        self.callbacks = callbacks
        self.context = context
        self.instance = instance
        self.handle = handle
    }

    func connected(_ socket: OperatorSocket) {
        let isOver = state.withLock { state in
            if !state.isOver { state.socket = socket }
            return state.isOver
        }
        if isOver { socket.close(1012, "the plugin has stopped") }
    }

    // MARK: From the plugin, any thread

    func send(_ payload: RawSpan, isText: Bool) -> cm_status {
        guard let socket = state.withLock({ $0.socket }) else { return CM_E_GONE }
        return switch socket.send(payload, isText: isText) {
        case .accepted: CM_OK
        case .full: CM_E_BUSY
        case .gone: CM_E_GONE
        case .misuse: CM_E_STATE
        }
    }

    func receive(_ isOn: Bool) {
        let socket = state.withLock { state -> OperatorSocket? in
            state.wantsReading = isOn
            return state.isHeld ? nil : state.socket
        }
        socket?.receive(isOn)
    }

    func close(_ code: UInt16, _ reason: String) { state.withLock { $0.socket }?.close(code, reason) }

    // MARK: From the socket's loop

    func message(_ payload: RawSpan, isText: Bool) {
        guard let function = callbacks.message else { return }
        let kind = UInt32(isText ? CM_MESSAGE_TEXT : CM_MESSAGE_BINARY)
        if isInline {
            _ = instance.callInline("message", on: loop) {
                payload.withBytes { function(context.foreign.pointer, handle, kind, $0) }
            }
            return
        }
        let bytes = payload.withUnsafeBytes { Array($0) }
        let held = state.withLock { state -> OperatorSocket? in
            state.messages += 1
            state.bytes += bytes.count
            guard !state.isHeld, state.messages >= Self.maximumMessages || state.bytes >= Self.maximumBytes else { return nil }
            state.isHeld = true
            return state.socket
        }
        held?.receive(false)
        instance.callAlways("message") { [self] in
            withBytes(bytes) { function(context.foreign.pointer, handle, kind, $0) }
            taken(bytes.count)
        }
    }

    private func taken(_ count: Int) {
        let released = state.withLock { state -> OperatorSocket? in
            state.messages -= 1
            state.bytes -= count
            guard state.isHeld, state.messages <= Self.maximumMessages / 2, state.bytes <= Self.maximumBytes / 2 else { return nil }
            state.isHeld = false
            return state.wantsReading ? state.socket : nil
        }
        released?.receive(true)
    }

    func drained() {
        guard let function = callbacks.writable else { return }
        if isInline {
            _ = instance.callInline("writable", on: loop) { function(context.foreign.pointer, handle) }
        } else {
            instance.callAlways("writable") { [self] in function(context.foreign.pointer, handle) }
        }
    }

    func closed(_ code: UInt16, _ reason: String) {
        guard end() else { return }
        instance.forget(handle)
        if let function = callbacks.closed {
            let call: @Sendable () -> Void = { [self] in
                withText(reason) { function(context.foreign.pointer, handle, UInt32(code), $0) }
            }
            if isInline { _ = instance.callInline("closed", on: loop, call) } else { instance.callAlways("closed", call) }
        }
        context.end(on: instance)
    }

    /// True once.
    private func end() -> Bool {
        let isFirst = state.withLock { state in
            defer {
                state.isOver = true
                state.socket = nil
            }
            return !state.isOver
        }
        if isFirst { instance.underway.subtract(1, ordering: .acquiringAndReleasing) }
        return isFirst
    }

    /// The plugin is over: the operator's side connects again and finds the next version.
    func retire(_: cm_handle, of instance: PluginInstance) {
        let socket = state.withLock { $0.socket }
        guard end() else { return }
        socket?.close(1012, "the plugin has stopped")
        context.end(on: instance)
    }
}

extension RawSpan {
    /// The bytes as the header has them, for one call.
    func withBytes<Result>(_ body: (cm_bytes) -> Result) -> Result {
        withUnsafeBytes { body(cm_bytes(data: $0.baseAddress?.assumingMemoryBound(to: UInt8.self), size: UInt64($0.count))) }
    }
}

extension cm_bytes {
    /// Without a copy; the span lives no longer than `body`.
    func withSpan<Result>(_ body: (RawSpan) -> Result) -> Result {
        let buffer = UnsafeRawBufferPointer(start: data, count: data == nil ? 0 : Int(size))
        return body(buffer.bytes)
    }
}
