import CPluginABI

/// The host's interfaces by their identifiers, and what each needs.
enum HostInterfaces {
    struct Offer: Sendable {
        let identifier: String
        /// One of them is needed; its functions may tell them apart. Empty: none is.
        let capabilities: [Capability]
        let size: UInt32
        /// The table's address, which never changes.
        let table: Foreign

        init<Table>(_ identifier: String, _ capability: Capability? = nil, or other: Capability? = nil, _ table: HostTable<Table>) {
            self.identifier = identifier
            capabilities = [capability, other].compactMap(\.self)
            size = UInt32(MemoryLayout<Table>.size)
            self.table = Foreign(UnsafeMutableRawPointer(mutating: table.pointer))
        }
    }

    static let offers: [Offer] = [
        Offer(CM_INTERFACE_LOG, nil, logTable),
        Offer(CM_INTERFACE_CONFIG, nil, configTable),
        Offer(CM_INTERFACE_SERVICES, nil, servicesTable),
        Offer(CM_INTERFACE_EXECUTOR, nil, executorTable),
        Offer(CM_INTERFACE_METRICS, nil, metricsTable),
        Offer(CM_INTERFACE_HTTP, .http, httpTable),
        Offer(CM_INTERFACE_STORE, .store, storeTable),
        Offer(CM_INTERFACE_EVENTS, .events, eventsTable),
        Offer(CM_INTERFACE_CLIENTS, .clientsRead, clientsTable),
        Offer(CM_INTERFACE_AUDIT, .auditWrite, auditTable),
        Offer(CM_INTERFACE_CRYPTO, nil, cryptoTable),
        Offer(CM_INTERFACE_JOBS, .jobs, jobsTable),
        Offer(CM_INTERFACE_COMMANDS, .commands, or: .outputFilter, commandsTable),
        Offer(CM_INTERFACE_CHANNELS, .channels, channelsTable),
        Offer(CM_INTERFACE_FILES, .files, filesTable),
        Offer(CM_INTERFACE_ENROLLMENT, .enrollment, enrollmentTable),
        Offer(CM_INTERFACE_PRIVATE_FILES, .privateFiles, privateFilesTable),
    ]
}

/// A `cm_host` of its own for each loaded version; it lives as long as the process.
func makeHost(for instance: PluginInstance) -> HostTable<cm_host> {
    // The plugin may hold the pointer for ever.
    _ = Unmanaged.passRetained(instance)
    return HostTable(
        cm_host(
            head: head(of: cm_host.self), context: instance.context, abi_major: UInt32(CM_ABI_MAJOR),
            abi_minor: UInt32(CM_ABI_MINOR), interface_get: hostInterfaceGet))
}

extension PluginInstance {
    func lacks(_ capability: Capability, for what: String, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status {
        error.set(
            CM_E_DENIED, "plugin-not-granted",
            "\(what) needs the capability \"\(capability.rawValue)\": name it in the note's \"capabilities\", and have it approved (cmctl plugins approve \(id))")
    }

    /// For tables that are there for several: `nil` when the function's own capability is granted.
    func lacking(_ capability: Capability, for function: StaticString, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status? {
        grants.contains(capability) ? nil : lacks(capability, for: "\(function)", error)
    }
}

private func hostInterfaceGet(
    _ host: OpaquePointer, _ identifier: cm_text, _ minimumSize: UInt32,
    _ table: UnsafeMutablePointer<UnsafeRawPointer?>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    table.pointee = nil
    return hostCall(host, .any, "interface_get", error: error) { instance in
        guard let name = identifier.string(limit: 64) else {
            return error.set(CM_E_INVALID, "plugin-argument", "the identifier must be UTF-8 of at most 64 bytes")
        }
        guard let offer = HostInterfaces.offers.first(where: { $0.identifier == name }) else {
            return error.set(CM_E_NOT_FOUND, "plugin-no-interface", "this core has no interface \"\(name)\"")
        }
        if let first = offer.capabilities.first, instance.grants.isDisjoint(with: offer.capabilities) {
            return instance.lacks(first, for: "\"\(name)\"", error)
        }
        guard minimumSize <= offer.size else {
            return error.set(CM_E_UNSUPPORTED, "plugin-interface-smaller", "this core's \"\(name)\" has \(offer.size) bytes, \(minimumSize) are wanted: use a newer core")
        }
        table.pointee = UnsafeRawPointer(offer.table.pointer)
        return CM_OK
    }
}
