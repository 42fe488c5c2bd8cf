import CPluginABI
import JSON
import Kernel
import Reactor
import Synchronization

let channelsTable = HostTable(
    cm_channels(
        head: head(of: cm_channels.self), open: channelsOpen, attach: channelsAttach, list: channelsList, write: channelsWrite,
        grant: channelsGrant, resize: channelsResize, close: channelsClose, detach: channelsDetach))

private let specificationBytes = 1 << 20
private let channelsPerPlugin = 4_096

/// A channel in a plugin's hands. Inline, its bytes go from the client's link straight to the plugin and back; otherwise
/// they wait, bounded by the channel's credit, for the plugin's thread.
private final class PluginChannel: PluginResource, ChannelConsumer {
    private let isInline: Bool
    private let callbacks: cm_channel_callbacks
    private let context: CallbackContext
    private let instance: PluginInstance
    private let handle: cm_handle
    private struct State: ~Copyable {
        var attachment: ChannelAttachment?
        var isOver = false
        var wasOpened = false
        var isLinked = false
        var startedAt: UInt64?
    }
    private let state = Mutex(State())

    init(
        _ isInline: Bool, _ callbacks: cm_channel_callbacks, _ context: CallbackContext, _ instance: PluginInstance,
        as handle: cm_handle
    ) {
        self.isInline = isInline
        self.callbacks = callbacks
        self.context = context
        self.instance = instance
        self.handle = handle
    }

    func attached(_ attachment: ChannelAttachment) {
        let isOver = state.withLock { state in
            state.attachment = attachment
            return state.isOver
        }
        if isOver { attachment.detach() }
    }

    var attachment: ChannelAttachment? { state.withLock { $0.isOver ? nil : $0.attachment } }

    private func tell(_ function: StaticString, _ body: @escaping @Sendable () -> Void) {
        if isInline, let loop = EventLoop.current {
            _ = instance.callInline(function, on: loop, body)
        } else {
            instance.callAlways(function, body)
        }
    }

    // MARK: From the link's loop

    func channelStarted(_: ChannelAttachment, at unixMilliseconds: UInt64) {
        state.withLock { $0.startedAt = unixMilliseconds }
    }

    func channelResumed(_ channel: ChannelAttachment, _ place: ChannelPlace) {
        let (isFirst, startedAt) = state.withLock { state in
            defer {
                state.wasOpened = true
                state.isLinked = true
            }
            return (!state.wasOpened, state.startedAt)
        }
        guard isFirst else {
            if let function = callbacks.linked { tell("linked") { [self] in function(context.foreign.pointer, handle, 1) } }
            return
        }
        guard let function = callbacks.opened else { return }
        let description: JSONValue = [
            "id": .string(channel.channel.description), "client": .string(channel.client.description),
            "output": .integer(Int64(clamping: place.output)), "gap": .integer(Int64(clamping: place.gap)),
            "input": .integer(Int64(clamping: place.input)),
            "started_ms": startedAt.map { .integer(Int64(clamping: $0)) } ?? .null,
        ]
        let text = description.serialized()
        tell("opened") { [self] in withText(text) { function(context.foreign.pointer, handle, $0) } }
    }

    func channel(_: ChannelAttachment, received bytes: RawSpan, at offset: UInt64) {
        guard let function = callbacks.data else { return }
        if isInline, let loop = EventLoop.current {
            _ = instance.callInline("data", on: loop) {
                bytes.withBytes { function(context.foreign.pointer, handle, offset, $0) }
            }
        } else {
            let copy = bytes.withUnsafeBytes { Array($0) }
            instance.callAlways("data") { [self] in
                withBytes(copy) { function(context.foreign.pointer, handle, offset, $0) }
            }
        }
    }

    func channelWritable(_: ChannelAttachment) {
        guard let function = callbacks.writable else { return }
        tell("writable") { [self] in function(context.foreign.pointer, handle) }
    }

    func channelLost(_: ChannelAttachment, _ code: String) {
        guard code == "client-away" else { return end(["outcome": "lost", "code": .string(code)]) }
        let wasLinked = state.withLock { state in
            defer { state.isLinked = false }
            return state.isLinked
        }
        guard wasLinked, let function = callbacks.linked else { return }
        tell("linked") { [self] in function(context.foreign.pointer, handle, 0) }
    }

