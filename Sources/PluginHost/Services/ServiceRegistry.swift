import CPluginABI
import JSON
import Program
import Synchronization

/// Which plugin offers which service, and who holds a lease on it. The core is not on the way of a call: a lease is the
/// publisher's own table.
///
/// No plugin is called with the lock held; what is to be said is collected and posted afterwards.
final class ServiceRegistry: Sendable {
    struct Service: Sendable {
        let name: String
        let publisher: PluginInstance
        let table: Foreign
        /// What the publisher says its table has.
        let size: UInt32
        let context: Foreign
    }

    final class Lease: PluginResource {
        let service: Service
        let holder: PluginInstance
        let word: LeaseWord
        let callbacks: cm_lease_callbacks
        let context: CallbackContext
        let isRecalled = Atomic<Bool>(false)

        init(_ service: Service, holder: PluginInstance, word: LeaseWord, callbacks: cm_lease_callbacks, context: CallbackContext) {
            self.service = service
            self.holder = holder
            self.word = word
            self.callbacks = callbacks
            self.context = context
        }

        func retire(_ handle: cm_handle, of instance: PluginInstance) {
            instance.environment.services.release(handle, of: instance)
            context.end(on: instance)
        }
    }

    final class Watch: PluginResource {
        let service: String
        let owner: PluginInstance
        let callbacks: cm_service_callbacks
        let context: CallbackContext

        init(_ service: String, owner: PluginInstance, callbacks: cm_service_callbacks, context: CallbackContext) {
            self.service = service
            self.owner = owner
            self.callbacks = callbacks
            self.context = context
        }

        func retire(_ handle: cm_handle, of instance: PluginInstance) {
            instance.environment.services.unwatch(handle)
            context.end(on: instance)
        }

        func say(_ isAvailable: Bool) {
            guard let changed = callbacks.changed else { return }
            owner.callAlways("changed") { [service, context] in
                withText(service) { changed(context.foreign.pointer, $0, isAvailable ? 1 : 0) }
            }
        }
    }

    /// A lease of the core's own. It is called back on whatever thread changes the registry, and must not wait there.
    final class CoreLease: Sendable {
        let service: Service
        let word: LeaseWord
        /// To be given back soon by `release`.
        let recalled: @Sendable () -> Void
        /// Over: nothing of the service may be called any more.
        let revoked: @Sendable () -> Void

        init(_ service: Service, word: LeaseWord, recalled: @escaping @Sendable () -> Void, revoked: @escaping @Sendable () -> Void) {
            self.service = service
            self.word = word
            self.recalled = recalled
            self.revoked = revoked
        }
    }
    private struct CoreWatch: Sendable {
        let service: String
        let changed: @Sendable (Bool) -> Void
    }

    private struct State {
        var services: [String: Service] = [:]
        var leases: [cm_handle: Lease] = [:]
        var watches: [cm_handle: Watch] = [:]
        var coreLeases: [cm_handle: CoreLease] = [:]
        var coreWatches: [CoreWatch] = []
    }
    private let state = Mutex(State())
    private let words = LeaseWords()
    private let log: Log

    init(log: Log) { self.log = log }

    /// Makes services of one instance available in one step, in the place of those of its older version. Leases on what they
    /// replace are recalled.
    func activate(_ services: [Service]) {
        let (recalled, watches, core) = state.withLock { state in
            let names = Set(services.map(\.name))
            for service in services { state.services[service.name] = service }
            func isReplaced(_ service: Service) -> Bool { names.contains(service.name) && service.publisher !== services.first?.publisher }
            let recalled = state.leases.filter { isReplaced($0.value.service) }
            let core = (state.coreLeases.values.filter { isReplaced($0.service) }, state.coreWatches.filter { names.contains($0.service) })
            return (recalled, state.watches.values.filter { names.contains($0.service) }, core)
        }
        recall(recalled)
        for lease in core.0 { lease.recalled() }
        for watch in watches { watch.say(true) }
        for watch in core.1 { watch.changed(true) }
    }

    /// Takes back what this instance still offers. Its leases are recalled; they hold until they are released or revoked.
    func withdraw(_ publisher: PluginInstance, _ name: String? = nil) {
        let (gone, recalled, watches, core) = state.withLock { state in
            let gone = state.services.values.filter { $0.publisher === publisher && (name == nil || $0.name == name) }.map(\.name)
            for name in gone { state.services[name] = nil }
            func isWithdrawn(_ service: Service) -> Bool { service.publisher === publisher && (name == nil || service.name == name) }
            let recalled = state.leases.filter { isWithdrawn($0.value.service) }
            let core = (state.coreLeases.values.filter { isWithdrawn($0.service) }, state.coreWatches.filter { gone.contains($0.service) })
            return (gone, recalled, state.watches.values.filter { gone.contains($0.service) }, core)
        }
        guard !gone.isEmpty || !recalled.isEmpty || !core.0.isEmpty else { return }
        for watch in watches { watch.say(false) }
        for watch in core.1 { watch.changed(false) }
        recall(recalled)
        for lease in core.0 { lease.recalled() }
    }

