import CPluginABI
import JSON

/// `cm.log/1`. At most 4 KiB a line and 200 lines a second. Never a secret.
public struct Log: Sendable {
    let table: HostTable<cm_log>

    public enum Level: UInt32, Sendable {
        case debug = 0, info, warning, error
    }

    /// Whether lines of this level are written at the moment.
    public func isEnabled(_ level: Level) -> Bool {
        table.functions.is_enabled?(table.context, level.rawValue) ?? 0 == 1
    }

    /// `event` is a short stable name: "sync.finished". What the core does not take is lost; it counts such lines itself.
    public func write(_ level: Level, _ event: String, _ fields: JSONObject = [:]) {
        guard let write = table.functions.write, isEnabled(level) else { return }
        let text = fields.isEmpty ? [] : JSONValue.object(fields).serialized()
        event.withText { event in text.withText { _ = write(table.context, level.rawValue, event, $0) } }
    }

    public func info(_ event: String, _ fields: JSONObject = [:]) { write(.info, event, fields) }
    public func warning(_ event: String, _ fields: JSONObject = [:]) { write(.warning, event, fields) }
    public func error(_ event: String, _ fields: JSONObject = [:]) { write(.error, event, fields) }
    public func debug(_ event: String, _ fields: JSONObject = [:]) { write(.debug, event, fields) }
}
