import Synchronization

/// The registry behind `/metrics`. Instruments are asked for once, at start or when a label value first appears, and kept by
/// the caller: updating them takes no lock. Asking again for the same name and labels gives the same instrument.
public final class Metrics: Sendable {
    /// Series of one name. Further label values share one series whose values are all "other", so a stranger who can choose
    /// a label cannot make the registry grow.
    public static let seriesLimit = 1_000

    private enum Instrument: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)
        case reading(isTotal: Bool, @Sendable () -> Double)

        var type: String {
            switch self {
            case .counter, .reading(isTotal: true, _): "counter"
            case .gauge, .reading: "gauge"
            case .histogram: "histogram"
            }
        }
    }
    private struct Family {
        let help: String
        var series: [(labels: String, instrument: Instrument)] = []
        var index: [String: Int] = [:]
    }
    private struct Families {
        var order: [String] = []
        var byName: [String: Family] = [:]
    }

    private let families = Mutex(Families())

    public init() {}

    /// A counter's name ends in `_total`.
    public func counter(_ name: String, _ help: String, labels: [(String, String)] = []) -> Counter {
        let found = instrument(name, help, labels) { .counter(Counter()) }
        if case .counter(let counter) = found { return counter }
        return Counter()
    }

    public func gauge(_ name: String, _ help: String, labels: [(String, String)] = []) -> Gauge {
        let found = instrument(name, help, labels) { .gauge(Gauge()) }
        if case .gauge(let gauge) = found { return gauge }
        return Gauge()
    }

    /// A gauge, or with `isTotal` a counter, that is read when it is scraped: on the scraping thread, without the registry's
    /// lock held; must not block.
    public func reading(
        _ name: String, _ help: String, labels: [(String, String)] = [], isTotal: Bool = false,
        _ read: @escaping @Sendable () -> Double
    ) {
        _ = instrument(name, help, labels) { .reading(isTotal: isTotal, read) }
    }

    public func histogram(
        _ name: String, _ help: String, labels: [(String, String)] = [], bounds: [Double] = Histogram.latencyBounds
    ) -> Histogram {
        let found = instrument(name, help, labels) { .histogram(Histogram(bounds: bounds)) }
        if case .histogram(let histogram) = found { return histogram }
        return Histogram(bounds: bounds)
    }

    private func instrument(
        _ name: String, _ help: String, _ labels: [(String, String)], _ make: () -> Instrument
    ) -> Instrument {
        families.withLock { families in
            if families.byName[name] == nil {
                families.order.append(name)
                families.byName[name] = Family(help: help)
            }
            let count = families.byName[name]?.series.count ?? 0
            var key = Self.labelText(labels)
            if let known = families.byName[name]?.index[key] { return families.byName[name]?.series[known].instrument ?? make() }
            if count >= Self.seriesLimit {
                key = Self.labelText(labels.map { ($0.0, "other") })
                if let known = families.byName[name]?.index[key] {
                    return families.byName[name]?.series[known].instrument ?? make()
                }
            }
            let made = make()
            families.byName[name]?.index[key] = count
            families.byName[name]?.series.append((key, made))
            return made
        }
    }

    // MARK: Text exposition, https://prometheus.io/docs/instrumenting/exposition_formats/

    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    public func exposition() -> String {
        let snapshot = families.withLock { families in
            families.order.compactMap { name in families.byName[name].map { (name, $0) } }
        }
        var text = ""
        for (name, family) in snapshot {
            guard let first = family.series.first else { continue }
            text += "# HELP \(name) \(Self.escaped(family.help))\n# TYPE \(name) \(first.instrument.type)\n"
            for (labels, instrument) in family.series {
                switch instrument {
                case .counter(let counter): text += Self.line(name, labels, "\(counter.value)")
                case .gauge(let gauge): text += Self.line(name, labels, "\(gauge.value)")
                case .reading(_, let read): text += Self.line(name, labels, Self.number(read()))
                case .histogram(let histogram): text += Self.lines(name, labels, histogram)
                }
            }
        }
        return text
    }

    private static func lines(_ name: String, _ labels: String, _ histogram: Histogram) -> String {
        let (counts, sum) = histogram.snapshot
        var text = ""
        var total: UInt64 = 0
        for (index, count) in counts.enumerated() {
            total += count
            let bound = index < histogram.bounds.count ? number(histogram.bounds[index]) : "+Inf"
            let bucket = (labels.isEmpty ? "" : labels + ",") + "le=\"\(bound)\""
            text += line(name + "_bucket", bucket, "\(total)")
        }
        return text + line(name + "_sum", labels, number(sum)) + line(name + "_count", labels, "\(total)")
    }

    private static func line(_ name: String, _ labels: String, _ value: String) -> String {
        labels.isEmpty ? "\(name) \(value)\n" : "\(name){\(labels)} \(value)\n"
    }

    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return Int64(exactly: value).map { "\($0)" } ?? "\(value)"
    }

    private static func labelText(_ labels: [(String, String)]) -> String {
        labels.map { "\($0.0)=\"\(escaped($0.1, quotes: true))\"" }.joined(separator: ",")
    }

    private static func escaped(_ text: String, quotes: Bool = false) -> String {
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }
}
