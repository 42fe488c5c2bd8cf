import CPluginABI
import Synchronization

/// The context of one registration: handed back with each callback, and destroyed exactly once, on the plugin's own thread.
final class CallbackContext: Sendable {
    let foreign: Foreign
    private let destroy: cm_function?
    private let isDestroyed = Atomic<Bool>(false)

    init(_ pointer: UnsafeMutableRawPointer?, destroy: cm_function?) {
        foreign = Foreign(pointer)
        self.destroy = destroy
    }

    /// The last call. Later ones do nothing.
    func end(on instance: PluginInstance) {
        guard !isDestroyed.exchange(true, ordering: .acquiringAndReleasing), let destroy else { return }
        instance.callAlways("destroy") { [foreign] in destroy(foreign.pointer) }
    }

    /// The same at once, for registrations that failed inside the plugin's own call.
    func endNow() {
        guard !isDestroyed.exchange(true, ordering: .acquiringAndReleasing) else { return }
        destroy?(foreign.pointer)
    }
}