    private func recall(_ leases: [cm_handle: Lease]) {
        for (handle, lease) in leases where !lease.isRecalled.exchange(true, ordering: .relaxed) {
            guard let recalled = lease.callbacks.recalled else { continue }
            lease.holder.callAlways("recalled") { [context = lease.context] in recalled(context.foreign.pointer, handle) }
        }
    }

    func service(_ name: String) -> Service? { state.withLock { $0.services[name] } }
    var names: Set<String> { Set(state.withLock { Array($0.services.keys) }) }

    func acquire(
        _ name: String, for holder: PluginInstance, callbacks: cm_lease_callbacks, context: CallbackContext
    ) -> (cm_handle, Lease)? {
        let handle = holder.environment.handles.next()
        let lease: Lease? = state.withLock { state in
            guard let service = state.services[name] else { return nil }
            let lease = Lease(service, holder: holder, word: words.take(), callbacks: callbacks, context: context)
            state.leases[handle] = lease
            return lease
        }
        guard let lease else { return nil }
        holder.keep(lease, as: handle)
        return (handle, lease)
    }

    /// False: there is no such lease of this holder.
    @discardableResult
    func release(_ handle: cm_handle, of holder: PluginInstance) -> Bool {
        let lease: Lease? = state.withLock { state in
            guard let lease = state.leases[handle], lease.holder === holder else { return nil }
            state.leases[handle] = nil
            return lease
        }
        guard let lease else { return false }
        words.give(lease.word)
        return true
    }

    func watch(_ watch: Watch) -> cm_handle {
        let handle = watch.owner.keep(watch)
        let isThere = state.withLock { state in
            state.watches[handle] = watch
            return state.services[watch.service] != nil
        }
        if isThere { watch.say(true) }
        return handle
    }

    func unwatch(_ handle: cm_handle) { state.withLock { $0.watches[handle] = nil } }

    // MARK: The core's own use

    /// What the core calls itself among the holders.
    static let core = "core"

    /// Hears of a service that comes and goes, now and for the life of the process. Not called with a lock held.
    func watchForCore(_ service: String, _ changed: @escaping @Sendable (Bool) -> Void) {
        let isThere = state.withLock { state in
            state.coreWatches.append(CoreWatch(service: service, changed: changed))
            return state.services[service] != nil
        }
        if isThere { changed(true) }
    }

    /// - Returns: `nil` when nobody offers it, or one whose table is smaller.
    func acquireForCore(
        _ name: String, minimumSize: Int, handle: cm_handle, recalled: @escaping @Sendable () -> Void, revoked: @escaping @Sendable () -> Void
    ) -> CoreLease? {
        state.withLock { state in
            guard let service = state.services[name], Int(service.size) >= minimumSize else { return nil }
            let lease = CoreLease(service, word: words.take(), recalled: recalled, revoked: revoked)
            state.coreLeases[handle] = lease
            return lease
        }
    }

    func releaseForCore(_ handle: cm_handle) {
        guard let lease = state.withLock({ $0.coreLeases.removeValue(forKey: handle) }) else { return }
        words.give(lease.word)
    }

    // MARK: The publisher's end

    /// Whether somebody still holds a lease on a service of this instance: why it cannot stop yet.
    func isHeld(_ publisher: PluginInstance) -> Bool {
        state.withLock { state in
            state.leases.values.contains { $0.service.publisher === publisher }
                || state.coreLeases.values.contains { $0.service.publisher === publisher }
        }
    }

    /// Ends all leases on this instance, whether their holders like it or not: their valid words are cleared.
    /// - Returns: the ids of the holders.
    func revoke(of publisher: PluginInstance) -> [String] {
        let (revoked, core) = state.withLock { state in
            let revoked = state.leases.filter { $0.value.service.publisher === publisher }
            for handle in revoked.keys { state.leases[handle] = nil }
            let core = state.coreLeases.filter { $0.value.service.publisher === publisher }
            for handle in core.keys { state.coreLeases[handle] = nil }
            return (revoked, core.values.map { $0 })
        }
        for lease in core {
            lease.word.clear()
            lease.revoked()
        }
        for (handle, lease) in revoked {
            // The word is not given back: the holder may look at it for ever, and must find 0 there.
            lease.word.clear()
            lease.holder.forget(handle)
            lease.context.end(on: lease.holder)
        }
        return Set(revoked.values.map(\.holder.id) + core.map { _ in Self.core }).sorted()
    }

    /// `{"holds": […], "held_by": […]}` of one plugin.
    func json(of instance: PluginInstance) -> (holds: JSONValue, heldBy: JSONValue) {
        state.withLock { state in
            let holds = state.leases.values.filter { $0.holder === instance }.map(\.service.name).sorted()
            let heldBy = state.leases.values.filter { $0.service.publisher === instance }.map { $0.service.name + " by " + $0.holder.id }
                + state.coreLeases.values.filter { $0.service.publisher === instance }.map { $0.service.name + " by " + Self.core }
            return (.array(holds.map { .string($0) }), .array(heldBy.sorted().map { .string($0) }))
        }
    }
}
