import CLinux
import Crypto
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
    /// How the API writes and reads what plugins get and send.
    let forms: CoreForms
    /// Seals plugins' secrets.
    let sealing: AEAD
    /// Set with the first routes of a plugin.
    let routeTable = Mutex<RouteTable?>(nil)

    let callMilliseconds: Int
    let agentsURL: String?
    let agentFile: AgentFile

    let threads = ThreadCensus()
    /// What the kernel keeps objects in.
    private let objects: CoreObjectStore
    fileprivate let accounts = Mutex<[String: PluginAccounting]>([:])
    /// By plugin id; of plugins that keep something.
    fileprivate let memories = Mutex<[String: PluginMemory]>([:])
    fileprivate let storeBytes: UInt64

    init(kernel: Kernel, loop: EventLoop, forms: CoreForms, _ options: PluginOptions) throws(Problem) {
        callMilliseconds = options.callMilliseconds
        agentsURL = options.agentsURL
        agentFile = AgentFile(options.agentFile)
        self.forms = forms
        sealing = try Self.sealing(try kernel.identity.dataKey())
        self.kernel = kernel
        self.loop = loop
        storeBytes = options.storeBytes
        log = kernel.log
        services = ServiceRegistry(log: kernel.log)
        objects = CoreObjectStore(services, handles: handles, loop: loop) { [audit = kernel.auditArchive, output = kernel.outputArchive] in
            audit.storeChanged()
            output.storeChanged()
        }
    }

    /// The kernel may use what plugins offer it, once they come.
    func serveCore() {
        kernel.auditArchive.use(objects)
        kernel.outputArchive.use(objects)
        objects.start()
    }
}

extension HostEnvironment {
    /// Faults are blamed on an image by address; inline callbacks are watched from now on.
    func imageLoaded(_ instance: PluginInstance) {
        instance.accounting.loaded(instance.image)
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

    fileprivate static func sealing(_ key: [UInt8]) throws(Problem) -> AEAD {
        do throws(CryptoError) {
            return try AEAD(.aes256GCM, key: HKDF.derive(secret: key, salt: [], info: Array("cm-plugin-seal-1".utf8), count: AEAD.keyBytes))
        } catch {
            throw Problem(500, "seal-failed", "the key that seals plugins' secrets cannot be used: \(error)")
        }
    }

    /// One for all versions; shown in /metrics from its first version on.
    func accounting(of note: PluginNote) -> PluginAccounting {
        let (account, isNew) = accounts.withLock { accounts in
            if let account = accounts[note.id] { return (account, false) }
            let account = PluginAccounting()
            accounts[note.id] = account
            return (account, true)
        }
        if isNew { account.register(kernel.metrics, id: note.id) { [threads] in threads.count(note.shortName) } }
        return account
    }

    func memory(of id: String) -> PluginMemory {
        memories.withLock { memories in
            if let memory = memories[id] { return memory }
            let memory = PluginMemory(id: id, limit: storeBytes, directory: kernel.directory + "/plugin-data")
            memories[id] = memory
            return memory
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
