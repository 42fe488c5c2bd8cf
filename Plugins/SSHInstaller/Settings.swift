import JSON
import PluginKit

/// `plugins.settings."client-manager.ssh-installer"`.
struct Settings: Sendable {
    /// Hosts at the same time, each with a thread of its own.
    var parallel = 8
    /// Path of an SSH agent's socket on the core's machine; the only one that is ever asked.
    var agentSocket: String?
    var retentionDays: UInt64 = 90
    /// How long a new agent may take until it is online.
    var waitSeconds = 60
    /// PEM of the public key whose releases new agents take, where the request does not say it.
    var releaseKey: String?

    init(_ section: JSONObject) throws(PluginError) {
        if let number = section["parallel"]?.integer { parallel = Int(min(max(number, 1), 32)) }
        agentSocket = section["agent_socket"]?.string.flatMap { $0.isEmpty ? nil : $0 }
        if let number = section["retention_days"]?.integer.flatMap({ UInt64(exactly: $0) }) { retentionDays = number }
        releaseKey = try section["release_key"]?.string.map { (text) throws(PluginError) in try Reading.releaseKey(text) }
        if let number = section["wait_s"]?.integer { waitSeconds = Int(min(max(number, 5), 600)) }
    }
}
