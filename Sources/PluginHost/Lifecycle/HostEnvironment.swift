import CLinux
import Kernel
import Program
import Reactor
import Synchronization
import System
import Web

/// What all loaded plugins share of the core.
final class HostEnvironment: Sendable {
    let kernel: Kernel
    let log: Log
    let handles = Handles()
    let services: ServiceRegistry
    /// Where asynchronous work of the kernel's runs that a plugin's thread waits for; and its timers.
    let loop: EventLoop
    let inline = InlineWatch()
    /// Set with the first routes of a plugin.
    let routeTable = Mutex<RouteTable?>(nil)

    let callMilliseconds: Int

    init(kernel: Kernel, loop: EventLoop, callMilliseconds: Int) {
        self.callMilliseconds = callMilliseconds
        self.kernel = kernel
        self.loop = loop
        log = kernel.log
        services = ServiceRegistry(log: kernel.log)
    }
}

extension HostEnvironment {
    /// Faults are blamed on an image by address; inline callbacks are watched from now on.
    func imageLoaded(_ instance: PluginInstance) {
        if !CrashRecords.addImage(instance.image.range, word: instance.generation, name: instance.id) {
            log.warning("plugin.images-full", ["plugin": .string(instance.id)])
        }
        guard instance.grants.contains(.inline) else { return }
        do throws(SystemError) {
            try inline.begin()
        } catch {
            log.error("plugin.watch-failed", ["reason": .string("\(error)")])
        }
    }

    /// Whether the principal has the right; on this client, where one is named.
    func may(_ principal: Principal, _ right: Right, client: String) -> Bool {
        guard !client.isEmpty else { return kernel.security.grants(principal, right) }
        guard let id = ClientID(client) else { return false }
        let scope = kernel.security.scope(of: principal, for: right)
        return (try? kernel.clients.permits(id, allowed: scope.allowed, denied: scope.denied)) ?? false
    }
}
