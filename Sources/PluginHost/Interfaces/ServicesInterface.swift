import CPluginABI

let servicesTable = HostTable(
    cm_services(
        head: head(of: cm_services.self), publish: servicesPublish, withdraw: servicesWithdraw, acquire: servicesAcquire,
        release: servicesRelease, watch: servicesWatch, unwatch: servicesUnwatch))

private func servicesPublish(
    _ host: OpaquePointer, _ service: cm_text, _ table: UnsafePointer<cm_head>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .own, "services.publish", error: error) { instance in
        guard let name = service.string(limit: 96), PluginNote.isService(name) else {
            return error.set(CM_E_INVALID, "plugin-argument", "a service's name is \"reverse.domain.name/REVISION\"")
        }
        guard instance.note.provides.contains(name) else {
            return error.set(CM_E_DENIED, "plugin-not-provided", "the note's \"provides\" does not name \"\(name)\"")
        }
        guard table.pointee.size >= 8, table.pointee.size <= 65_536 else {
            return error.set(CM_E_INVALID, "plugin-argument", "the table's head says \(table.pointee.size) bytes; fill it in with CM_HEAD")
        }
        let offer = ServiceRegistry.Service(
            name: name, publisher: instance, table: Foreign(UnsafeMutableRawPointer(mutating: table)), size: table.pointee.size,
            context: Foreign(context))
        if let other = instance.environment.services.service(name), other.publisher.id != instance.id {
            return error.set(CM_E_EXISTS, "plugin-service-taken", "\"\(name)\" is provided by \(other.publisher.id)", http: 409)
        }
        guard instance.pending.publish(offer) else {
            return error.set(CM_E_EXISTS, "plugin-service-taken", "the plugin has published \"\(name)\" already", http: 409)
        }
        if instance.phase == .running { instance.environment.services.activate([offer]) }
        return CM_OK
    }
}

private func servicesWithdraw(_ host: OpaquePointer, _ service: cm_text) -> cm_status {
    hostCall(host, .own, "services.withdraw") { instance in
        guard let name = service.string(limit: 96) else { return CM_E_INVALID }
        guard instance.pending.withdraw(name) else { return CM_E_NOT_FOUND }
        instance.environment.services.withdraw(instance, name)
        return CM_OK
    }
}

private func servicesAcquire(
    _ host: OpaquePointer, _ service: cm_text, _ minimumSize: UInt32, _ callbacks: UnsafePointer<cm_lease_callbacks>?,
    _ context: UnsafeMutableRawPointer?, _ lease: UnsafeMutablePointer<cm_lease>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = callbacks.map { adopt($0, empty: cm_lease_callbacks()) } ?? cm_lease_callbacks()
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .own, "services.acquire", error: error) { instance in
        guard let table else { return error.set(CM_E_INVALID, "plugin-argument", "the head of the callbacks is not filled in") }
        guard lease.pointee.head.size >= MemoryLayout<cm_lease>.size else {
            return error.set(CM_E_INVALID, "plugin-argument", "the lease's head is not filled in: CM_HEAD(cm_lease, 1)")
        }
        guard instance.phase != .loading else {
            return error.set(CM_E_STATE, "plugin-phase", "services are acquired from `start` on, not in `load`")
        }
        guard let name = service.string(limit: 96), PluginNote.isService(name) else {
            return error.set(CM_E_INVALID, "plugin-argument", "a service's name is \"reverse.domain.name/REVISION\"")
        }
        guard instance.note.requires.contains(name) || instance.note.wants.contains(name) else {
            return error.set(CM_E_DENIED, "plugin-not-wanted", "the note names \"\(name)\" neither in \"requires\" nor in \"wants\"", http: 403)
        }
        guard instance.count(of: ServiceRegistry.Lease.self) < 4_096 else {
            return error.set(CM_E_BUSY, "plugin-too-many", "the plugin holds 4,096 leases; release some")
        }
        let services = instance.environment.services
        guard let offer = services.service(name) else {
            return error.set(CM_E_NOT_FOUND, "plugin-no-service", "nobody provides \"\(name)\" now", http: 404)
        }
        guard offer.size >= minimumSize else {
            return error.set(CM_E_UNSUPPORTED, "plugin-interface-smaller", "\"\(name)\" of \(offer.publisher.id) has \(offer.size) bytes, \(minimumSize) are wanted")
        }
        guard let (handle, held) = services.acquire(name, for: instance, callbacks: table, context: ends) else {
            return error.set(CM_E_NOT_FOUND, "plugin-no-service", "nobody provides \"\(name)\" now", http: 404)
        }
        lease.pointee.handle = handle
        lease.pointee.table = UnsafeRawPointer(held.service.table.pointer)
        lease.pointee.context = held.service.context.pointer
        lease.pointee.valid = held.word.address
        return CM_OK
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func servicesRelease(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "services.release") { instance in
        guard instance.environment.services.release(handle, of: instance) else {
            instance.misuse("services.release", "no such lease: given back already, or revoked")
            return CM_E_NOT_FOUND
        }
        (instance.forget(handle) as? ServiceRegistry.Lease)?.context.end(on: instance)
        return CM_OK
    }
}

private func servicesWatch(
    _ host: OpaquePointer, _ service: cm_text, _ callbacks: UnsafePointer<cm_service_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ watch: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_service_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .own, "services.watch", error: error) { instance in
        guard let table, table.changed != nil else {
            return error.set(CM_E_INVALID, "plugin-argument", "`changed` is not set, or the head of the callbacks is not filled in")
        }
        guard let name = service.string(limit: 96), PluginNote.isService(name) else {
            return error.set(CM_E_INVALID, "plugin-argument", "a service's name is \"reverse.domain.name/REVISION\"")
        }
        guard instance.count(of: ServiceRegistry.Watch.self) < 256 else {
            return error.set(CM_E_BUSY, "plugin-too-many", "the plugin watches 256 services already")
        }
        watch.pointee = instance.environment.services.watch(
            ServiceRegistry.Watch(name, owner: instance, callbacks: table, context: ends))
        return CM_OK
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func servicesUnwatch(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "services.unwatch") { instance in
        guard let watch = instance.resource(handle, ServiceRegistry.Watch.self) else { return CM_E_NOT_FOUND }
        instance.forget(handle)
        watch.retire(handle, of: instance)
        return CM_OK
    }
}
