import CPluginABI

/// Whether the plugin's published functions may still work: the word behind `ServiceState.isStopped`.
///
/// A function that a plugin publishes may be called for as long as the process lives. It begins with
/// `guard !ServiceState.isStopped else { return CM_E_GONE }`.
public enum ServiceState {
    /// Never freed, because callers of a stopped plugin still read it.
    nonisolated(unsafe) private static let word: UnsafeMutablePointer<UInt32> = {
        let word = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
        word.initialize(to: 0)
        return word
    }()

    @inline(__always)
    public static var isStopped: Bool { cm_word_load(word) != 0 }

    static func begin() { cm_word_store(word, 0) }
    static func end() { cm_word_store(word, 1) }
}

/// Another plugin's service while this plugin holds it.
///
/// Unchecked: an immutable value; the table and the word live as long as the process, and the functions of a published
/// table are made for calls from every thread.
public struct Lease<Table>: @unchecked Sendable {
    public let handle: UInt64
    /// The publisher's own table: calls go straight to it. At least as large as `Table`.
    public let table: UnsafePointer<Table>
    /// The first argument of the table's functions.
    public let context: UnsafeMutableRawPointer?
    private let valid: UnsafePointer<UInt32>

    init(handle: UInt64, table: UnsafePointer<Table>, context: UnsafeMutableRawPointer?, valid: UnsafePointer<UInt32>) {
        self.handle = handle
        self.table = table
        self.context = context
        self.valid = valid
    }

    /// Ask before each call. A call that has begun may answer `CM_E_GONE` all the same.
    @inline(__always)
    public var isValid: Bool { cm_word_load(valid) != 0 }
}

/// `cm.services/1`: plugins share tables of C functions with each other.
public struct Services: Sendable {
    let table: HostTable<cm_services>

    /// `table` begins with a `cm_head` and, with `context`, stays where it is for the life of the process; each of its
    /// functions begins with the guard of `ServiceState`.
    public func publish<Table>(
        _ service: String, _ published: UnsafePointer<Table>, context: UnsafeMutableRawPointer? = nil
    ) throws(PluginError) {
        guard let publish = table.functions.publish else { throw .missing("cm.services/1 publish") }
        let head = UnsafeRawPointer(published).assumingMemoryBound(to: cm_head.self)
        try attempt("cm.services/1 publish") { error in
            service.withText { publish(table.context, $0, head, context, error) }
        }
    }

    public func withdraw(_ service: String) throws(PluginError) {
        guard let withdraw = table.functions.withdraw else { throw .missing("cm.services/1 withdraw") }
        try check(service.withText { withdraw(table.context, $0) }, "cm.services/1 withdraw")
    }

    /// From `start` on. `recalled` hears that the publisher is about to stop: finish, and release the lease within 30 s.
    public func acquire<Table>(
        _ service: String, as: Table.Type, recalled: @escaping (UInt64) -> Void
    ) throws(PluginError) -> Lease<Table> {
        guard let acquire = table.functions.acquire else { throw .missing("cm.services/1 acquire") }
        var callbacks = cm_lease_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_lease_callbacks>.size), revision: 1)
        callbacks.recalled = leaseRecalled
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(LeaseContext(recalled)).toOpaque()
        var lease = cm_lease()
        lease.head = cm_head(size: UInt32(MemoryLayout<cm_lease>.size), revision: 1)
        try attempt("cm.services/1 acquire") { error in
            service.withText {
                acquire(table.context, $0, UInt32(MemoryLayout<Table>.size), &callbacks, context, &lease, error)
            }
        }
        guard let found = lease.table, let valid = lease.valid else {
            throw PluginError(.internal, "the core gave no table for \(service)")
        }
        return Lease(
            handle: lease.handle, table: found.assumingMemoryBound(to: Table.self), context: lease.context, valid: valid)
    }

    /// Gives a lease back, from any thread; its table must not be called afterwards.
    public func release<Table>(_ lease: Lease<Table>) { release(lease.handle) }
    public func release(_ handle: UInt64) { _ = table.functions.release?(table.context, handle) }

    /// Hears of one service coming (`true`) and going, and at once of one that is there.
    public func watch(
        _ service: String, _ changed: @escaping (Bool) -> Void
    ) throws(PluginError) -> Registration {
        guard let watch = table.functions.watch else { throw .missing("cm.services/1 watch") }
        var callbacks = cm_service_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_service_callbacks>.size), revision: 1)
        callbacks.changed = serviceChanged
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(ServiceContext(changed)).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.services/1 watch") { error in
            service.withText { watch(table.context, $0, &callbacks, context, &handle, error) }
        }
        return Registration(handle: handle)
    }

    public func unwatch(_ registration: Registration) {
        _ = table.functions.unwatch?(table.context, registration.handle)
    }
}

extension Host {
    public func services() throws(PluginError) -> Services {
        Services(table: try interface(CM_INTERFACE_SERVICES, cm_services()))
    }
}

private final class LeaseContext {
    let recalled: (UInt64) -> Void
    init(_ recalled: @escaping (UInt64) -> Void) { self.recalled = recalled }
}

private final class ServiceContext {
    let changed: (Bool) -> Void
    init(_ changed: @escaping (Bool) -> Void) { self.changed = changed }
}

private func leaseRecalled(_ context: UnsafeMutableRawPointer?, _ lease: UInt64) {
    withContext(context, as: LeaseContext.self) { $0.recalled(lease) }
}

private func serviceChanged(_ context: UnsafeMutableRawPointer?, _ service: cm_text, _ available: UInt32) {
    withContext(context, as: ServiceContext.self) { $0.changed(available != 0) }
}
