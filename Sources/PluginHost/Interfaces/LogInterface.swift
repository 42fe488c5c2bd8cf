import CPluginABI
import JSON
import Program
import Reactor

let logTable = HostTable(cm_log(head: head(of: cm_log.self), write: logWrite, is_enabled: logIsEnabled))

private func level(_ number: UInt32) -> LogLevel {
    switch number {
    case UInt32(CM_LOG_DEBUG): .debug
    case UInt32(CM_LOG_INFO): .info
    case UInt32(CM_LOG_WARNING): .warning
    default: .error
    }
}

private func logWrite(_ host: OpaquePointer, _ number: UInt32, _ event: cm_text, _ fields: cm_text) -> cm_status {
    hostCall(host, .any, "log.write") { instance in
        guard number <= UInt32(CM_LOG_ERROR), let event = event.string(limit: 64), let text = fields.bytes(limit: 4_096) else {
            instance.misuse("log.write", "level over 3, event over 64 bytes, fields over 4,096 bytes, or no UTF-8")
            return CM_E_INVALID
        }
        let level = level(number)
        guard level >= instance.environment.log.level else { return CM_OK }
        let (isAdmitted, suppressed) = instance.logLimit.admit(now: unixMilliseconds())
        guard isAdmitted else {
            instance.accounting.suppressedLogLines.wrappingAdd(1, ordering: .relaxed)
            return CM_E_BUSY
        }
        if suppressed > 0 {
            instance.environment.log.warning(
                "plugin.log-flood", ["plugin": .string(instance.id), "suppressed": .integer(Int64(clamping: suppressed))])
        }
        var line: JSONObject = ["plugin": .string(instance.id), "name": .string(event)]
        if !text.isEmpty {
            guard let value = try? JSONValue(parsing: text, limits: JSONLimits(depth: 8, bytes: 4_096)), value.object != nil else {
                instance.misuse("log.write", "fields are no JSON object")
                return CM_E_INVALID
            }
            line["fields"] = value
        }
        let log = instance.environment.log
        switch level {
        case .debug: log.debug("plugin.log", line)
        case .info: log.info("plugin.log", line)
        case .warning: log.warning("plugin.log", line)
        case .error: log.error("plugin.log", line)
        }
        return CM_OK
    }
}

private func logIsEnabled(_ host: OpaquePointer, _ number: UInt32) -> Int32 {
    Unmanaged<PluginInstance>.fromOpaque(UnsafeRawPointer(host))._withUnsafeGuaranteedRef { instance in
        level(number) >= instance.environment.log.level ? 1 : 0
    }
}
