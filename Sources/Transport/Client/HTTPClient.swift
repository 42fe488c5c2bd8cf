import Reactor

/// Requests to one server over one kept connection at a time; confined to the loop on which it is used. A request may
/// start when the answer before it has been read to its end (or was cancelled).
public final class HTTPClient {
    public let url: ServerURL
    private let options: ClientOptions
    private var connection: HTTPClientConnection?

    public init(_ url: ServerURL, options: ClientOptions = .init()) {
        self.url = url
        self.options = options
    }

    /// Sends a request and waits for the head of its answer. `headMilliseconds` bounds that wait, 0 does not.
    /// A kept connection that the server has closed meanwhile is replaced once, if nothing of the answer had come and
    /// repeating is harmless (RFC 9110 §9.2.2) or nothing was sent.
    public func request(
        _ method: HTTPMethod, _ target: String, headers: HTTPHeaders = [:], body: [UInt8] = [],
        headMilliseconds: UInt64 = 60_000
    ) async throws(TransportError) -> HTTPClientResponse {
        try check(target)
        let kept = connection
        connection = nil
        if let kept, kept.isReusable {
            do throws(TransportError) {
                connection = kept
                return try await kept.request(method, target, headers, body, headMilliseconds)
            } catch {
                let isHarmless = method == .get || method == .head || method == .put || method == .delete
                guard isHarmless, kept.diedSilently else { throw error }
            }
        } else {
            kept?.close()
        }
        return try await connect().request(method, target, headers, body, headMilliseconds)
    }

    /// Sends a request whose body comes piece by piece, at the pace of the server; always over a new connection, because
    /// what was sent of it cannot be sent again. An answer that comes before the end of the body ends the sending.
    /// - Parameters:
    ///   - length: of the body; `nil`: not known, it is sent in chunks.
    ///   - next: the next piece, `nil` after the last; with a known length exactly so many bytes. What it throws ends the
    ///     connection and is thrown on.
    public func request(
        _ method: HTTPMethod, _ target: String, headers: HTTPHeaders = [:], length: UInt64?,
        body next: () async throws(TransportError) -> [UInt8]?, headMilliseconds: UInt64 = 60_000
    ) async throws(TransportError) -> HTTPClientResponse {
        try check(target)
        close()
        return try await connect().request(method, target, headers, length, next, headMilliseconds)
    }

    private func check(_ target: String) throws(TransportError) {
        guard target.utf8.first == 0x2F, target.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw TransportError(.invalid, "'\(target)' is not a request target: it begins with / and is ASCII")
        }
    }

    private func connect() async throws(TransportError) -> HTTPClientConnection {
        guard let loop = EventLoop.current else {
            throw TransportError(.invalid, "HTTPClient must be used on an event loop")
        }
        let stream = try await Connector.open(url, on: loop, options)
        let fresh = HTTPClientConnection(stream, authority: url.authority, options)
        connection = fresh
        return fresh
    }

    /// Ends the connection; an answer under way fails.
    public func close() {
        connection?.close()
        connection = nil
    }
}

/// The answer to a request: its head, and its body as it comes.
public final class HTTPClientResponse {
    public let head: HTTPResponseHead
    public var status: Int { head.status }
    private let connection: HTTPClientConnection

    init(_ head: HTTPResponseHead, _ connection: HTTPClientConnection) {
        self.head = head
        self.connection = connection
    }

    /// The next piece of the body; nil after the last. The server waits while nobody asks. Throws if the connection
    /// ends before the body does. `milliseconds` bounds the wait, 0 does not.
    public func nextPiece(milliseconds: UInt64 = 0) async throws(TransportError) -> [UInt8]? {
        try await connection.nextPiece(of: self, milliseconds)
    }

    /// The whole body; throws `too-large` when it is longer than `maximum` bytes.
    public func body(maximum: Int) async throws(TransportError) -> [UInt8] {
        var whole: [UInt8] = []
        while let piece = try await nextPiece() {
            guard whole.count + piece.count <= maximum else {
                cancel()
                throw TransportError(.tooLarge, "the answer is longer than \(maximum) bytes")
            }
            if whole.isEmpty { whole = piece } else { whole += piece }
        }
        return whole
    }

    /// Ends the connection: the rest of the body is not wanted.
    public func cancel() { connection.cancel(self) }
}
