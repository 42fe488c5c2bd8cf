import JSON
import PluginKit

/// Events of deliveries: what became of which version on which client, never a value. The core takes a thousand a second, so
/// they wait here and go out in small lots; over the bound the oldest ones fall out, and the next event says how many.
final class News {
    private struct Event {
        var kind: String
        var client: String
        var secret: String
        var data: JSONObject
    }
    private let events: Events
    private let executor: Executor
    private var waiting: [Event] = []
    private var head = 0
    private var lost = 0

    private static let capacity = 10_000
    /// Of one look, every 50 ms: some room is left for others' bursts.
    private static let lot = 40

    init(_ events: Events, _ executor: Executor) {
        self.events = events
        self.executor = executor
    }

    var isWaiting: Bool { head < waiting.count }

    func tell(_ file: DeliveredFile, _ key: DeliveredFile.Key, _ client: String) {
        let kind: String
        switch file.machine.phase {
        case .applied: kind = "secrets.applied"
        case .delivered: kind = "secrets.delivered"
        case .failed: kind = "secrets.failed"
        case .removing: kind = file.machine.isOver ? "secrets.removed" : ""
        case .wanted: kind = ""
        }
        guard !kind.isEmpty, !(file.machine.isDoubtful && file.machine.phase != .failed) else { return }
        var data: JSONObject = ["assignment": .string(key.assignment), "file": .string(file.name)]
        if let version = file.machine.placed { data["version"] = .integer(Int64(version)) }
        if !file.machine.code.isEmpty { data["code"] = .string(file.machine.code) }
        tell(kind, client: client, secret: file.secret, data)
    }

    func tell(_ kind: String, client: String = "", secret: String, _ data: JSONObject) {
        waiting.append(Event(kind: kind, client: client, secret: secret, data: data))
        guard waiting.count - head > Self.capacity else { return }
        head += 1
        lost += 1
    }

    func send() {
        var left = Self.lot
        while left > 0, head < waiting.count {
            let event = waiting[head]
            var data = event.data
            if lost > 0 { data["missed"] = .integer(Int64(lost)) }
            // A client that is gone has no events any more.
            if case .busy? = try? events.publish(event.kind, client: event.client, subject: event.secret, data) { return }
            lost = 0
            head += 1
            left -= 1
        }
        if head == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            head = 0
        }
    }
}
