import API
import Kernel
import PluginHost
import Program
import Reactor
import Web

/// The core's own routes as the first group of the table, and the pipeline over it.
enum CoreRoutes {
    static func fill(_ table: RouteTable, _ kernel: Kernel, _ plugins: PluginHost, docs: Bool) throws {
        var routes: [Route] = []
        let store = kernel.store
        let security = kernel.security
        let scope: ClientScope = { principal, right in
            let scope = security.scope(of: principal, for: right)
            return (scope.allowed, scope.denied)
        }
        routes += healthRoutes(
            checks: [
                ReadinessCheck("store") {
                    if let failure = store.failure { return failure.detail }
                    do throws(Problem) {
                        _ = try await store.read { (reader) throws(StoreError) in try reader.count("SELECT 1") }
                        return nil
                    } catch {
                        return error.detail
                    }
                },
                ReadinessCheck("plugins") { plugins.notReady.isEmpty ? nil : plugins.notReady.joined(separator: "; ") },
                ReadinessCheck("output") { [outputs = kernel.outputs] in
                    outputs.backlog.fault.map { "the disk refuses the output of commands: \($0)" }
                },
            ], metrics: kernel.metrics)
        routes += securityRoutes(kernel.security, identity: kernel.identity)
        routes += commandRoutes(kernel.commands, kernel.clients, scope: scope)
        routes += jobRoutes(kernel.jobs) + scheduleRoutes(kernel.schedules)
        routes += fileRoutes(kernel.files)
        routes += transferRoutes(kernel.transfers) + clientFileRoutes(kernel.transfers, kernel.clients, scope: scope)
        routes += upgradeRoutes(kernel.upgrades, kernel.jobs, kernel.clients, scope: scope)
        routes += pluginRoutes(plugins)
        routes += templateRoutes(kernel.templates, now: { unixMilliseconds() })
        routes += clientRoutes(kernel.enrollment, scope: scope)
        routes += moveRoutes(kernel.clients, kernel.identity, scope: scope)
        routes += groupRoutes(kernel.clients, scope: scope)
        routes += enrollmentRoutes(kernel.enrollment)
        routes += enrollmentTokenRoutes(kernel.enrollment, scope: scope)
        routes += settingRoutes(kernel.settings) + webhookRoutes(kernel.outbox)
        let clients = kernel.clients
        routes += auditRoutes(kernel.audit) + auditArchiveRoutes(kernel.auditArchive) + outputArchiveRoutes(kernel.outputArchive)
        routes += eventRoutes(kernel.events) { principal, client in
            let scope = scope(principal, .readClients)
            return (try? clients.permits(client, allowed: scope.allowed, denied: scope.denied)) ?? false
        }
        routes += ticketRoutes(of: table)
        if docs { routes += documentRoutes(of: table) }
        try table.apply([.set(RouteGroup(.core, routes: routes))])
    }

    static func pipeline(_ kernel: Kernel, _ configuration: Configuration, _ table: RouteTable, _ log: Log) -> Pipeline {
        Pipeline(
            table: table, gate: SecurityGate(security: kernel.security, store: kernel.store),
            origins: OriginPolicy(
                hosts: configuration[CoreConfiguration.hosts], origins: configuration[CoreConfiguration.origins]),
            observe: { [metrics = RequestMetrics(kernel.metrics), log = RequestLog(log)] answered in
                metrics.observe(answered)
                log.observe(answered)
            })
    }
}
