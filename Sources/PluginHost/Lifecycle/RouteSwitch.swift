import Kernel
import Web

/// The plugin's part of the one route table.
extension PluginHost {
    /// Puts everything that the instance registered in the place of what its older version had, in one step.
    func switchRegistrations(to instance: PluginInstance) -> PluginRefusal? {
        // Kinds first: they can be put back.
        if let refusal = offerKinds(instance.pending.jobKinds, of: instance.id) { return refusal }
        do throws(PluginRefusal) {
            try environment.setRoutes(of: instance, in: routes)
            return nil
        } catch {
            _ = offerKinds([], of: instance.id)
            return error
        }
    }

    /// Jobs of other kinds of the plugin wait from now on; attempts that run go on.
    @discardableResult
    func offerKinds(_ kinds: [JobKind], of id: String) -> PluginRefusal? {
        let jobs = environment.kernel.jobs
        guard !kinds.isEmpty || jobs.kinds.contains(where: { $0.owner == id }) else { return nil }
        do throws(Problem) {
            try jobs.replaceKinds(of: id, by: kinds)
            return nil
        } catch {
            return PluginRefusal("plugin-job-kinds", error.detail, remedy: "correct its job kinds and build it again")
        }
    }

    /// Out of sight: routes and job kinds.
    func removeRoutes(of id: String) {
        change(id) { .remove($0) }
        offerKinds([], of: id)
    }
    func resumeRoutes(of id: String) { change(id) { .resume($0) } }

    /// Requests wait, at most 2 s, and then find what is there.
    func suspendRoutes(of id: String, reason: String) {
        change(id) { .suspend($0, .queue(reason: reason, milliseconds: 2_000)) }
        offerKinds([], of: id)
    }

    private func change(_ id: String, _ make: (RouteOwner) -> RouteChange) {
        guard let owner = try? RouteOwner(plugin: id), routes.owners.contains(owner) else { return }
        do throws(RouteRefusal) {
            try routes.apply([make(owner)])
        } catch {
            environment.log.error("plugin.routes", ["plugin": .string(id), "reason": .string(error.detail)])
        }
    }
}

extension HostEnvironment {
    func setRoutes(
        of instance: PluginInstance, in table: RouteTable, keepingSockets: Bool = false
    ) throws(PluginRefusal) {
        let owner: RouteOwner
        let assets: [Route]
        do throws(Problem) {
            owner = try RouteOwner(plugin: instance.id)
            assets = try ConsoleAssets.routes(of: owner, instance.pending.assets)
        } catch {
            throw Self.refused(error.detail)
        }
        let group = RouteGroup(
            owner, routes: instance.pending.routes + assets, prefixes: instance.note.routes.map { "/api/v1/" + $0 })
        do throws(RouteRefusal) {
            try table.apply([.set(group, keepingSockets: keepingSockets)])
        } catch {
            throw Self.refused(error.detail)
        }
        routeTable.withLock { $0 = table }
    }

    /// A running plugin took one of its routes away.
    func routesChanged(_ instance: PluginInstance) {
        guard let table = routeTable.withLock({ $0 }) else { return }
        do throws(PluginRefusal) {
            try setRoutes(of: instance, in: table, keepingSockets: true)
        } catch {
            log.error("plugin.routes", ["plugin": .string(instance.id), "reason": .string(error.reason)])
        }
    }

    private static func refused(_ reason: String) -> PluginRefusal {
        PluginRefusal("plugin-routes", reason, remedy: "correct its routes and build it again")
    }
}
