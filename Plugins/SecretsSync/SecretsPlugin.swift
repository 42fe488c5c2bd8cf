import CPluginABI
import JSON
import PluginKit

/// Secrets with versions, brought to the clients that operators' labels name, with proof of who has what.
final class SecretsPlugin: Plugin {
    private let host: Host
    private let vault: Vault
    private let assignments: Assignments
    private let deliveries: Deliveries
    private let rotations: Rotations
    private let sources: Sources

    init(loading host: Host) throws(PluginError) {
        self.host = host
        let settings = Settings(try host.configuration().section())
        let fleet = try Fleet(host)
        vault = try Vault(host, settings)
        assignments = try Assignments(host)
        deliveries = try Deliveries(host, settings, vault, assignments, fleet)
        rotations = try Rotations(host, vault, deliveries)
        sources = try Sources(host, vault, rotations, deliveries)
        let routes = SecretRoutes(
            host: host, vault: vault, assignments: assignments, deliveries: deliveries, rotations: rotations, sources: sources)
        try routes.add()
        try AssignmentRoutes(routes: routes, fleet: fleet, settings: settings).add()
        try CommandRoutes(routes: routes, fleet: fleet).add()
        try SecretService.publish(host, vault)
    }

    func start() throws(PluginError) {
        try vault.restore()
        try assignments.restore(vault)
        try rotations.restore()
        try deliveries.restore()
        let deliveries = deliveries
        _ = try host.events().subscribe(["client.*", "group.*"], missed: { _ in deliveries.caughtUp() }) { kind, event in
            let client = event["client"]?.string ?? ""
            switch kind {
            case "client.online": deliveries.cameOnline(client)
            case "client.forgotten": deliveries.forget(client)
            case "client.offline", "client.stale": break
            default: deliveries.reconcileSoon()
            }
        }
        try deliveries.begin()
        try sources.begin()
    }

    func quiesce() {
        deliveries.quiesce()
        rotations.quiesce()
        sources.quiesce()
    }

    func resume() {
        rotations.resume()
        deliveries.resume()
        sources.resume()
    }

    func stop() { sources.stop() }
}

/// `pluginID` and `pluginVersion` come from the note.
private let entry = PluginEntry(SecretsPlugin.self, id: pluginID, version: pluginVersion)

@c @implementation
public func cm_plugin_entry(_ hostMajor: UInt32, _ hostMinor: UInt32) -> UnsafePointer<cm_plugin>? {
    entry.table(hostMajor)
}
