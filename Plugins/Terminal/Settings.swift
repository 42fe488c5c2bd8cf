import JSON
import PluginKit

/// `plugins.settings."client-manager.terminal"`.
struct Settings: Sendable {
    enum Recording: String, Sendable {
        case never, always
        case onRequest = "on-request"
    }

    var recording = Recording.onRequest
    var recordsInput = false
    var recordingBytes: UInt64 = 64 << 20
    /// A remote of the object store that recordings are copied to; empty: none.
    var recordingsRemote = ""
    var retentionDays: UInt64 = 30
    var idleSeconds: UInt64 = 3_600
    var maximumSeconds: UInt64 = 86_400
    var scrollbackBytes: UInt64 = 1 << 20

    init(_ section: JSONObject) {
        recording = section["record"]?.string.flatMap { Recording(rawValue: $0) } ?? recording
        recordsInput = section["record_input"]?.bool ?? recordsInput
        recordingBytes = Self.number(section["recording_bytes"]) ?? recordingBytes
        recordingsRemote = section["recordings_remote"]?.string ?? recordingsRemote
        retentionDays = Self.number(section["retention_days"]) ?? retentionDays
        idleSeconds = Self.number(section["idle_s"]) ?? idleSeconds
        maximumSeconds = Self.number(section["maximum_s"]) ?? maximumSeconds
        scrollbackBytes = Self.number(section["scrollback_bytes"]) ?? scrollbackBytes
    }

    private static func number(_ value: JSONValue?) -> UInt64? { value?.integer.flatMap { UInt64(exactly: $0) } }
}