    func channelExited(_: ChannelAttachment, _ record: ExitRecord) { end(Self.json(record)) }

    private func end(_ result: JSONValue) {
        guard over() else { return }
        instance.forget(handle)
        if let function = callbacks.ended {
            let text = result.serialized()
            tell("ended") { [self] in withText(text) { function(context.foreign.pointer, handle, $0) } }
        }
        context.end(on: instance)
    }

    /// True once.
    func over() -> Bool {
        state.withLock { state in
            defer { state.isOver = true }
            return !state.isOver
        }
    }

    /// The plugin lets go of it, or is over: the far end goes on.
    func detach() {
        let attachment = state.withLock { $0.attachment }
        guard over() else { return }
        attachment?.detach()
        context.end(on: instance)
    }

    func retire(_: cm_handle, of _: PluginInstance) { detach() }

    private static func json(_ record: ExitRecord) -> JSONValue {
        var result: JSONObject = ["output_bytes": .integer(Int64(clamping: record.standardOutputBytes))]
        switch record.outcome {
        case .exited(let code):
            result["outcome"] = "exited"
            result["exit_code"] = .integer(Int64(code))
        case .signaled(let signal):
            result["outcome"] = "signaled"
            result["signal"] = .integer(Int64(signal))
        case .timedOut: result["outcome"] = "timed-out"
        case .cancelled: result["outcome"] = "closed"
        case .startFailed(let code, let message):
            result["outcome"] = "start-failed"
            result["code"] = .string(code)
            result["message"] = .string(message)
        case .refused(let code, let message):
            result["outcome"] = "refused"
            result["code"] = .string(code)
            result["message"] = .string(message)
        case .interrupted(let reason):
            result["outcome"] = "interrupted"
            result["message"] = .string(reason)
        }
        return .object(result)
    }
}

/// The checks that open and attach share; then `work` with the channel that the plugin will hold.
private func begin(
    _ host: OpaquePointer, _ function: StaticString, _ callbacks: UnsafePointer<cm_channel_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ channel: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?,
    _ work: (PluginInstance, (Bool) throws(Problem) -> PluginChannel) throws(Problem) -> cm_status
) -> cm_status {
    let table = adopt(callbacks, empty: cm_channel_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    var made: PluginChannel?
    let status = hostCall(host, .wait, function, error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let table, table.data != nil, table.ended != nil else {
                throw .invalid("`data` or `ended` is not set, or the head of the callbacks is not filled in")
            }
            guard instance.count(of: PluginChannel.self) < channelsPerPlugin else {
                throw Problem(429, "plugin-too-many", "the plugin holds \(channelsPerPlugin) channels already")
            }
            return try work(instance) { (isInline) throws(Problem) in
                guard !isInline || instance.grants.contains(.inline) else {
                    throw .forbidden("\"inline\" needs the capability \"inline\"")
                }
                let handle = instance.environment.handles.next()
                let held = PluginChannel(isInline, table, ends, instance, as: handle)
                // Before the first byte can come.
                channel.pointee = handle
                instance.keep(held, as: handle)
                made = held
                return held
            }
        }
    }
    if status != CM_OK {
        if let made {
            instanceOf(host).forget(channel.pointee)
            made.detach()
        } else {
            ends.endNow()
        }
        channel.pointee = CM_NO_HANDLE
    }
    return status
}

private func instanceOf(_ host: OpaquePointer) -> PluginInstance {
    Unmanaged<PluginInstance>.fromOpaque(UnsafeRawPointer(host)).takeUnretainedValue()
}

private func channelsOpen(
    _ host: OpaquePointer, _ actor: cm_handle, _ specification: cm_text, _ callbacks: UnsafePointer<cm_channel_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ channel: UnsafeMutablePointer<cm_handle>, _ id: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "channels.open", callbacks, context, channel, error) { (instance, make) throws(Problem) in
        if let refusal = requireRoom(id, idBytes, error) { return refusal }
        guard let text = specification.bytes(limit: specificationBytes) else { throw .text("specification", atMost: specificationBytes) }
        var json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: text, limits: JSONLimits(depth: 8, bytes: specificationBytes))
        } catch {
            throw .invalid("the channel's specification is not JSON: \(error)")
        }
        var isInline = false
        if case .object(var object) = json {
            isInline = object["inline"]?.bool ?? false
            object["inline"] = nil
            json = .object(object)
        }
        let wanted = try ChannelSpecification(json)
        let principal = try instance.actor(actor).principal
        let consumer = try make(isInline)
        let kernel = instance.environment.kernel
        let attachment = try instance.waitForKernel { () async throws(Problem) in
            try await kernel.channels.open(wanted, principal, consumer: consumer)
        }
        consumer.attached(attachment)
        return id.fill(attachment.channel.description)
    }
}

