import CPluginABI
import JSON

/// One request until it has been answered. A value: keep it, answer it from any thread, exactly once.
///
/// The functions that answer say whether the core took the answer: `false` means that the peer is gone or that the
/// request has been answered already, and there is nothing left to do.
public struct Request: Sendable {
    let table: HostTable<cm_http>
    public let handle: UInt64

    // MARK: What was asked

    public var method: String { value(CM_REQUEST_METHOD) ?? "" }
    public var path: String { value(CM_REQUEST_PATH) ?? "" }
    /// Who asks: the principal's id.
    public var actor: String { value(CM_REQUEST_ACTOR) ?? "" }
    public var address: String { value(CM_REQUEST_ADDRESS) ?? "" }
    public var correlation: String { value(CM_REQUEST_CORRELATION) ?? "" }
    /// Of the route's pattern, without braces.
    public func parameter(_ name: String) -> String? { value(CM_REQUEST_PARAMETER, name) }
    /// The first value of that name.
    public func query(_ name: String) -> String? { value(CM_REQUEST_QUERY, name) }
    /// `name` in lower case.
    public func header(_ name: String) -> String? { value(CM_REQUEST_HEADER, name) }

    private func value(_ what: UInt32, _ name: String = "") -> String? {
        guard let get = table.functions.request_get else { return nil }
        return try? readText("cm.http/1 request_get", expecting: 128) { buffer, _ in
            name.withText { get(table.context, handle, what, $0, buffer) }
        }
    }

    /// Whether the principal has this right, on this client where one is named.
    public func may(_ right: String, client: String = "") -> Bool {
        guard let may = table.functions.request_may else { return false }
        return right.withText { right in client.withText { may(table.context, handle, right, $0) } } == 1
    }

    /// For a streamed body: up to `bytes` more may be delivered.
    @discardableResult
    public func more(_ bytes: UInt64) -> Bool { table.functions.request_more?(table.context, handle, bytes) == CM_OK }

    // MARK: The whole answer

    @discardableResult
    public func respond(_ status: Int, headers: [(String, String)] = [], body: [UInt8] = []) -> Bool {
        guard let respond = table.functions.respond else { return false }
        return lines(headers).withText { headers in
            body.withBytes { respond(table.context, handle, UInt32(clamping: status), headers, $0) }
        } == CM_OK
    }

    @discardableResult
    public func respond(_ status: Int = 200, json: some JSONWritable) -> Bool {
        var writer = JSONWriter()
        writer.value(json)
        return respond(status, headers: [("content-type", "application/json")], body: writer.finish())
    }

    @discardableResult
    public func respond(_ status: Int = 200, text: String) -> Bool {
        respond(status, headers: [("content-type", "text/plain; charset=utf-8")], body: Array(text.utf8))
    }

    /// A problem document (RFC 9457).
    @discardableResult
    public func problem(_ status: Int, _ code: String, _ detail: String) -> Bool {
        guard let respond = table.functions.respond_problem else { return false }
        return code.withText { code in
            detail.withText { respond(table.context, handle, UInt32(clamping: status), code, $0) }
        } == CM_OK
    }

    @discardableResult
    public func problem(_ error: PluginError) -> Bool {
        problem(
            error.httpStatus == 0 ? 500 : Int(error.httpStatus), error.code.isEmpty ? "internal" : error.code, error.text)
    }

    // MARK: A streamed answer

    /// `length` `nil`: not known.
    @discardableResult
    public func begin(_ status: Int = 200, headers: [(String, String)] = [], length: Int64? = nil) -> Bool {
        guard let begin = table.functions.respond_begin else { return false }
        return lines(headers).withText {
            begin(table.context, handle, UInt32(clamping: status), $0, length ?? -1)
        } == CM_OK
    }

    /// `.taken`, or `.busy`: not taken, `RouteHandler.writable` will follow; or `.gone`.
    public func write(_ piece: [UInt8]) -> Sent {
        guard let write = table.functions.respond_write else { return .gone }
        return Sent(piece.withBytes { write(table.context, handle, $0) })
    }

    @discardableResult
    public func end() -> Bool { table.functions.respond_end?(table.context, handle) == CM_OK }

    /// Breaks a begun answer off, so that its reader sees that it is not whole.
    @discardableResult
    public func abort() -> Bool { table.functions.respond_abort?(table.context, handle) == CM_OK }

    private func lines(_ headers: [(String, String)]) -> String {
        headers.map { "\($0.0): \($0.1)" }.joined(separator: "\n")
    }
}

/// What became of bytes for a peer.
public enum Sent: Sendable {
    case taken
    /// Not taken: a bound is reached, and a callback `writable` will follow.
    case busy
    case gone

    init(_ status: cm_status) {
        self =
            switch status {
            case CM_OK: .taken
            case CM_E_BUSY: .busy
            default: .gone
            }
    }
}
