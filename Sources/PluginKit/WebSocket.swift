import CPluginABI

/// What the core tells about one WebSocket, on the thread of its route.
public final class WebSocketHandler {
    public var message: (WebSocket, WebSocket.Kind, RawSpan) -> Void = { _, _, _ in }
    /// What waits for the peer is low again.
    public var writable: (WebSocket) -> Void = { _ in }
    /// It has ended, by whichever side; code as in RFC 6455 §7.4.
    public var closed: (WebSocket, UInt32, String) -> Void = { _, _, _ in }
    fileprivate let table: HostTable<cm_http>

    fileprivate init(_ table: HostTable<cm_http>) { self.table = table }
}

/// An operator's WebSocket; a value that may be used from any thread.
public struct WebSocket: Sendable {
    public enum Kind: UInt32, Sendable {
        case binary = 0
        case text
    }

    let table: HostTable<cm_http>
    public let handle: UInt64

    /// `.busy`: over 256 KiB wait for the peer.
    public func send(_ payload: [UInt8], _ kind: Kind = .binary) -> Sent { send(payload.span.bytes, kind) }

    public func send(_ payload: RawSpan, _ kind: Kind = .binary) -> Sent {
        guard let send = table.functions.websocket_send else { return .gone }
        return Sent(payload.withBytes { send(table.context, handle, kind.rawValue, $0) })
    }

    public func send(_ text: String) -> Sent { send(Array(text.utf8), .text) }

    /// `false`: no more messages are read from the peer until `true`.
    @discardableResult
    public func receive(_ on: Bool) -> Bool {
        table.functions.websocket_receive?(table.context, handle, on ? 1 : 0) == CM_OK
    }

    /// `closed` follows.
    @discardableResult
    public func close(_ code: UInt32 = 1000, _ reason: String = "") -> Bool {
        guard let close = table.functions.websocket_close else { return false }
        return reason.withText { close(table.context, handle, code, $0) } == CM_OK
    }
}

extension Request {
    /// Answers a request of a route `.webSocket` with the upgrade. Afterwards this request is dead.
    @discardableResult
    public func accept(_ configure: (WebSocketHandler) -> Void) throws(PluginError) -> WebSocket {
        guard let accept = table.functions.websocket_accept else { throw .missing("cm.http/1 websocket_accept") }
        let handler = WebSocketHandler(table)
        configure(handler)
        var callbacks = cm_websocket_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_websocket_callbacks>.size), revision: 1)
        callbacks.message = socketMessage
        callbacks.writable = socketWritable
        callbacks.closed = socketClosed
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(handler).toOpaque()
        var socket = CM_NO_HANDLE
        try attempt("cm.http/1 websocket_accept") { error in
            accept(table.context, handle, &callbacks, context, &socket, error)
        }
        return WebSocket(table: table, handle: socket)
    }

    /// A ticket with which a browser opens the WebSocket `path` once within 30 s, as this request's principal: append
    /// "?ticket=" and the text.
    public func ticket(for path: String) throws(PluginError) -> String {
        guard let issue = table.functions.ticket_issue else { throw .missing("cm.http/1 ticket_issue") }
        return try readText("cm.http/1 ticket_issue") { buffer, error in
            path.withText { issue(table.context, handle, $0, buffer, error) }
        }
    }
}

private func socketMessage(_ context: UnsafeMutableRawPointer?, _ socket: UInt64, _ kind: UInt32, _ payload: cm_bytes) {
    withContext(context, as: WebSocketHandler.self) { handler in
        payload.withSpan {
            handler.message(WebSocket(table: handler.table, handle: socket), kind == CM_MESSAGE_TEXT ? .text : .binary, $0)
        }
    }
}

private func socketWritable(_ context: UnsafeMutableRawPointer?, _ socket: UInt64) {
    withContext(context, as: WebSocketHandler.self) { $0.writable(WebSocket(table: $0.table, handle: socket)) }
}

private func socketClosed(_ context: UnsafeMutableRawPointer?, _ socket: UInt64, _ code: UInt32, _ reason: cm_text) {
    withContext(context, as: WebSocketHandler.self) {
        $0.closed(WebSocket(table: $0.table, handle: socket), code, String(reason))
    }
}
