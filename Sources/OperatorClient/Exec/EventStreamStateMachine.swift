/// Server-sent events out of pieces of bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html, parsing).
struct EventStreamStateMachine {
    struct Event: Equatable {
        var name = "message"
        var id: String?
        var data: [UInt8] = []
    }

    /// A longer event is an error of the sender.
    static let longestEvent = 4 << 20

    private var line: [UInt8] = []
    private var endedWithReturn = false
    private var event = Event()
    private var hasData = false
    /// Id of the last event, for `Last-Event-ID`.
    private(set) var lastID: String?

    /// A new connection: what the last one left unfinished is void.
    mutating func restart() {
        line = []
        endedWithReturn = false
        event = Event()
        hasData = false
    }

    /// The events that this piece completes; `nil` when one is too long.
    mutating func feed(_ piece: [UInt8]) -> [Event]? {
        var events: [Event] = []
        for byte in piece {
            // A line ends in CR, LF or CR LF.
            if byte == 0x0A, endedWithReturn {
                endedWithReturn = false
                continue
            }
            endedWithReturn = byte == 0x0D
            if byte == 0x0A || byte == 0x0D {
                if let event = endLine() { events.append(event) }
            } else {
                line.append(byte)
                if line.count + event.data.count > Self.longestEvent { return nil }
            }
        }
        return events
    }

    private mutating func endLine() -> Event? {
        defer { line.removeAll(keepingCapacity: true) }
        if line.isEmpty {
            defer {
                event = Event()
                hasData = false
            }
            return hasData ? event : nil
        }
        let colon = line.firstIndex(of: UInt8(ascii: ":")) ?? line.endIndex
        var value = line[min(colon + 1, line.endIndex)...]
        if value.first == 0x20 { value = value.dropFirst() }
        switch String(decoding: line[..<colon], as: UTF8.self) {
        case "event": event.name = String(decoding: value, as: UTF8.self)
        case "data":
            if hasData { event.data.append(0x0A) }
            event.data += value
            hasData = true
        case "id" where !value.contains(0):
            event.id = String(decoding: value, as: UTF8.self)
            lastID = event.id
        default: break  // comments, retry, and fields of later versions
        }
        return nil
    }
}
