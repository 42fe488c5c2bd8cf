/// Bytes on their way to a server; read on the thread of the exchange.
protocol WebBody: AnyObject {
    /// On the wire; `nil`: not known before the end.
    var length: Int64? { get }
    /// How many bytes were put into `room`; 0: the end; `nil`: the exchange must end.
    func read(into room: UnsafeMutableRawBufferPointer) -> Int?
    /// Back to the beginning, for an attempt that begins anew; false where that is not possible.
    func rewind() -> Bool
}

/// A part of an array that lies in memory.
final class MemoryBody: WebBody {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var length: Int64? { Int64(bytes.count) }

    func read(into room: UnsafeMutableRawBufferPointer) -> Int? {
        let count = min(room.count, bytes.count - position)
        bytes.withUnsafeBytes { room.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[position..<position + count])) }
        position += count
        return count
    }

    func rewind() -> Bool {
        position = 0
        return true
    }
}

/// One request to a server. Names and values of headers have no line breaks; `WebClient` refuses others.
struct WebRequest {
    var method: String
    /// Percent-encoded.
    var url: String
    var headers: [(name: String, value: String)] = []
    var body: (any WebBody)?
    /// Longest body of an answer that is collected.
    var answerLimit = 8 << 20
}

struct WebResponse: Sendable {
    var status = 0
    /// Names in lower case; a later line replaces an earlier one of its name.
    var headers: [String: String] = [:]
    /// What was collected: all of it, unless a sink took it.
    var body: [UInt8] = []

    var isSuccess: Bool { (200..<300).contains(status) }
    var length: Int64? { headers["content-length"].flatMap { Int64($0) } }

    var etag: String? {
        headers["etag"].map { text in
            let weak = text.hasPrefix("W/") ? text.dropFirst(2) : Substring(text)
            return String(weak.drop { $0 == "\"" }.prefix { $0 != "\"" })
        }
    }
}

/// What takes the body of a successful answer as it comes.
struct WebSink {
    /// After the head of a successful answer; false ends the exchange.
    var begin: (WebResponse) -> Bool = { _ in true }
    /// False ends the exchange. May block.
    var piece: (UnsafeRawBufferPointer) -> Bool
}
