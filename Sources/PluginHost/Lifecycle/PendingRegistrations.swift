import CPluginABI
import Synchronization
import Web

/// What a version has registered and when it takes effect: collected during `load`, switched on in one step.
final class PendingRegistrations: Sendable {
    struct Asset: Sendable {
        let path: String
        let contentType: String
        let content: [UInt8]
    }
    private struct State {
        var services: [String: ServiceRegistry.Service] = [:]
        var routes: [cm_handle: Route] = [:]
        var assets: [String: Asset] = [:]
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

    /// False: over the bound of 64 assets or 16 MiB.
    func add(_ asset: Asset) -> Bool {
        state.withLock { state in
            let others = state.assets.values.filter { $0.path != asset.path }
            guard others.count < 64, others.reduce(asset.content.count, { $0 + $1.content.count }) <= 16 << 20 else { return false }
            state.assets[asset.path] = asset
            return true
        }
    }
    var assets: [Asset] { state.withLock { $0.assets.values.sorted { $0.path < $1.path } } }
}
