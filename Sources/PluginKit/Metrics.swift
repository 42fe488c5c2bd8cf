import CPluginABI

/// One metric of the plugin; a value that may be used from any thread.
public struct Metric: Sendable {
    let table: HostTable<cm_metrics>
    let handle: UInt64

    /// A counter adds (not negative), a gauge adds, a histogram observes.
    public func add(_ value: Double = 1) { _ = table.functions.add?(table.context, handle, value) }
    /// A gauge only.
    public func set(_ value: Double) { _ = table.functions.set?(table.context, handle, value) }
}

/// `cm.metrics/1`.
public struct Metrics: Sendable {
    let table: HostTable<cm_metrics>

    public enum Kind: UInt32, Sendable {
        case counter = 0
        case gauge
        /// Of seconds.
        case histogram
    }

    /// Appears in /metrics as client_manager_plugin_NAME. At most 200.
    public func define(_ kind: Kind, _ name: String, _ help: String) throws(PluginError) -> Metric {
        guard let define = table.functions.define else { throw .missing("cm.metrics/1 define") }
        var handle = CM_NO_HANDLE
        try attempt("cm.metrics/1 define") { error in
            name.withText { name in help.withText { define(table.context, kind.rawValue, name, $0, &handle, error) } }
        }
        return Metric(table: table, handle: handle)
    }
}

extension Host {
    public func metrics() throws(PluginError) -> Metrics {
        Metrics(table: try interface(CM_INTERFACE_METRICS, cm_metrics()))
    }
}
