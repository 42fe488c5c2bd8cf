import CPluginABI
import JSON
import PluginKit

/// Terminals on clients: a login shell or any program, for several people at once, with exact replay.
///
/// Program, PTY and scrollback live with the client's agent, so that a reload of the browser, a restart of the core and an
/// upgrade of agent or plugin cost nothing.
final class TerminalPlugin: Plugin {
    private let host: Host
    private let executor: Executor
    private let sessions: Sessions

    init(loading host: Host) throws(PluginError) {
        self.host = host
        executor = try host.executor()
        sessions = try Sessions(host, Settings(try host.configuration().section()))
        try SessionRoutes(host, sessions, executor).add()
        try RecordingRoutes(sessions).add(to: try host.http())
    }

    func start() throws(PluginError) {
        try sessions.restore()
        let sessions = sessions
        try executor.timer(after: 500, every: 500) { sessions.tick() }
        try executor.timer(after: 10_000, every: 3_600_000) { sessions.sweep() }
    }

    func stop() { sessions.letGo() }
}

/// `pluginID` and `pluginVersion` come from the note.
private let entry = PluginEntry(TerminalPlugin.self, id: pluginID, version: pluginVersion)

@c @implementation
public func cm_plugin_entry(_ hostMajor: UInt32, _ hostMinor: UInt32) -> UnsafePointer<cm_plugin>? {
    entry.table(hostMajor)
}
