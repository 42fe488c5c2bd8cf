import Reactor

/// Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): how live views read.
public struct EventStream: Sendable {
    let writer: ResponseWriter

    public init(_ writer: ResponseWriter) { self.writer = writer }

    /// - Parameters:
    ///   - id: comes back as `Last-Event-ID` when the reader reconnects.
    ///   - data: one line, for example a JSON text.
    public func send(event: String, id: String? = nil, data: [UInt8]) async throws(StreamClosed) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(data.count + event.utf8.count + 48)
        if let id {
            bytes.append(contentsOf: "id: ".utf8)
            bytes.append(contentsOf: id.utf8)
            bytes.append(0x0A)
        }
        bytes.append(contentsOf: "event: ".utf8)
        bytes.append(contentsOf: event.utf8)
        bytes.append(contentsOf: "\ndata: ".utf8)
        // A line break inside the data would end the field: each line is a data field of its own.
        for byte in data where byte != 0x0D {
            bytes.append(byte)
            if byte == 0x0A { bytes.append(contentsOf: "data: ".utf8) }
        }
        bytes.append(contentsOf: "\n\n".utf8)
        try await writer.write(bytes)
    }

    /// A comment: keeps proxies from closing an idle stream and finds a reader that is gone.
    public func keepAlive() async throws(StreamClosed) { try await writer.write(Array(": \n\n".utf8)) }
}

extension Response {
    /// A stream of server-sent events.
    public static func events(
        _ produce: @escaping @Sendable (EventStream) async throws(StreamClosed) -> Void
    ) -> Response {
        stream(contentType: "text/event-stream") { (writer) async throws(StreamClosed) in
            try await produce(EventStream(writer))
        }
    }
}