private func channelsAttach(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ offset: UInt64, _ isInline: UInt32,
    _ callbacks: UnsafePointer<cm_channel_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ channel: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "channels.attach", callbacks, context, channel, error) { (instance, make) throws(Problem) in
        guard let text = id.string(limit: 64), let id = ChannelID(text) else {
            throw Problem(400, "plugin-argument", "`id` is no channel id (26 characters)")
        }
        let principal = try instance.actor(actor).principal
        let consumer = try make(isInline != 0)
        let kernel = instance.environment.kernel
        let attachment = try instance.waitForKernel { () async throws(Problem) in
            try await kernel.channels.attach(id, from: offset, principal, consumer: consumer)
        }
        consumer.attached(attachment)
        return CM_OK
    }
}

private func channelsList(
    _ host: OpaquePointer, _ json: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "channels.list", error: error) { instance in
        answering(error) { () throws(Problem) in
            let views = try instance.environment.kernel.channels.list(Principal(kind: .system, id: "plugin:" + instance.id))
            let items = views.map { view -> JSONValue in
                [
                    "id": .string(view.description.id.description), "client": .string(view.description.client.description),
                    "kind": .string(view.description.kind.rawValue), "owner": .string(view.description.owner),
                    "program": .string(view.description.program), "opened_ms": .integer(Int64(clamping: view.description.openedAt)),
                    "state": .string(view.state.rawValue), "attached": .bool(view.isAttached),
                ]
            }
            let list: JSONValue = ["items": .array(items)]
            return json.fill(list.serialized())
        }
    }
}

// MARK: On a channel

private func withChannel(
    _ host: OpaquePointer, _ handle: cm_handle, _ function: StaticString, _ body: (ChannelAttachment) -> cm_status
) -> cm_status {
    hostCall(host, .any, function) { instance in
        // An attachment comes a moment after its handle: until then nothing can be done with it.
        guard let channel = instance.resource(handle, PluginChannel.self) else { return CM_E_GONE }
        guard let attachment = channel.attachment else { return CM_E_BUSY }
        return body(attachment)
    }
}

private func channelsWrite(_ host: OpaquePointer, _ handle: cm_handle, _ bytes: cm_bytes) -> cm_status {
    withChannel(host, handle, "channels.write") { attachment in
        guard bytes.size <= UInt64(ChannelAttachment.wholeInputBytes) else { return CM_E_TOO_LARGE }
        // All or nothing: what has no room now is written again after `writable`.
        return bytes.withSpan { attachment.writeWhole($0) } ? CM_OK : CM_E_BUSY
    }
}

private func channelsGrant(_ host: OpaquePointer, _ handle: cm_handle, _ offset: UInt64) -> cm_status {
    withChannel(host, handle, "channels.grant") { attachment in
        attachment.grant(upTo: offset)
        return CM_OK
    }
}

private func channelsResize(_ host: OpaquePointer, _ handle: cm_handle, _ rows: UInt32, _ columns: UInt32) -> cm_status {
    withChannel(host, handle, "channels.resize") { attachment in
        guard let rows = UInt16(exactly: rows), let columns = UInt16(exactly: columns), rows > 0, columns > 0 else { return CM_E_INVALID }
        attachment.resize(TerminalSize(rows: rows, columns: columns))
        return CM_OK
    }
}

private func channelsClose(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    withChannel(host, handle, "channels.close") { attachment in
        attachment.close()
        return CM_OK
    }
}

private func channelsDetach(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "channels.detach") { instance in
        guard let channel = instance.resource(handle, PluginChannel.self) else { return CM_E_GONE }
        instance.forget(handle)
        channel.detach()
        return CM_OK
    }
}
