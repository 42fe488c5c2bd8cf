import CPluginABI

/// A plugin. All of it runs on the plugin's own thread, so its state needs no lock.
///
///     final class Hello: Plugin {
///         init(loading host: Host) throws(PluginError) { … }
///     }
///     private let entry = PluginEntry(Hello.self, id: pluginID, version: pluginVersion)
///
///     @c @implementation
///     public func cm_plugin_entry(_ major: UInt32, _ minor: UInt32) -> UnsafePointer<cm_plugin>? { entry.table(major) }
public protocol Plugin: AnyObject {
    /// `load`: publish services, register routes, job kinds and metrics, read the configuration. Acquire nothing.
    /// What was registered before a failure need not be taken back.
    init(loading host: Host) throws(PluginError)
    /// Everything that is required is published: acquire services, subscribe, begin to work.
    func start() throws(PluginError)
    /// An upgrade or a switch-off begins: start nothing new by yourself, finish what you have.
    func quiesce() throws(PluginError)
    /// The upgrade failed: go on as after `start`.
    func resume() throws(PluginError)
    /// End your threads, release what you hold. No call into the core may follow.
    func stop()
}

extension Plugin {
    public func start() throws(PluginError) {}
    public func quiesce() throws(PluginError) {}
    public func resume() throws(PluginError) {}
    public func stop() {}
}

/// The table behind `cm_plugin_entry`; one global constant per plugin.
///
/// Unchecked: the table is filled once and never changes; the instance behind its context is touched only in functions
/// that the core calls on the plugin's own thread.
public final class PluginEntry: @unchecked Sendable {
    private let plugin: UnsafeMutablePointer<cm_plugin>

    /// `id` and `version` as in the plugin's note.
    public init<P: Plugin>(_ type: P.Type, id: StaticString, version: StaticString) {
        let instance = PluginInstance { host throws(PluginError) in try P(loading: host) }
        plugin = .allocate(capacity: 1)
        plugin.initialize(
            to: cm_plugin(
                head: cm_head(size: UInt32(MemoryLayout<cm_plugin>.size), revision: 1),
                // Given away for good: the table lives as long as the process.
                context: Unmanaged.passRetained(instance).toOpaque(),
                id: UnsafeRawPointer(id.utf8Start).assumingMemoryBound(to: CChar.self),
                version: UnsafeRawPointer(version.utf8Start).assumingMemoryBound(to: CChar.self),
                load: pluginLoad, start: pluginStart, quiesce: pluginQuiesce, resume: pluginResume, stop: pluginStop))
    }

    /// `nil` refuses a core with another major version of the ABI.
    public func table(_ hostMajor: UInt32) -> UnsafePointer<cm_plugin>? {
        hostMajor == CM_ABI_MAJOR ? UnsafePointer(plugin) : nil
    }
}

/// Confined to the plugin's own thread.
private final class PluginInstance {
    let make: (Host) throws(PluginError) -> any Plugin
    var plugin: (any Plugin)?

    init(_ make: @escaping (Host) throws(PluginError) -> any Plugin) { self.make = make }
}

/// Runs one step of the plugin and turns what it throws into a status and the core's error.
private func step(
    _ context: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<cm_error>?,
    _ body: (PluginInstance) throws(PluginError) -> Void
) -> cm_status {
    guard let context else { return CM_E_INVALID }
    return Unmanaged<PluginInstance>.fromOpaque(context)._withUnsafeGuaranteedRef { instance in
        do throws(PluginError) {
            try body(instance)
            return CM_OK
        } catch let failure {
            failure.fill(error)
            return failure.status.rawValue < 0 ? failure.status.rawValue : CM_E_INTERNAL
        }
    }
}

private func pluginLoad(
    _ context: UnsafeMutableRawPointer?, _ host: UnsafePointer<cm_host>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    step(context, error) { instance throws(PluginError) in
        guard instance.plugin == nil else { throw PluginError(.state, "the plugin is loaded already") }
        let plugin = try instance.make(try Host(host))
        ServiceState.begin()
        instance.plugin = plugin
    }
}

private func pluginStart(_ context: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status {
    step(context, error) { instance throws(PluginError) in try instance.loaded.start() }
}

private func pluginQuiesce(_ context: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status {
    step(context, error) { instance throws(PluginError) in try instance.loaded.quiesce() }
}

private func pluginResume(_ context: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status {
    step(context, error) { instance throws(PluginError) in try instance.loaded.resume() }
}

private func pluginStop(_ context: UnsafeMutableRawPointer?) {
    ServiceState.end()
    withContext(context, as: PluginInstance.self) { instance in
        instance.plugin?.stop()
        instance.plugin = nil
    }
}

extension PluginInstance {
    fileprivate var loaded: any Plugin {
        get throws(PluginError) {
            guard let plugin else { throw PluginError(.state, "the plugin is not loaded") }
            return plugin
        }
    }
}
