import CPluginABI
import Program

let metricsTable = HostTable(
    cm_metrics(head: head(of: cm_metrics.self), define: metricsDefine, add: metricsAdd, set: metricsSet))

private final class PluginMetric: PluginResource {
    enum Instrument: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)
    }
    let instrument: Instrument
    init(_ instrument: Instrument) { self.instrument = instrument }

    /// The series stays in the registry with its last value, as a scraper expects of a counter.
    func retire(_: cm_handle, of _: PluginInstance) {}
}

private func metricsDefine(
    _ host: OpaquePointer, _ kind: UInt32, _ name: cm_text, _ help: cm_text, _ metric: UnsafeMutablePointer<cm_handle>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .own, "metrics.define", error: error) { instance in
        guard let name = name.string(limit: 64), !name.isEmpty, name.utf8.allSatisfy({ (0x61...0x7A).contains($0) || $0 == 0x5F }) else {
            return error.set(CM_E_INVALID, "plugin-argument", "a metric's name is 1 to 64 characters in [a-z_]")
        }
        guard let help = help.string(limit: 256) else {
            return error.set(CM_E_INVALID, "plugin-argument", "a metric's help is at most 256 bytes of UTF-8")
        }
        guard instance.count(of: PluginMetric.self) < 200 else {
            return error.set(CM_E_BUSY, "plugin-too-many", "a plugin may define 200 metrics")
        }
        let metrics = instance.environment.kernel.metrics
        let full = "client_manager_plugin_" + name
        let labels = [("plugin", instance.id)]
        let instrument: PluginMetric.Instrument
        switch kind {
        case UInt32(CM_METRIC_COUNTER): instrument = .counter(metrics.counter(full + "_total", help, labels: labels))
        case UInt32(CM_METRIC_GAUGE): instrument = .gauge(metrics.gauge(full, help, labels: labels))
        case UInt32(CM_METRIC_HISTOGRAM): instrument = .histogram(metrics.histogram(full + "_seconds", help, labels: labels))
        default: return error.set(CM_E_INVALID, "plugin-argument", "\(kind) is no kind of metric")
        }
        metric.pointee = instance.keep(PluginMetric(instrument))
        return CM_OK
    }
}

private func metricsAdd(_ host: OpaquePointer, _ handle: cm_handle, _ value: Double) -> cm_status {
    hostCall(host, .any, "metrics.add") { instance in
        guard let metric = instance.resource(handle, PluginMetric.self) else { return CM_E_NOT_FOUND }
        guard value.isFinite, abs(value) < 9e15 else { return CM_E_INVALID }
        switch metric.instrument {
        case .counter(let counter):
            guard value >= 0 else { return CM_E_INVALID }
            counter.add(UInt64(value))
        case .gauge(let gauge): gauge.add(Int64(value))
        case .histogram(let histogram): histogram.observe(value)
        }
        return CM_OK
    }
}

private func metricsSet(_ host: OpaquePointer, _ handle: cm_handle, _ value: Double) -> cm_status {
    hostCall(host, .any, "metrics.set") { instance in
        guard let metric = instance.resource(handle, PluginMetric.self) else { return CM_E_NOT_FOUND }
        guard case .gauge(let gauge) = metric.instrument, value.isFinite, abs(value) < 9e15 else { return CM_E_INVALID }
        gauge.set(Int64(value))
        return CM_OK
    }
}
