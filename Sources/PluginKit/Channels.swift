import CPluginABI
import JSON

/// What the core tells about one channel, on the plugin's own thread (on the core's loops where the channel is inline:
/// then it must not touch the plugin's state without a lock).
public final class ChannelHandler {
    public var opened: (Channel, JSONValue) -> Void = { _, _ in }
    /// Output from `offset` on. An offset greater than the one expected is a gap that the channel's specification allowed.
    /// Give credit back with `Channel.grant`.
    public var data: (Channel, UInt64, RawSpan) -> Void = { _, _, _ in }
    /// Input waits no more than a little: go on with `Channel.write`.
    public var writable: (Channel) -> Void = { _ in }
    /// The connection to the client is down or up again; nothing is lost meanwhile.
    public var linked: (Channel, Bool) -> Void = { _, _ in }
    /// The far end has ended or could not be opened: {"outcome", "exit_code", "code", "message", …}.
    public var ended: (Channel, JSONValue) -> Void = { _, _ in }
    fileprivate let table: HostTable<cm_channels>

    fileprivate init(_ table: HostTable<cm_channels>) { self.table = table }
}

/// A stream to an agent; a value that may be used from any thread.
public struct Channel: Sendable {
    let table: HostTable<cm_channels>
    public let handle: UInt64

    /// Input. `.busy`: not taken, `writable` will follow.
    public func write(_ bytes: [UInt8]) -> Sent { write(bytes.span.bytes) }

    public func write(_ bytes: RawSpan) -> Sent {
        guard let write = table.functions.write else { return .gone }
        return Sent(bytes.withBytes { write(table.context, handle, $0) })
    }

    /// Output may go up to this offset (exclusive); only ever grows. 256 KiB are granted from the beginning.
    @discardableResult
    public func grant(upTo offset: UInt64) -> Bool { table.functions.grant?(table.context, handle, offset) == CM_OK }

    @discardableResult
    public func resize(rows: UInt32, columns: UInt32) -> Bool {
        table.functions.resize?(table.context, handle, rows, columns) == CM_OK
    }

    /// Ends the far end: TERM, then KILL, for everything that it started. `ended` follows.
    @discardableResult
    public func close() -> Bool { table.functions.close?(table.context, handle) == CM_OK }

    /// Lets go of it; the far end goes on.
    @discardableResult
    public func detach() -> Bool { table.functions.detach?(table.context, handle) == CM_OK }
}

/// `cm.channels/1`. A channel outlives its connection and a restart of the core.
public struct Channels: Sendable {
    let table: HostTable<cm_channels>

    /// Opens a channel; audited, the actor's rights and the command policy apply. `id` is durable: with it the channel can
    /// be attached later.
    public func open(
        _ specification: JSONObject, as actor: Actor, _ configure: (ChannelHandler) -> Void
    ) throws(PluginError) -> (channel: Channel, id: String) {
        guard let open = table.functions.open else { throw .missing("cm.channels/1 open") }
        let text = JSONValue.object(specification).serialized()
        var callbacks = channelCallbacks()
        let context = retained(configure)
        var handle = CM_NO_HANDLE
        // An id has a fixed size: asking twice would open twice.
        var id = [UInt8](repeating: 0, count: 128)
        let size = try id.filled("cm.channels/1 open") { buffer, error in
            text.withText { open(table.context, actor.handle, $0, &callbacks, context, &handle, buffer, error) }
        }
        return (Channel(table: table, handle: handle), String(decoding: id[..<size], as: UTF8.self))
    }

    /// Takes over a channel that is there, from this offset of its output. Who held it before hears `ended`.
    public func attach(
        _ id: String, from offset: UInt64, isInline: Bool = false, as actor: Actor, _ configure: (ChannelHandler) -> Void
    ) throws(PluginError) -> Channel {
        guard let attach = table.functions.attach else { throw .missing("cm.channels/1 attach") }
        var callbacks = channelCallbacks()
        let context = retained(configure)
        var handle = CM_NO_HANDLE
        try attempt("cm.channels/1 attach") { error in
            id.withText {
                attach(table.context, actor.handle, $0, offset, isInline ? 1 : 0, &callbacks, context, &handle, error)
            }
        }
        return Channel(table: table, handle: handle)
    }

    /// The plugin's channels that are there, for example after a restart: [{"id", "client", "kind", "opened_ms", …}].
    public func list() throws(PluginError) -> [JSONValue] {
        guard let list = table.functions.list else { throw .missing("cm.channels/1 list") }
        return try readJSON("cm.channels/1 list") { buffer, error in list(table.context, buffer, error) }["items"]?
            .array ?? []
    }

    private func retained(_ configure: (ChannelHandler) -> Void) -> UnsafeMutableRawPointer {
        let handler = ChannelHandler(table)
        configure(handler)
        return Unmanaged.passRetained(handler).toOpaque()
    }
}

extension Host {
    public func channels() throws(PluginError) -> Channels {
        Channels(table: try interface(CM_INTERFACE_CHANNELS, cm_channels()))
    }
}

private func channelCallbacks() -> cm_channel_callbacks {
    var callbacks = cm_channel_callbacks()
    callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_channel_callbacks>.size), revision: 1)
    callbacks.opened = channelOpened
    callbacks.data = channelData
    callbacks.writable = channelWritable
    callbacks.linked = channelLinked
    callbacks.ended = channelEnded
    callbacks.destroy = releaseContext
    return callbacks
}

private func channelOpened(_ context: UnsafeMutableRawPointer?, _ channel: UInt64, _ description: cm_text) {
    withContext(context, as: ChannelHandler.self) {
        $0.opened(Channel(table: $0.table, handle: channel), (try? JSONValue(parsing: String(description))) ?? .null)
    }
}

private func channelData(_ context: UnsafeMutableRawPointer?, _ channel: UInt64, _ offset: UInt64, _ bytes: cm_bytes) {
    withContext(context, as: ChannelHandler.self) { handler in
        bytes.withSpan { handler.data(Channel(table: handler.table, handle: channel), offset, $0) }
    }
}

private func channelWritable(_ context: UnsafeMutableRawPointer?, _ channel: UInt64) {
    withContext(context, as: ChannelHandler.self) { $0.writable(Channel(table: $0.table, handle: channel)) }
}

private func channelLinked(_ context: UnsafeMutableRawPointer?, _ channel: UInt64, _ up: UInt32) {
    withContext(context, as: ChannelHandler.self) { $0.linked(Channel(table: $0.table, handle: channel), up != 0) }
}

private func channelEnded(_ context: UnsafeMutableRawPointer?, _ channel: UInt64, _ result: cm_text) {
    withContext(context, as: ChannelHandler.self) {
        $0.ended(Channel(table: $0.table, handle: channel), (try? JSONValue(parsing: String(result))) ?? .null)
    }
}
