import CPluginABI
import JSON
import PluginKit

/// Brings the agent to hosts over SSH, and keeps it there: install, upgrade, repair, uninstall, on one host or on a list of them.
final class SSHInstallerPlugin: Plugin {
    private let executor: Executor
    private let installations: Installations

    init(loading host: Host) throws(PluginError) {
        executor = try host.executor()
        installations = try Installations(host, Settings(try host.configuration().section()))
        try InstallationRoutes(installations, try host.enrollment()).add(to: try host.http())
    }

    func start() throws(PluginError) {
        try installations.restore()
        let installations = installations
        try executor.timer(after: 10_000, every: 3_600_000) { installations.sweep() }
    }

    func quiesce() throws(PluginError) { installations.leave() }

    func resume() throws(PluginError) { installations.stay() }

    func stop() { installations.stop() }
}

/// `pluginID` and `pluginVersion` come from the note.
private let entry = PluginEntry(SSHInstallerPlugin.self, id: pluginID, version: pluginVersion)

@c @implementation
public func cm_plugin_entry(_ hostMajor: UInt32, _ hostMinor: UInt32) -> UnsafePointer<cm_plugin>? {
    entry.table(hostMajor)
}
