import CPluginABI
import Kernel
import Synchronization
import Web

/// What a version has registered and when it takes effect: collected during `load`, switched on in one step.
final class PendingRegistrations: Sendable {
    private struct State {
        var services: [String: ServiceRegistry.Service] = [:]
        var routes: [cm_handle: Route] = [:]
        var assets: [String: ConsoleAsset] = [:]
        var jobKinds: [cm_handle: JobKind] = [:]
    }
    private let state = Mutex(State())

    /// False: published already.
    func publish(_ service: ServiceRegistry.Service) -> Bool {
        state.withLock { state in
            guard state.services[service.name] == nil else { return false }
            state.services[service.name] = service
            return true
        }
    }

    func withdraw(_ name: String) -> Bool { state.withLock { $0.services.removeValue(forKey: name) != nil } }

    var services: [ServiceRegistry.Service] { state.withLock { Array($0.services.values) } }

    func add(_ route: Route, _ handle: cm_handle) { state.withLock { $0.routes[handle] = route } }
    func removeRoute(_ handle: cm_handle) -> Bool { state.withLock { $0.routes.removeValue(forKey: handle) != nil } }
    /// In the order of their registration.
    var routes: [Route] { state.withLock { $0.routes.sorted { $0.key < $1.key }.map(\.value) } }

    /// False: there is one of this name.
    func add(_ kind: JobKind, _ handle: cm_handle) -> Bool {
        state.withLock { state in
            guard !state.jobKinds.values.contains(where: { $0.name == kind.name }) else { return false }
            state.jobKinds[handle] = kind
            return true
        }
    }
    func jobKind(_ handle: cm_handle) -> JobKind? { state.withLock { $0.jobKinds[handle] } }
    func removeJobKind(_ handle: cm_handle) { state.withLock { _ = $0.jobKinds.removeValue(forKey: handle) } }
    var jobKinds: [JobKind] { state.withLock { $0.jobKinds.values.sorted { $0.name < $1.name } } }

    func add(_ asset: ConsoleAsset) { state.withLock { $0.assets[asset.path] = asset } }
    var assets: [ConsoleAsset] { state.withLock { $0.assets.values.sorted { $0.path < $1.path } } }
}
